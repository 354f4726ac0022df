//! The log of views, as the nodes see it: whatever a majority agrees on, in one order; offers and
//! news of it get lost, late and repeated.

use sessiond::replication::{View, may_follow};

use super::world::name;

/// One line of views per founding; each host follows one of them.
pub(crate) struct Logs {
    lines: Vec<Line>,
    /// The line that each host follows.
    follows: Vec<usize>,
}

struct Line {
    voters: Vec<usize>,
    present: Option<View>,
}

impl Logs {
    /// The first so many hosts vote.
    pub(crate) fn new(voters: usize, hosts: usize) -> Self {
        Self {
            lines: vec![Line { voters: (0..voters).collect(), present: None }],
            follows: vec![0; hosts],
        }
    }

    fn has_majority(&self, line: usize, reaches: impl Fn(usize) -> bool) -> bool {
        let voters = &self.lines[line].voters;
        2 * voters.iter().filter(|&&voter| reaches(voter)).count() > voters.len()
    }

    /// A host offers a view; whether it is agreed on. `obeys` stands for the rule.
    pub(crate) fn propose(
        &mut self,
        host: usize,
        next: View,
        obeys_half: bool,
        reaches: impl Fn(usize) -> bool,
    ) -> bool {
        let line = self.follows[host];
        if !self.has_majority(line, reaches) {
            return false;
        }
        let present = self.lines[line].present.as_ref();
        let follows = may_follow(present, &next);
        let is_next = present
            .is_some_and(|present| next.follows == present.epoch && next.line == present.line);
        if !(follows || (!obeys_half && is_next)) {
            return false;
        }
        self.lines[line].present = Some(next);
        true
    }

    /// A host begins a new line.
    pub(crate) fn found(&mut self, host: usize, view: View) {
        self.lines.push(Line { voters: vec![host], present: Some(view) });
        self.follows[host] = self.lines.len() - 1;
    }

    /// What a host that reaches these others learns.
    pub(crate) fn learn(&mut self, host: usize, reaches: impl Fn(usize) -> bool) -> Option<View> {
        // Whoever meets a newer line joins it, if its majority is there to take it in.
        let newest = (0..self.follows.len()).filter(|&other| reaches(other));
        let newest = newest.map(|other| self.follows[other]).max()?;
        if newest > self.follows[host] && self.has_majority(newest, &reaches) {
            self.follows[host] = newest;
        }
        let line = self.follows[host];
        self.change_voters(line, host, &reaches);
        let present = self.lines[line].present.clone();
        present.filter(|_| self.has_majority(line, reaches))
    }

    /// Whoever is a node votes, and nobody else: one more or one less at a time, with a majority of
    /// those before and of those after.
    fn change_voters(&mut self, line: usize, host: usize, reaches: impl Fn(usize) -> bool) {
        let Some(present) = &self.lines[line].present else { return };
        let is_node = |host: usize| present.nodes.contains_key(&name(host));
        let before = self.lines[line].voters.clone();
        let mut after = before.clone();
        if let Some(gone) = before.iter().position(|&voter| !is_node(voter)) {
            after.remove(gone);
        } else if is_node(host) && !before.contains(&host) {
            after.push(host);
        }
        let is_majority = |voters: &[usize]| {
            2 * voters.iter().filter(|&&voter| reaches(voter)).count() > voters.len()
        };
        if after != before && is_majority(&before) && is_majority(&after) {
            self.lines[line].voters = after;
        }
    }

    /// Whether the log that this host follows counts its vote.
    pub(crate) fn is_seated(&self, host: usize) -> bool {
        self.lines[self.follows[host]].voters.contains(&host)
    }

    /// Whom the log that this host follows counts.
    pub(crate) fn voters_known_to(&self, host: usize) -> Vec<Box<str>> {
        self.lines[self.follows[host]].voters.iter().map(|&voter| name(voter)).collect()
    }

    fn newest_line(&self) -> usize {
        self.lines.len() - 1
    }

    /// Whether the newest log counts the vote of that host.
    pub(crate) fn has_vote(&self, host: usize) -> bool {
        self.lines[self.newest_line()].voters.contains(&host)
    }

    /// Whether these are a majority of those that vote in the newest log.
    pub(crate) fn has_majority_of(&self, are: impl Fn(usize) -> bool) -> bool {
        self.has_majority(self.newest_line(), are)
    }

    /// The newest view of the newest line.
    pub(crate) fn newest(&self) -> Option<&View> {
        self.lines.iter().rev().find_map(|line| line.present.as_ref())
    }
}
