//! What the operating system knows: cores, pinning, CPU time and resident memory of a process.
//!
//! Linux only: reads `/proc` and starts `taskset` and `prlimit` of util-linux.

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::failure::{Doing, Failure};

/// Where both servers run. They never work at the same time.
pub(crate) const SERVER_CORE: &str = "0";
/// Where the generator runs.
const GENERATOR_CORE: &str = "1";
/// Tells the second incarnation that it is pinned already.
const PINNED: &str = "VERSUS_PINNED";

/// What a reader of the results wants to know about the hardware.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) cpu_model: String,
    pub(crate) kernel: String,
}

impl Machine {
    pub(crate) fn read() -> Result<Self, Failure> {
        let cpuinfo = read("/proc/cpuinfo")?;
        let model =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let release = read("/proc/sys/kernel/osrelease")?;
        Ok(Self {
            // Not `available_parallelism`: that counts what the pinned generator may use.
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            cpu_model: model.map_or("unknown CPU", |(_, name)| name).to_owned(),
            // What follows the number says who built it.
            kernel: release.split(['-', '+']).next().unwrap_or_default().trim().to_owned(),
        })
    }
}

/// Replaces this process by itself, pinned and allowed enough files; returns once that is so.
pub(crate) fn pin_generator(machine: &Machine, files_wanted: u64) -> Result<(), Failure> {
    if env::var_os(PINNED).is_some() {
        return Ok(());
    }
    if machine.cores < 2 {
        let complaint = "this bench needs two cores: one for the server, one for the generator";
        return Err(Failure::Option(complaint.to_owned()));
    }
    let program = env::current_exe().doing(|| "finding this program".to_owned())?;
    // The servers inherit the limit.
    let open_files = format!("--nofile={}:", files_wanted.min(files_allowed_at_most()));
    let error = Command::new("prlimit")
        .args([&open_files, "taskset", "-c", GENERATOR_CORE])
        .arg(program)
        .args(env::args_os().skip(1))
        .env(PINNED, "1")
        .exec();
    Err(Failure::Io {
        doing: "starting prlimit and taskset (util-linux)".to_owned(),
        source: error,
    })
}

/// How many files this process and its children may open.
pub(crate) fn files_allowed() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How far the limit may be raised by anybody.
fn files_allowed_at_most() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// The CPU time, user and system, that all living threads of a process used so far.
///
/// `process` is a number, or "self".
pub(crate) fn cpu_time(process: &str) -> Result<Duration, Failure> {
    match run_time(process) {
        Err(Failure::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            clock_ticks(process)
        }
        other => other,
    }
}

/// Nanosecond resolution, from the scheduler's own books.
fn run_time(process: &str) -> Result<Duration, Failure> {
    let folder = format!("/proc/{process}/task");
    let threads = fs::read_dir(&folder).doing(|| format!("reading {folder}"))?;
    let mut total = Duration::ZERO;
    for thread in threads {
        let thread = thread.doing(|| format!("reading {folder}"))?;
        let path = thread.path().join("schedstat");
        let line = read(&path.to_string_lossy())?;
        total += Duration::from_nanos(number(&line, 0));
    }
    Ok(total)
}

/// For kernels without schedstat: hundredths of a second, which two-second rounds still stand.
fn clock_ticks(process: &str) -> Result<Duration, Failure> {
    const TICK: Duration = Duration::from_millis(10);
    let line = read(&format!("/proc/{process}/stat"))?;
    // The second field is a name in parentheses that may hold spaces.
    let fields = line.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = number(fields, 11) + number(fields, 12);
    Ok(TICK * u32::try_from(ticks).unwrap_or(u32::MAX))
}

/// The memory a process has in RAM.
pub(crate) fn resident_bytes(process: &str) -> Result<u64, Failure> {
    let status = read(&format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(number(line.unwrap_or(""), 0) * 1024)
}

/// Today's date, UTC.
pub(crate) fn today() -> Result<String, Failure> {
    let output = Command::new("date")
        .args(["-u", "+%Y-%m-%d"])
        .output()
        .doing(|| "starting date".to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn read(path: &str) -> Result<String, Failure> {
    fs::read_to_string(path).doing(|| format!("reading {path}"))
}

/// The field at `index`; 0 when it is not there.
fn number(line: &str, index: usize) -> u64 {
    let field = line.split_ascii_whitespace().nth(index);
    field.and_then(|field| field.parse().ok()).unwrap_or(0)
}
