//! The results as a markdown file, ready for the documentation.

use std::fs;
use std::path::Path;

use crate::failure::{Doing, Failure};
use crate::memory::{LIMIT_MIB, Memory};
use crate::report::{Setting, doubt, mebibytes, spread};
use crate::rounds::{Comparison, Sample};
use crate::workloads::Workload;

/// Everything there is to write.
pub(crate) struct Results<'a> {
    pub(crate) setting: &'a Setting,
    pub(crate) comparisons: &'a [Comparison],
    /// Names and reasons.
    pub(crate) skipped: &'a [(&'static str, String)],
    pub(crate) memory: Option<&'a Memory>,
}

/// Writes or replaces the file.
pub(crate) fn write(path: &Path, results: &Results<'_>) -> Result<(), Failure> {
    let text = [
        head(results.setting),
        ratios(results.comparisons),
        samples(results.comparisons),
        caveats(results.comparisons),
        skipped(results.skipped),
        results.memory.map(memory).unwrap_or_default(),
    ]
    .concat();
    fs::write(path, text).doing(|| format!("writing {}", path.display()))
}

fn head(setting: &Setting) -> String {
    let mut text = "# sessiond beside memcached\n\n".to_owned();
    for line in setting.lines() {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        text += &format!("- {name}: {}\n", value.trim());
    }
    text += "\nBoth servers have one worker thread and core 0; the generator has core 1. 100,000 keys of \
             32 bytes, loopback, every reply compared byte by byte.\n";
    text
}

fn ratios(comparisons: &[Comparison]) -> String {
    if comparisons.is_empty() {
        return String::new();
    }
    let mut text = "\n## sessiond / memcached\n\n\
        Median over the rounds of the ratio within a round (lowest..highest). \
        For CPU and p99 lower is better, for throughput higher.\n\n\
        | workload | CPU per unit | p99 | throughput |\n|---|---|---|---|\n"
        .to_owned();
    for comparison in comparisons {
        text += &format!(
            "| {} | {} | {} | {} |\n",
            comparison.workload.name,
            spread(comparison.cpu),
            spread(comparison.p99),
            spread(comparison.throughput),
        );
    }
    text
}

fn samples(comparisons: &[Comparison]) -> String {
    if comparisons.is_empty() {
        return String::new();
    }
    let mut text = "\n## Medians\n\n\
        Latency is that of a batch or of a whole cycle. Busy is the share of its core.\n\n\
        | workload | server | unit | units/s | p50 us | p99 us | p99.9 us | CPU us/unit | server busy | generator busy |\n\
        |---|---|---|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for comparison in comparisons {
        text += &sample(comparison, "memcached", &comparison.memcached);
        text += &sample(comparison, "sessiond", &comparison.sessiond);
    }
    text
}

fn sample(comparison: &Comparison, server: &str, sample: &Sample) -> String {
    format!(
        "| {} | {server} | {} | {:.0} | {:.1} | {:.1} | {:.1} | {:.3} | {:.0} % | {:.0} % |\n",
        comparison.workload.name,
        comparison.workload.unit,
        sample.units_per_s,
        sample.p50_us,
        sample.p99_us,
        sample.p999_us,
        sample.cpu_us_per_unit,
        sample.server_busy * 100.0,
        sample.generator_busy * 100.0,
    )
}

fn caveats(comparisons: &[Comparison]) -> String {
    let mut text = String::new();
    for comparison in comparisons {
        let Workload { name, caveat, .. } = comparison.workload;
        let known = Some(*caveat).filter(|caveat| !caveat.is_empty());
        for remark in known.into_iter().chain(doubt(comparison)) {
            text += &format!("\n`{name}`: {remark}.\n");
        }
    }
    text
}

fn skipped(skipped: &[(&'static str, String)]) -> String {
    skipped.iter().map(|(name, because)| format!("\n`{name}` was skipped: {because}.\n")).collect()
}

fn memory(memory: &Memory) -> String {
    let mut text = format!(
        "\n## Memory with -m {LIMIT_MIB}\n\n\
         Filled until the number of items stops growing.\n\n\
         | values | items memcached | items sessiond | ratio | RSS memcached | RSS sessiond | ratio |\n\
         |---|---:|---:|---:|---:|---:|---:|\n"
    );
    for filled in &memory.filled {
        let (memcached, sessiond) = (filled.memcached, filled.sessiond);
        text += &format!(
            "| {} | {} | {} | {:.3} | {:.1} MiB | {:.1} MiB | {:.3} |\n",
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
    text += &format!(
        "\nRSS per idle connection: memcached {:.0} bytes, sessiond {:.0} bytes.\n",
        idle.memcached, idle.sessiond
    );
    text
}
