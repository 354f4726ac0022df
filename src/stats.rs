//! Counters. Each worker owns a set and is its only writer, so counting is never contended;
//! `stats` sums the sets.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter, written by one thread and read by any.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The present count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// A number that goes up and down, changed by any thread.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more, unless that would exceed `max`; says whether it was taken.
    pub fn try_take(&self, max: u64) -> bool {
        let one_more = |count| (count < max).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// One less.
    pub fn give_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Becomes this number.
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// The present number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What goes up and down in a node.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Open client connections.
    pub connections: Gauge,
    /// Listeners that accept nobody, as the limit is reached.
    pub listeners_paused: Gauge,
    /// Time that the process has computed, in microseconds; set every now and then.
    pub cpu_user_us: Gauge,
    /// Time that the kernel has worked for it.
    pub cpu_system_us: Gauge,
}

/// Why somebody on the port for peers was not let in, or was not who should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Its certificate is missing, or not good for what it says to be.
    Certificate,
    /// It does not know the secret.
    Secret,
    /// It speaks only versions of the peer protocol that this node does not speak.
    Version,
    /// It is of another group, or has no place in this one.
    Group,
    /// It does not speak the protocol.
    Garbage,
    /// It took too long to say who it is.
    Slow,
    /// It went before it had said who it is.
    Ended,
    /// Too many were being asked who they are.
    Crowded,
}

impl Refusal {
    /// All of them, in the order that they are shown in.
    pub const ALL: [Self; 8] = [
        Self::Certificate,
        Self::Secret,
        Self::Version,
        Self::Group,
        Self::Garbage,
        Self::Slow,
        Self::Ended,
        Self::Crowded,
    ];

    /// For `stats`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Secret => "secret",
            Self::Version => "version",
            Self::Group => "group",
            Self::Garbage => "garbage",
            Self::Slow => "slow",
            Self::Ended => "ended",
            Self::Crowded => "crowded",
        }
    }
}

/// How often that was.
#[derive(Debug, Default)]
pub struct Refusals([Counter; Refusal::ALL.len()]);

impl Refusals {
    /// The count of that reason.
    pub fn of(&self, why: Refusal) -> &Counter {
        &self.0[why as usize]
    }
}

/// The buckets of `Waits`: each holds what took at most so many microseconds, and more than the
/// one before. The last bound is the default of both timeouts.
pub const WAIT_BOUNDS_US: [u64; 18] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000, 30_000_000,
];

/// How long commands have waited; written by one thread and read by any.
#[derive(Debug, Default)]
pub struct Waits {
    /// One more than there are bounds.
    buckets: [Counter; WAIT_BOUNDS_US.len() + 1],
    sum_us: Counter,
    max_us: Counter,
}

impl Waits {
    /// One more has waited so long.
    pub fn note(&self, us: u64) {
        self.buckets[WAIT_BOUNDS_US.partition_point(|&bound| bound < us)].add(1);
        self.sum_us.add(us);
        self.max_us.0.fetch_max(us, Ordering::Relaxed);
    }

    fn reset(&self) {
        self.buckets.iter().chain([&self.sum_us, &self.max_us]).for_each(Counter::reset);
    }
}

/// The same of all workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct WaitTotals {
    /// By bucket; the last holds what took longer than any bound.
    pub buckets: [u64; WAIT_BOUNDS_US.len() + 1],
    /// All of them together, in microseconds.
    pub sum_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl WaitTotals {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// So many of a thousand took at most as long as this says, in microseconds.
    pub fn quantile_us(&self, of_thousand: u64) -> u64 {
        let rank = (self.count() * of_thousand).div_ceil(1000);
        let mut below = 0;
        for (count, bound) in self.buckets.iter().zip(WAIT_BOUNDS_US) {
            below += count;
            if below >= rank {
                return bound.min(self.max_us);
            }
        }
        self.max_us
    }

    fn add(&mut self, waits: &Waits) {
        self.buckets.iter_mut().zip(&waits.buckets).for_each(|(sum, one)| *sum += one.get());
        self.sum_us += waits.sum_us.get();
        self.max_us = self.max_us.max(waits.max_us.get());
    }
}

macro_rules! counters {
    ($($name:ident: $text:literal,)*) => {
        /// What one worker has counted; the names are those of `stats`.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $text] pub $name: Counter,)*
            /// Changes, until they were confirmed by all nodes.
            pub commit_waits: Waits,
            /// Reads that this node could not answer alone.
            pub read_waits: Waits,
        }

        impl Counters {
            /// Sets all to zero, as `stats reset` does.
            pub fn reset(&self) {
                $(self.$name.reset();)*
                self.commit_waits.reset();
                self.read_waits.reset();
            }
        }

        /// The sum over all workers.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Totals {
            $(#[doc = $text] pub $name: u64,)*
            /// Changes, until they were confirmed by all nodes.
            pub commit_waits: WaitTotals,
            /// Reads that this node could not answer alone.
            pub read_waits: WaitTotals,
        }

        impl Totals {
            /// Adds one worker's counts.
            pub fn add(&mut self, counters: &Counters) {
                $(self.$name += counters.$name.get();)*
                self.commit_waits.add(&counters.commit_waits);
                self.read_waits.add(&counters.read_waits);
            }
        }
    };
}

counters! {
    cmd_get: "Keys asked for, without touching them.",
    cmd_meta: "Meta commands.",
    get_hits: "Keys found.",
    get_misses: "Keys not found.",
    cmd_set: "Storage commands.",
    cmd_flush: "flush_all commands.",
    cmd_touch: "touch, gat and gats, per key, and mg that has touched.",
    touch_hits: "Of those, found.",
    touch_misses: "Of those, not found.",
    delete_hits: "Deletes that found their key.",
    delete_misses: "Deletes that did not.",
    incr_hits: "incr that found its key.",
    incr_misses: "incr that did not.",
    decr_hits: "decr that found its key.",
    decr_misses: "decr that did not.",
    cas_hits: "cas that stored.",
    cas_misses: "cas that found no item.",
    cas_badval: "cas that found another unique.",
    store_too_large: "Values above the item limit.",
    store_no_memory: "Values that found no memory.",
    bytes_read: "Bytes from clients.",
    bytes_written: "Bytes to clients.",
    conn_yields: "Batches cut short to let other connections run.",
    total_connections: "Connections accepted.",
    rejected_connections: "Connections refused at the limit.",
    listen_disabled_num: "Times that accepting paused at the limit.",
    time_in_listen_disabled_us: "How long it paused, in microseconds.",
    idle_kicks: "Connections closed because they were idle.",
    auth_cmds: "Attempts to log in.",
    auth_errors: "Of those, with a wrong name or password.",
    write_timeouts: "Commands that the group did not confirm in time.",
    hold_timeouts: "Commands that this node could not answer in time.",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_bound_that_so_many_kept_and_never_above_the_longest() {
        let (one, two) = (Counters::default(), Counters::default());
        (0..50).for_each(|_| one.commit_waits.note(100));
        (0..49).for_each(|_| two.commit_waits.note(101));
        two.commit_waits.note(40_000_000);
        let mut totals = Totals::default();
        totals.add(&one);
        totals.add(&two);
        let waits = totals.commit_waits;
        assert_eq!((waits.count(), waits.max_us), (100, 40_000_000));
        assert_eq!(waits.sum_us, 50 * 100 + 49 * 101 + 40_000_000);
        assert_eq!([500, 510, 990, 991].map(|q| waits.quantile_us(q)), [100, 200, 200, 40_000_000]);
        one.read_waits.note(130);
        totals.add(&one);
        assert_eq!(totals.read_waits.quantile_us(500), 130, "the only one");
        assert_eq!(WaitTotals::default().quantile_us(990), 0);
    }

    #[test]
    fn totals_sum_over_workers_and_reset_clears() {
        let (one, two) = (Counters::default(), Counters::default());
        one.get_hits.add(2);
        two.get_hits.add(3);
        let mut totals = Totals::default();
        totals.add(&one);
        totals.add(&two);
        assert_eq!(totals.get_hits, 5);
        one.reset();
        assert_eq!(one.get_hits.get(), 0);
    }
}
