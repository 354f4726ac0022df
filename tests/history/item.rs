//! One memcached item, as memcached's protocol.txt has it: what each command does to it, and
//! whether it can have given a reply.
//!
//! A CAS unique is opaque. It is known from the first reply that shows it, and belongs to one
//! stored value only.

use bytes::Bytes;

use super::{Command, Reply};

/// The state of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Item(Option<Stored>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stored {
    value: Bytes,
    /// `None` until a reply shows it.
    unique: Option<u64>,
}

/// Whether this command certainly changed nothing.
pub(super) fn is_still(command: &Command, reply: Option<&Reply>) -> bool {
    match (command, reply) {
        (Command::Get | Command::Touch | Command::GetAndTouch, _) => true,
        (Command::Flush | Command::Vanish, _) => false,
        (_, Some(Reply::Miss | Reply::NotStored | Reply::Exists | Reply::NotNumeric)) => true,
        _ => false,
    }
}

impl Item {
    /// The state after this command, if it can have given this reply in this state. Without a
    /// reply: the state after it, if it changes anything.
    ///
    /// `is_known` tells whether an earlier reply has shown a unique; one that was shown belongs to
    /// an item that was stored by then.
    pub(super) fn after(
        &self,
        command: &Command,
        reply: Option<&Reply>,
        is_known: impl Fn(u64) -> bool,
    ) -> Option<Self> {
        match reply {
            Some(reply) => self.answered(command, reply, is_known),
            None => self.changed(command, is_known),
        }
    }

    fn answered(
        &self,
        command: &Command,
        reply: &Reply,
        is_known: impl Fn(u64) -> bool,
    ) -> Option<Self> {
        match (command, reply) {
            (Command::Get | Command::GetAndTouch, Reply::Hit { value, unique }) => {
                let stored = self.0.as_ref().filter(|stored| stored.value == *value)?;
                stored.showing(*unique, is_known)
            }
            (Command::Touch, Reply::Done { .. }) => self.0.is_some().then(|| self.clone()),
            (
                Command::Get
                | Command::GetAndTouch
                | Command::Touch
                | Command::Delete
                | Command::Incr(_)
                | Command::Decr(_)
                | Command::Cas { .. },
                Reply::Miss,
            ) => self.0.is_none().then(Self::default),
            (
                Command::Replace(_) | Command::Append(_) | Command::Prepend(_),
                Reply::NotStored | Reply::Miss,
            ) => self.0.is_none().then(Self::default),
            (Command::Add(_), Reply::NotStored) => self.0.is_some().then(|| self.clone()),
            (Command::Cas { unique, .. }, Reply::Exists) => {
                let stored = self.0.as_ref()?;
                (stored.unique != Some(*unique)).then(|| self.clone())
            }
            (Command::Incr(_) | Command::Decr(_), Reply::NotNumeric) => {
                let stored = self.0.as_ref()?;
                number(&stored.value).is_none().then(|| self.clone())
            }
            (Command::Incr(_) | Command::Decr(_), Reply::Number(shown)) => {
                let after = self.changed(command, is_known)?;
                let stored = after.0.as_ref()?;
                (number(&stored.value) == Some(*shown)).then_some(after)
            }
            (Command::Delete, Reply::Done { .. }) => self.0.is_some().then(Self::default),
            (Command::Flush | Command::Vanish, Reply::Done { .. }) => Some(Self::default()),
            (
                Command::Set(_)
                | Command::Add(_)
                | Command::Replace(_)
                | Command::Append(_)
                | Command::Prepend(_)
                | Command::Cas { .. },
                Reply::Done { unique },
            ) => self.changed(command, &is_known)?.0?.showing(*unique, is_known),
            _ => None,
        }
    }

    /// The state after a command that takes effect; `None` if in this state it has none.
    fn changed(&self, command: &Command, is_known: impl Fn(u64) -> bool) -> Option<Self> {
        let stored = self.0.as_ref();
        match command {
            Command::Get | Command::Touch | Command::GetAndTouch => None,
            Command::Set(value) => Some(Self::of(value.clone())),
            Command::Add(value) => stored.is_none().then(|| Self::of(value.clone())),
            Command::Replace(value) => stored.map(|_| Self::of(value.clone())),
            Command::Append(tail) => stored.map(|stored| Self::joined(&stored.value, tail)),
            Command::Prepend(head) => stored.map(|stored| Self::joined(head, &stored.value)),
            Command::Cas { unique, value } => {
                let is_same = match stored?.unique {
                    Some(present) => present == *unique,
                    // Not seen yet; but one that was shown before belongs to an older item.
                    None => !is_known(*unique),
                };
                is_same.then(|| Self::of(value.clone()))
            }
            Command::Incr(by) => self.counted(|number| number.wrapping_add(*by)),
            Command::Decr(by) => self.counted(|number| number.saturating_sub(*by)),
            Command::Delete | Command::Flush | Command::Vanish => stored.map(|_| Self::default()),
        }
    }

    fn counted(&self, count: impl Fn(u64) -> u64) -> Option<Self> {
        let stored = self.0.as_ref()?;
        let mut text = count(number(&stored.value)?).to_string().into_bytes();
        // memcached keeps the length and fills up with spaces.
        text.resize(text.len().max(stored.value.len()), b' ');
        Some(Self::of(text.into()))
    }

    fn joined(head: &Bytes, tail: &Bytes) -> Self {
        Self::of([&head[..], &tail[..]].concat().into())
    }

    fn of(value: Bytes) -> Self {
        Self(Some(Stored { value, unique: None }))
    }
}

impl Stored {
    /// A reply shows this unique, or none.
    fn showing(&self, shown: Option<u64>, is_known: impl Fn(u64) -> bool) -> Option<Item> {
        let fits = match (self.unique, shown) {
            (_, None) => true,
            (Some(present), Some(shown)) => present == shown,
            (None, Some(shown)) => !is_known(shown),
        };
        let unique = self.unique.or(shown);
        fits.then(|| Item(Some(Self { value: self.value.clone(), unique })))
    }
}

/// What C's strtoull takes, up to the end or a space: a number that has shrunk leaves spaces
/// behind, and something may have been appended to those.
fn number(value: &[u8]) -> Option<u64> {
    let text = value.trim_ascii_start();
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let ends_well = text.get(digits).is_none_or(u8::is_ascii_whitespace);
    let number = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    ends_well.then_some(number)
}
