//! Wire scripts: what a telnet session with memcached looks like, replayed to the last byte.
//!
//! `cargo test --test wire` replays every `tests/wire/*.txt` on one node and on node 1 of a live
//! group of three; `PARITY=stock` adds stock memcached (`MEMCACHED`, or `memcached` from the
//! path), so that a script can't encode our own mistake; `SCRIPT=cas` replays cas.txt alone.
//! A script is read line by line:
//!
//! ```text
//! # comment
//! $ -F                    the server's flags, above all else; scripts with the same flags share it
//! > get k                 sent, with CRLF; lines in a row are sent in one piece
//! >> get k\n              sent as it stands
//! < END                   the line that has to come back, with CRLF unless it ends in \n
//! < ...                   any lines, up to the one below
//! << \x81\x0a             the bytes that have to come back
//! = closed                the server closes the connection, and says nothing more
//! = open                  it stays open, and nothing comes
//! ! new connection        closes the connection and opens another
//! ! connection b          goes to connection b, and opens it if need be
//! @ other node            the same, to node 2 of the group (elsewhere: to the same server)
//! @ within 4s             the next exchange is repeated, each on its own connection, until it fits
//! ~ stock-1.6.18: ERROR   that release of memcached says this instead of the line above
//! ~ differs: = closed     sessiond does this instead, on purpose (docs/compatibility.md)
//! ~ differs: (nothing)    ... or does not send the line above at all
//! ```
//!
//! Text may hold `\r \n \t \\ \xHH`, `{repeat abc 300}`, `{now+60}` (Unix time), `{here}` (this
//! folder); `{cas a}` is a number that is captured, sent or compared, and differs from `{cas b}`;
//! `{number}` and `{any}` stand for whatever comes.

mod replay;
mod script;
mod server;
mod text;

use std::collections::BTreeMap;
use std::sync::Mutex;

use script::Script;
use server::Kind;

/// Servers with different flags run side by side: most of the time is spent waiting for a TTL.
const THREADS: usize = 4;

/// Replays all scripts, those with the same flags on the same server.
fn failures(kind: Kind) -> Vec<String> {
    let mut groups: BTreeMap<Vec<String>, Vec<Script>> = BTreeMap::new();
    let only = std::env::var("SCRIPT").ok();
    for script in script::all() {
        if only.as_ref().is_none_or(|only| *only == script.name) {
            groups.entry(script.flags.clone()).or_default().push(script);
        }
    }
    let waiting = Mutex::new(groups.into_iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("no thread panics with the lock").next();
                    let Some((flags, scripts)) = next else { return };
                    let failed = replay::all(kind, &flags, &scripts);
                    failures.lock().expect("no thread panics with the lock").extend(failed);
                }
            });
        }
    });
    failures.into_inner().expect("no thread panics with the lock")
}

fn check(kind: Kind) {
    let failures = failures(kind);
    assert!(failures.is_empty(), "{} scripts failed\n\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn one_node_answers_as_the_scripts_say() {
    check(Kind::OneNode);
}

#[test]
fn a_group_of_three_answers_as_the_scripts_say() {
    check(Kind::Group);
}

#[test]
fn stock_memcached_answers_as_the_scripts_say() {
    if std::env::var("PARITY").is_ok_and(|parity| parity == "stock") {
        let release =
            server::release().expect("make parity needs memcached, e.g. Debian's package");
        println!("memcached {release}");
        check(Kind::Stock);
    } else {
        println!("stock memcached was not asked: make parity does");
    }
}

#[test]
fn there_are_scripts_enough_and_all_can_be_read() {
    let scripts = script::all();
    let exchanges: usize = scripts.iter().map(Script::exchanges).sum();
    println!("{} scripts, {exchanges} exchanges", scripts.len());
    assert!(exchanges >= 150, "only {exchanges} exchanges");
}
