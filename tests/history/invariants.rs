//! Three rules that follow from linearizability, asked directly: quick for any length of history,
//! and a broken one names itself.

use std::collections::HashMap;

use super::{Command, History, Operation, Reply};

/// How often each rule was applied; a zero means that the history could not break it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Deletions and flushes that a later answer could have contradicted.
    pub(crate) deletions: usize,
    /// Values of counters.
    pub(crate) counts: usize,
    /// Uniques with which somebody won.
    pub(crate) wins: usize,
}

/// Applies all three to every key.
pub(crate) fn check(history: &History) -> Result<Applied, String> {
    let mut applied = Applied::default();
    for (_, operations) in history.by_key() {
        applied.deletions += what_is_deleted_stays_deleted(&operations)?;
        applied.counts += counters_count_what_was_confirmed(&operations)?;
        applied.wins += one_wins_with_a_unique(&operations)?;
    }
    Ok(applied)
}

/// After a confirmed deletion everybody misses, until somebody who was not done by then stores.
fn what_is_deleted_stays_deleted(operations: &[&Operation]) -> Result<usize, String> {
    let mut applied = 0;
    let is_deletion = |operation: &&&Operation| {
        matches!(operation.command, Command::Delete | Command::Flush) && operation.answer.is_some()
    };
    for deletion in operations.iter().filter(is_deletion) {
        for read in operations.iter().filter(|read| read.invoked > deletion.returned()) {
            let Some(Reply::Hit { .. }) = read.reply() else { continue };
            applied += 1;
            let may_revive = |store: &&&Operation| {
                may_create(store)
                    && store.returned() >= deletion.invoked
                    && store.invoked <= read.returned()
            };
            if !operations.iter().any(|store| may_revive(&store)) {
                return Err(format!("deleted, and back again:\n  {deletion}\n  {read}"));
            }
        }
    }
    Ok(applied)
}

fn may_create(operation: &Operation) -> bool {
    matches!(operation.command, Command::Set(_) | Command::Add(_) | Command::Cas { .. })
        && matches!(operation.reply(), None | Some(Reply::Done { .. }))
}

/// A key that was only added and counted up shows what was confirmed before, and at most what was
/// begun by then; until it may have been flushed.
fn counters_count_what_was_confirmed(operations: &[&Operation]) -> Result<usize, String> {
    let Some(start) = start_of_a_counter(operations) else {
        return Ok(0);
    };
    let is_flush = |operation: &&&Operation| operation.command == Command::Flush;
    let flushed = operations.iter().filter(is_flush).map(|flush| flush.invoked).min();
    let mut applied = 0;
    for shown in operations {
        if flushed.is_some_and(|flushed| shown.returned() >= flushed) {
            continue;
        }
        let value = match shown.reply() {
            Some(Reply::Hit { value, .. }) => {
                std::str::from_utf8(value).ok().and_then(|text| text.trim_end().parse().ok())
            }
            Some(Reply::Number(number)) => Some(*number),
            _ => continue,
        };
        let (mut least, mut most) = (start, start);
        for count in operations {
            let Command::Incr(by) = count.command else { continue };
            match count.reply() {
                Some(Reply::Number(_)) if count.returned() < shown.invoked || count == shown => {
                    least += by;
                    most += by;
                }
                None | Some(Reply::Number(_)) if count.invoked <= shown.returned() => most += by,
                _ => {}
            }
        }
        applied += 1;
        if !value.is_some_and(|value| (least..=most).contains(&value)) {
            return Err(format!("a counter must show {least} to {most}:\n  {shown}"));
        }
    }
    Ok(applied)
}

/// Where the counter began; `None` if the key was not used as a counter only.
fn start_of_a_counter(operations: &[&Operation]) -> Option<u64> {
    let mut starts = operations.iter().filter_map(|operation| match &operation.command {
        Command::Add(value) => Some(value),
        _ => None,
    });
    let start = starts.next()?;
    let is_counting = |operation: &&Operation| match &operation.command {
        Command::Add(value) => value == start,
        command => matches!(
            command,
            Command::Get
                | Command::Touch
                | Command::GetAndTouch
                | Command::Incr(_)
                | Command::Flush
                | Command::Vanish
        ),
    };
    operations.iter().all(is_counting).then_some(())?;
    std::str::from_utf8(start).ok()?.parse().ok()
}

/// Of all who store with the same unique, one at most is told that it did.
fn one_wins_with_a_unique(operations: &[&Operation]) -> Result<usize, String> {
    let mut winners: HashMap<u64, &Operation> = HashMap::new();
    for operation in operations {
        let Command::Cas { unique, .. } = operation.command else { continue };
        let Some(Reply::Done { .. }) = operation.reply() else { continue };
        if let Some(other) = winners.insert(unique, operation) {
            return Err(format!("two won with the same unique:\n  {other}\n  {operation}"));
        }
    }
    Ok(winners.len())
}
