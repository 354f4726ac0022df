//! The campaign of kills: while clients write, a node is killed, and everything that was confirmed
//! by then is looked for on the survivors at once.
//!
//! Each key has one writer, which numbers its writes; so whatever is read tells how old it is, and
//! no history is needed. A key whose write broke off is written no more.

use std::sync::Mutex;
use std::thread::{self, sleep};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::client::Playground;
use super::connection::{Came, Connection};
use super::episode::wait;
use super::group::{Group, Links, NODES};
use super::history::wire::Form;
use super::history::{Command, Reply};

const WRITERS: usize = 6;
/// Keys that a writer goes on with at a time.
const KEYS_EACH: usize = 20;
/// Every so many writes of a key one deletes it.
const DELETES_EVERY: u64 = 5;
/// A write is confirmed by then, or the group hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is known of one key.
struct Key {
    name: String,
    /// Number of the last write that was begun, from 1;
    begun: u64,
    /// and of the last that was confirmed.
    confirmed: u64,
}

impl Key {
    fn new(writer: usize, number: usize) -> Mutex<Self> {
        Mutex::new(Self { name: format!("kill{writer}.{number}"), begun: 0, confirmed: 0 })
    }
}

fn is_deletion(number: u64) -> bool {
    number.is_multiple_of(DELETES_EVERY)
}

/// All keys of one writer, those that it has given up first.
type Keys = Mutex<Vec<std::sync::Arc<Mutex<Key>>>>;

/// What the kills have done.
#[derive(Default)]
struct Tally {
    write_stalls_us: Vec<u64>,
    whole_us: Vec<u64>,
    copies_looked_at: u64,
}

/// Kills so many times; the error tells what was lost.
pub(crate) fn campaign(kills: u64, seed: u64) -> Result<String, String> {
    let mut group = Group::start(Links::Direct)?;
    let playground = Playground::new(group.processes.addresses());
    let keys: Vec<Keys> = (0..WRITERS).map(|_| Keys::default()).collect();
    let confirmed_at: Mutex<Vec<u64>> = Mutex::default();
    let mut tally = Tally::default();
    let done = thread::scope(|scope| {
        let _open = playground.open();
        for (number, keys) in keys.iter().enumerate() {
            let (playground, confirmed_at) = (&playground, &confirmed_at);
            let rng = StdRng::seed_from_u64(seed ^ ((number as u64) << 32));
            let writer = Writer { number, playground, keys, confirmed_at, rng, named: 0 };
            scope.spawn(move || writer.run());
        }
        let mut rng = StdRng::seed_from_u64(seed);
        (1..=kills).try_for_each(|kill| {
            one_kill(&mut group, &playground, &keys, &confirmed_at, &mut rng, &mut tally)
                .map_err(|why| format!("kill {kill}: {why}"))
        })
    });
    let at_rest = done.and_then(|()| {
        let nodes: Vec<usize> = (0..NODES).collect();
        look_for_everything(&playground, &keys, &nodes, &mut tally)
    });
    if let Err(why) = at_rest {
        return Err(format!(
            "{why}\n{}\nlogs are in {}",
            group.processes.last_words(),
            group.processes.keep().display()
        ));
    }
    Ok(tally.told(kills, confirmed_at.lock().expect("no writer panics").len()))
}

fn one_kill(
    group: &mut Group,
    playground: &Playground,
    keys: &[Keys],
    confirmed_at: &Mutex<Vec<u64>>,
    rng: &mut StdRng,
    tally: &mut Tally,
) -> Result<(), String> {
    wait(rng, 50..500);
    let victim = rng.random_range(0..NODES);
    let survivors: Vec<usize> = (0..NODES).filter(|&node| node != victim).collect();
    let from_us = playground.clock.now_us();
    group.kill(victim);
    look_for_everything(playground, keys, &survivors, tally)?;
    wait(rng, 0..300);
    group.spawn(victim)?;
    group.processes.wait_until_whole()?;
    look_for_everything(playground, keys, &[victim], tally)?;
    let to_us = playground.clock.now_us();
    tally.whole_us.push(to_us - from_us);
    let times = confirmed_at.lock().expect("no writer panics");
    let mut times: Vec<u64> =
        times.iter().rev().take_while(|&&at| at + 1_000_000 > from_us).copied().collect();
    times.sort_unstable();
    let touches = |pair: &&[u64]| pair[1] >= from_us && pair[0] <= to_us;
    let gap = times.windows(2).filter(touches).map(|pair| pair[1] - pair[0]).max();
    // Nobody has been confirmed anything since: so long has it been.
    let open = times.last().map_or(to_us - from_us, |&last| to_us.saturating_sub(last));
    tally.write_stalls_us.push(gap.unwrap_or(0).max(open));
    Ok(())
}

/// Reads every key on these nodes: what was confirmed before must be there.
fn look_for_everything(
    playground: &Playground,
    keys: &[Keys],
    nodes: &[usize],
    tally: &mut Tally,
) -> Result<(), String> {
    let keys: Vec<_> =
        keys.iter().flat_map(|keys| keys.lock().expect("no writer panics").clone()).collect();
    for &node in nodes {
        let failed = |error| format!("n{} does not answer: {error}", node + 1);
        let mut connection =
            Connection::open(playground.addresses[node], PATIENCE).map_err(failed)?;
        for key in &keys {
            let known = || {
                let key = key.lock().expect("no writer panics");
                (key.name.clone(), key.begun, key.confirmed)
            };
            let (name, _, least) = known();
            let came = connection.ask(&Command::Get, &name, Form::Classic).map_err(failed)?;
            let (_, most, _) = known();
            let Came::Reply(reply) = came else { return Err(format!("n{} refuses", node + 1)) };
            tally.copies_looked_at += 1;
            if !may_be(&reply, least, most) {
                return Err(format!(
                    "n{} says {reply} of {name}; confirmed was write {least}, begun {most}",
                    node + 1
                ));
            }
        }
    }
    Ok(())
}

/// Whether one of the writes between these two leaves this.
fn may_be(reply: &Reply, least: u64, most: u64) -> bool {
    match reply {
        Reply::Miss => (least..=most).any(is_deletion),
        Reply::Hit { value, .. } => {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            number.is_some_and(|number| (least..=most).contains(&number) && !is_deletion(number))
        }
        _ => false,
    }
}

struct Writer<'a> {
    number: usize,
    playground: &'a Playground,
    keys: &'a Keys,
    confirmed_at: &'a Mutex<Vec<u64>>,
    rng: StdRng,
    named: usize,
}

impl Writer<'_> {
    fn run(mut self) {
        let mut connection = None;
        for _ in 0..KEYS_EACH {
            self.name_another();
        }
        while !self.playground.is_over() {
            let addresses = &self.playground.addresses;
            let node = self.rng.random_range(0..addresses.len());
            let Some(mut open) =
                connection.take().or_else(|| Connection::open(addresses[node], PATIENCE).ok())
            else {
                // It is dead, and a refusal costs nothing.
                sleep(Duration::from_millis(1));
                continue;
            };
            if self.write(&mut open) {
                connection = Some(open);
            } else {
                self.name_another();
            }
            sleep(Duration::from_micros(self.rng.random_range(200..1500)));
        }
    }

    fn name_another(&mut self) {
        self.named += 1;
        let key = Key::new(self.number, self.named);
        self.keys.lock().expect("nobody panics with it").push(key.into());
    }

    /// Writes one of the keys that are not given up; whether that was confirmed.
    fn write(&mut self, connection: &mut Connection) -> bool {
        let keys = self.keys.lock().expect("nobody panics with it");
        let good: Vec<_> = keys
            .iter()
            .filter(|key| {
                let key = key.lock().expect("nobody panics with it");
                key.begun == key.confirmed
            })
            .cloned()
            .collect();
        drop(keys);
        let key = &good[self.rng.random_range(0..good.len())];
        let (name, number) = {
            let mut key = key.lock().expect("nobody panics with it");
            key.begun += 1;
            (key.name.clone(), key.begun)
        };
        let command = match is_deletion(number) {
            true => Command::Delete,
            false => Command::Set(number.to_string().into()),
        };
        let came = connection.ask(&command, &name, Form::Classic);
        let is_confirmed = matches!(came, Ok(Came::Reply(Reply::Done { .. })));
        if is_confirmed {
            key.lock().expect("nobody panics with it").confirmed = number;
            let now_us = self.playground.clock.now_us();
            self.confirmed_at.lock().expect("nobody panics with it").push(now_us);
        }
        is_confirmed
    }
}

impl Tally {
    fn told(mut self, kills: u64, writes: usize) -> String {
        self.write_stalls_us.sort_unstable();
        self.whole_us.sort_unstable();
        let ms = |times: &[u64], part: usize| times[(times.len() - 1) * part / 100] as f64 / 1000.0;
        format!(
            "{kills} kills, {writes} confirmed writes, {} copies looked at, nothing lost\n\
             longest time without a confirmed write: median {:.0} ms, p99 {:.0} ms, longest {:.0} ms\n\
             from the kill to a whole group: median {:.0} ms, longest {:.0} ms",
            self.copies_looked_at,
            ms(&self.write_stalls_us, 50),
            ms(&self.write_stalls_us, 99),
            ms(&self.write_stalls_us, 100),
            ms(&self.whole_us, 50),
            ms(&self.whole_us, 100),
        )
    }
}
