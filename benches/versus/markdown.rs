//! The results as a markdown file, ready for the documentation.

use std::fs;
use std::path::Path;

use crate::failure::{Doing, Failure};
use crate::report::{Setting, doubt, limit, speed, spread};
use crate::rounds::{Comparison, Sample};
use crate::table::Table;
use crate::workloads::Workload;

/// Everything there is to write.
pub(crate) struct Results<'a> {
    pub(crate) setting: &'a Setting,
    pub(crate) comparisons: &'a [Comparison],
    /// Names and reasons.
    pub(crate) skipped: &'a [(&'static str, String)],
    /// The parts that measure no speed.
    pub(crate) sections: &'a [String],
    /// Files beside this one.
    pub(crate) plots: &'a [String],
}

/// Where the part begins that people write. It survives.
const BY_HAND: &str = "\n## How to read this\n";

/// Writes or replaces the file, but for what people wrote in it.
pub(crate) fn write(path: &Path, results: &Results<'_>) -> Result<(), Failure> {
    let text = [
        head(results.setting),
        plots(results.plots),
        ratios(results.comparisons),
        samples(results.comparisons),
        caveats(results.comparisons),
        skipped(results.skipped),
        results.sections.iter().map(|section| format!("\n{section}")).collect(),
        written_by_hand(path),
    ]
    .concat();
    fs::write(path, text).doing(|| format!("writing {}", path.display()))
}

fn written_by_hand(path: &Path) -> String {
    let old = fs::read_to_string(path).unwrap_or_default();
    old.find(BY_HAND).map(|start| old[start..].to_owned()).unwrap_or_default()
}

fn head(setting: &Setting) -> String {
    let mut text = "# Benchmarks: sessiond beside memcached\n\n".to_owned();
    for line in setting.lines() {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        text += &format!("- {name}: {}\n", value.trim());
    }
    text += "\nBoth servers have one worker thread and core 0; the generator has core 1. 100,000 keys of \
             32 bytes, loopback, replies compared byte by byte.\n";
    text
}

fn plots(names: &[String]) -> String {
    names.iter().map(|name| format!("\n![{name}]({name})\n")).collect()
}

fn ratios(comparisons: &[Comparison]) -> String {
    if comparisons.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["workload", "CPU per unit", "p99", "throughput"]);
    for comparison in comparisons {
        table.push([
            comparison.workload.name.to_owned(),
            spread(comparison.cpu),
            speed(comparison, comparison.p99),
            speed(comparison, comparison.throughput),
        ]);
    }
    format!(
        "\n## sessiond / memcached\n\n\
         Median over the rounds of the ratio within a round (lowest..highest). \
         For CPU and p99 lower is better, for throughput higher.\n\n{table}"
    )
}

fn samples(comparisons: &[Comparison]) -> String {
    if comparisons.is_empty() {
        return String::new();
    }
    let mut table = Table::new([
        "workload",
        "server",
        "unit",
        "units/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "CPU us/unit",
        "server busy",
        "generator busy",
        "limit",
    ]);
    for comparison in comparisons {
        table.push(sample(comparison, "memcached", &comparison.memcached));
        table.push(sample(comparison, "sessiond", &comparison.sessiond));
    }
    format!(
        "\n## Medians\n\n\
         Latency is that of a batch or of a whole cycle. Busy is the share of its core, limit who had no time left.\n\n{table}"
    )
}

fn sample(comparison: &Comparison, server: &str, sample: &Sample) -> [String; 11] {
    [
        comparison.workload.name.to_owned(),
        server.to_owned(),
        comparison.workload.unit.to_owned(),
        format!("{:.0}", sample.units_per_s),
        format!("{:.1}", sample.p50_us),
        format!("{:.1}", sample.p99_us),
        format!("{:.1}", sample.p999_us),
        format!("{:.3}", sample.cpu_us_per_unit),
        format!("{:.0} %", sample.server_busy * 100.0),
        format!("{:.0} %", sample.generator_busy * 100.0),
        limit(sample).to_owned(),
    ]
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
