//! `cargo bench --bench versus`: sessiond beside stock memcached, one worker each, one load generator.
//!
//! Both servers are started afresh for every workload, on core 0, and take turns; this process
//! runs on core 1. What counts is the ratio within a round: alone, a round can be off by 40 %.

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

mod charts;
mod client;
mod connection;
mod crowd;
mod dataset;
mod exchange;
mod expected;
mod extras;
mod failure;
mod group;
mod histogram;
mod instructions;
mod interrupt;
mod load;
mod machine;
mod markdown;
mod members;
mod memory;
mod options;
mod plot;
mod promise;
mod redis;
mod rejoin;
mod replicated;
mod report;
mod rounds;
mod sections;
mod server;
mod source;
mod table;
mod workloads;

use std::process::ExitCode;

use clap::Parser;

use crate::failure::Failure;
use crate::machine::Machine;
use crate::markdown::Results;
use crate::options::Options;
use crate::report::Setting;
use crate::rounds::{Comparison, Outcome, Programs};
use crate::server::{LOG_FOLDER, Program};

/// What a shell reports for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.is_bench {
        println!("versus measures only under `cargo bench --bench versus`");
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        // Ctrl-C reaches the servers too, so it may first show as a lost connection.
        Err(_) if interrupt::is_interrupted() => {
            eprintln!("versus: {}", Failure::Interrupted);
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Err(failure) => {
            eprintln!("versus: {failure}");
            eprintln!("versus: the servers logged to {LOG_FOLDER}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    options.check()?;
    let machine = Machine::read()?;
    machine::pin_generator(&machine, crowd::files_wanted())?;
    interrupt::watch()?;
    let programs = Programs { memcached: Program::memcached(), sessiond: Program::sessiond() };
    let setting = setting(options, &machine, &programs)?;
    report::print_head(&setting);
    let (comparisons, skipped) = compare_speed(options, &programs)?;
    let extras = extras::measure(options, &programs)?;
    let Some(path) = &options.markdown else {
        return Ok(());
    };
    let mut charts = charts::of_speed(&comparisons);
    charts.extend(extras.charts);
    let results = Results {
        setting: &setting,
        comparisons: &comparisons,
        skipped: &skipped,
        sections: &extras.sections,
        plots: &charts::write(path, &charts)?,
    };
    markdown::write(path, &results)
}

fn setting(options: &Options, machine: &Machine, programs: &Programs) -> Result<Setting, Failure> {
    let pace = options.pace();
    Ok(Setting {
        date: machine::today()?,
        machine: format!(
            "{} cores, {}, Linux {}",
            machine.cores, machine.cpu_model, machine.kernel
        ),
        memcached: programs.memcached.version()?,
        sessiond: programs.sessiond.version()?,
        pace: format!(
            "{} interleaved rounds of {} s per server",
            pace.rounds,
            pace.round.as_secs_f64()
        ),
        command: format!("make bench BENCH=\"{}\"", options_given()),
    })
}

/// As they were given to `make`.
fn options_given() -> String {
    let given: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    given.join(" ")
}

type Skipped = Vec<(&'static str, String)>;

fn compare_speed(
    options: &Options,
    programs: &Programs,
) -> Result<(Vec<Comparison>, Skipped), Failure> {
    let mut comparisons = Vec::new();
    let mut skipped = Vec::new();
    for workload in options.workloads() {
        let outcome = rounds::compare(workload, programs, options.pace());
        match outcome.map_err(|failure| failure.during(workload.name))? {
            Outcome::Compared(comparison) => {
                report::print_comparison(&comparison);
                comparisons.push(*comparison);
            }
            Outcome::Skipped { because } => {
                report::print_skipped(workload.name, &because);
                skipped.push((workload.name, because));
            }
        }
    }
    Ok((comparisons, skipped))
}
