//! The results as a table on the terminal, a workload at a time.

use crate::rounds::{Comparison, Limit, Ratio, Sample};

/// Which programs ran, where and when.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) date: String,
    pub(crate) machine: String,
    pub(crate) memcached: String,
    pub(crate) sessiond: String,
    pub(crate) pace: String,
    /// The options of this run.
    pub(crate) command: String,
}

impl Setting {
    pub(crate) fn lines(&self) -> [String; 6] {
        [
            format!("date:      {}", self.date),
            format!("machine:   {}", self.machine),
            format!("memcached: {}", self.memcached),
            format!("sessiond:  {}", self.sessiond),
            format!("pace:      {}", self.pace),
            format!("command:   {}", self.command),
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
    println!(
        "Latency is that of a batch or of a whole cycle; busy is the share of its core; limit is who had no time left."
    );
    println!();
    println!(
        "{:<23}{:<11}{:>11}{:>10}{:>10}{:>10}{:>11}{:>8}{:>11}{:>11}",
        "workload",
        "",
        "units/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "CPU us",
        "busy",
        "generator",
        "limit"
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
        speed(comparison, comparison.throughput),
        speed(comparison, comparison.p99),
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

/// A part that is text already.
pub(crate) fn print_section(section: &str) {
    println!("\n{section}");
}

/// What a reader must not conclude from this result.
pub(crate) fn doubt(comparison: &Comparison) -> Option<&'static str> {
    if comparison.samples().iter().any(|sample| sample.limit() == Limit::Neither) {
        return Some("neither side was busy: other processes had the cores, repeat this");
    }
    (!comparison.shows_speed()).then_some(
        "the generator was as busy as the server: its throughput and latency are the least a server can do, \
         so only CPU is compared",
    )
}

/// A ratio of speed, unless it would be the generator's.
pub(crate) fn speed(comparison: &Comparison, ratio: Ratio) -> String {
    if comparison.shows_speed() { spread(ratio) } else { "-".to_owned() }
}

pub(crate) fn limit(sample: &Sample) -> &'static str {
    match sample.limit() {
        Limit::Server => "server",
        Limit::Generator => "generator",
        Limit::Neither => "neither",
    }
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
        "{title:<23}{server:<11}{:>11.0}{:>10.1}{:>10.1}{:>10.1}{:>11.3}{:>7.0}%{:>10.0}%{:>11}",
        sample.units_per_s,
        sample.p50_us,
        sample.p99_us,
        sample.p999_us,
        sample.cpu_us_per_unit,
        sample.server_busy * 100.0,
        sample.generator_busy * 100.0,
        limit(sample),
    );
}
