//! What the clients of one run have seen, judged: is every key linearizable?

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::client::Notes;
use super::episode::Episode;
use super::history::invariants::Applied;
use super::history::{Checked, History, Reads, invariants};

/// What all runs together have shown.
#[derive(Debug, Default)]
pub(crate) struct Report {
    checked: Checked,
    applied: Applied,
    unknown: u64,
    refusals: BTreeMap<String, u64>,
}

impl Report {
    /// Takes over what clients were not told, or told in words that no item says.
    pub(crate) fn note(&mut self, notes: &[Notes]) {
        for notes in notes {
            self.unknown += notes.unknown;
            for (text, times) in &notes.refusals {
                *self.refusals.entry(text.clone()).or_default() += times;
            }
        }
    }

    /// Judges the history of one run.
    pub(crate) fn judge<K: Debug>(
        &mut self,
        history: &History,
        reads: Reads,
        episodes: &[Episode<K>],
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
    pub(crate) fn is_complete(&self) -> Result<(), String> {
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
    pub(crate) fn summary(&self) -> String {
        let Checked { keys, operations, steps, only_alone, undecided } = self.checked;
        let Applied { deletions, counts, wins } = self.applied;
        format!(
            "{operations} operations on {keys} keys judged in {steps} steps; {} had an unknown outcome\n\
             {only_alone} keys are linearizable only if each read is taken alone, {undecided} are undecided\n\
             {deletions} reads after deletions, {counts} counts, {wins} winners by cas; refusals: {:?}",
            self.unknown, self.refusals
        )
    }
}
