<?php
// php-memcached in text mode: what an application stores, beside PHP's own sessions.

require __DIR__ . '/php_checks.php';

const HOUR_S = 3600;
const SHORT_TTL_S = 2;
const EXPIRY_DEADLINE_S = 6;
const LARGE_BYTES = 100_000;

[, $name, $first_address, $other_address] = $argv;
$checks = new Checks($name);
$first = connect($first_address);
$other = connect($other_address);
$new_key = fn(string $what) => "$name:$what:" . bin2hex(random_bytes(16));

$key = $new_key('session');
$checks->equal('get of a missing key', $first->get($key), false);
$checks->equal('and its code', $first->getResultCode(), Memcached::RES_NOTFOUND);
$checks->equal('set', $first->set($key, ['user' => 'alice'], HOUR_S), true);
$checks->equal('get', $first->get($key), ['user' => 'alice']);
$checks->equal('get at the other node', $other->get($key), ['user' => 'alice']);
$checks->equal('overwriting set', $first->set($key, 'a basket'), true);
$checks->equal('get of what was overwritten', $other->get($key), 'a basket');
$checks->equal('replace', $first->replace($key, 'a full basket', HOUR_S), true);
$checks->equal('get of what was replaced', $other->get($key), 'a full basket');
$checks->equal('delete', $first->delete($key), true);
$checks->equal('get after delete', $first->get($key), false);
$checks->equal('get after delete at the other node', $other->get($key), false);
$checks->equal('delete of what is gone', $other->delete($key), false);

$key = $new_key('lock');
$checks->equal('add takes a free lock', $first->add($key, 'mine', HOUR_S), true);
$checks->equal('add refuses a taken one', $first->add($key, 'yours', HOUR_S), false);
$checks->equal('so at the other node', $other->add($key, 'yours', HOUR_S), false);
$checks->equal('and its code', $other->getResultCode(), Memcached::RES_NOTSTORED);
$checks->equal('the lock is given back', $first->delete($key), true);
$checks->equal('and taken at the other node', $other->add($key, 'yours', HOUR_S), true);

$key = $new_key('counter');
$checks->equal('increment of a missing key', $first->increment($key), false);
$first->set($key, 41);
$checks->equal('increment', $first->increment($key), 42);
$checks->equal('decrement at the other node', $other->decrement($key, 2), 40);
$checks->equal('get of a number', $first->get($key), 40);

$many = [];
foreach (range(1, 20) as $number) {
    $many[$new_key('many')] = "value $number";
}
$checks->equal('setMulti', $first->setMulti($many, HOUR_S), true);
$keys = [...array_keys($many), $new_key('missing')];
$seen = $first->getMulti($keys, Memcached::GET_PRESERVE_ORDER);
$checks->equal('getMulti in order', $seen, $many + [end($keys) => null]);
$seen = $other->getMulti($keys);
ksort($seen);
ksort($many);
$checks->equal('getMulti at the other node', $seen, $many);
$deleted = $first->deleteMulti(array_keys($many));
$checks->equal('deleteMulti', array_unique(array_values($deleted)), [true]);
$checks->equal('getMulti after deleteMulti', $other->getMulti($keys), []);

$key = $new_key('cas');
$first->set($key, 'one', HOUR_S);
$here = $first->get($key, null, Memcached::GET_EXTENDED);
$there = $other->get($key, null, Memcached::GET_EXTENDED);
$checks->equal('the token at both nodes', $there, $here);
$checks->equal('cas', $first->cas($here['cas'], $key, 'two', HOUR_S), true);
$checks->equal('cas with an old token', $other->cas($here['cas'], $key, 'three', HOUR_S), false);
$checks->equal('and its code', $other->getResultCode(), Memcached::RES_DATA_EXISTS);
$checks->equal('get after cas', $other->get($key), 'two');

$key = $new_key('large');
$large = random_bytes(LARGE_BYTES);
$checks->equal('set of 100 KB', $first->set($key, $large, HOUR_S), true);
$checks->equal('get of 100 KB', $first->get($key) === $large, true);
$checks->equal('get of 100 KB at the other node', $other->get($key) === $large, true);

[$mortal, $touched] = [$new_key('mortal'), $new_key('touched')];
$first->set($mortal, 'alive', SHORT_TTL_S);
$first->set($touched, 'alive', SHORT_TTL_S);
$checks->equal('get of a short life', $other->get($mortal), 'alive');
$checks->equal('touch', $first->touch($touched, HOUR_S), true);
$checks->equal('touch of a missing key', $first->touch($new_key('no'), HOUR_S), false);
$is_gone = fn() => $first->get($mortal) === false && $other->get($mortal) === false;
$checks->becomes('a short life ends', $is_gone, EXPIRY_DEADLINE_S);
$checks->equal('what was touched lives on', $other->get($touched), 'alive');

$checks->equal('the version', count($first->getVersion()), 1);
$checks->equal('the statistics', isset($first->getStats()[$first_address]['curr_items']), true);
$checks->equal('flush', $first->flush(), true);
$checks->equal('get after flush', $other->get($touched), false);
$checks->end();

function connect(string $address): Memcached
{
    $client = new Memcached();
    $client->setOption(Memcached::OPT_BINARY_PROTOCOL, false);
    [$host, $port] = explode(':', $address);
    $client->addServer($host, (int) $port);
    return $client;
}
