//! Sockets that listen already when this process starts: systemd's, or those of the supervisor.
//!
//! Whoever handed them over keeps a copy, so that clients wait in their queue, and are not refused,
//! while one process ends and the next one begins.

use std::env;
use std::io;
use std::net::TcpListener as PlainTcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener as PlainUnixListener, UnixStream};

use listenfd::ListenFd;
use rustix::net::AddressFamily;
use rustix::net::sockopt::{socket_acceptconn, socket_domain};

use super::StartError;
use super::handover::Handover;

/// As systemd names them.
const COUNT: &str = "LISTEN_FDS";
const FOR_PROCESS: &str = "LISTEN_PID";
/// The number of the first.
const FIRST: RawFd = 3;
/// The last ones of a supervisor: the two ends for clients that go over, and where to say that this
/// process serves.
const OF_SUPERVISOR: usize = 3;
/// Some for each worker and address; more is a mistake.
const COUNT_MAX: usize = 4096;

/// A socket that listens.
pub(super) enum Held {
    Tcp(PlainTcpListener),
    Unix(PlainUnixListener),
}

/// All of one address, which has a name.
pub(super) struct HeldAddress {
    pub(super) name: String,
    pub(super) port: Option<std::net::SocketAddr>,
    pub(super) sockets: Vec<Held>,
}

/// Everything that was handed to this process.
#[derive(Default)]
pub(super) struct Inherited {
    pub(super) addresses: Vec<HeldAddress>,
    pub(super) handover: Option<Handover>,
}

/// Takes what was handed to this process; nothing is usual. To be called before anything else
/// opens files, and before any thread starts: the numbers are all there is to tell the sockets by.
///
/// A supervisor adds the two ends for clients that go over from one process to the next.
pub(super) fn take(is_supervised: bool) -> Result<Inherited, StartError> {
    let Some(count) = count()? else {
        return Ok(Inherited::default());
    };
    let mut handed = ListenFd::from_env();
    let sockets = if is_supervised { count.saturating_sub(OF_SUPERVISOR) } else { count };
    let mut addresses: Vec<HeldAddress> = Vec::new();
    for index in 0..sockets {
        let wrong = |error: io::Error| StartError::Inherited(number(index), error.to_string());
        let held = Held::take(&mut handed, index).map_err(wrong)?;
        add(held, &mut addresses).map_err(wrong)?;
    }
    let mut end = |index: usize| {
        let taken = handed.take_unix_listener(index);
        let wrong = |why: String| StartError::Inherited(number(index), why);
        let taken = taken.map_err(|error| wrong(error.to_string()))?;
        let taken = taken.ok_or_else(|| wrong("it is not there".into()))?;
        Ok::<_, StartError>(UnixStream::from(OwnedFd::from(taken)))
    };
    let handover = if is_supervised {
        let (to_successor, from_predecessor) = (end(sockets)?, end(sockets + 1)?);
        Some(Handover { to_successor, from_predecessor, supervisor: end(sockets + 2)? })
    } else {
        None
    };
    Ok(Inherited { addresses, handover })
}

/// Together what is of one address.
pub(super) fn by_address(sockets: Vec<Held>) -> io::Result<Vec<HeldAddress>> {
    let mut addresses = Vec::new();
    sockets.into_iter().try_for_each(|held| add(held, &mut addresses))?;
    Ok(addresses)
}

fn add(held: Held, addresses: &mut Vec<HeldAddress>) -> io::Result<()> {
    let (name, port) = held.address()?;
    match addresses.iter_mut().find(|address| address.name == name) {
        Some(address) => address.sockets.push(held),
        None => addresses.push(HeldAddress { name, port, sockets: vec![held] }),
    }
    Ok(())
}

fn number(index: usize) -> RawFd {
    FIRST + index as RawFd
}

/// How many there are for this process.
fn count() -> Result<Option<usize>, StartError> {
    let Some(text) = env::var_os(COUNT) else {
        return Ok(None);
    };
    let is_other = |pid: &str| !pid.is_empty() && pid != std::process::id().to_string();
    if env::var(FOR_PROCESS).is_ok_and(|pid| is_other(&pid)) {
        tracing::debug!("LISTEN_FDS is meant for another process");
        return Ok(None);
    }
    let text = text.to_string_lossy();
    match text.parse::<usize>() {
        Ok(0) => Ok(None),
        Ok(count) if count <= COUNT_MAX => Ok(Some(count)),
        _ => Err(StartError::InheritedCount(text.into())),
    }
}

impl Held {
    fn take(handed: &mut ListenFd, index: usize) -> io::Result<Self> {
        let none = || io::Error::other("it is not there");
        let held = match handed.take_tcp_listener(index) {
            Ok(listener) => Self::Tcp(listener.ok_or_else(none)?),
            Err(_) => Self::Unix(handed.take_unix_listener(index)?.ok_or_else(none)?),
        };
        held.checked()
    }

    /// One that another process has sent.
    pub(super) fn of(socket: OwnedFd) -> io::Result<Self> {
        let held = match socket_domain(&socket)? {
            AddressFamily::UNIX => Self::Unix(socket.into()),
            _ => Self::Tcp(socket.into()),
        };
        held.checked()
    }

    fn checked(self) -> io::Result<Self> {
        if !socket_acceptconn(self.as_fd())? {
            return Err(io::Error::other("it does not listen"));
        }
        match &self {
            Self::Tcp(listener) => listener.set_nonblocking(true)?,
            Self::Unix(listener) => listener.set_nonblocking(true)?,
        }
        Ok(self)
    }

    fn address(&self) -> io::Result<(String, Option<std::net::SocketAddr>)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let address = listener.local_addr()?;
                (address.to_string(), Some(address))
            }
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().map(|path| path.display().to_string());
                (path.unwrap_or_else(|| "a nameless unix socket".into()), None)
            }
        })
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener) => Self::Unix(listener.try_clone()?),
        })
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}
