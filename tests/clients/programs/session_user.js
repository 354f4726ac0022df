// What a web session asks of memcached, through any client for node.
//
// The client comes as an adapter with `set get del add incr decr getMany touch flush`, all of them
// asynchronous, and, where the library has them, `gets` and `cas`. Values are text. `first`
// writes, `other` reads at another node.
'use strict';

const { randomBytes } = require('node:crypto');

const HOUR_S = 3600;
// Expiry counts whole seconds: with one, an item may be gone before it is read.
const SHORT_TTL_S = 2;
const EXPIRY_DEADLINE_S = 6;
const LARGE_BYTES = 100_000;

async function useSessions(checks, first, other, name) {
  const newKey = (what) => `${name}:${what}:${randomBytes(16).toString('hex')}`;
  await comesAndGoes(checks, first, other, newKey('session'));
  await locks(checks, first, other, newKey('lock'));
  await counts(checks, first, other, newKey('counter'));
  await fetchesMany(checks, first, other, newKey);
  await isLarge(checks, first, other, newKey('large'));
  if (first.cas) await swaps(checks, first, other, newKey('cas'));
  await expires(checks, first, other, newKey);
  await flushes(checks, first, other, newKey('flushed'));
}

async function comesAndGoes(checks, first, other, key) {
  checks.equal('get of a missing key', await first.get(key), undefined);
  checks.equal('get of a missing key at the other node', await other.get(key), undefined);
  checks.equal('set', await first.set(key, 'logged in', HOUR_S), true);
  checks.equal('get', await first.get(key), 'logged in');
  checks.equal('get at the other node', await other.get(key), 'logged in');
  checks.equal('overwriting set', await first.set(key, 'with a basket', HOUR_S), true);
  checks.equal('get of what was overwritten', await other.get(key), 'with a basket');
  checks.equal('set at the other node', await other.set(key, 'moved host', 0), true);
  checks.equal('get of what the other node took', await first.get(key), 'moved host');
  checks.equal('delete', await first.del(key), true);
  checks.equal('get after delete', await first.get(key), undefined);
  checks.equal('get after delete at the other node', await other.get(key), undefined);
  checks.equal('delete of what is gone', await other.del(key), false);
}

async function locks(checks, first, other, key) {
  checks.equal('add takes a free lock', await first.add(key, 'mine', HOUR_S), true);
  checks.equal('add refuses a taken one', await first.add(key, 'yours', HOUR_S), false);
  checks.equal('so at the other node', await other.add(key, 'yours', HOUR_S), false);
  checks.equal('the first holder stays', await other.get(key), 'mine');
  checks.equal('the lock is given back', await first.del(key), true);
  checks.equal('and taken at the other node', await other.add(key, 'yours', HOUR_S), true);
}

async function counts(checks, first, other, key) {
  checks.equal('incr of a missing key', await first.incr(key, 1), undefined);
  await first.set(key, '9', HOUR_S);
  checks.equal('incr', await first.incr(key, 1), 10);
  checks.equal('incr at the other node', await other.incr(key, 32), 42);
  checks.equal('get of a number', await first.get(key), '42');
  checks.equal('decr', await first.decr(key, 12), 30);
  checks.equal('get at the other node', await other.get(key), '30');
}

async function fetchesMany(checks, first, other, newKey) {
  const expected = {};
  for (let number = 0; number < 20; number += 1) expected[newKey('many')] = `value ${number}`;
  const keys = Object.keys(expected);
  await Promise.all(keys.map((key) => first.set(key, expected[key], HOUR_S)));
  const asked = [...keys, newKey('missing')];
  checks.equal('multi-get', await first.getMany(asked), expected);
  checks.equal('multi-get at the other node', await other.getMany(asked), expected);
}

async function isLarge(checks, first, other, key) {
  const large = randomBytes(LARGE_BYTES / 2).toString('hex');
  checks.equal('set of 100 KB', await first.set(key, large, HOUR_S), true);
  checks.equal('get of 100 KB', await first.get(key), large);
  checks.equal('get of 100 KB at the other node', await other.get(key), large);
}

async function swaps(checks, first, other, key) {
  await first.set(key, 'one', HOUR_S);
  const [value, token] = await first.gets(key);
  checks.equal('gets', value, 'one');
  // Without one, a cas would be a plain set.
  checks.equal('gets gives a token', token != null, true);
  checks.equal('gets at the other node, token and all', await other.gets(key), ['one', token]);
  checks.equal('cas with the token', await first.cas(key, 'two', token, HOUR_S), true);
  checks.equal('cas with an old token', await first.cas(key, 'three', token, HOUR_S), false);
  checks.equal('and at the other node', await other.cas(key, 'three', token, HOUR_S), false);
  checks.equal('get after cas', await other.get(key), 'two');
}

async function expires(checks, first, other, newKey) {
  const [mortal, touched] = [newKey('mortal'), newKey('touched')];
  await first.set(mortal, 'alive', SHORT_TTL_S);
  await first.set(touched, 'alive', SHORT_TTL_S);
  checks.equal('get of a short life', await other.get(mortal), 'alive');
  checks.equal('touch', await first.touch(touched, HOUR_S), true);
  checks.equal('touch of a missing key', await first.touch(newKey('no'), HOUR_S), false);
  const isGone = async () =>
    (await first.get(mortal)) === undefined && (await other.get(mortal)) === undefined;
  await checks.becomes('a short life ends', isGone, EXPIRY_DEADLINE_S);
  checks.equal('what was touched lives on', await other.get(touched), 'alive');
}

async function flushes(checks, first, other, key) {
  await first.set(key, 'x', HOUR_S);
  await first.flush();
  checks.equal('get after flush', await first.get(key), undefined);
  checks.equal('get after flush at the other node', await other.get(key), undefined);
  checks.equal('set after flush', await first.set(key, 'anew', HOUR_S), true);
  checks.equal('get of what was set after flush', await other.get(key), 'anew');
  await first.del(key);
}

module.exports = { useSessions };
