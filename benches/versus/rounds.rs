//! Runs a workload on both servers in turn and compares rounds that lay side by side in time.

use std::time::Duration;

use crate::dataset::Dataset;
use crate::failure::Failure;
use crate::load::{Extent, Load};
use crate::machine;
use crate::options::Pace;
use crate::server::{Program, Server, Setup};
use crate::workloads::{Dialect, Room, Workload};

/// Not counted: connections are opened and caches filled.
const WARM_UP: Duration = Duration::from_millis(300);

/// In a closed loop one side always has work, unless somebody else has its core.
const IDLE: f64 = 0.9;
/// A generator that needs this much of the server's time for the same cycles may be what limits it.
const AS_BUSY: f64 = 0.95;

/// One server in one round, or the medians of its rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) units_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) cpu_us_per_unit: f64,
    /// Shares of one core, 1.0 is all of it.
    pub(crate) server_busy: f64,
    pub(crate) generator_busy: f64,
}

/// Who had no time left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Server,
    /// Perhaps the server too.
    Generator,
    /// Others had the cores.
    Neither,
}

/// sessiond divided by memcached, round by round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

/// A workload's result.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) workload: &'static Workload,
    pub(crate) memcached: Sample,
    pub(crate) sessiond: Sample,
    pub(crate) throughput: Ratio,
    pub(crate) p99: Ratio,
    pub(crate) cpu: Ratio,
}

/// The two programs.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) memcached: Program,
    pub(crate) sessiond: Program,
}

/// A workload's result, or why there is none.
pub(crate) enum Outcome {
    Compared(Box<Comparison>),
    Skipped { because: String },
}

/// Starts both servers afresh, loads them and runs all rounds.
pub(crate) fn compare(
    workload: &'static Workload,
    programs: &Programs,
    pace: Pace,
) -> Result<Outcome, Failure> {
    let dataset = Dataset::new(workload.length_of);
    let setup = Setup::with_limit(workload.room.limit_mib());
    let servers = [&programs.memcached, &programs.sessiond].map(|it| it.start(&setup));
    let [memcached, sessiond] = servers;
    let (memcached, sessiond) = (memcached?, sessiond?);
    for server in [&memcached, &sessiond] {
        if workload.dialect == Dialect::Meta && !server.connect()?.speaks_meta()? {
            let because = format!("{} does not know the meta commands", server.name);
            return Ok(Outcome::Skipped { because });
        }
        server.connect()?.preload(&dataset)?;
        if workload.room == Room::Full && server.connect()?.statistic("evictions")? == 0 {
            let because = format!("{} evicted nothing while it was filled", server.name);
            return Ok(Outcome::Skipped { because });
        }
    }
    let comparison = compare_two(workload, &dataset, [&memcached, &sessiond], pace)?;
    Ok(Outcome::Compared(Box::new(comparison)))
}

/// Runs all rounds on two servers that hold their items; the first is what the other is compared with.
pub(crate) fn compare_two(
    workload: &'static Workload,
    dataset: &Dataset,
    servers: [&Server; 2],
    pace: Pace,
) -> Result<Comparison, Failure> {
    let [first, second] = servers;
    let first = Contender::new(workload, dataset, &[first], &[first])?;
    interleave(first, Contender::new(workload, dataset, &[second], &[second])?, pace)
}

fn interleave(
    mut memcached: Contender<'_>,
    mut sessiond: Contender<'_>,
    pace: Pace,
) -> Result<Comparison, Failure> {
    let mut rounds = Vec::with_capacity(pace.rounds);
    for round in 0..pace.rounds {
        // Who goes first alternates: a machine that slows down or speeds up favours neither.
        rounds.push(if round % 2 == 0 {
            let first = memcached.run(pace.round)?;
            (first, sessiond.run(pace.round)?)
        } else {
            let first = sessiond.run(pace.round)?;
            (memcached.run(pace.round)?, first)
        });
    }
    Ok(Comparison {
        workload: memcached.workload,
        memcached: Sample::median(rounds.iter().map(|round| round.0)),
        sessiond: Sample::median(rounds.iter().map(|round| round.1)),
        throughput: Ratio::of(&rounds, |sample| sample.units_per_s),
        p99: Ratio::of(&rounds, |sample| sample.p99_us),
        cpu: Ratio::of(&rounds, |sample| sample.cpu_us_per_unit),
    })
}

/// One server, or several that work together, with their load.
pub(crate) struct Contender<'a> {
    workload: &'static Workload,
    /// Whose processor time counts.
    workers: Vec<&'a Server>,
    load: Load<'a>,
}

impl<'a> Contender<'a> {
    /// Clients are spread over those that are asked.
    pub(crate) fn new(
        workload: &'static Workload,
        dataset: &'a Dataset,
        asked: &[&'a Server],
        workers: &[&'a Server],
    ) -> Result<Self, Failure> {
        let mut load = Load::open(workload, dataset, asked)?;
        load.run(Extent::Time(WARM_UP))?;
        Ok(Self { workload, workers: workers.to_vec(), load })
    }

    pub(crate) fn run(&mut self, duration: Duration) -> Result<Sample, Failure> {
        let generator_before = machine::cpu_time("self")?;
        let server_before = self.cpu_time()?;
        let tally = self.load.run(Extent::Time(duration))?;
        let server_cpu = (self.cpu_time()? - server_before).as_secs_f64();
        let generator_cpu = (machine::cpu_time("self")? - generator_before).as_secs_f64();
        let elapsed = tally.elapsed.as_secs_f64();
        let units = (tally.cycles.total() * self.workload.units as u64) as f64;
        Ok(Sample {
            units_per_s: units / elapsed,
            p50_us: tally.cycles.quantile_us(0.5),
            p99_us: tally.cycles.quantile_us(0.99),
            p999_us: tally.cycles.quantile_us(0.999),
            cpu_us_per_unit: server_cpu * 1e6 / units,
            server_busy: server_cpu / elapsed,
            generator_busy: generator_cpu / elapsed,
        })
    }
}

impl Contender<'_> {
    fn cpu_time(&self) -> Result<Duration, Failure> {
        self.workers.iter().map(|server| server.cpu_time()).sum()
    }
}

impl Comparison {
    pub(crate) fn samples(&self) -> [&Sample; 2] {
        [&self.memcached, &self.sessiond]
    }

    /// Whether throughput and latency are those of the servers.
    pub(crate) fn shows_speed(&self) -> bool {
        self.samples().iter().all(|sample| !sample.has_slow_generator())
    }
}

impl Sample {
    pub(crate) fn limit(&self) -> Limit {
        if self.server_busy < IDLE && self.generator_busy < IDLE {
            return Limit::Neither;
        }
        if self.has_slow_generator() { Limit::Generator } else { Limit::Server }
    }

    /// Compares processor time, so that others on the cores do not matter.
    fn has_slow_generator(&self) -> bool {
        self.generator_busy >= AS_BUSY * self.server_busy
    }

    pub(crate) fn median(samples: impl Iterator<Item = Self> + Clone) -> Self {
        let of = |field: fn(Self) -> f64| median(samples.clone().map(field).collect());
        Self {
            units_per_s: of(|it| it.units_per_s),
            p50_us: of(|it| it.p50_us),
            p99_us: of(|it| it.p99_us),
            p999_us: of(|it| it.p999_us),
            cpu_us_per_unit: of(|it| it.cpu_us_per_unit),
            server_busy: of(|it| it.server_busy),
            generator_busy: of(|it| it.generator_busy),
        }
    }
}

impl Ratio {
    pub(crate) fn of(rounds: &[(Sample, Sample)], field: fn(&Sample) -> f64) -> Self {
        let ratios = rounds.iter().map(|(memcached, sessiond)| field(sessiond) / field(memcached));
        Self {
            lowest: ratios.clone().fold(f64::INFINITY, f64::min),
            highest: ratios.clone().fold(0.0, f64::max),
            median: median(ratios.collect()),
        }
    }
}

/// Of an even number, the middle between the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values[values.len() / 2];
    let lower = values[(values.len() - 1) / 2];
    f64::midpoint(lower, upper)
}
