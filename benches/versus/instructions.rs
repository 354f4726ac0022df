//! User instructions per operation, counted by callgrind: the figure that a busy machine changes least.
//!
//! Each server runs a workload twice, once with twice as many cycles; the difference is what the
//! cycles cost, without start, preloading and end. What callgrind wrote stays in the log folder.
//! sessiond must be built with rustix's `use-libc-auxv` (`make bench` does): otherwise rustix asks the kernel
//! for the vDSO, which valgrind has taken away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::dataset::Dataset;
use crate::failure::{Doing, Failure};
use crate::load::{Extent, Load};
use crate::rounds::Programs;
use crate::server::{LOG_FOLDER, Program, Setup};
use crate::workloads::{COUNTED, Workload};

/// Units in the shorter run.
const UNITS: u64 = 24_000;
/// Instructions hardly depend on it, and preloading under valgrind is slow.
const ITEMS: usize = 20_000;
const LIMIT_MIB: usize = 1024;

/// Instructions, in one run or per unit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    /// Of the one worker.
    pub(crate) worker: f64,
    /// Of all threads. Those beside the worker go by the clock, so this wavers, and valgrind's slowness
    /// makes them look more important than they are.
    pub(crate) process: f64,
}

/// Instructions per unit of one workload.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) workload: &'static Workload,
    pub(crate) memcached: Count,
    pub(crate) sessiond: Count,
}

/// Whether valgrind can be run here.
pub(crate) fn is_possible() -> bool {
    let mut version = Command::new("valgrind");
    version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// Counts for every workload and both servers.
pub(crate) fn compare(programs: &Programs) -> Result<Vec<Counted>, Failure> {
    let count = |workload: &'static Workload| {
        Ok(Counted {
            workload,
            memcached: per_unit(&programs.memcached, workload)?,
            sessiond: per_unit(&programs.sessiond, workload)?,
        })
    };
    let named = |workload: &'static Workload| {
        count(workload).map_err(|failure: Failure| failure.during(workload.name))
    };
    COUNTED.iter().map(named).collect()
}

fn per_unit(program: &Program, workload: &'static Workload) -> Result<Count, Failure> {
    let cycles = UNITS / workload.units as u64;
    let once = instructions(program, workload, cycles)?;
    let twice = instructions(program, workload, 2 * cycles)?;
    let units = (cycles * workload.units as u64) as f64;
    Ok(Count {
        worker: (twice.worker - once.worker) / units,
        process: (twice.process - once.process) / units,
    })
}

/// All instructions from the server's start to its end.
fn instructions(
    program: &Program,
    workload: &'static Workload,
    cycles: u64,
) -> Result<Count, Failure> {
    let name = format!("versus-{}-{}-{cycles}.callgrind", program.name, workload.name);
    let path = Path::new(LOG_FOLDER).join(&name);
    for old in threads(&name)? {
        fs::remove_file(&old).doing(|| format!("removing {}", old.display()))?;
    }
    let dataset = Dataset::of(ITEMS, workload.length_of);
    let setup = Setup { counts: Some(path), ..Setup::with_limit(LIMIT_MIB) };
    let server = program.start(&setup)?;
    server.connect()?.preload(&dataset)?;
    Load::open(workload, &dataset, &[&server])?.run(Extent::Cycles(cycles))?;
    server.stop()?;
    let mut count = Count::default();
    for thread in threads(&name)? {
        let total = total(&thread)?;
        // Nothing else works as much: it has all the requests.
        count.worker = count.worker.max(total);
        count.process += total;
    }
    Ok(count)
}

/// The files that callgrind wrote under this name: one for each thread, `-01` and so on.
fn threads(name: &str) -> Result<Vec<PathBuf>, Failure> {
    let doing = || format!("reading {LOG_FOLDER}");
    let mut paths = Vec::new();
    for entry in fs::read_dir(LOG_FOLDER).doing(doing)? {
        let entry = entry.doing(doing)?;
        if entry.file_name().to_string_lossy().starts_with(name) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// 0 for a thread that did nothing.
fn total(path: &Path) -> Result<f64, Failure> {
    let text = fs::read_to_string(path).doing(|| format!("reading {}", path.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    Ok(total.unwrap_or(0.0))
}
