//! What clients may see.
//!
//! Each key is written by one client, which numbers its writes; so a value tells how old it is,
//! and everybody else can judge it. Writes whose connection broke may or may not have happened.

use std::collections::BTreeSet;

/// What a client knows of one of its keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Key {
    writes: Vec<Write>,
    /// Number of the newest write that was acknowledged; writes count from 1.
    acked: usize,
    unknown: BTreeSet<usize>,
    /// Writes up to this one were flushed away.
    flushed: usize,
    /// A flush may have come after the newest acknowledged write.
    flush_may_hide: bool,
    /// How many flushes have begun.
    flushes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    is_delete: bool,
    begun: u64,
}

/// What was certain when a read began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Certain {
    acked: usize,
    flushed: usize,
    flush_may_hide: bool,
    flushes: u64,
}

impl Key {
    /// A write begins; returns its number.
    pub(crate) fn begin(&mut self, is_delete: bool, now: u64) -> usize {
        self.writes.push(Write { is_delete, begun: now });
        self.writes.len()
    }

    /// The write was acknowledged.
    pub(crate) fn ack(&mut self, number: usize, flushes: &Flushes) {
        self.acked = number;
        if flushes.in_flight == 0 && self.writes[number - 1].begun > flushes.last_done {
            self.flush_may_hide = false;
        }
    }

    /// The write's connection broke.
    pub(crate) fn lose(&mut self, number: usize) {
        self.unknown.insert(number);
    }

    /// For judging a read that begins now.
    pub(crate) fn certain(&self) -> Certain {
        Certain {
            acked: self.acked,
            flushed: self.flushed,
            flush_may_hide: self.flush_may_hide,
            flushes: self.flushes,
        }
    }

    /// Judges what a read has seen: the number of a write, or a miss.
    pub(crate) fn judge(&self, seen: Option<usize>, certain: Certain) -> Result<(), String> {
        let fine = match seen {
            Some(number) => {
                let is_new = number >= certain.acked || self.unknown.contains(&number);
                is_new
                    && number > certain.flushed
                    && self.writes.get(number - 1).is_some_and(|write| !write.is_delete)
            }
            None => self.may_be_absent(certain),
        };
        if fine { Ok(()) } else { Err(format!("saw {seen:?}, certain was {certain:?}: {self:?}")) }
    }

    fn may_be_absent(&self, certain: Certain) -> bool {
        let is_delete = |&number: &usize| number == 0 || self.writes[number - 1].is_delete;
        certain.flush_may_hide
            || self.flush_may_hide
            || certain.flushes < self.flushes
            || (certain.acked..=self.writes.len()).any(|number| is_delete(&number))
            || self.unknown.iter().any(is_delete)
    }
}

/// All flush_all commands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flushes {
    in_flight: usize,
    last_done: u64,
}

impl Flushes {
    /// One begins; returns what was acknowledged of each key by then.
    pub(crate) fn begin(&mut self, keys: &mut [Key]) -> Vec<usize> {
        self.in_flight += 1;
        for key in keys.iter_mut() {
            key.flush_may_hide = true;
            key.flushes += 1;
        }
        keys.iter().map(|key| key.acked).collect()
    }

    /// It was acknowledged: what was acknowledged before it is gone.
    pub(crate) fn ack(&mut self, before: &[usize], keys: &mut [Key], now: u64) {
        self.in_flight -= 1;
        self.last_done = now;
        for (key, &acked) in keys.iter_mut().zip(before) {
            key.flushed = key.flushed.max(acked);
        }
    }
}
