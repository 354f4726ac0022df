//! What users, and those who look at each page once, want from a cache: the same for each server.
//!
//! Sessions are used by rank: some much more often than others. Now and then a user logs out, and
//! another logs in and takes that rank. Knows no server: it says which key is used when, and is
//! told nothing back.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How a trace is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// Of 1000 uses, those of keys that are used once.
    pub(crate) scans: u32,
}

pub(crate) const SHAPES: [Shape; 3] = [
    Shape { name: "users alone", scans: 0 },
    Shape { name: "and scanners, a fifth", scans: 200 },
    Shape { name: "and scanners, half", scans: 500 },
];

/// Users at any one time: with sessions of about 6 KiB three times what the memory holds.
const USERS: usize = 60_000;
/// Exponent of the distribution of popularity.
const SKEW: f64 = 0.9;
/// Of 1000 uses of sessions, those that end one.
const LOGOUTS: u32 = 10;
/// Of 1000 uses of sessions, those that store it again.
const SAVES: u32 = 100;
/// What an unused session lives, in seconds of real time.
pub(crate) const TTL_S: u32 = 15;

/// One use of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Reads and renews a session; stores it if it is not there.
    Read(usize),
    /// The same, and stores it in any case.
    Save(usize),
    /// Deletes it.
    Logout(usize),
    /// Reads a key that was never there, and stores it.
    Scan(usize),
}

impl Use {
    /// Its key; scans have theirs apart.
    pub(crate) fn key(self) -> String {
        match self {
            Self::Read(id) | Self::Save(id) | Self::Logout(id) => format!("session:{id:024}"),
            Self::Scan(id) => format!("page:{id:027}"),
        }
    }

    /// Bytes of its value: 0.5 to 12 KiB, always the same for a key.
    pub(crate) fn len(self) -> usize {
        let (Self::Read(id) | Self::Save(id) | Self::Logout(id) | Self::Scan(id)) = self;
        StdRng::seed_from_u64(id as u64).random_range(512..=12 << 10)
    }
}

/// An endless sequence of uses.
#[derive(Debug)]
pub(crate) struct Trace {
    shape: Shape,
    rng: StdRng,
    /// Sums of the popularities up to each rank.
    popularity: Vec<f64>,
    /// The session at each rank.
    sessions: Vec<usize>,
    next_id: usize,
}

impl Trace {
    pub(crate) fn new(shape: Shape, seed: u64) -> Self {
        let mut sum = 0.0;
        let weigh = |rank: usize| {
            sum += 1.0 / (rank as f64).powf(SKEW);
            sum
        };
        Self {
            shape,
            rng: StdRng::seed_from_u64(seed),
            popularity: (1..=USERS).map(weigh).collect(),
            sessions: (0..USERS).collect(),
            next_id: USERS,
        }
    }

    pub(crate) fn next(&mut self) -> Use {
        if self.rng.random_range(0..1000) < self.shape.scans {
            return Use::Scan(self.new_id());
        }
        let all = self.popularity[USERS - 1];
        let at = self.rng.random_range(0.0..all);
        let rank = self.popularity.partition_point(|&sum| sum <= at).min(USERS - 1);
        let id = self.sessions[rank];
        let chance = self.rng.random_range(0..1000);
        if chance < LOGOUTS {
            self.sessions[rank] = self.new_id();
            Use::Logout(id)
        } else if chance < LOGOUTS + SAVES {
            Use::Save(id)
        } else {
            Use::Read(id)
        }
    }

    fn new_id(&mut self) -> usize {
        self.next_id += 1;
        self.next_id
    }
}

/// What a cache without bounds would have.
#[derive(Debug, Default)]
pub(crate) struct Unbounded(std::collections::HashMap<usize, Duration>);

impl Unbounded {
    /// Whether a session was still there, and that it is now.
    pub(crate) fn uses(&mut self, id: usize, at: Duration) -> bool {
        let end = at + Duration::from_secs(u64::from(TTL_S));
        self.0.insert(id, end).is_some_and(|end| end > at)
    }

    pub(crate) fn ends(&mut self, id: usize) {
        self.0.remove(&id);
    }
}
