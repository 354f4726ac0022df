//! The command line of `cargo bench --bench versus -- [options]`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::failure::Failure;
use crate::workloads::{WORKLOADS, Workload};

/// The names under which `--only` knows the parts that measure no speed.
const MEMORY: &str = "memory";
const INSTRUCTIONS: &str = "instructions";
const GROUP: &str = "group";
const REPLICATED: &str = "replicated";
const REJOIN: &str = "rejoin";
/// All of them.
const PARTS: [&str; 5] = [MEMORY, INSTRUCTIONS, GROUP, REPLICATED, REJOIN];

/// Runs stock memcached and sessiond side by side and compares them.
///
/// Both get one worker thread on core 0, the load generator has core 1 to itself.
/// The sessiond binary is the one just built, or the one that SESSIOND names.
#[derive(Debug, Parser)]
#[command(name = "versus", verbatim_doc_comment)]
pub(crate) struct Options {
    /// Interleaved rounds per workload
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// Seconds per round and server
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,

    /// Two rounds of half a second: does it work at all?
    #[arg(long)]
    pub(crate) quick: bool,

    /// Only these workloads, by name, separated by commas; "memory", "instructions", "group",
    /// "replicated" and "rejoin" are those parts
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,

    /// Also fill both servers and compare how many items they hold and what memory that takes,
    /// and what open connections add
    #[arg(long)]
    memory: bool,

    /// Also count instructions per operation; needs valgrind
    #[arg(long)]
    instructions: bool,

    /// Also compare a node of a group of three with a single node
    #[arg(long)]
    group: bool,

    /// Also compare sets in a group of three with a single node, and with Redis and two replicas
    #[arg(long)]
    replicated: bool,

    /// Also measure how long a node takes to come back into a group that holds a gibibyte
    #[arg(long)]
    rejoin: bool,

    /// Also write the results to this file as markdown, and plots beside it as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,

    /// Given by `cargo bench`; absent under `cargo test`, which must not measure anything
    #[arg(long = "bench", hide = true)]
    pub(crate) is_bench: bool,
}

/// How long and how often each workload runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) rounds: usize,
    pub(crate) round: Duration,
}

impl Options {
    /// Refuses what clap cannot see.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if !(0.05..=3600.0).contains(&self.seconds) {
            let complaint = format!("--seconds {}: expected 0.05 to 3600", self.seconds);
            return Err(Failure::Option(complaint));
        }
        let unknown = |name: &&String| {
            !PARTS.contains(&name.as_str())
                && !WORKLOADS.iter().any(|workload| workload.name == **name)
        };
        if let Some(name) = self.only.iter().find(unknown) {
            let names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
            let complaint = format!(
                "--only {name}: expected one of {}, {}",
                names.join(", "),
                PARTS.join(", ")
            );
            return Err(Failure::Option(complaint));
        }
        Ok(())
    }

    pub(crate) fn pace(&self) -> Pace {
        if self.quick {
            return Pace { rounds: 2, round: Duration::from_millis(500) };
        }
        Pace { rounds: usize::from(self.rounds), round: Duration::from_secs_f64(self.seconds) }
    }

    /// The chosen workloads, in the order of the table.
    pub(crate) fn workloads(&self) -> impl Iterator<Item = &'static Workload> {
        WORKLOADS.iter().filter(|workload| self.only.is_empty() || self.is_chosen(workload.name))
    }

    pub(crate) fn wants_memory(&self) -> bool {
        self.is_chosen(MEMORY) || self.memory
    }

    pub(crate) fn wants_instructions(&self) -> bool {
        self.is_chosen(INSTRUCTIONS) || self.instructions
    }

    pub(crate) fn wants_group(&self) -> bool {
        self.is_chosen(GROUP) || self.group
    }

    pub(crate) fn wants_replicated(&self) -> bool {
        self.is_chosen(REPLICATED) || self.replicated
    }

    pub(crate) fn wants_rejoin(&self) -> bool {
        self.is_chosen(REJOIN) || self.rejoin
    }

    fn is_chosen(&self, name: &str) -> bool {
        self.only.iter().any(|chosen| chosen == name)
    }
}
