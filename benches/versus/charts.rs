//! Which charts a run draws, and where they go: beside the markdown file, named after it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Doing, Failure};
use crate::instructions::Counted;
use crate::memory::Filled;
use crate::plot::{Better, Chart};
use crate::rounds::{Comparison, Ratio};

/// CPU for every workload; p99 and throughput only where they are those of the servers.
pub(crate) fn of_speed(comparisons: &[Comparison]) -> Vec<Chart> {
    let rows = |ratio: fn(&Comparison) -> Ratio, is_shown: fn(&Comparison) -> bool| {
        let shown = comparisons.iter().filter(|comparison| is_shown(comparison));
        shown.map(|it| (it.workload.name.to_owned(), ratio(it))).collect()
    };
    vec![
        Chart {
            name: "cpu",
            title: "Server CPU per unit of work",
            better: Better::Lower,
            rows: rows(|it| it.cpu, |_| true),
        },
        Chart {
            name: "p99",
            title: "99th percentile of latency, closed loop",
            better: Better::Lower,
            rows: rows(|it| it.p99, Comparison::shows_speed),
        },
        Chart {
            name: "throughput",
            title: "Throughput",
            better: Better::Higher,
            rows: rows(|it| it.throughput, Comparison::shows_speed),
        },
    ]
}

pub(crate) fn of_memory(filled: &[Filled]) -> Chart {
    let items = |it: &Filled| single(it.sessiond.items as f64 / it.memcached.items as f64);
    Chart {
        name: "items",
        title: "Items held in the same -m, by length of values",
        better: Better::Higher,
        rows: filled.iter().map(|it| (it.name.to_owned(), items(it))).collect(),
    }
}

pub(crate) fn of_instructions(counted: &[Counted]) -> Chart {
    Chart {
        name: "instructions",
        title: "User instructions per unit of work",
        better: Better::Lower,
        rows: counted
            .iter()
            .map(|it| {
                (it.workload.name.to_owned(), single(it.sessiond.worker / it.memcached.worker))
            })
            .collect(),
    }
}

/// Measured once: no spread.
fn single(ratio: f64) -> Ratio {
    Ratio { median: ratio, lowest: ratio, highest: ratio }
}

/// Writes the charts that have content; returns the names of their files.
pub(crate) fn write(markdown: &Path, charts: &[Chart]) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for chart in charts.iter().filter(|chart| !chart.rows.is_empty()) {
        let path = path_beside(markdown, chart);
        fs::write(&path, chart.svg()).doing(|| format!("writing {}", path.display()))?;
        names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    Ok(names)
}

fn path_beside(markdown: &Path, chart: &Chart) -> PathBuf {
    let stem = markdown.file_stem().unwrap_or_default().to_string_lossy();
    markdown.with_file_name(format!("{stem}-{}.svg", chart.name))
}
