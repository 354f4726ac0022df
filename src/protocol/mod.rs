//! memcached's text protocol: bytes to borrowed requests, and replies to bytes.
//!
//! Knows nothing of stores, nodes or sockets. A request may arrive in any number of pieces:
//! the parser says how much it used and how much it still wants, and keeps only what a command
//! longer than one buffer needs.

mod admin;
mod binary;
mod login;
mod meta;
mod parser;
pub mod reply;
mod text;

pub use admin::{Classes, Crawl, Detail, Events, Topic, Tune};
pub use binary::BinaryRequest;
pub use login::{Login, Said};
pub use meta::Flags;
pub use parser::{ITEM_OVERHEAD, Parsed, Parser, item_size};

use crate::key::Key;

/// One command, borrowed from the input.
#[derive(Debug, PartialEq)]
pub enum Request<'a> {
    /// get, gets. A long line comes in several parts, of which the `last` is answered with END.
    Get {
        /// The keys of this part.
        keys: Keys<'a>,
        /// Whether to show the CAS unique.
        form: ValueForm,
        /// Whether the line ends here.
        last: bool,
    },
    /// gat, gats: one key at a time, as each is a write.
    GetAndTouch {
        /// The key; `None` when the line ends without another one.
        key: Option<Key<'a>>,
        /// In seconds, as the client wrote it.
        exptime: i32,
        /// Whether to show the CAS unique.
        form: ValueForm,
        /// Whether the line ends here.
        last: bool,
    },
    /// set, add, replace, append, prepend, cas.
    Store {
        /// Which of them.
        verb: StoreVerb,
        /// Where to.
        key: Key<'a>,
        /// Opaque to us.
        flags: u32,
        /// In seconds, as the client wrote it.
        exptime: i32,
        /// The data block, without its CRLF.
        value: &'a [u8],
        /// Whether to keep silent.
        noreply: bool,
    },
    /// A storage command whose value can never fit; its data has been swallowed.
    Oversize {
        /// Whose older value has to go; only set and ms take it along.
        key: Option<Box<[u8]>>,
        /// Whether to keep silent.
        noreply: bool,
    },
    /// mg, md, ma, me.
    Meta(MetaRequest<'a>),
    /// ms.
    MetaStore(MetaRequest<'a>, &'a [u8]),
    /// mn.
    MetaNoop,
    /// delete.
    Delete {
        /// What to delete.
        key: Key<'a>,
        /// Whether to keep silent.
        noreply: bool,
    },
    /// incr, decr.
    Count {
        /// Which of them.
        up: bool,
        /// What to count.
        key: Key<'a>,
        /// By how much.
        delta: u64,
        /// Whether to keep silent.
        noreply: bool,
    },
    /// touch.
    Touch {
        /// What to touch.
        key: Key<'a>,
        /// In seconds, as the client wrote it.
        exptime: i32,
        /// Whether to keep silent.
        noreply: bool,
    },
    /// flush_all.
    FlushAll {
        /// As an exptime: seconds from now or a Unix time; 0 or less is at once.
        delay: i32,
        /// Whether to keep silent.
        noreply: bool,
    },
    /// version.
    Version,
    /// verbosity.
    Verbosity {
        /// Whether to keep silent.
        noreply: bool,
    },
    /// stats, with what follows it.
    Stats {
        /// The sub-command.
        topic: Topic,
    },
    /// lru_crawler.
    Crawl(Crawl),
    /// slabs, lru, and what else memcached lets an operator turn.
    Tune {
        /// What to turn.
        tune: Tune,
        /// Whether to keep silent.
        noreply: bool,
    },
    /// cache_memlimit.
    MemoryLimit {
        /// The new `-m`.
        megabytes: u32,
        /// Whether to keep silent.
        noreply: bool,
    },
    /// watch.
    Watch {
        /// What to show; `None` for something that nobody logs.
        events: Option<Events>,
    },
    /// quit.
    Quit,
    /// shutdown; `None` in a way that there is not.
    Shutdown(Option<Stop>),
}

/// Whether a value is shown with its CAS unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueForm {
    /// get, gat.
    Plain,
    /// gets, gats.
    WithCas,
}

/// The ways to shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// As SIGINT.
    Plain,
    /// As SIGUSR1.
    Graceful,
}

/// The storage commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreVerb {
    /// set.
    Set,
    /// add.
    Add,
    /// replace.
    Replace,
    /// append.
    Append,
    /// prepend.
    Prepend,
    /// cas, with the unique it expects.
    Cas(u64),
}

/// A meta command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetaRequest<'a> {
    /// Which.
    pub verb: MetaVerb,
    /// Decoded, if it was written in base64.
    pub key: Key<'a>,
    /// As they were written: the reply repeats some of them in this order.
    pub flags: Flags<'a>,
    /// What they mean.
    pub options: MetaOptions,
}

/// The meta commands that name a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVerb {
    /// mg.
    Get,
    /// ms.
    Set,
    /// md.
    Delete,
    /// ma.
    Count,
    /// me.
    Debug,
}

/// What the flags of a meta command ask for. Times are in seconds, as the client wrote them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetaOptions {
    /// `b`: the key is in base64.
    pub has_binary_key: bool,
    /// `N`: make the item where there is none.
    pub vivify: Option<i32>,
    /// `T`: its new end.
    pub touch: Option<i32>,
    /// `R`: win when it ends sooner.
    pub recache: Option<i32>,
    /// `C`: go on only with this CAS unique.
    pub compare: Option<u64>,
    /// `E`: the new CAS unique.
    pub cas: Option<u64>,
    /// `F`: the client's flags.
    pub flags: u32,
    /// `J`: where a new counter begins.
    pub initial: u64,
    /// `D`: how far to count.
    pub delta: u64,
    /// `M`.
    pub mode: MetaMode,
    /// `I`: mark as stale.
    pub is_stale: bool,
    /// `q`: say nothing where everything is as expected.
    pub is_quiet: bool,
    /// `u`: do not count as a use.
    pub keeps_rank: bool,
    /// `v`: show the value.
    pub shows_value: bool,
    /// `x`: remove the value, keep the item.
    pub empties: bool,
}

/// The mode of ms or ma.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetaMode {
    /// None was given.
    #[default]
    Default,
    /// This one; whether it exists depends on the command.
    Letter(u8),
}

/// The keys of a get line, checked one by one as they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Keys<'a>(&'a [u8]);

impl Keys<'_> {
    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        text::is_blank(self.0)
    }

    /// Where in `input`, which they were taken from, the keys that are left begin.
    pub fn position_in(&self, input: &[u8]) -> usize {
        (self.0.as_ptr() as usize).saturating_sub(input.as_ptr() as usize).min(input.len())
    }
}

/// A key above 250 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTooLong;

impl<'a> Iterator for Keys<'a> {
    type Item = Result<Key<'a>, KeyTooLong>;

    fn next(&mut self) -> Option<Self::Item> {
        let (token, rest) = text::token(self.0)?;
        self.0 = rest;
        Some(Key::new(token).ok_or(KeyTooLong))
    }
}
