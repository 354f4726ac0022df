//! Clients: one command at a time, over a real session; what they ask and see becomes history.

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use sessiond::node::Session;
use sessiond::replication::Incarnation;

use super::history::wire::Form;
use super::history::{Command, Operation};

/// A client and the command that it waits for.
pub(crate) struct Client {
    /// The process it is connected to, and its session there.
    pub(crate) connected: Option<(Incarnation, Session)>,
    /// Some clients stay with one host.
    pub(crate) home: Option<usize>,
    pub(crate) doing: Option<Doing>,
    /// A CAS unique that it has seen, and of which key.
    unique: Option<(String, u64)>,
}

/// A command under way.
pub(crate) struct Doing {
    pub(crate) operation: Operation,
    pub(crate) number: u64,
    /// What the session has not taken yet.
    pub(crate) input: Vec<u8>,
    pub(crate) output: Vec<u8>,
}

/// Keys in use at a time; each is given up after some commands.
const KEYS: u64 = 3;
const COMMANDS_PER_KEY: u64 = 40;

impl Client {
    pub(crate) fn new(home: Option<usize>) -> Self {
        Self { connected: None, home, doing: None, unique: None }
    }

    /// Something to do: what, and how it is said. `number` is unique in the run.
    pub(crate) fn wish(
        &mut self,
        number: u64,
        is_short: bool,
        rng: &mut StdRng,
    ) -> (String, Command, Form) {
        if is_short && rng.random_ratio(1, 3) {
            let value = Bytes::from(vec![b'x'; rng.random_range(500..20_000)]);
            return (format!("large-{number}"), Command::Set(value), Form::Classic);
        }
        let generation = number / (KEYS * COMMANDS_PER_KEY);
        let lane = rng.random_range(0..KEYS);
        let (is_counter, key) = match lane {
            0 => (true, format!("counter-{generation}")),
            _ => (false, format!("session-{lane}-{generation}")),
        };
        let form = match rng.random_range(0..4) {
            0 => Form::Unique,
            1 => Form::Meta,
            _ => Form::Classic,
        };
        let command = if rng.random_ratio(1, 300) {
            Command::Flush
        } else if is_counter {
            count(rng)
        } else {
            self.change(&key, number, rng)
        };
        (key, command, form)
    }

    fn change(&mut self, key: &str, number: u64, rng: &mut StdRng) -> Command {
        let value = || Bytes::from(format!("v{number}"));
        match rng.random_range(0..100) {
            0..22 => Command::Set(value()),
            22..26 => Command::Add(value()),
            26..30 => Command::Replace(value()),
            30..33 => Command::Append(Bytes::from(format!("+{number}"))),
            33..35 => Command::Prepend(Bytes::from(format!("{number}+"))),
            35..43 => Command::Delete,
            43..46 => Command::Touch,
            46..50 => Command::GetAndTouch,
            50..60 => match self.unique.take() {
                Some((of, unique)) if of == key => Command::Cas { unique, value: value() },
                _ => Command::Get,
            },
            _ => Command::Get,
        }
    }

    /// A reply has told it a CAS unique.
    pub(crate) fn note(&mut self, key: &str, unique: Option<u64>) {
        if let Some(unique) = unique {
            self.unique = Some((key.into(), unique));
        }
    }
}

fn count(rng: &mut StdRng) -> Command {
    match rng.random_range(0..100) {
        0..15 => Command::Add(Bytes::from_static(b"0")),
        15..65 => Command::Incr(1),
        65..70 => Command::Decr(1),
        _ => Command::Get,
    }
}
