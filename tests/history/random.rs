//! Random histories that a real node, alone, has answered: they always pass, and with one answer
//! exchanged for an older one they mostly do not.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sessiond::node::{Node, Session, Step};
use sessiond::settings::Settings;
use sessiond::time::{Millis, Now};

use super::alone::{self, Alone, WALL_S};
use super::history::wire::{self, Form, Heard};
use super::history::{Answer, Command, History, Operation, Reply, invariants};

const SEEDS: u64 = 200;
const CLIENTS: usize = 6;
const KEYS: usize = 3;
/// Commands of one history.
const COMMANDS: u64 = 500;
/// Between two commands taking effect.
const STEP: u64 = 10;

/// One node, and the time that it is told.
struct Store {
    node: Node<()>,
    now_ms: u64,
}

impl Store {
    fn new(seed: u64) -> Self {
        let settings = Settings { memory: 8 << 20, ..Settings::default() };
        Self { node: alone::node(seed, settings).0, now_ms: 1 }
    }

    fn now(&self) -> Now {
        self.node.now(Millis(self.now_ms), WALL_S + (self.now_ms / 1000) as i64)
    }

    fn ask(&mut self, command: &Command, key: &str, form: Form) -> Reply {
        self.now_ms += 1;
        let (mut session, mut out) = (Session::new(0, 1 << 20), Vec::new());
        let text = wire::request(command, key, form);
        let mut host = Alone::default();
        let (_, step) = session.advance(&self.node, &text, self.now(), &mut out, &mut host);
        if step == Step::Wait {
            session.resume(&self.node, host.answers.remove(0), &mut out);
        }
        match wire::reply(&out) {
            Heard::Reply(reply, used) if used == out.len() => wire::as_answer_to(command, reply),
            other => panic!("{command:?} was answered {other:?}"),
        }
    }
}

struct Client {
    /// When its last answer had come.
    free: u64,
    /// The last unique it has seen of each key.
    seen: HashMap<String, u64>,
}

/// Commands take effect one by one, `STEP` apart; each is begun some time before and answered
/// some time after. Some are never answered, and take effect later or never.
fn history(seed: u64) -> History {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut store = Store::new(seed);
    let mut clients: Vec<Client> =
        (0..CLIENTS).map(|_| Client { free: 0, seen: HashMap::new() }).collect();
    let mut history = History::default();
    let mut late: Vec<(Command, String)> = Vec::new();
    for step in 0..COMMANDS {
        let point = 100 + step * STEP;
        if !late.is_empty() && rng.random_ratio(1, 10) {
            let (command, key) = late.swap_remove(rng.random_range(0..late.len()));
            store.ask(&command, &key, Form::Classic);
        }
        let free: Vec<usize> = (0..CLIENTS).filter(|&c| clients[c].free < point).collect();
        if free.is_empty() {
            continue;
        }
        let number = free[rng.random_range(0..free.len())];
        let client = &mut clients[number];
        let key = format!("{}.{}", rng.random_range(0..KEYS), step / 200);
        let command = command(client.seen.get(&key).copied(), step, &mut rng);
        let invoked = rng.random_range((client.free + 1).max(point.saturating_sub(60))..=point);
        let mut operation =
            Operation { client: number as u32, key, command, invoked, answer: None };
        client.free = rng.random_range(point..point + 60);
        if rng.random_ratio(1, 40) {
            late.push((operation.command.clone(), operation.key.clone()));
        } else {
            let form = [Form::Classic, Form::Unique, Form::Meta][rng.random_range(0..3)];
            let reply = store.ask(&operation.command, &operation.key, form);
            if let Some(unique) = reply.unique() {
                client.seen.insert(operation.key.clone(), unique);
            }
            operation.answer = Some(Answer { at: client.free, reply });
        }
        history.push(operation);
    }
    history
}

fn command(unique: Option<u64>, step: u64, rng: &mut StdRng) -> Command {
    let value = format!("v{step}").into();
    match rng.random_range(0..100) {
        0..20 => Command::Set(value),
        20..25 => Command::Set("10".into()),
        25..30 => Command::Add(value),
        30..34 => Command::Replace(value),
        34..38 => Command::Append(value),
        38..42 => Command::Prepend(value),
        42..50 => Command::Cas { unique: unique.unwrap_or(1), value },
        50..54 => Command::Incr(rng.random_range(1..5)),
        54..58 => Command::Decr(rng.random_range(1..5)),
        58..66 => Command::Delete,
        66..69 => Command::Touch,
        69..72 => Command::GetAndTouch,
        72 => Command::Flush,
        _ => Command::Get,
    }
}

#[test]
fn what_a_real_node_answers_passes() {
    let (mut steps, mut operations) = (0, 0);
    for seed in 1..=SEEDS {
        let history = history(seed);
        match history.check() {
            Ok(checked) => {
                assert_eq!(checked.undecided, 0, "seed {seed}: too hard");
                steps += checked.steps;
                operations += checked.operations;
            }
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
        if let Err(broken) = invariants::check(&history) {
            panic!("seed {seed}: {broken}");
        }
    }
    println!("{operations} operations in {steps} steps");
}

/// Exchanges what one read has seen for an earlier value of the same key.
fn make_a_read_stale(history: &mut History, rng: &mut StdRng) -> bool {
    let hit = |operation: &Operation| match operation.reply() {
        Some(Reply::Hit { value, .. }) => Some(value.clone()),
        _ => None,
    };
    let operations = &mut history.operations;
    let reads: Vec<usize> =
        (0..operations.len()).filter(|&i| hit(&operations[i]).is_some()).collect();
    for _ in 0..100 {
        let late = reads[rng.random_range(0..reads.len())];
        let early = reads[rng.random_range(0..reads.len())];
        let (present, former) = (hit(&operations[late]), hit(&operations[early]));
        let is_older = operations[early].returned() < operations[late].invoked;
        let is_same_key = operations[early].key == operations[late].key;
        if is_older && is_same_key && present != former {
            let at = operations[late].returned();
            let reply = Reply::Hit { value: former.expect("it is a hit"), unique: None };
            operations[late].answer = Some(Answer { at, reply });
            return true;
        }
    }
    false
}

#[test]
fn a_read_that_shows_an_older_value_is_mostly_caught() {
    let (mut made, mut caught) = (0, 0);
    for seed in 1..=SEEDS {
        let mut history = history(seed);
        let mut rng = StdRng::seed_from_u64(seed);
        if make_a_read_stale(&mut history, &mut rng) {
            made += 1;
            caught += usize::from(history.check().is_err());
        }
    }
    println!("{caught} of {made} stale reads were caught");
    // Between commands that overlap, an older value may have been right.
    assert!(made > 100 && caught * 10 > made * 9, "only {caught} of {made} were caught");
}
