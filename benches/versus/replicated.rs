//! What a set costs that is on three machines before it is confirmed: a group of three beside a single
//! node, and beside a Redis with two replicas and `WAIT 2`.
//!
//! All of them hold all items before. All processes share a core. Clients of the group are spread over its nodes, so two sets of three
//! are forwarded; those of Redis all talk to the master, as they have to.

use crate::dataset::Dataset;
use crate::failure::Failure;
use crate::group::NODES;
use crate::load::{Extent, Load};
use crate::options::Pace;
use crate::redis;
use crate::rounds::{Contender, Programs, Ratio, Sample};
use crate::server::{Server, Setup};
use crate::workloads::{REDIS_WORKLOADS, REPLICATED_PRELOAD, REPLICATED_WORKLOADS, Workload};

/// The medians of all rounds, and what they are beside each other.
pub(crate) struct Replicated {
    pub(crate) workload: &'static Workload,
    pub(crate) single: Sample,
    pub(crate) group: Sample,
    /// `None` where there is no Redis.
    pub(crate) redis: Option<Beside>,
}

/// The group, divided by Redis.
pub(crate) struct Beside {
    pub(crate) redis: Sample,
    pub(crate) throughput: Ratio,
    pub(crate) cpu: Ratio,
}

/// Each with 1, 8 and 48 connections, as batching vanishes with few.
pub(crate) fn compare(programs: &Programs, pace: Pace) -> Result<Vec<Replicated>, Failure> {
    let pairs = REPLICATED_WORKLOADS.iter().zip(REDIS_WORKLOADS);
    pairs.map(|(ours, redis)| compare_one(programs, [ours, redis], pace)).collect()
}

fn compare_one(
    programs: &Programs,
    [workload, redis_workload]: [&'static Workload; 2],
    pace: Pace,
) -> Result<Replicated, Failure> {
    let dataset = Dataset::new(workload.length_of);
    let setup = Setup::with_limit(workload.room.limit_mib());
    let single = [programs.sessiond.start(&setup)?];
    let group = programs.sessiond.start_group(NODES, &setup)?;
    let redis = if redis::version().is_some() { redis::start()? } else { Vec::new() };
    let (single, group, redis) = (of(&single), of(&group), of(&redis));
    let [preload, redis_preload] = &REPLICATED_PRELOAD;
    fill(preload, &dataset, &single)?;
    fill(preload, &dataset, &group)?;
    fill(redis_preload, &dataset, redis.get(..1).unwrap_or_default())?;
    let mut contenders = vec![
        Contender::new(workload, &dataset, &single, &single)?,
        Contender::new(workload, &dataset, &group, &group)?,
    ];
    if let Some(master) = redis.first() {
        contenders.push(Contender::new(redis_workload, &dataset, &[master], &redis)?);
    }
    let mut rounds: Vec<Vec<Sample>> = vec![Vec::new(); contenders.len()];
    for round in 0..pace.rounds {
        for turn in 0..contenders.len() {
            // Who goes first alternates: a machine that slows down or speeds up favours nobody.
            let contender = (round + turn) % contenders.len();
            rounds[contender].push(contenders[contender].run(pace.round)?);
        }
    }
    Ok(Replicated {
        workload,
        single: median(&rounds[0]),
        group: median(&rounds[1]),
        redis: rounds.get(2).map(|redis| beside(redis, &rounds[1])),
    })
}

/// A set of a new item costs more than one of an item that is there, so that rounds would not be alike.
fn fill(workload: &'static Workload, dataset: &Dataset, asked: &[&Server]) -> Result<(), Failure> {
    if !asked.is_empty() {
        let each_once = Extent::Cycles(dataset.items() as u64);
        Load::open(workload, dataset, asked)?.run(each_once)?;
    }
    Ok(())
}

fn of(servers: &[Server]) -> Vec<&Server> {
    servers.iter().collect()
}

fn median(rounds: &[Sample]) -> Sample {
    Sample::median(rounds.iter().copied())
}

fn beside(redis: &[Sample], group: &[Sample]) -> Beside {
    let rounds: Vec<_> = redis.iter().copied().zip(group.iter().copied()).collect();
    Beside {
        redis: median(redis),
        throughput: Ratio::of(&rounds, |sample| sample.units_per_s),
        cpu: Ratio::of(&rounds, |sample| sample.cpu_us_per_unit),
    }
}
