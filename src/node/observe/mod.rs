//! Those who look on: watchers and counts by prefix.
//!
//! One word says what anybody wants to see, so a request that nobody looks at pays one load of it,
//! from a line that is hardly ever written.

mod prefixes;
mod trace;
mod watchers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

pub(super) use trace::{Trace, Wording};
pub(super) use watchers::{Logged, WatcherId};

use crate::key::Key;
use crate::protocol::Events;
use crate::store::Sizes;
use crate::time::Now;
use prefixes::Prefixes;
use watchers::Watchers;

/// See the module.
#[derive(Debug)]
pub(super) struct Observers {
    wanted: AtomicU32,
    watchers: Mutex<Watchers>,
    prefixes: Mutex<Prefixes>,
    sizes: Arc<Sizes>,
}

/// One read, as it is shown.
#[derive(Clone, Copy)]
pub(super) struct Read<'a> {
    pub(super) key: Key<'a>,
    /// Bytes of the value; `None` when there was none.
    pub(super) found: Option<usize>,
    /// Of the client.
    pub(super) descriptor: i32,
}

impl Observers {
    pub(super) fn new(delimiter: char, sizes: Arc<Sizes>) -> Self {
        // Of a longer letter the first byte, as with memcached.
        let delimiter = delimiter.encode_utf8(&mut [0; 4]).as_bytes()[0];
        Self {
            wanted: AtomicU32::new(0),
            watchers: Mutex::default(),
            prefixes: Mutex::new(Prefixes::new(delimiter)),
            sizes,
        }
    }

    /// The slab class that an item is shown in.
    fn class_of(&self, key: &[u8], size: usize) -> usize {
        self.sizes.class_of(key.len() + size)
    }

    /// Whether anybody wants to see one of these.
    pub(super) fn wants(&self, events: Events) -> bool {
        Events(self.wanted.load(Ordering::Relaxed)).meets(events)
    }

    /// A new watcher, unless there are too many.
    pub(super) fn watch(&self, events: Events) -> Option<WatcherId> {
        let mut watchers = self.watchers.lock();
        let id = watchers.add(events);
        self.want(watchers.wanted());
        id
    }

    pub(super) fn unwatch(&self, id: WatcherId) {
        let mut watchers = self.watchers.lock();
        watchers.remove(id);
        self.want(watchers.wanted());
    }

    /// Moves what a watcher is to see into `out`.
    pub(super) fn take(&self, id: WatcherId, out: &mut Vec<u8>) {
        self.watchers.lock().take(id, out);
    }

    pub(super) fn logged(&self) -> Logged {
        self.watchers.lock().logged()
    }

    /// Lines that were lost before they could be written.
    pub(super) fn lost(&self, lines: u64) {
        if lines > 0 {
            self.watchers.lock().lost(lines);
        }
    }

    /// Shows one event to all who want its kind.
    pub(super) fn log(&self, kind: Events, now: Now, text: std::fmt::Arguments<'_>) {
        if self.wants(kind) {
            self.watchers.lock().log(kind, now, text);
        }
    }

    /// A key was read. Called only when somebody wants to know.
    pub(super) fn read(&self, read: Read<'_>, now: Now) {
        self.log_read(read, now);
        self.count(read.key.bytes(), |counts| {
            counts.gets += 1;
            counts.hits += u64::from(read.found.is_some());
        });
    }

    /// As `read`, for what counts as a read only with those who watch.
    pub(super) fn log_read(&self, read: Read<'_>, now: Now) {
        let (status, class) = match read.found {
            Some(size) => ("found", self.class_of(read.key.bytes(), size)),
            None => ("not_found", 0),
        };
        self.log(
            Events::FETCHERS,
            now,
            format_args!(
                "type=item_get key={} status={status} clsid={class} cfd={} size={}",
                Encoded(read.key.bytes()),
                read.descriptor,
                read.found.unwrap_or_default()
            ),
        );
    }

    pub(super) fn set_detail(&self, is_on: bool) {
        // Under the watchers' lock, which guards the word.
        let mut watchers = self.watchers.lock();
        watchers.set_detail(is_on);
        self.want(watchers.wanted());
    }

    pub(super) fn dump_prefixes(&self, out: &mut Vec<u8>) {
        self.prefixes.lock().dump(out);
    }

    /// As `stats reset` does.
    pub(super) fn reset(&self) {
        self.watchers.lock().reset();
        self.prefixes.lock().clear();
    }

    fn count(&self, key: &[u8], change: impl FnOnce(&mut prefixes::Counts)) {
        if self.wants(Events::DETAIL) {
            self.prefixes.lock().count(key, change);
        }
    }

    fn want(&self, events: Events) {
        self.wanted.store(events.0, Ordering::Relaxed);
    }
}

/// A key as it stands in a log or a dump: what is not a letter, a digit or one of `-._~` as `%XX`.
pub(super) struct Encoded<'a>(pub(super) &'a [u8]);

impl std::fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for &byte in self.0 {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                std::fmt::Write::write_char(f, char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_as_memcached_does() {
        assert_eq!(Encoded(b"a:b-c._~ \xffZ").to_string(), "a%3Ab-c._~%20%FFZ");
    }

    #[test]
    fn nobody_wants_anything_until_somebody_asks() {
        let observers = Observers::new(':', Arc::default());
        let all = Events(u32::MAX);
        assert!(!observers.wants(all));
        let id = observers.watch(Events::FETCHERS).unwrap();
        observers.set_detail(true);
        assert!(observers.wants(Events::FETCHERS) && observers.wants(Events::DETAIL));
        assert!(!observers.wants(Events::MUTATIONS));
        observers.unwatch(id);
        observers.set_detail(false);
        assert!(!observers.wants(all));
    }
}
