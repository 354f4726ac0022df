//! What it costs a set that its key belongs to another node, and what a member costs that is slow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::Client;
use crate::dataset::{Dataset, Key, key_of};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::group::NODES;
use crate::histogram::Histogram;
use crate::options::Pace;
use crate::rounds::{Contender, Programs, Sample};
use crate::server::{Server, Setup};
use crate::workloads::REPLICATED_WORKLOADS;

const VALUE_BYTES: usize = 1024;
/// One command after the other, so that only the ways count.
const SETS: usize = 500;
/// The slow member stands still for so long, and then works for so long.
const STANDS_STILL: Duration = Duration::from_millis(10);

/// All that was measured.
pub(crate) struct Members {
    pub(crate) own: Histogram,
    pub(crate) forwarded: Histogram,
    pub(crate) all_fast: Sample,
    pub(crate) one_slow: Sample,
}

pub(crate) fn measure(programs: &Programs, pace: Pace) -> Result<Members, Failure> {
    let group = programs.sessiond.start_group(NODES, &Setup::with_limit(256))?;
    let [own, forwarded] = ways(&group[0], pace.rounds)?;
    let [all_fast, one_slow] = with_a_slow_one(&group, pace)?;
    Ok(Members { own, forwarded, all_fast, one_slow })
}

/// Sets of a key that the asked node owns, and of one that it does not, in turn.
fn ways(node: &Server, rounds: usize) -> Result<[Histogram; 2], Failure> {
    let mut client = node.connect()?;
    let keys = [find(&mut client, false)?, find(&mut client, true)?];
    let mut ways = [Histogram::default(), Histogram::default()];
    for _ in 0..rounds {
        for (key, way) in keys.iter().zip(&mut ways) {
            for _ in 0..SETS {
                let since = Instant::now();
                set(&mut client, key)?;
                way.record(since.elapsed());
            }
        }
    }
    Ok(ways)
}

/// A key whose owner is somebody else, or is not: the node counts what it asks others.
fn find(client: &mut Client, of_others: bool) -> Result<Key, Failure> {
    let mut asked = |key: &Key| {
        let before = client.number("stats replication", "asked_others")?;
        set(client, key)?;
        Ok::<_, Failure>(client.number("stats replication", "asked_others")? > before)
    };
    for item in 0.. {
        let key = key_of(item);
        if asked(&key)? == of_others {
            return Ok(key);
        }
    }
    unreachable!("of endless keys, some belong to each node")
}

fn set(client: &mut Client, key: &Key) -> Result<(), Failure> {
    let mut exchange = Exchange::default();
    exchange.set(key, &[b'x'; VALUE_BYTES]);
    client.exchange(&mut exchange)
}

/// Sets of the most connections, at two nodes, while the third works as they do, and half of the time.
fn with_a_slow_one(group: &[Server], pace: Pace) -> Result<[Sample; 2], Failure> {
    let workload = REPLICATED_WORKLOADS.last().expect("there are some");
    let dataset = Dataset::new(workload.length_of);
    let (last, asked) = group.split_last().expect("a group of three");
    let (asked, all): (Vec<_>, Vec<_>) = (asked.iter().collect(), group.iter().collect());
    let mut contender = Contender::new(workload, &dataset, &asked, &all)?;
    let mut samples = [Vec::new(), Vec::new()];
    for _ in 0..pace.rounds {
        samples[0].push(contender.run(pace.round)?);
        samples[1].push(while_slow(last, || contender.run(pace.round))?);
    }
    Ok(samples.map(|samples| Sample::median(samples.iter().copied())))
}

/// Has that server stand still half of the time, meanwhile.
fn while_slow<T>(server: &Server, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                server.signal(Signal::STOP)?;
                thread::sleep(STANDS_STILL);
                server.signal(Signal::CONT)?;
                thread::sleep(STANDS_STILL);
            }
            Ok::<_, Failure>(())
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        slow.join().expect("it only sends signals")?;
        done
    })
}
