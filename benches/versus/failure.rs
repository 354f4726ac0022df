//! Everything that ends a run early, and the one line that is printed for it.

use std::fmt;
use std::io;
use std::time::Duration;

/// Why the run cannot go on. Any of these stops both servers and makes the exit code non-zero.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// An option nobody can follow.
    Option(String),
    /// A program this bench needs is not installed.
    Missing { program: String, advice: &'static str },
    /// A server did not come up.
    NotStarted { server: String, because: String },
    /// A reply that differs from the one the protocol prescribes: what follows would measure errors.
    WrongReply { server: String, expected: String, received: String },
    /// The server stopped answering.
    Silent { server: String, after: Duration },
    /// Any of these, in one workload.
    During { workload: &'static str, failure: Box<Failure> },
    /// The operating system refused something.
    Io { doing: String, source: io::Error },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => write!(f, "interrupted"),
            Self::Option(complaint) => write!(f, "{complaint}"),
            Self::Missing { program, advice } => write!(f, "{program} was not found: {advice}"),
            Self::NotStarted { server, because } => write!(f, "{server} did not start: {because}"),
            Self::WrongReply { server, expected, received } => write!(
                f,
                "wrong reply from {server}: expected \"{expected}\", received \"{received}\""
            ),
            Self::Silent { server, after } => {
                write!(f, "{server} sent nothing for {} s", after.as_secs())
            }
            Self::During { workload, failure } => write!(f, "{workload}: {failure}"),
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
        }
    }
}

impl Failure {
    pub(crate) fn during(self, workload: &'static str) -> Self {
        let failure = Box::new(self);
        Self::During { workload, failure }
    }

    /// Tells what came from what had to come, from the line where they first differ.
    pub(crate) fn wrong_reply(server: &str, expected: &[u8], received: &[u8]) -> Self {
        let pairs = expected.iter().zip(received);
        let same = pairs.take_while(|(a, b)| a == b).count();
        let line_start = expected[..same]
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |newline| newline + 1);
        Self::WrongReply {
            server: server.to_owned(),
            expected: excerpt(&expected[line_start..]),
            received: excerpt(&received[line_start..]),
        }
    }
}

/// Enough of a reply to recognise it on one terminal line.
fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 60;
    let shown = &bytes[..bytes.len().min(SHOWN)];
    let rest = if bytes.len() > SHOWN { "..." } else { "" };
    format!("{}{rest}", shown.escape_ascii())
}

/// Adds to an `io::Error` what was being tried.
pub(crate) trait Doing<T> {
    /// `what` is only rendered when there is an error to report.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|source| Failure::Io { doing: what(), source })
    }
}
