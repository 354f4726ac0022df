//! How long a node of a full group takes to be a member again, and what clients of the others
//! notice meanwhile.
//!
//! Once it comes back empty, as after a restart; once with its memory, after it had stood still for so
//! long that the others went on without it. Nodes and clients share all cores here: filling a node is
//! work for all of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::BATCH;
use crate::dataset::{Dataset, Random};
use crate::exchange::{Draft, Exchange};
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::interrupt;
use crate::server::{Program, Server, Setup, flags_of_group};

const NODES: usize = 3;
/// The one that goes and comes back.
const LAST: &str = "n2";
/// A session of many sites.
const VALUE_BYTES: usize = 2048;
/// Their values make a gibibyte.
const ITEMS: usize = 1 << 19;
const ITEMS_QUICK: usize = 1 << 14;
/// What these take, with room to spare.
const LIMIT_MIB: usize = 1536;
/// Each fills its part: writes of one connection wait for each other.
const FILLERS: usize = 32;
/// Clients of the nodes that stay, and how long each rests after a command: some 1600 commands a
/// second in all.
const CLIENTS: usize = 8;
const REST: Duration = Duration::from_millis(5);
/// One command in so many is a set.
const SETS: usize = 5;
/// How long clients are watched while nothing happens.
const CALM: Duration = Duration::from_secs(5);
/// For so long a node stands still after it was left out; sets go on.
const STOPPED: Duration = Duration::from_secs(3);
/// How often somebody asks who is a member.
const ASK: Duration = Duration::from_millis(10);
/// Far more than it may take.
const REJOIN_MAX: Duration = Duration::from_secs(120);

/// What was seen of one return.
pub(crate) struct Rejoin {
    pub(crate) name: &'static str,
    pub(crate) took: Duration,
    pub(crate) items: u64,
    pub(crate) bytes: u64,
    /// Of the commands that the other nodes were given meanwhile.
    pub(crate) latencies: Histogram,
}

/// Both returns, after commands in calm for comparison.
pub(crate) struct Rejoins {
    pub(crate) items: usize,
    pub(crate) calm: Histogram,
    pub(crate) rejoins: Vec<Rejoin>,
}

pub(crate) fn measure(program: &Program, is_quick: bool) -> Result<Rejoins, Failure> {
    let items = if is_quick { ITEMS_QUICK } else { ITEMS };
    let dataset = Dataset::of(items, |_| VALUE_BYTES);
    let setup = Setup { cores: "0,1", ..Setup::with_limit(LIMIT_MIB) };
    let flags = flags_of_group(NODES)?;
    let start = |n: usize| program.start_with(&setup, &flags[n]);
    let mut servers = (0..NODES).map(start).collect::<Result<Vec<_>, _>>()?;
    for server in &servers {
        server.wait_until_it_is_a_member()?;
    }
    fill(&servers[0], &dataset)?;
    let last = servers.pop().expect("a group has nodes");
    let ((), calm) = watch(&servers, &dataset, || pause(CALM))?;

    drop(last);
    until_member(&servers[0], false)?;
    let began = Instant::now();
    let (last, latencies) = watch(&servers, &dataset, || {
        let last = start(NODES - 1)?;
        until_member(&servers[0], true)?;
        Ok(last)
    })?;
    let empty = rejoin("with nothing", began, &last, latencies)?;

    last.signal(Signal::STOP)?;
    watch(&servers, &dataset, || {
        until_member(&servers[0], false)?;
        pause(STOPPED)
    })?;
    let began = Instant::now();
    last.signal(Signal::CONT)?;
    let ((), latencies) = watch(&servers, &dataset, || until_member(&servers[0], true))?;
    let mut back = rejoin("with its memory", began, &last, latencies)?;
    // What it tells is of its whole life.
    (back.items, back.bytes) = (back.items - empty.items, back.bytes - empty.bytes);
    Ok(Rejoins { items, calm, rejoins: vec![empty, back] })
}

fn rejoin(
    name: &'static str,
    began: Instant,
    last: &Server,
    latencies: Histogram,
) -> Result<Rejoin, Failure> {
    let took = began.elapsed();
    last.wait_until_it_is_a_member()?;
    let mut client = last.connect()?;
    let items = client.number("stats replication", "sync_items_received")?;
    let bytes = client.number("stats replication", "sync_bytes_received")?;
    Ok(Rejoin { name, took, items, bytes, latencies })
}

/// Stores every item.
fn fill(server: &Server, dataset: &Dataset) -> Result<(), Failure> {
    let fill_part = |part: usize| {
        let (mut client, mut exchange) = (server.connect()?, Exchange::default());
        let items: Vec<usize> = (part..dataset.items()).step_by(FILLERS).collect();
        for batch in items.chunks(BATCH) {
            interrupt::check()?;
            exchange.clear();
            for &item in batch {
                exchange.set(&dataset.key(item), dataset.value(item));
            }
            client.exchange(&mut exchange)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let fillers: Vec<_> =
            (0..FILLERS).map(|part| scope.spawn(move || fill_part(part))).collect();
        fillers.into_iter().try_for_each(|filler| filler.join().expect("a client ends well"))
    })
}

/// What `act` returns, and how long commands to these servers took meanwhile.
fn watch<T>(
    servers: &[Server],
    dataset: &Dataset,
    act: impl FnOnce() -> Result<T, Failure>,
) -> Result<(T, Histogram), Failure> {
    let is_over = AtomicBool::new(false);
    let is_over = &is_over;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| scope.spawn(move || ask(&servers[n % servers.len()], dataset, n, is_over)))
            .collect();
        let done = act();
        is_over.store(true, Ordering::Relaxed);
        let mut all = Histogram::default();
        for client in clients {
            all.add(&client.join().expect("a client ends well")?);
        }
        Ok((done?, all))
    })
}

/// One client: mostly gets, some sets, and a rest after each.
fn ask(
    server: &Server,
    dataset: &Dataset,
    seed: usize,
    is_over: &AtomicBool,
) -> Result<Histogram, Failure> {
    let (mut client, mut random) = (server.connect()?, Random::new(seed as u64));
    let (mut exchange, mut latencies) = (Exchange::default(), Histogram::default());
    while !is_over.load(Ordering::Relaxed) {
        interrupt::check()?;
        exchange.clear();
        let item = random.within(0..dataset.items());
        if random.within(0..SETS) == 0 {
            exchange.set(&dataset.key(item), dataset.value(item));
        } else {
            let fresh = &mut 0;
            let (random, exchange) = (&mut random, &mut exchange);
            Draft { exchange, dataset, random, fresh }.get(item);
        }
        let asked = Instant::now();
        client.exchange(&mut exchange)?;
        latencies.record(asked.elapsed());
        thread::sleep(REST);
    }
    Ok(latencies)
}

/// Waits until the last node is a member, or is none, as this one sees it.
fn until_member(server: &Server, is_member: bool) -> Result<(), Failure> {
    let (mut client, began) = (server.connect()?, Instant::now());
    loop {
        let members = client.fact("stats replication", "members")?;
        if members.split(',').any(|name| name == LAST) == is_member {
            return Ok(());
        }
        if began.elapsed() > REJOIN_MAX {
            let server = format!("{LAST}, as a member or none,");
            return Err(Failure::Silent { server, after: REJOIN_MAX });
        }
        pause(ASK)?;
    }
}

fn pause(long: Duration) -> Result<(), Failure> {
    thread::sleep(long);
    interrupt::check()
}
