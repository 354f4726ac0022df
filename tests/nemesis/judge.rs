//! What the clients of one run have seen, judged: is every key linearizable, and how long did
//! nobody get an answer?

use std::collections::BTreeMap;
use std::fmt::Write;

use super::client::{Completion, Notes};
use super::faults::{Episode, Kind};
use super::history::invariants::Applied;
use super::history::{Checked, History, Reads, invariants};

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

/// What all runs together have shown.
#[derive(Debug, Default)]
pub(crate) struct Report {
    effects: BTreeMap<Kind, Effect>,
    checked: Checked,
    applied: Applied,
    unknown: u64,
    refusals: BTreeMap<String, u64>,
}

impl Report {
    /// Takes over what happened in one run; the stalls are told from when answers came.
    pub(crate) fn note(&mut self, episodes: &[Episode], notes: &[Notes]) {
        let reads = completions(notes, |completion| completion.is_read);
        let writes = completions(notes, |completion| !completion.is_read);
        for episode in episodes {
            let effect = self.effects.entry(episode.kind).or_default();
            effect.times += 1;
            effect.read_stall_us = effect.read_stall_us.max(longest_gap(&reads, episode));
            effect.write_stall_us = effect.write_stall_us.max(longest_gap(&writes, episode));
            effect.whole_us = effect.whole_us.max(episode.to_us - episode.from_us);
        }
        for notes in notes {
            self.unknown += notes.unknown;
            for (text, times) in &notes.refusals {
                *self.refusals.entry(text.clone()).or_default() += times;
            }
        }
    }

    /// Judges the history of one run.
    pub(crate) fn judge(
        &mut self,
        history: &History,
        reads: Reads,
        episodes: &[Episode],
    ) -> Result<(), String> {
        let checked = history.check_with(reads).map_err(|violation| {
            let at = violation.culprit.returned();
            let last = episodes.iter().rev().find(|episode| episode.from_us <= at);
            let after = last.map(|last| format!("{:?} from {}", last.kind, last.from_us));
            format!("{violation}the last fault before it: {}", after.unwrap_or("none".into()))
        })?;
        self.checked.keys += checked.keys;
        self.checked.operations += checked.operations;
        self.checked.steps += checked.steps;
        self.checked.only_alone += checked.only_alone;
        self.checked.undecided += checked.undecided;
        let applied = invariants::check(history)?;
        self.applied.deletions += applied.deletions;
        self.applied.counts += applied.counts;
        self.applied.wins += applied.wins;
        Ok(())
    }

    /// Whether all that should have been tested was; the error tells what was not.
    pub(crate) fn is_complete(&self, kinds: &[Kind]) -> Result<(), String> {
        let never: Vec<&Kind> = kinds.iter().filter(|k| !self.effects.contains_key(k)).collect();
        if !never.is_empty() {
            return Err(format!("these faults never came: {never:?}"));
        }
        let Applied { deletions, counts, wins } = self.applied;
        if [deletions, counts, wins].contains(&0) {
            return Err(format!("a rule was never applied: {:?}", self.applied));
        }
        // A node may refuse, in memcached's words for it; anything else is a mistake of ours.
        let odd = self.refusals.keys().find(|text| !text.starts_with("SERVER_ERROR"));
        if let Some(odd) = odd {
            return Err(format!("a client was told {odd:?}"));
        }
        if self.checked.undecided * 100 > self.checked.keys {
            return Err(format!("{} keys were too hard to judge", self.checked.undecided));
        }
        Ok(())
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{:<12} {:>5} {:>16} {:>17} {:>17}\n",
            "fault", "times", "no read for ms", "no write for ms", "whole after ms"
        );
        for (kind, effect) in &self.effects {
            let [read, write, whole] =
                [effect.read_stall_us, effect.write_stall_us, effect.whole_us]
                    .map(|us| us as f64 / 1000.0);
            let (kind, times) = (format!("{kind:?}"), effect.times);
            // Writing into a string cannot fail.
            let _ =
                writeln!(table, "{kind:<12} {times:>5} {read:>16.0} {write:>17.0} {whole:>17.0}");
        }
        let Checked { keys, operations, steps, only_alone, undecided } = self.checked;
        let Applied { deletions, counts, wins } = self.applied;
        let _ = writeln!(
            table,
            "{operations} operations on {keys} keys judged in {steps} steps; {} had an unknown outcome\n\
             {only_alone} keys are linearizable only if each read is taken alone, {undecided} are undecided\n\
             {deletions} reads after deletions, {counts} counts, {wins} winners by cas; refusals: {:?}",
            self.unknown, self.refusals
        );
        table
    }
}

fn completions(notes: &[Notes], is_wanted: impl Fn(&Completion) -> bool) -> Vec<u64> {
    let all = notes.iter().flat_map(|notes| &notes.completions);
    let mut times: Vec<u64> = all.filter(|c| is_wanted(c)).map(|c| c.at).collect();
    times.sort_unstable();
    times
}

/// The longest time without an answer that touches the episode.
fn longest_gap(times: &[u64], episode: &Episode) -> u64 {
    let touches = |pair: &&[u64]| pair[1] >= episode.from_us && pair[0] <= episode.to_us;
    times.windows(2).filter(touches).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}
