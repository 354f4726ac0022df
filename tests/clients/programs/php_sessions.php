<?php
// PHP's own sessions, kept by php-memcached in text mode, with its session locks.

require __DIR__ . '/php_site.php';

const EXPIRY_DEADLINE_S = 6;
// Of 150 ms each.
const PATIENT = ['memcached.sess_lock_retries=60'];
const HASTY = ['memcached.sess_lock_retries=2'];

[, $name, $first, $other] = $argv;
$checks = new Checks($name);

$page = visit($first, '-', 'count');
$seen = fn(array $page) => [$page['visits'], $page['user'], $page['written'], $page['warnings']];
$checks->equal('a first page', $seen($page), [1, 'nobody', true, []]);
$id = $page['id'];
$checks->equal('the next, at the other node', visit($other, $id, 'count')['visits'], 2);
$checks->equal('and back', visit($first, $id, 'count')['visits'], 3);
$checks->equal('a page that only reads', visit($other, $id, 'look')['visits'], 3);
$checks->equal('a session of 100 KB', visit($first, $id, 'large')['written'], true);
$checks->equal('and its next page', visit($other, $id, 'look')['large'], 100_000);

$page = visit($first, $id, 'login');
$checks->equal('login', $seen($page), [3, 'alice', true, []]);
$checks->equal('gives a new id', $page['id'] !== $id, true);
$checks->equal('the old id is nobody', visit($other, $id, 'look')['user'], 'nobody');
$id = $page['id'];
$checks->equal('the user, at the other node', visit($other, $id, 'look')['user'], 'alice');

// One holds the session; whoever else wants it waits, and gives up or gets it.
$holder = new Request($first, $id, 'hold');
$checks->equal('a page holds the session', $holder->line(), 'holding');
$page = visit($other, $id, 'count', HASTY);
$checks->equal('a hasty one does not get it, at the other node', $page['started'], false);
$checks->equal('it says so', count($page['warnings']) > 0, true);
$waiting = new Request($other, $id, 'count', PATIENT);
$page = visit($first, $id, 'count', HASTY);
$checks->equal('a hasty one does not get it here', $page['started'], false);
$holder->let_go();
$checks->equal('the holder ends', $holder->answer()['visits'], 4);
$checks->equal('who waited has it, with what the holder wrote', $waiting->answer()['visits'], 5);
$checks->equal('and the lock is free again', visit($first, $id, 'count', HASTY)['visits'], 6);

// Ten at once, at both nodes: with locks, none of their changes is lost.
$requests = [];
foreach (range(0, 9) as $number) {
    $requests[] = new Request([$first, $other][$number % 2], $id, 'count', PATIENT);
}
$visits = array_map(fn($request) => $request->answer()['visits'], $requests);
sort($visits);
$checks->equal('ten pages at once', $visits, range(7, 16));

$checks->equal('logout', visit($other, $id, 'logout')['destroyed'], true);
foreach ([$first, $other] as $address) {
    $page = visit($address, $id, 'look');
    $checks->equal('its id is nobody', [$page['user'], $page['visits']], ['nobody', 0]);
}

$short = ['session.gc_maxlifetime=2'];
$id = visit($first, '-', 'count', $short)['id'];
$checks->equal('a short session', visit($other, $id, 'look', $short)['visits'], 1);
// A page that asks renews it, so the server is asked.
$is_over = function () use ($other, $id) {
    $client = new Memcached();
    $client->addServer(...explode(':', $other));
    return $client->get("memc.sess.key.$id") === false;
};
$checks->becomes('ends', $is_over, EXPIRY_DEADLINE_S);
$checks->end();
