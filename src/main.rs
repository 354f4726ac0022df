//! Reads the command line, starts the log and the server, and says how it ended.

use std::io::Write;
use std::process::ExitCode;

use rand::TryRng;
use sessiond::server;
use tracing::Level;

mod config;

use config::{Command, Verbosity};

/// The command line is wrong, or an address can't be had.
const EXIT_USAGE: u8 = 64;
const EXIT_START: u8 = 71;

fn main() -> ExitCode {
    let random = match random() {
        Ok(random) => random,
        Err(error) => {
            return fail(&format!("the system gives no random numbers: {error}"), EXIT_START);
        }
    };
    match config::parse(std::env::args_os(), random) {
        Ok(Command::Print(text)) => {
            let written = std::io::stdout().write_all(text.as_bytes());
            if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(Command::Run(options, verbosity)) => {
            start_log(verbosity);
            match server::run(*options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error.to_string(), EXIT_START),
            }
        }
        Err(line) => fail(&line, EXIT_USAGE),
    }
}

fn fail(line: &str, code: u8) -> ExitCode {
    // With stderr gone, the exit code is all that is left to say it.
    let _ = writeln!(std::io::stderr(), "error: {line}");
    ExitCode::from(code)
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
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .init();
}
