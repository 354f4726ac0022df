//! For how long nobody got an answer.

use super::client::{Completion, Notes};

/// When the wanted commands were answered, to whomever, in order.
pub(crate) fn answers<'a>(
    notes: impl IntoIterator<Item = &'a Notes>,
    is_wanted: impl Fn(&Completion) -> bool,
) -> Vec<u64> {
    let all = notes.into_iter().flat_map(|notes| &notes.completions);
    let mut times: Vec<u64> = all.filter(|c| is_wanted(c)).map(|c| c.at).collect();
    times.sort_unstable();
    times
}

/// The longest time between two of these that touches the time between these two.
pub(crate) fn longest_gap(times: &[u64], from_us: u64, to_us: u64) -> u64 {
    let touches = |pair: &&[u64]| pair[1] >= from_us && pair[0] <= to_us;
    times.windows(2).filter(touches).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}
