<?php
// One request to a PHP site: `php_request.php ADDRESS SESSION-ID ACTION [ini=value ...]`.
// Prints what the page would show, as JSON. Knows memcached only as PHP's session handler.

[, $address, $session_id, $action] = $argv;
ini_set('session.save_handler', 'memcached');
ini_set('session.save_path', $address);
ini_set('session.use_cookies', '0');
ini_set('session.cache_limiter', '');
ini_set('memcached.sess_binary_protocol', '0');
ini_set('memcached.sess_locking', '1');
foreach (array_slice($argv, 4) as $setting) {
    ini_set(...explode('=', $setting, 2));
}

$warnings = [];
set_error_handler(function (int $level, string $message) use (&$warnings) {
    $warnings[] = $message;
    return true;
});

if ($session_id !== '-') {
    session_id($session_id);
}
try {
    $answer = ['started' => session_start()];
} catch (Error $error) {
    $warnings[] = $error->getMessage();
    $answer = ['started' => false];
}
if ($answer['started']) {
    $answer += page($action);
}
echo json_encode($answer + ['id' => session_id(), 'warnings' => $warnings]), "\n";

function page(string $action): array
{
    switch ($action) {
        case 'count':
            $_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
            break;
        case 'hold':
            // Keeps the session, and with it the lock, until the caller says so.
            $_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
            echo "holding\n";
            fgets(STDIN);
            break;
        case 'large':
            $_SESSION['large'] = str_repeat('0123456789', 10_000);
            break;
        case 'login':
            session_regenerate_id(true);
            $_SESSION['user'] = 'alice';
            break;
        case 'logout':
            $_SESSION = [];
            return ['destroyed' => session_destroy()];
    }
    $seen = [
        'visits' => $_SESSION['visits'] ?? 0,
        'user' => $_SESSION['user'] ?? 'nobody',
        'large' => strlen($_SESSION['large'] ?? ''),
    ];
    return $seen + ['written' => session_write_close(), 'id' => session_id()];
}
