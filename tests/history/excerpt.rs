//! Why a history is impossible, short enough to be read.
//!
//! A beginning of a linearizable history is linearizable, so there is a first answer with which
//! it stops being so; and what changed nothing and is not needed for the contradiction is left out.

use std::fmt;

use super::search::{Verdict, search};
use super::{Operation, Reply};

/// Operations before the culprit that are shown.
const SHOWN_MAX: usize = 12;
/// The same question is asked again for each operation that may be left out.
const STEPS_MAX: usize = 20_000;
/// Bytes of a value that are shown.
const VALUE_MAX: usize = 48;

/// A key that is not linearizable.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) key: String,
    /// The operation whose answer no order can explain.
    pub(crate) culprit: Operation,
    /// What it contradicts, in the order of invocation, the culprit among it.
    pub(crate) excerpt: Vec<Operation>,
    /// Earlier operations that are not shown.
    pub(crate) left_out: usize,
}

/// Finds the culprit and what it contradicts.
pub(super) fn explain(key: &str, operations: &[&Operation]) -> Violation {
    let mut ends: Vec<u64> = operations
        .iter()
        .filter(|operation| operation.answer.is_some())
        .map(|o| o.returned())
        .collect();
    ends.sort_unstable();
    let is_possible = |end: &u64| {
        let until = until(operations, *end);
        let until: Vec<&Operation> = until.iter().collect();
        search(&until).verdict != Verdict::Impossible
    };
    let first = ends.partition_point(is_possible).min(ends.len() - 1);
    let mut kept = until(operations, ends[first]);
    let culprit = kept.iter().find(|operation| operation.returned() == ends[first]);
    let culprit = culprit.expect("somebody was answered then").clone();
    leave_out_what_is_not_needed(&mut kept, &culprit);
    kept.retain(|operation| operation.answer.is_some() || !operation.is_still());
    let left_out = kept.len().saturating_sub(SHOWN_MAX);
    let excerpt = kept.split_off(left_out);
    Violation { key: key.into(), culprit, excerpt, left_out }
}

/// The history as it stood at a moment.
fn until(operations: &[&Operation], end: u64) -> Vec<Operation> {
    let mut until: Vec<Operation> = operations
        .iter()
        .filter(|operation| operation.invoked <= end)
        .map(|&operation| operation.clone())
        .collect();
    for operation in &mut until {
        operation.answer.take_if(|answer| answer.at > end);
    }
    until
}

/// Without what changed nothing, more is possible, never less: what is impossible then is the
/// core of it.
fn leave_out_what_is_not_needed(kept: &mut Vec<Operation>, culprit: &Operation) {
    let mut index = 0;
    while index < kept.len() {
        if kept[index] == *culprit || !kept[index].is_still() {
            index += 1;
            continue;
        }
        let candidate = kept.remove(index);
        let rest: Vec<&Operation> = kept.iter().collect();
        let found = search(&rest);
        if found.verdict != Verdict::Impossible {
            kept.insert(index, candidate);
            index += 1;
        }
        if found.steps > STEPS_MAX {
            return;
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} is not linearizable; no order explains the line with >>:", self.key)?;
        if self.left_out > 0 {
            writeln!(f, "   ({} earlier operations)", self.left_out)?;
        }
        for operation in &self.excerpt {
            let mark = if *operation == self.culprit { ">>" } else { "  " };
            writeln!(f, "{mark} {operation}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, key, command, invoked, answer } = self;
        let end = answer.as_ref().map_or("?".into(), |answer| answer.at.to_string());
        write!(f, "{invoked:>10}..{end:<10} client {client}: {} {key}", Said(command))?;
        match answer {
            Some(answer) => write!(f, " -> {}", answer.reply),
            None => write!(f, " -> unknown"),
        }
    }
}

struct Said<'a>(&'a super::Command);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use super::Command::*;
        match self.0 {
            Get => write!(f, "get"),
            Set(value) => write!(f, "set {}", Value(value)),
            Add(value) => write!(f, "add {}", Value(value)),
            Replace(value) => write!(f, "replace {}", Value(value)),
            Append(value) => write!(f, "append {}", Value(value)),
            Prepend(value) => write!(f, "prepend {}", Value(value)),
            Cas { unique, value } => write!(f, "cas {unique} {}", Value(value)),
            Incr(by) => write!(f, "incr {by}"),
            Decr(by) => write!(f, "decr {by}"),
            Delete => write!(f, "delete"),
            Touch => write!(f, "touch"),
            GetAndTouch => write!(f, "gat"),
            Vanish => write!(f, "(gone)"),
            Flush => write!(f, "flush_all"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit { value, .. } => write!(f, "{}", Value(value))?,
            Self::Done { .. } => write!(f, "done")?,
            Self::Miss => write!(f, "not there")?,
            Self::NotStored => write!(f, "not stored")?,
            Self::Exists => write!(f, "changed since")?,
            Self::Number(number) => write!(f, "{number}")?,
            Self::NotNumeric => write!(f, "not a number")?,
        }
        match self.unique() {
            Some(unique) => write!(f, ", unique {unique}"),
            None => Ok(()),
        }
    }
}

struct Value<'a>(&'a [u8]);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(VALUE_MAX)];
        let more = if shown.len() < self.0.len() { ".." } else { "" };
        write!(f, "\"{}\"{more}", shown.escape_ascii())
    }
}
