// npm's memcache: the younger client for node.
'use strict';

const { Memcache } = require('memcache');
const { run } = require('./checks');
const { useSessions } = require('./session_user');

const ANSWER_DEADLINE_MS = 10_000;

class Adapter {
  constructor(address) {
    this.client = new Memcache({ nodes: [address], timeout: ANSWER_DEADLINE_MS, retries: 0 });
  }

  set(key, value, ttl) {
    return this.client.set(key, value, ttl);
  }

  get(key) {
    return this.client.get(key);
  }

  del(key) {
    return this.client.delete(key);
  }

  add(key, value, ttl) {
    return this.client.add(key, value, ttl);
  }

  incr(key, by) {
    return this.client.incr(key, by);
  }

  decr(key, by) {
    return this.client.decr(key, by);
  }

  async getMany(keys) {
    return Object.fromEntries(await this.client.gets(keys));
  }

  touch(key, ttl) {
    return this.client.touch(key, ttl);
  }

  flush() {
    return this.client.flush();
  }
}

run(async (checks, name, firstAddress, otherAddress) => {
  const [first, other] = [new Adapter(firstAddress), new Adapter(otherAddress)];
  await useSessions(checks, first, other, name);
  const stats = await first.client.stats();
  checks.equal('stats of one node', stats.size, 1);
});
