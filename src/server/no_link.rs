//! Why two nodes do not get together: who is to blame, when to try again, and what the log hears of it.

use std::io;

use tokio::time::Duration;

use crate::stats::Refusal;

/// Both sides have to have said who they are by then.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(1);
/// Between two attempts to reach a peer; the first one after a connection's end is made at once.
pub(super) const REDIAL_MS: u64 = 100;
/// The same where somebody is there who does not want it: a node that was removed, or not added yet.
/// When there is news, it is dialed from there.
const UNWANTED_MS: u64 = 1000;
/// That a peer can't be reached is told with so many reasons, until it is.
const REASONS_MAX: usize = 8;

/// Why two nodes do not get together.
#[derive(Debug)]
pub(super) enum NoLink {
    /// Nobody listens there.
    Nobody,
    Io(io::Error),
    Slow,
    /// It went before it had said who it is.
    Ended,
    /// This node refuses it.
    NotAPeer(Refusal, String),
    /// It refuses this node.
    Refused(Box<str>),
    /// It is a life of that node which has a link already.
    Elsewhere,
}

impl NoLink {
    /// Whether this node has refused the other side, and why.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::NotAPeer(why, _) => Some(*why),
            Self::Slow => Some(Refusal::Slow),
            Self::Ended => Some(Refusal::Ended),
            Self::Nobody | Self::Io(_) | Self::Refused(_) | Self::Elsewhere => None,
        }
    }
}

impl std::fmt::Display for NoLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nobody => write!(f, "connection refused"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Slow => write!(f, "no answer within {} ms", HANDSHAKE_MAX.as_millis()),
            Self::Ended => write!(f, "it went before it had said who it is"),
            Self::NotAPeer(_, why) => write!(f, "{why}"),
            // Its words: whoever it is, they are not to look like lines of this log.
            Self::Refused(why) => write!(f, "refused by the peer: {}", why.escape_debug()),
            Self::Elsewhere => write!(f, "its new life is there, which is just taking over"),
        }
    }
}

/// Why a peer could not be reached, since it was last: some of it in that peer's own words, so it is
/// not said again and again.
#[derive(Default)]
pub(super) struct Reasons(Vec<String>);

impl Reasons {
    /// It was reached.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The reason, if the log should hear of it.
    pub(super) fn news(&mut self, why: &NoLink) -> Option<String> {
        if matches!(why, NoLink::Elsewhere) {
            return None;
        }
        let reason = why.to_string();
        if self.0.len() >= REASONS_MAX || self.0.contains(&reason) {
            return None;
        }
        self.0.push(reason.clone());
        Some(reason)
    }
}

impl NoLink {
    /// When to try again: after so long, as usual, unless the peer is there and does not want it.
    pub(super) fn pause_ms(&self, usual_ms: u64) -> u64 {
        if matches!(self, Self::Refused(_)) { UNWANTED_MS } else { usual_ms }
    }
}

impl From<io::Error> for NoLink {
    fn from(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(tls) => Self::from(tls),
            None => match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe => Self::Ended,
                _ => Self::Io(error),
            },
        }
    }
}

impl From<&rustls::Error> for NoLink {
    fn from(error: &rustls::Error) -> Self {
        use rustls::Error;
        let why = match error {
            Error::AlertReceived(_) => return Self::Refused(error.to_string().into()),
            Error::InvalidCertificate(_) | Error::NoCertificatesPresented => Refusal::Certificate,
            _ => Refusal::Garbage,
        };
        Self::NotAPeer(why, format!("TLS: {error}"))
    }
}
