<?php
// PHP's own sessions as they are set up by default: over the binary protocol. A server without it
// must say so at once; PHP would wait for it for half a minute, with the browser.

require __DIR__ . '/php_site.php';

const AT_ONCE_S = 5;

[, $name, $first, $other] = $argv;
$checks = new Checks($name);
$binary = ['memcached.sess_binary_protocol=1'];

$started = microtime(true);
$page = visit($first, '-', 'count', $binary);
$seconds = microtime(true) - $started;
$checks->equal('an answer', is_array($page), true);
$checks->equal('at once', $seconds < AT_ONCE_S, true);
if ($page['started'] && $page['written']) {
    $page = visit($other, $page['id'], 'count', $binary);
    $checks->equal('a page at the other node', $page['visits'], 2);
    $checks->end('served');
}
$checks->equal('a warning for the log', count($page['warnings']) > 0, true);
$page = visit($first, '-', 'count');
$checks->equal('and in text mode it works', $page['written'], true);
$checks->end(sprintf('refused after %d ms', $seconds * 1000));
