//! Reads the command line, puts the process in order, starts the server or who supervises it, and
//! says how it ended.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use rand::TryRng;
use sessiond::server::{self, Ended, Server};
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

mod config;
mod process;
mod supervisor;

use config::{Command, Launch, Verbosity};
use process::PidFile;

/// The command line is wrong, the user is unknown, or the system refuses; the numbers are those of
/// sysexits.h, as with memcached.
const EXIT_USAGE: u8 = 64;
const EXIT_NO_USER: u8 = 67;
const EXIT_START: u8 = 71;

/// A node that runs does not do what it was told.
const EXIT_REFUSED: u8 = 1;
/// The server is to be started anew, by its supervisor or whoever else keeps it; that is sysexits.h's
/// "try again".
const EXIT_AGAIN: u8 = 75;

/// What memcached's test suite, and whoever copied from it, calls the file of the ports.
const PORT_FILE: &str = "MEMCACHED_PORT_FILENAME";

/// Why there is no server: the line to print, unless somebody has printed it, and the exit code.
struct Failure(Option<String>, u8);

impl Failure {
    fn new(line: impl Into<String>, code: u8) -> Self {
        Self(Some(line.into()), code)
    }
}

fn main() -> ExitCode {
    match command().and_then(obey) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(line, code)) => {
            if let Some(line) = line {
                // With stderr gone, the exit code is all that is left to say it.
                let _ = writeln!(std::io::stderr(), "error: {line}");
            }
            ExitCode::from(code)
        }
    }
}

fn command() -> Result<Command, Failure> {
    let random = random().map_err(|error| {
        Failure::new(format!("the system gives no random numbers: {error}"), EXIT_START)
    })?;
    config::parse(std::env::args_os(), random).map_err(|line| Failure::new(line, EXIT_USAGE))
}

fn obey(command: Command) -> Result<(), Failure> {
    match command {
        Command::Print(text) => std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| Failure::new(format!("cannot print: {error}"), EXIT_START)),
        Command::Tell { state_dir, line, patience } => {
            let answer = match patience {
                Some(patience) => server::ask_and_wait(&state_dir, &line, patience),
                None => server::ask(&state_dir, &line),
            };
            obey(Command::Print(answer.map_err(|why| Failure::new(why, EXIT_REFUSED))?))
        }
        Command::Run(launch) => run(*launch),
    }
}

/// The order matters: limits while root, sockets as the user that will own them and before the
/// terminal is gone, threads and locked memory in the process that stays.
fn run(launch: Launch) -> Result<(), Failure> {
    let Launch {
        server: mut options,
        mut process,
        verbosity,
        warnings,
        supervise,
        upgrade_timeout,
        upgrades_beside,
    } = launch;
    start_log(verbosity);
    let is_child = supervisor::is_child();
    if is_child {
        process = process.of_child();
    } else {
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
    process::raise_limits(&process);
    process::assume_user(&process)?;
    if supervise && !is_child {
        let beside = upgrades_beside.then_some(options.node.settings.memory as u64);
        return supervised(&options, &process, (upgrade_timeout, beside));
    }
    options.supervisor = is_child.then(|| nix::unistd::getppid().as_raw());
    options.is_beside = is_child && supervisor::is_beside();
    options.port_file = std::env::var_os(PORT_FILE).map(Into::into);
    let server = Server::bind(options).map_err(no_start)?;
    process::detach(&process)?;
    process::lock_memory(&process);
    let _pid_file = PidFile::write(&process);
    match server.run().map_err(no_start)? {
        Ended::Over => Ok(()),
        Ended::Again => Err(Failure(None, EXIT_AGAIN)),
    }
}

/// Holds the sockets, and has a child serve.
fn supervised(
    options: &server::Options,
    process: &process::Options,
    (upgrade_timeout, beside): (Duration, Option<u64>),
) -> Result<(), Failure> {
    let sockets = Server::hold_sockets(options).map_err(no_start)?;
    process::detach(process)?;
    let _pid_file = PidFile::write(process);
    let ended = supervisor::run(supervisor::Options {
        arguments: std::env::args_os().collect(),
        sockets,
        upgrade_timeout,
        beside,
        hopeless: &[EXIT_USAGE, EXIT_NO_USER, EXIT_START],
        again: EXIT_AGAIN,
    });
    ended.map_err(|failure| match failure {
        supervisor::Failure::Child(code) => Failure(None, code),
        supervisor::Failure::System(what, error) => {
            Failure::new(format!("cannot {what}: {error}"), EXIT_START)
        }
    })
}

fn no_start(error: sessiond::server::StartError) -> Failure {
    Failure::new(error.to_string(), EXIT_START)
}

impl From<process::Failure> for Failure {
    fn from(failure: process::Failure) -> Self {
        let code = match failure {
            process::Failure::NoUser(_) => EXIT_NO_USER,
            process::Failure::System(..) => EXIT_START,
        };
        Self::new(failure.to_string(), code)
    }
}

fn random() -> Result<[u64; 2], rand::rngs::SysError> {
    Ok([rand::rngs::SysRng.try_next_u64()?, rand::rngs::SysRng.try_next_u64()?])
}

fn start_log(verbosity: Verbosity) {
    let level = match verbosity {
        Verbosity::Events => Level::INFO,
        Verbosity::Details => Level::DEBUG,
        Verbosity::Everything => Level::TRACE,
    };
    // The consensus crate tells of each question that a dead peer does not answer; what an
    // operator has to know of it, `membership/` says.
    let crates = Targets::new().with_default(level).with_target("openraft", LevelFilter::OFF);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false);
    tracing_subscriber::registry().with(lines).with(crates).init();
}
