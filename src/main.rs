//! Reads the command line, puts the process in order, starts the server, and says how it ended.

use std::io::Write;
use std::process::ExitCode;

use rand::TryRng;
use sessiond::server::{self, Server};
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

mod config;
mod process;

use config::{Command, Launch, Verbosity};
use process::PidFile;

/// The command line is wrong, the user is unknown, or the system refuses; the numbers are those of
/// sysexits.h, as with memcached.
const EXIT_USAGE: u8 = 64;
const EXIT_NO_USER: u8 = 67;
const EXIT_START: u8 = 71;

/// A node that runs does not do what it was told.
const EXIT_REFUSED: u8 = 1;

/// What memcached's test suite, and whoever copied from it, calls the file of the ports.
const PORT_FILE: &str = "MEMCACHED_PORT_FILENAME";

/// Why there is no server: the line to print and the exit code.
struct Failure(String, u8);

fn main() -> ExitCode {
    match command().and_then(obey) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(line, code)) => {
            // With stderr gone, the exit code is all that is left to say it.
            let _ = writeln!(std::io::stderr(), "error: {line}");
            ExitCode::from(code)
        }
    }
}

fn command() -> Result<Command, Failure> {
    let random = random().map_err(|error| {
        Failure(format!("the system gives no random numbers: {error}"), EXIT_START)
    })?;
    config::parse(std::env::args_os(), random).map_err(|line| Failure(line, EXIT_USAGE))
}

fn obey(command: Command) -> Result<(), Failure> {
    match command {
        Command::Print(text) => std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| Failure(format!("cannot print: {error}"), EXIT_START)),
        Command::Tell { state_dir, line } => {
            let answer = server::ask(&state_dir, &line);
            obey(Command::Print(answer.map_err(|why| Failure(why, EXIT_REFUSED))?))
        }
        Command::Run(launch) => run(*launch),
    }
}

/// The order matters: limits while root, sockets as the user that will own them and before the
/// terminal is gone, threads and locked memory in the process that stays.
fn run(launch: Launch) -> Result<(), Failure> {
    let Launch { server: mut options, process, verbosity, warnings } = launch;
    start_log(verbosity);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    process::raise_limits(&process);
    process::assume_user(&process)?;
    options.port_file = std::env::var_os(PORT_FILE).map(Into::into);
    let server = Server::bind(options).map_err(no_start)?;
    process::detach(&process)?;
    process::lock_memory(&process);
    let _pid_file = PidFile::write(&process);
    server.run().map_err(no_start)
}

fn no_start(error: sessiond::server::StartError) -> Failure {
    Failure(error.to_string(), EXIT_START)
}

impl From<process::Failure> for Failure {
    fn from(failure: process::Failure) -> Self {
        let code = match failure {
            process::Failure::NoUser(_) => EXIT_NO_USER,
            process::Failure::System(..) => EXIT_START,
        };
        Self(failure.to_string(), code)
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
