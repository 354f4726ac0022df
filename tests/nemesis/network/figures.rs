//! What each kind of fault has done to clients, by the size of the group, as a table.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::super::client::{Completion, Notes, Work};
use super::super::episode::Episode;
use super::super::stalls::{answers, longest_gap};
use super::faults::{Hit, Kind};

/// Longest times, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Stall {
    /// Nobody had an answer from any of the nodes that went on.
    all_us: u64,
    /// One client of one of them had none, though others may have.
    one_us: u64,
}

/// One for each of `STALLED`, and more.
#[derive(Clone, Copy, Debug, Default)]
struct Figure {
    times: u32,
    writes: usize,
    stalls: [Stall; 3],
    /// Until all were members again, the fault included.
    whole_us: u64,
}

/// Whose stalls are told: of all who write, of those who read what is being written, and of those
/// who read what nobody writes.
const STALLED: [Work; 3] = [Work::All, Work::Reads, Work::SettledReads];

/// By kind and number of nodes.
#[derive(Debug, Default)]
pub(crate) struct Figures(BTreeMap<(Kind, usize), Figure>);

impl Figures {
    /// Takes over what happened in one round of a group of this size.
    pub(crate) fn note(&mut self, nodes: usize, episodes: &[Episode<Hit>], notes: &[Notes]) {
        for episode in episodes {
            let &Episode { kind: Hit { kind, ref outside }, from_us, to_us, .. } = episode;
            let figure = self.0.entry((kind, nodes)).or_default();
            figure.times += 1;
            figure.whole_us = figure.whole_us.max(to_us - from_us);
            for (work, stall) in STALLED.into_iter().zip(&mut figure.stalls) {
                stall.note(work, notes, outside, (from_us, to_us));
            }
            let writes = answers(notes, |c| !c.is_read && !outside.contains(&c.node));
            figure.writes += writes.iter().filter(|at| (from_us..to_us).contains(at)).count();
        }
    }

    /// The error names those that never came.
    pub(crate) fn hold_all(&self, wanted: &[(Kind, usize)]) -> Result<(), String> {
        let never: Vec<_> = wanted.iter().filter(|wanted| !self.0.contains_key(wanted)).collect();
        if never.is_empty() { Ok(()) } else { Err(format!("these faults never came: {never:?}")) }
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "longest time in ms in which nobody, and in which one client, had an answer from nodes that \
             went on\n{:<15} {:>5} {:>5} {:>7} {:>13} {:>13} {:>13} {:>9}\n",
            "fault",
            "nodes",
            "times",
            "writes",
            "write",
            "read written",
            "read settled",
            "whole ms"
        );
        let ms = |us: u64| (us as f64 / 1000.0).round();
        for ((kind, nodes), Figure { times, writes, stalls, whole_us }) in &self.0 {
            let kind = format!("{kind:?}");
            // Writing into a string cannot fail.
            let _ = write!(table, "{kind:<15} {nodes:>5} {times:>5} {writes:>7}");
            for Stall { all_us, one_us } in stalls {
                let _ = write!(table, " {:>13}", format!("{}, {}", ms(*all_us), ms(*one_us)));
            }
            let _ = writeln!(table, " {:>9}", ms(*whole_us));
        }
        table
    }
}

impl Stall {
    fn note(&mut self, work: Work, notes: &[Notes], outside: &[usize], time: (u64, u64)) {
        let (from_us, to_us) = time;
        let is_inside = |node: usize| !outside.contains(&node);
        // Whoever does everything counts by what is no read.
        let is_counted = |c: &Completion| is_inside(c.node) && (work != Work::All || !c.is_read);
        let workers: Vec<&Notes> = notes.iter().filter(|notes| notes.habit.work == work).collect();
        let all = answers(workers.iter().copied(), is_counted);
        self.all_us = self.all_us.max(longest_gap(&all, from_us, to_us));
        for one in workers.into_iter().filter(|one| one.habit.pinned.is_some_and(is_inside)) {
            self.one_us = self.one_us.max(longest_gap(&answers([one], is_counted), from_us, to_us));
        }
    }
}
