// Remix's sessions in memcached: a new connection for each command.
'use strict';

const { webcrypto } = require('node:crypto');
const { run } = require('./checks');

// The package expects it as a global, which it is since node 19; Debian 12 has 18.
globalThis.crypto ??= webcrypto;

const SHORT_TTL_S = 2;
const EXPIRY_DEADLINE_S = 6;

run(async (checks, name, firstAddress, otherAddress) => {
  const { createMemcacheSessionStorage } = await import(
    require.resolve('@remix-run/session-storage-memcache')
  );
  const storage = (address, ttlSeconds) =>
    createMemcacheSessionStorage(address, { keyPrefix: `${name}:`, ttlSeconds });
  const [first, other] = [storage(firstAddress, 3600), storage(otherAddress, 3600)];

  const visitor = await first.read(null);
  checks.equal('a new session is empty', visitor.get('user'), undefined);
  visitor.set('basket', [1, 2]);
  let cookie = await first.save(visitor);
  const seen = await other.read(cookie);
  checks.equal('the basket at the other node', seen.get('basket'), [1, 2]);
  seen.regenerateId(true);
  seen.set('user', 'alice');
  const oldCookie = cookie;
  cookie = await other.save(seen);
  checks.equal('login gives a new session', cookie !== oldCookie, true);
  checks.equal('the user', (await first.read(cookie)).get('user'), 'alice');
  checks.equal('the basket stayed', (await first.read(cookie)).get('basket'), [1, 2]);
  checks.equal('the old session is empty', (await first.read(oldCookie)).get('basket'), undefined);
  const user = await first.read(cookie);
  user.set('large', 'x'.repeat(100_000));
  await first.save(user);
  checks.equal('100 KB at the other node', (await other.read(cookie)).get('large').length, 100_000);
  const leaving = await other.read(cookie);
  leaving.destroy();
  checks.equal('logout', await other.save(leaving), '');
  for (const node of [first, other]) {
    checks.equal('the session stays dead', (await node.read(cookie)).get('user'), undefined);
  }

  const short = storage(firstAddress, SHORT_TTL_S);
  const brief = await short.read(null);
  brief.set('user', 'bob');
  cookie = await short.save(brief);
  checks.equal('a session of two seconds', (await other.read(cookie)).get('user'), 'bob');
  const isOver = async () => (await other.read(cookie)).get('user') === undefined;
  await checks.becomes('it ends', isOver, EXPIRY_DEADLINE_S);
});
