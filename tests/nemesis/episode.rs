//! A time in which a group was shaken, in microseconds, and how long what happens in it takes.

use std::ops::Range;
use std::thread::sleep;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

/// One fault, and what it took the group to be whole again.
#[derive(Clone, Debug)]
pub(crate) struct Episode<K> {
    pub(crate) kind: K,
    pub(crate) from_us: u64,
    /// When all were members again.
    pub(crate) to_us: u64,
    /// When every node was dead.
    pub(crate) lost_us: Option<(u64, u64)>,
}

/// A fault lasts: short ones are as likely as long ones.
pub(crate) fn last(rng: &mut StdRng, least: Duration, longest: Duration) {
    let (least, most) = (least.as_millis() as f64, longest.as_millis() as f64);
    let part: f64 = rng.random_range(0.0..1.0);
    sleep(Duration::from_millis((least * (most / least).max(1.0).powf(part)) as u64));
}

/// Clients work on, undisturbed by anything else.
pub(crate) fn wait(rng: &mut StdRng, range_ms: Range<u64>) {
    sleep(Duration::from_millis(rng.random_range(range_ms)));
}
