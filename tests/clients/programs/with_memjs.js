// memjs speaks the binary protocol only. A server without it must say so at once.
'use strict';

const memjs = require('memjs');
const { run } = require('./checks');

const AT_ONCE_MS = 5_000;
// Longer than at once, so that it is the server that ends the wait and not the client.
const CLIENT_TIMEOUT_S = 20;

run(async (checks, name, firstAddress, otherAddress) => {
  const options = { retries: 0, timeout: CLIENT_TIMEOUT_S, logger: { log() {} } };
  const first = memjs.Client.create(firstAddress, options);
  const other = memjs.Client.create(otherAddress, options);
  const started = Date.now();
  let refusal;
  try {
    refusal = (await first.set(name, 'x', { expires: 60 })) ? undefined : 'false';
  } catch (error) {
    refusal = error;
  }
  const milliseconds = Date.now() - started;
  checks.equal('an answer at once', milliseconds < AT_ONCE_MS, true);
  if (refusal === undefined) {
    const { value } = await other.get(name);
    checks.equal('get at the other node', value.toString(), 'x');
    return 'served';
  }
  return `refused after ${milliseconds} ms`;
});
