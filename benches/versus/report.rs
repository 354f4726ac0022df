//! The results as a table on the terminal, a workload at a time.

use crate::memory::{LIMIT_MIB, Memory};
use crate::rounds::{Comparison, Ratio, Sample};

/// A generator this busy may be what limits the server.
const BUSY: f64 = 0.95;
/// In a closed loop one side always has work, unless somebody else has its core.
const IDLE: f64 = 0.9;

/// Which programs ran, where and when.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) date: String,
    pub(crate) machine: String,
    pub(crate) memcached: String,
    pub(crate) sessiond: String,
    pub(crate) pace: String,
}

impl Setting {
    pub(crate) fn lines(&self) -> [String; 5] {
        [
            format!("date:      {}", self.date),
            format!("machine:   {}", self.machine),
            format!("memcached: {}", self.memcached),
            format!("sessiond:  {}", self.sessiond),
            format!("pace:      {}", self.pace),
        ]
    }
}

/// The head of the table.
pub(crate) fn print_head(setting: &Setting) {
    for line in setting.lines() {
        println!("{line}");
    }
    println!();
    println!(
        "Medians over the rounds; ratios are sessiond / memcached of the same round, median (lowest..highest)."
    );
    println!("Latency is that of a batch or of a whole cycle; busy is the share of its core.");
    println!();
    println!(
        "{:<23}{:<11}{:>11}{:>10}{:>10}{:>10}{:>11}{:>8}{:>11}",
        "workload", "", "units/s", "p50 us", "p99 us", "p99.9 us", "CPU us", "busy", "generator"
    );
}

/// Three lines: both servers and the ratios.
pub(crate) fn print_comparison(comparison: &Comparison) {
    let workload = comparison.workload;
    print_sample(workload.name, "memcached", &comparison.memcached);
    let unit = format!("  per {}", workload.unit);
    print_sample(&unit, "sessiond", &comparison.sessiond);
    println!(
        "{:<23}{:<11}throughput {}   p99 {}   CPU {}",
        "",
        "ratio",
        spread(comparison.throughput),
        spread(comparison.p99),
        spread(comparison.cpu),
    );
    if !workload.caveat.is_empty() {
        println!("{:<23}{}", "", workload.caveat);
    }
    if let Some(doubt) = doubt(comparison) {
        println!("{:<23}{doubt}", "");
    }
}

/// A workload without a result.
pub(crate) fn print_skipped(name: &str, because: &str) {
    println!("{name:<23}skipped: {because}");
}

/// The memory part.
pub(crate) fn print_memory(memory: &Memory) {
    println!();
    println!(
        "{:<23}{:>14}{:>14}{:>8}{:>18}{:>18}{:>8}",
        format!("items in -m {LIMIT_MIB}"),
        "memcached",
        "sessiond",
        "ratio",
        "RSS MiB memcached",
        "RSS MiB sessiond",
        "ratio"
    );
    for filled in &memory.filled {
        let (memcached, sessiond) = (filled.memcached, filled.sessiond);
        println!(
            "{:<23}{:>14}{:>14}{:>8.3}{:>18.1}{:>18.1}{:>8.3}",
            filled.name,
            memcached.items,
            sessiond.items,
            sessiond.items as f64 / memcached.items as f64,
            mebibytes(memcached.resident_bytes),
            mebibytes(sessiond.resident_bytes),
            sessiond.resident_bytes as f64 / memcached.resident_bytes as f64,
        );
    }
    let idle = memory.idle_cost;
    println!(
        "RSS per idle connection: memcached {:.0} bytes, sessiond {:.0} bytes",
        idle.memcached, idle.sessiond
    );
}

/// Why throughput and latency are not the server's own, where they are not.
pub(crate) fn doubt(comparison: &Comparison) -> Option<&'static str> {
    let samples = [comparison.memcached, comparison.sessiond];
    let is_any = |doubtful: fn(&Sample) -> bool| samples.iter().any(doubtful);
    if is_any(|it| it.generator_busy > BUSY && it.generator_busy >= it.server_busy) {
        return Some(
            "the generator was as busy as the server: CPU stands, throughput and latency are the least it can do",
        );
    }
    if is_any(|it| it.generator_busy < IDLE && it.server_busy < IDLE) {
        return Some("neither side was busy: other processes had the cores, repeat this");
    }
    None
}

pub(crate) fn spread(ratio: Ratio) -> String {
    let Ratio { median, lowest, highest } = ratio;
    format!("{median:.2} ({lowest:.2}..{highest:.2})")
}

pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

fn print_sample(title: &str, server: &str, sample: &Sample) {
    println!(
        "{title:<23}{server:<11}{:>11.0}{:>10.1}{:>10.1}{:>10.1}{:>11.3}{:>7.0}%{:>10.0}%",
        sample.units_per_s,
        sample.p50_us,
        sample.p99_us,
        sample.p999_us,
        sample.cpu_us_per_unit,
        sample.server_busy * 100.0,
        sample.generator_busy * 100.0,
    );
}
