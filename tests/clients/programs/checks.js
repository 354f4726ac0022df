// Counts what held, and ends the program at the first thing that did not.
'use strict';

const { isDeepStrictEqual, inspect } = require('node:util');

const ASK_AGAIN_MS = 100;

class Failed extends Error {}

class Checks {
  count = 0;

  equal(what, seen, expected) {
    if (!isDeepStrictEqual(seen, expected)) {
      throw new Failed(`${what}: saw ${short(seen)}, expected ${short(expected)}`);
    }
    this.count += 1;
  }

  /** For what only time brings: asks until it is so. */
  async becomes(what, condition, deadlineSeconds) {
    const end = Date.now() + deadlineSeconds * 1000;
    while (!(await condition())) {
      if (Date.now() > end) throw new Failed(`${what}: not within ${deadlineSeconds} s`);
      await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
    }
    this.count += 1;
  }
}

/**
 * Calls `main(checks, name, first, other)` with the program's words and prints the closing line
 * that the runner reads; `main` may return a remark for it.
 */
async function run(main) {
  const [name, first, other] = process.argv.slice(2);
  const checks = new Checks();
  try {
    const remark = await main(checks, name, first, other);
    console.log(`ok ${name} ${checks.count} checks${remark ? `: ${remark}` : ''}`);
    // The clients keep their connections open.
    process.exit(0);
  } catch (error) {
    const why = error instanceof Failed ? error.message : error.stack || inspect(error);
    console.log(`FAILED ${name} after ${checks.count} good checks: ${why}`);
    process.exit(1);
  }
}

function short(value) {
  const text = inspect(value);
  return text.length <= 200 ? text : `${text.slice(0, 150)}... (${text.length} characters)`;
}

module.exports = { run };
