// Express's sessions in memcached: express-session with connect-memcached, in a real HTTP server
// for each of two web hosts.
'use strict';

const http = require('node:http');
const session = require('express-session');
const MemcachedStore = require('connect-memcached')(session);
const { run } = require('./checks');

const SHORT_TTL_MS = 2_000;
const EXPIRY_DEADLINE_S = 6;

run(async (checks, name, firstAddress, otherAddress) => {
  const first = await startSite(firstAddress);
  const other = await startSite(otherAddress);
  const browser = new Browser();
  checks.equal('a first page', await browser.visit(first, '/count'), '1');
  checks.equal('the next, at the other host', await browser.visit(other, '/count'), '2');
  checks.equal('and back', await browser.visit(first, '/count'), '3');
  checks.equal('a visitor', await browser.visit(other, '/who'), 'nobody');
  const visitor = browser.cookie;
  checks.equal('login', await browser.visit(first, '/login'), 'alice');
  checks.equal('gives a new session', browser.cookie !== visitor, true);
  checks.equal('the user at the other host', await browser.visit(other, '/who'), 'alice');
  const intruder = new Browser(visitor);
  checks.equal('the old session is nobody', await intruder.visit(other, '/who'), 'nobody');
  const user = browser.cookie;
  checks.equal('logout at the other host', await browser.visit(other, '/logout'), 'nobody');
  for (const site of [first, other]) {
    checks.equal('the session stays dead', await new Browser(user).visit(site, '/who'), 'nobody');
  }
  await browser.visit(first, '/login');
  checks.equal('a session of two seconds', await browser.visit(first, '/short'), 'alice');
  const id = decodeURIComponent(browser.cookie).match(/s:([^.]+)/)[1];
  // A page that asks renews it, so the store is asked.
  const store = new MemcachedStore({ hosts: [otherAddress] });
  const isOver = () =>
    new Promise((resolve, reject) => {
      store.get(id, (error, found) => (error ? reject(error) : resolve(!found)));
    });
  checks.equal('the store has it', await isOver(), false);
  await checks.becomes('it ends', isOver, EXPIRY_DEADLINE_S);
});

class Browser {
  constructor(cookie) {
    this.cookie = cookie;
  }

  async visit(site, path) {
    const headers = this.cookie ? { cookie: this.cookie } : {};
    const response = await fetch(site + path, { headers });
    const cookie = response.headers.get('set-cookie');
    if (cookie) this.cookie = cookie.split(';')[0];
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response.text();
  }
}

function startSite(address) {
  const withSession = session({
    store: new MemcachedStore({ hosts: [address] }),
    secret: 'for this run only',
    resave: false,
    saveUninitialized: false,
  });
  const server = http.createServer((request, response) => {
    withSession(request, response, (error) => {
      if (error) return fail(response, error);
      page(request, (failure, text) => (failure ? fail(response, failure) : response.end(text)));
    });
  });
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${server.address().port}`));
  });
}

function page(request, done) {
  const user = () => request.session?.user ?? 'nobody';
  switch (request.url) {
    case '/count':
      request.session.visits = (request.session.visits ?? 0) + 1;
      return done(null, String(request.session.visits));
    case '/login':
      return request.session.regenerate((error) => {
        if (!error) request.session.user = 'alice';
        done(error, user());
      });
    case '/logout':
      return request.session.destroy((error) => done(error, user()));
    case '/short':
      request.session.cookie.maxAge = SHORT_TTL_MS;
      return done(null, user());
    default:
      return done(null, user());
  }
}

function fail(response, error) {
  response.statusCode = 500;
  response.end(String(error.stack ?? error));
}
