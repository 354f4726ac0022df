//! Replies, written straight into the output buffer. The texts are memcached's, to the byte.

use super::ValueForm;
use crate::key::Key;

/// The memcached release whose protocol this is; clients and tests parse it.
pub const VERSION: &str = "1.6.45";

/// An unknown command.
pub const ERROR: &[u8] = b"ERROR\r\n";
/// A known command that makes no sense.
pub const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
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
pub fn value(out: &mut Vec<u8>, form: ValueForm, key: Key<'_>, flags: u32, cas: u64, value: &[u8]) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key.bytes());
    out.push(b' ');
    out.extend_from_slice(digits.format(flags).as_bytes());
    out.push(b' ');
    out.extend_from_slice(digits.format(value.len()).as_bytes());
    if form == ValueForm::WithCas {
        out.push(b' ');
        out.extend_from_slice(digits.format(cas).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(value);
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
    out.extend_from_slice(format!("STAT {name} {value}\r\n").as_bytes());
}
