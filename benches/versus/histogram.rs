//! Latencies in logarithmic slots: constant memory, 1.6 % resolution, any percentile.

use std::time::Duration;

/// Every power of two is divided into 2^6 slots.
const SLOT_BITS: u32 = 6;
const SLOTS_PER_POWER: usize = 1 << SLOT_BITS;
/// Enough for any u64.
const SLOTS: usize = (64 - SLOT_BITS as usize + 1) * SLOTS_PER_POWER;

/// Counts of nanoseconds.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Vec<u32>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; SLOTS], total: 0 }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[slot_of(nanoseconds)] += 1;
        self.total += 1;
    }

    /// Adds those of another.
    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.total += other.total;
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The latency that this share of all, 0 to 1, did not exceed; in microseconds.
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (slot, &count) in self.counts.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank && seen > 0 {
                return middle_of(slot) / 1000.0;
            }
        }
        0.0
    }
}

/// The leading one and the six bits below it choose the slot; small numbers have their own.
fn slot_of(nanoseconds: u64) -> usize {
    let shift = nanoseconds.max(1).ilog2().saturating_sub(SLOT_BITS);
    shift as usize * SLOTS_PER_POWER + (nanoseconds >> shift) as usize
}

fn middle_of(slot: usize) -> f64 {
    if slot < 2 * SLOTS_PER_POWER {
        return slot as f64;
    }
    let shift = slot / SLOTS_PER_POWER - 1;
    let leading = slot - shift * SLOTS_PER_POWER;
    (leading as f64 + 0.5) * (shift as f64).exp2()
}
