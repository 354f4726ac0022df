// npm's memcached: the client behind most session stores for node.
'use strict';

const Memcached = require('memcached');
const { run } = require('./checks');
const { useSessions } = require('./session_user');

class Adapter {
  constructor(address) {
    this.client = new Memcached(address, { retries: 0 });
  }

  set(key, value, ttl) {
    return this.call('set', key, value, ttl);
  }

  async get(key) {
    return textOf(await this.call('get', key));
  }

  del(key) {
    return this.call('del', key);
  }

  add(key, value, ttl) {
    return isStored(this.call('add', key, value, ttl));
  }

  incr(key, by) {
    return numberOf(this.call('incr', key, by));
  }

  decr(key, by) {
    return numberOf(this.call('decr', key, by));
  }

  async getMany(keys) {
    return { ...(await this.call('getMulti', keys)) };
  }

  async gets(key) {
    const item = await this.call('gets', key);
    return [item[key], item.cas];
  }

  cas(key, value, token, ttl) {
    return isStored(this.call('cas', key, value, token, ttl));
  }

  touch(key, ttl) {
    return this.call('touch', key, ttl);
  }

  flush() {
    return this.call('flush');
  }

  call(method, ...words) {
    return new Promise((resolve, reject) => {
      this.client[method](...words, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }
}

/** It makes an error of `NOT_STORED`, and nothing of `EXISTS`. */
async function isStored(answer) {
  try {
    return Boolean(await answer);
  } catch (error) {
    if (error.notStored || /not stored/.test(error.message)) return false;
    throw error;
  }
}

async function numberOf(answer) {
  const number = await answer;
  return number === false ? undefined : number;
}

/** It guesses a number from its digits. */
function textOf(value) {
  return typeof value === 'number' ? String(value) : value;
}

run(async (checks, name, firstAddress, otherAddress) => {
  const [first, other] = [new Adapter(firstAddress), new Adapter(otherAddress)];
  await useSessions(checks, first, other, name);
  const [stats] = await first.call('stats');
  checks.equal('stats', typeof stats.curr_items, 'number');
  const [version] = await first.call('version');
  checks.equal('version', typeof version.version, 'string');
});
