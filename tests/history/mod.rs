//! Histories of clients, and whether one memcached could have answered them: is every key
//! linearizable?
//!
//! A history says what each client asked, what it was answered, and when. It passes if for each
//! key the commands can be put in one order in which memcached gives just these answers, and in
//! which none comes before its invocation or after its answer. A command without an answer may
//! take effect at any later time, or never.
//!
//! Used by several test targets, each with `#[path = "../history/mod.rs"] mod history;`. It knows
//! nothing of nodes, sockets or clocks: times are numbers, and only their order counts.
#![allow(dead_code, reason = "each target uses what it needs")]

mod excerpt;
pub(crate) mod invariants;
mod item;
mod search;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::thread;

use bytes::Bytes;

pub(crate) use excerpt::Violation;
use search::Verdict;

/// Enough for a key with a hundred thousand operations.
const STACK_BYTES: usize = 256 << 20;

/// What a client asks of one item. Classic and meta commands that do the same are the same here.
///
/// Nothing ends by time: a touch and its like are taken for ones that keep the item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Command {
    Get,
    Set(Bytes),
    Add(Bytes),
    Replace(Bytes),
    Append(Bytes),
    Prepend(Bytes),
    /// Sets if the item is still the one that had this unique.
    Cas {
        unique: u64,
        value: Bytes,
    },
    Incr(u64),
    Decr(u64),
    Delete,
    Touch,
    GetAndTouch,
    /// Nobody asks for it: the store has let the item go, if there was one.
    Vanish,
    /// flush_all; it touches every key, whatever the operation's key.
    Flush,
}

/// What a client was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The item, and its CAS unique if that was asked for.
    Hit {
        value: Bytes,
        unique: Option<u64>,
    },
    /// Done; meta commands may tell the new item's CAS unique.
    Done {
        unique: Option<u64>,
    },
    /// There is no such item: END, EN, NOT_FOUND, NF.
    Miss,
    NotStored,
    Exists,
    Number(u64),
    NotNumeric,
}

impl Reply {
    /// The CAS unique that the client has learnt.
    pub(crate) fn unique(&self) -> Option<u64> {
        match self {
            Self::Hit { unique, .. } | Self::Done { unique } => *unique,
            _ => None,
        }
    }
}

/// A reply, and when it had come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) at: u64,
    pub(crate) reply: Reply,
}

/// One command of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) client: u32,
    pub(crate) key: String,
    pub(crate) command: Command,
    pub(crate) invoked: u64,
    /// `None` if the connection broke: it may take effect at any later time, or never.
    pub(crate) answer: Option<Answer>,
}

impl Operation {
    /// When it was over; one without an answer never is.
    pub(crate) fn returned(&self) -> u64 {
        self.answer.as_ref().map_or(u64::MAX, |answer| answer.at)
    }

    pub(crate) fn reply(&self) -> Option<&Reply> {
        self.answer.as_ref().map(|answer| &answer.reply)
    }

    /// Whether it certainly changed nothing.
    pub(crate) fn is_still(&self) -> bool {
        item::is_still(&self.command, self.reply())
    }
}

/// What reads have to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// What one memcached would: the whole history has one order.
    Linearizable,
    /// The changes have one order, and each read, taken alone, fits into such an order. So it is
    /// never older than what was confirmed before; but while a change is under way, one may show
    /// it and a later one not.
    EachAlone,
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) keys: usize,
    pub(crate) operations: usize,
    /// Steps of the search: how hard it was.
    pub(crate) steps: usize,
    /// Keys that are not linearizable, but fine as long as each read is taken alone.
    pub(crate) only_alone: usize,
    /// Keys on which the search gave up: nothing is known of them.
    pub(crate) undecided: usize,
}

/// All that the clients of one store have seen, in any order.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) operations: Vec<Operation>,
}

impl History {
    pub(crate) fn push(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// All that was stored was lost at some moment between these two: every node was dead. It
    /// is like a flush, and nobody may see what was there before.
    pub(crate) fn lost(&mut self, from: u64, to: u64) {
        self.push(Operation {
            client: u32::MAX,
            key: "*".into(),
            command: Command::Flush,
            invoked: from,
            answer: Some(Answer { at: to, reply: Reply::Done { unique: None } }),
        });
    }

    /// Where memory is short, an item may go at any time. So whoever finds none has seen it go, and
    /// an add that stores is a set; but nobody may see anything older.
    pub(crate) fn allow_evictions(&mut self) {
        for operation in &mut self.operations {
            let Some(answer) = &mut operation.answer else {
                if let Command::Add(value) = &operation.command {
                    operation.command = Command::Set(value.clone());
                }
                continue;
            };
            match (&operation.command, &answer.reply) {
                (Command::Add(value), Reply::Done { .. }) => {
                    operation.command = Command::Set(value.clone());
                }
                (Command::Add(_), _) => {}
                (_, Reply::Miss | Reply::NotStored) => {
                    operation.command = Command::Vanish;
                    answer.reply = Reply::Done { unique: None };
                }
                _ => {}
            }
        }
    }

    /// Whether every key is linearizable; all keys begin absent.
    pub(crate) fn check(&self) -> Result<Checked, Box<Violation>> {
        self.check_with(Reads::Linearizable)
    }

    /// Whether every key is as it should be; all keys begin absent.
    pub(crate) fn check_with(&self, reads: Reads) -> Result<Checked, Box<Violation>> {
        // The search goes as deep as a key has operations.
        let check = || {
            let mut checked = Checked::default();
            for (key, operations) in self.by_key() {
                check_key(key, &operations, reads, &mut checked)?;
            }
            Ok(checked)
        };
        thread::scope(|scope| {
            let builder = thread::Builder::new().stack_size(STACK_BYTES);
            let checker = builder.spawn_scoped(scope, check).expect("one more thread");
            checker.join().expect("the checker does not panic")
        })
    }

    /// The operations that concern each key, in the order of their invocation.
    pub(crate) fn by_key(&self) -> BTreeMap<&str, Vec<&Operation>> {
        let mut by_key: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
        let is_flush = |operation: &&Operation| operation.command == Command::Flush;
        for operation in self.operations.iter().filter(|operation| !is_flush(operation)) {
            by_key.entry(&operation.key).or_default().push(operation);
        }
        let flushes: Vec<&Operation> = self.operations.iter().filter(is_flush).collect();
        for operations in by_key.values_mut() {
            let begun = operations.iter().map(|operation| operation.invoked).min().unwrap_or(0);
            let ended = operations.iter().map(|operation| operation.returned()).max().unwrap_or(0);
            // Before the first and after the last it changes nothing.
            let matters = |flush: &&&Operation| flush.returned() >= begun && flush.invoked <= ended;
            operations.extend(flushes.iter().filter(matters));
            operations.sort_by_key(|operation| (operation.invoked, operation.returned()));
        }
        by_key
    }
}

fn check_key(
    key: &str,
    operations: &[&Operation],
    reads: Reads,
    checked: &mut Checked,
) -> Result<(), Box<Violation>> {
    checked.keys += 1;
    checked.operations += operations.len();
    match verdict(operations, checked) {
        Verdict::Linearizable => {}
        Verdict::GaveUp => checked.undecided += 1,
        Verdict::Impossible if reads == Reads::EachAlone => {
            check_each_alone(key, operations, checked)?;
            checked.only_alone += 1;
        }
        Verdict::Impossible => return Err(Box::new(excerpt::explain(key, operations))),
    }
    Ok(())
}

fn check_each_alone(
    key: &str,
    operations: &[&Operation],
    checked: &mut Checked,
) -> Result<(), Box<Violation>> {
    // What touches nothing because nothing is there may have been answered as a get is.
    let is_read = |operation: &&&Operation| match operation.command {
        Command::Get => true,
        Command::Touch | Command::GetAndTouch => operation.reply() == Some(&Reply::Miss),
        _ => false,
    };
    let changes: Vec<&Operation> = operations.iter().filter(|o| !is_read(o)).copied().collect();
    if verdict(&changes, checked) == Verdict::Impossible {
        return Err(Box::new(excerpt::explain(key, &changes)));
    }
    for read in operations.iter().filter(is_read) {
        let with_it = [&changes[..], &[*read]].concat();
        if verdict(&with_it, checked) == Verdict::Impossible {
            return Err(Box::new(excerpt::explain(key, &with_it)));
        }
    }
    Ok(())
}

fn verdict(operations: &[&Operation], checked: &mut Checked) -> Verdict {
    let found = search::search(operations);
    checked.steps += found.steps;
    found.verdict
}
