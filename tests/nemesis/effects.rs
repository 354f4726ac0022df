//! What each kind of fault has done to clients and to the group, as a table.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::client::Notes;
use super::episode::Episode;
use super::faults::Kind;
use super::stalls::{answers, longest_gap};

/// What one kind of fault has done.
#[derive(Clone, Copy, Debug, Default)]
struct Effect {
    times: u32,
    /// Longest time, in microseconds, in which nobody's read was answered, on any node.
    read_stall_us: u64,
    /// The same for everything else.
    write_stall_us: u64,
    /// Longest time until all three were members again, the fault included.
    whole_us: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Effects(BTreeMap<Kind, Effect>);

impl Effects {
    /// Takes over what happened in one run; the stalls are told from when answers came.
    pub(crate) fn note(&mut self, episodes: &[Episode<Kind>], notes: &[Notes]) {
        let reads = answers(notes, |completion| completion.is_read);
        let writes = answers(notes, |completion| !completion.is_read);
        for &Episode { kind, from_us, to_us, .. } in episodes {
            let effect = self.0.entry(kind).or_default();
            effect.times += 1;
            effect.read_stall_us = effect.read_stall_us.max(longest_gap(&reads, from_us, to_us));
            effect.write_stall_us = effect.write_stall_us.max(longest_gap(&writes, from_us, to_us));
            effect.whole_us = effect.whole_us.max(to_us - from_us);
        }
    }

    /// The error names those that never came.
    pub(crate) fn hold_all(&self, kinds: &[Kind]) -> Result<(), String> {
        let never: Vec<&Kind> = kinds.iter().filter(|kind| !self.0.contains_key(kind)).collect();
        if never.is_empty() { Ok(()) } else { Err(format!("these faults never came: {never:?}")) }
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{:<12} {:>5} {:>16} {:>17} {:>17}\n",
            "fault", "times", "no read for ms", "no write for ms", "whole after ms"
        );
        for (kind, effect) in &self.0 {
            let [read, write, whole] =
                [effect.read_stall_us, effect.write_stall_us, effect.whole_us]
                    .map(|us| us as f64 / 1000.0);
            let (kind, times) = (format!("{kind:?}"), effect.times);
            // Writing into a string cannot fail.
            let _ =
                writeln!(table, "{kind:<12} {times:>5} {read:>16.0} {write:>17.0} {whole:>17.0}");
        }
        table
    }
}
