//! Clients: one command at a time, over a real session, numbering what they write.

use rand::RngExt;
use rand::rngs::StdRng;
use sessiond::node::Session;

use super::model::Certain;

/// Keys that each client writes.
pub(crate) const KEYS_EACH: usize = 3;
/// One counter that everybody counts.
pub(crate) const COUNTER: &str = "counter";

/// A client and the command that it waits for.
pub(crate) struct Client {
    pub(crate) number: usize,
    /// The process it is connected to, and its session there.
    pub(crate) connected: Option<(usize, Session)>,
    pub(crate) doing: Option<Doing>,
}

/// A command under way.
#[derive(Debug)]
pub(crate) enum Doing {
    /// A write of this client's key: its index, and the write's number.
    Write { key: usize, number: usize },
    /// A read of anybody's key.
    Read { key: usize, certain: Certain },
    /// incr of the shared counter.
    Count,
    /// A change that leaves the number as it is.
    Noise { accepted: &'static [&'static str] },
    /// flush_all.
    Flush { before: Vec<usize> },
}

/// What to do next, before it is begun.
pub(crate) enum Wish {
    Set(usize),
    Append(usize),
    Delete(usize),
    Touch(usize),
    GetAndTouch(usize),
    Read(usize),
    MakeCounter,
    Count,
    Flush,
}

impl Client {
    pub(crate) fn new(number: usize) -> Self {
        Self { number, connected: None, doing: None }
    }

    /// Something to do; its own keys it writes, the others it reads.
    pub(crate) fn wish(&self, clients: usize, rng: &mut StdRng) -> Wish {
        let own = self.number * KEYS_EACH + rng.random_range(0..KEYS_EACH);
        let any = rng.random_range(0..clients * KEYS_EACH);
        match rng.random_range(0..1000) {
            0..330 => Wish::Set(own),
            330..430 => Wish::Delete(own),
            430..450 => Wish::Touch(own),
            450..470 => Wish::Append(own),
            470..490 => Wish::GetAndTouch(any),
            490..500 => Wish::MakeCounter,
            500..590 => Wish::Count,
            590..594 => Wish::Flush,
            _ => Wish::Read(any),
        }
    }
}

/// The name of a key by its index.
pub(crate) fn key_name(key: usize) -> String {
    format!("session-{key}")
}

/// The value of a write: its number, then bytes that make some values large.
pub(crate) fn value_of(number: usize, rng: &mut StdRng) -> String {
    let padding = if rng.random_ratio(1, 20) { rng.random_range(0..30_000) } else { 3 };
    format!("{number}:{}", "x".repeat(padding))
}

/// The number in a `VALUE` reply; `None` for a miss.
pub(crate) fn number_in(reply: &str) -> Result<Option<usize>, String> {
    if reply == "END\r\n" {
        return Ok(None);
    }
    let data = reply.split("\r\n").nth(1).and_then(|data| data.split(':').next());
    match data.and_then(|digits| digits.parse().ok()) {
        Some(number) if reply.starts_with("VALUE ") && reply.ends_with("\r\nEND\r\n") => {
            Ok(Some(number))
        }
        _ => Err(format!("no reply to a get: {:?}", &reply[..reply.len().min(80)])),
    }
}
