//! What each kind of fault has done to clients, by the size of the group, as a table.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::super::client::Notes;
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

#[derive(Clone, Copy, Debug, Default)]
struct Figure {
    times: u32,
    writes: usize,
    read: Stall,
    write: Stall,
    /// Until all were members again, the fault included.
    whole_us: u64,
}

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
            figure.read.note(notes, outside, true, (from_us, to_us));
            figure.write.note(notes, outside, false, (from_us, to_us));
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
            "{:<15} {:>5} {:>5} {:>7} {:>22} {:>22} {:>9}\n{:<35} {:>22} {:>22} {:>9}\n",
            "fault",
            "nodes",
            "times",
            "writes",
            "no write for ms",
            "no read for ms",
            "whole",
            "",
            "any, one client",
            "any, one client",
            "after ms"
        );
        let ms = |us: u64| (us as f64 / 1000.0).round();
        for ((kind, nodes), Figure { times, writes, read, write, whole_us }) in &self.0 {
            let both = |stall: &Stall| format!("{}, {}", ms(stall.all_us), ms(stall.one_us));
            let kind = format!("{kind:?}");
            // Writing into a string cannot fail.
            let _ = writeln!(
                table,
                "{kind:<15} {nodes:>5} {times:>5} {writes:>7} {:>22} {:>22} {:>9}",
                both(write),
                both(read),
                ms(*whole_us)
            );
        }
        table
    }
}

impl Stall {
    fn note(&mut self, notes: &[Notes], outside: &[usize], is_read: bool, time: (u64, u64)) {
        let (from_us, to_us) = time;
        let is_inside = |node: usize| !outside.contains(&node);
        let all = answers(notes, |c| c.is_read == is_read && is_inside(c.node));
        self.all_us = self.all_us.max(longest_gap(&all, from_us, to_us));
        let is_measured = |notes: &&Notes| {
            let habit = notes.habit;
            habit.pinned.is_some_and(is_inside) && habit.only_reads == is_read
        };
        for notes in notes.iter().filter(is_measured) {
            let own = answers([notes], |c| c.is_read == is_read);
            self.one_us = self.one_us.max(longest_gap(&own, from_us, to_us));
        }
    }
}
