//! Replies, written straight into the output buffer. The texts are memcached's, to the byte.

use std::io::Write;

use super::ValueForm;
use crate::key::Key;

/// The memcached release whose protocol this is; clients and tests parse it.
pub const VERSION: &str = "1.6.45";

/// An unknown command.
pub const ERROR: &[u8] = b"ERROR\r\n";
/// A known command that makes no sense.
pub const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
/// `stats cachedump` without its numbers.
pub const BAD_LINE: &[u8] = b"CLIENT_ERROR bad command line\r\n";
/// `stats cachedump` of a class that can't be.
pub const ILLEGAL_CLASS: &[u8] = b"CLIENT_ERROR Illegal slab id\r\n";
/// `stats detail` without a verb.
pub const DETAIL_USAGE: &[u8] = b"CLIENT_ERROR usage: stats detail on|off|dump\r\n";
/// `stats detail` where dumps are off.
pub const DETAIL_OFF: &[u8] = b"CLIENT_ERROR stats detail not allowed\r\n";
/// `stats cachedump` where dumps are off.
pub const CACHEDUMP_OFF: &[u8] = b"CLIENT_ERROR stats cachedump not allowed\r\n";
/// `lru_crawler crawl hash`: memcached can't either.
pub const CRAWL_FAILED: &[u8] = b"ERROR an unknown error happened\r\n";
/// `lru_crawler metadump` where dumps are off.
pub const METADUMP_OFF: &[u8] = b"ERROR metadump not allowed\r\n";
/// `lru_crawler mgdump` where dumps are off.
pub const MGDUMP_OFF: &[u8] = b"ERROR key dump not allowed\r\n";
/// A dump behind other commands.
pub const METADUMP_PIPELINED: &[u8] = b"ERROR cannot pipeline other commands before metadump\r\n";
/// The same.
pub const MGDUMP_PIPELINED: &[u8] = b"ERROR cannot pipeline other commands before mgdump\r\n";
/// `watch` behind other commands.
pub const WATCH_PIPELINED: &[u8] = b"ERROR cannot pipeline other commands before watch\r\n";
/// `watch` where it is off.
pub const WATCH_OFF: &[u8] = b"CLIENT_ERROR watch commands not allowed\r\n";
/// One watcher too many.
pub const WATCHERS_FULL: &[u8] = b"WATCHER_TOO_MANY log watcher limit reached\r\n";
/// A crawl while the crawler is off.
pub const CRAWLER_OFF: &[u8] = b"CLIENT_ERROR lru crawler disabled\r\n";
/// `lru_crawler enable` while it is on.
pub const CRAWLER_ON: &[u8] = b"ERROR failed to start lru crawler thread\r\n";
/// `lru_crawler sleep` for too long.
pub const CRAWLER_SLEEP: &[u8] = b"CLIENT_ERROR sleep must be one second or less\r\n";
/// A crawl of a class that can't be.
pub const BAD_CLASS: &[u8] = b"BADCLASS invalid class id\r\n";
/// `slabs reassign` where it is off.
pub const REASSIGN_OFF: &[u8] = b"CLIENT_ERROR slab reassignment disabled\r\n";
/// `slabs reassign` of classes that can't be.
pub const REASSIGN_BAD_CLASS: &[u8] = b"BADCLASS invalid src or dst class id\r\n";
/// `slabs reassign` from a class without pages.
pub const REASSIGN_NO_SPARE: &[u8] = b"NOSPARE source class has no spare pages\r\n";
/// `slabs reassign` from a class to itself.
pub const REASSIGN_SAME: &[u8] = b"SAME src and dst class are identical\r\n";
/// `slabs automove window` out of range.
pub const AUTOMOVE_WINDOW: &[u8] = b"CLIENT_ERROR automove window too low or too high\r\n";
/// `lru tune` that leaves too little for cold items.
pub const LRU_PERCENT: &[u8] = b"ERROR hot and warm pcts must not exceed 80\r\n";
/// `lru tune` with an age that nothing reaches.
pub const LRU_FACTOR: &[u8] = b"ERROR hot/warm age factors must be greater than 0\r\n";
/// `cache_memlimit` below what works.
pub const MEMLIMIT_SMALL: &[u8] = b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n";
/// `cache_memlimit` in the wrong unit.
pub const MEMLIMIT_BYTES: &[u8] = b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n";
/// A data block that does not end in CRLF.
pub const BAD_DATA_CHUNK: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";
/// touch, gat, gats, flush_all with something that is no time.
pub const INVALID_EXPTIME: &[u8] = b"CLIENT_ERROR invalid exptime argument\r\n";
/// incr, decr by something that is no number.
pub const INVALID_DELTA: &[u8] = b"CLIENT_ERROR invalid numeric delta argument\r\n";
/// incr, decr of something that is no number.
pub const NOT_NUMERIC: &[u8] = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
/// A value above the item limit.
pub const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
/// No memory, and nothing that may be evicted.
pub const NO_MEMORY: &[u8] = b"SERVER_ERROR out of memory storing object\r\n";
/// flush_all under `-F`.
pub const FLUSH_NOT_ALLOWED: &[u8] = b"CLIENT_ERROR flush_all not allowed\r\n";
/// shutdown without `-A`; the colon is memcached's.
pub const SHUTDOWN_NOT_ENABLED: &[u8] = b"SERVER_ERROR: shutdown not enabled\r\n";
/// shutdown in a way that there is not.
pub const SHUTDOWN_MODE: &[u8] = b"CLIENT_ERROR invalid shutdown mode\r\n";
/// Anything but a login before the login.
pub const UNAUTHENTICATED: &[u8] = b"CLIENT_ERROR unauthenticated\r\n";
/// A login that nobody would write.
pub const LOGIN_TOO_LONG: &[u8] = b"CLIENT_ERROR auth token too long\r\n";
/// A login's data that does not end in CRLF.
pub const LOGIN_TERMINATION: &[u8] = b"CLIENT_ERROR bad command line termination\r\n";
/// A login's data that is not a name, a space and a password.
pub const LOGIN_FORMAT: &[u8] = b"CLIENT_ERROR bad authentication token format\r\n";
/// A login with a wrong name or password.
pub const LOGIN_FAILED: &[u8] = b"CLIENT_ERROR authentication failure\r\n";
/// The connection limit, sent before closing.
pub const TOO_MANY_CONNECTIONS: &[u8] = b"ERROR Too many open connections\r\n";

/// A meta flag that stands twice.
pub const DUPLICATE_FLAG: &[u8] = b"CLIENT_ERROR duplicate flag\r\n";
/// A meta flag that nobody knows.
pub const INVALID_FLAG: &[u8] = b"CLIENT_ERROR invalid flag\r\n";
/// Any mistake in the flags of ma.
pub const BAD_COUNT_FLAG: &[u8] = b"CLIENT_ERROR invalid or duplicate flag\r\n";
/// A meta flag with an argument that is no number.
pub const BAD_TOKEN: &[u8] = b"CLIENT_ERROR bad token in command line format\r\n";
/// ma with a J that is no number.
pub const BAD_INITIAL: &[u8] = b"CLIENT_ERROR invalid numeric initial value\r\n";
/// ma with a D that is no number.
pub const BAD_DELTA: &[u8] = b"CLIENT_ERROR invalid numeric delta value\r\n";
/// More than 20 tokens in a meta command.
pub const TOO_MANY_FLAGS: &[u8] = b"CLIENT_ERROR options flags are too long\r\n";
/// An opaque above 31 bytes.
pub const OPAQUE_TOO_LONG: &[u8] = b"CLIENT_ERROR opaque token too long\r\n";
/// A key that is not base64.
pub const BAD_KEY: &[u8] = b"CLIENT_ERROR error decoding key\r\n";
/// ms with a mode that does not exist.
pub const BAD_STORE_MODE: &[u8] = b"CLIENT_ERROR invalid mode for ms M token\r\n";
/// ma with a mode that does not exist.
pub const BAD_COUNT_MODE: &[u8] = b"CLIENT_ERROR invalid mode for ma M token\r\n";
/// The answer of mn.
pub const NOOP: &[u8] = b"MN\r\n";

/// Done.
pub const OK: &[u8] = b"OK\r\n";
/// The end of a retrieval or of stats.
pub const END: &[u8] = b"END\r\n";
/// The end of an mgdump, and a miss of mg.
pub const EN: &[u8] = b"EN\r\n";
/// The value is stored.
pub const STORED: &[u8] = b"STORED\r\n";
/// The condition of add or replace did not hold.
pub const NOT_STORED: &[u8] = b"NOT_STORED\r\n";
/// The CAS unique has changed.
pub const EXISTS: &[u8] = b"EXISTS\r\n";
/// No such item.
pub const NOT_FOUND: &[u8] = b"NOT_FOUND\r\n";
/// The item is gone.
pub const DELETED: &[u8] = b"DELETED\r\n";
/// The deadline has moved.
pub const TOUCHED: &[u8] = b"TOUCHED\r\n";
/// The counters are at zero.
pub const RESET: &[u8] = b"RESET\r\n";

/// One found item.
#[inline]
pub fn value_head(
    out: &mut Vec<u8>,
    form: ValueForm,
    key: Key<'_>,
    flags: u32,
    cas: u64,
    len: usize,
) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key.bytes());
    if flags < 10 {
        // Nearly always: clients number their formats.
        out.extend_from_slice(&[b' ', b'0' + flags as u8, b' ']);
    } else {
        out.push(b' ');
        out.extend_from_slice(digits.format(flags).as_bytes());
        out.push(b' ');
    }
    out.extend_from_slice(digits.format(len).as_bytes());
    if form == ValueForm::WithCas {
        out.push(b' ');
        out.extend_from_slice(digits.format(cas).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// The answer of incr and decr.
pub fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The answer of version.
pub fn version(out: &mut Vec<u8>) {
    out.extend_from_slice(b"VERSION ");
    out.extend_from_slice(VERSION.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// One line of stats.
pub fn stat(out: &mut Vec<u8>, name: &str, value: impl std::fmt::Display) {
    print(out, format_args!("STAT {name} {value}\r\n"));
}

/// Whatever can be formatted, without a string in between.
pub fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes all that is written to it");
}
