//! Where clients connect: bound early, so that a clash shows at once; listening comes later. What
//! somebody else holds for this process is taken as it is.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener as PlainUnixListener;
use std::os::unix::net::UnixStream as PlainUnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Mode;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::sockopt::set_ipv6_v6only;
use rustix::process::umask;
use tokio::net::unix::SocketAddr as UnixAddr;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::runtime::Handle;

use super::handover::Handover;
use super::inherit::{self, Held, HeldAddress};
use super::{Options, StartError};
use crate::node::Endpoint;

/// A place where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// What one name stands for; a machine need not have all of its addresses.
    Tcp {
        /// Port 0 is any free one.
        addresses: Vec<SocketAddr>,
    },
    /// A socket in the file system.
    Unix {
        /// Where; a socket that nobody serves is replaced.
        path: PathBuf,
        /// Who may connect, as chmod has it.
        mode: u32,
    },
}

/// Bound, with a socket for each worker. Nobody listens yet, but to what is held elsewhere too.
pub(super) enum Bound {
    Held(HeldAddress),
    Tcp { address: SocketAddr, sockets: Vec<TcpSocket> },
    Unix { path: PathBuf, socket: UnixSocket },
}

/// Where one worker accepts.
pub(super) struct Listener {
    socket: Socket,
    /// Somebody else has a copy: whoever waits in its queue is not lost when this one closes.
    is_held: AtomicBool,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What it has accepted.
pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What was handed to this process, or else what it binds itself.
pub(super) fn bind_all(options: &Options) -> Result<(Vec<Bound>, Option<Handover>), StartError> {
    let inherited = inherit::take(options.supervisor.is_some())?;
    if !inherited.addresses.is_empty() || inherited.handover.is_some() {
        let bound = inherited.addresses.into_iter().map(Bound::Held).collect();
        return Ok((bound, inherited.handover));
    }
    let (places, workers) = (&options.listen, options.node.settings.workers);
    let mut bound = Vec::new();
    for listen in places {
        bound.extend(Bound::new(listen, workers)?);
    }
    Ok((bound, None))
}

impl Bound {
    /// The sockets themselves, which listen from now on, for a process to be handed to.
    pub(super) fn hold(self, backlog: u32) -> Result<Vec<OwnedFd>, StartError> {
        let name = self.to_string();
        let held = match self {
            Self::Held(HeldAddress { sockets, .. }) => hold(sockets.iter(), None),
            Self::Tcp { sockets, .. } => hold(sockets.iter(), Some(backlog)),
            Self::Unix { socket, .. } => hold([&socket].into_iter(), Some(backlog)),
        };
        held.map_err(|error| StartError::Hold(name, error))
    }

    /// Binds for each worker, or says why that can't be.
    pub(super) fn new(listen: &Listen, workers: usize) -> Result<Vec<Self>, StartError> {
        match listen {
            Listen::Tcp { addresses } => bind_any(addresses, workers),
            Listen::Unix { path, mode } => {
                let socket = bind_unix(path, *mode)
                    .map_err(|error| StartError::BindUnix(path.clone(), error))?;
                Ok(vec![Self::Unix { path: path.clone(), socket }])
            }
        }
    }

    /// Listeners for each worker, by its number and in its runtime.
    pub(super) fn listen(
        self,
        backlog: u32,
        workers: &[Handle],
    ) -> Result<Vec<(usize, Listener)>, StartError> {
        let listeners = match self {
            Self::Held(HeldAddress { name, sockets, .. }) => {
                return share_held(sockets, workers).map_err(|error| StartError::Hold(name, error));
            }
            Self::Tcp { address, sockets } => {
                let listeners = sockets.into_iter().zip(workers).map(|(socket, worker)| {
                    let _context = worker.enter();
                    socket.listen(backlog).map(Socket::Tcp).map(Listener::own)
                });
                let listeners = listeners.collect::<io::Result<_>>();
                listeners.map_err(|error| StartError::Bind(address, error))
            }
            Self::Unix { path, socket } => listen_unix(socket, backlog, workers)
                .map_err(|error| StartError::BindUnix(path, error)),
        };
        Ok(listeners?.into_iter().enumerate().collect())
    }

    /// The line that memcached writes into the file of the ports.
    pub(super) fn port_line(&self) -> Option<String> {
        let address = match self {
            Self::Tcp { address, .. } => Some(*address),
            Self::Held(held) => held.port,
            Self::Unix { .. } => None,
        };
        address.map(|address| match address {
            SocketAddr::V4(address) => format!("TCP INET: {}\n", address.port()),
            SocketAddr::V6(address) => format!("TCP INET6: {}\n", address.port()),
        })
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Held(held) => write!(f, "{}", held.name),
            Self::Tcp { address, .. } => write!(f, "{address}"),
            Self::Unix { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

impl Listener {
    fn own(socket: Socket) -> Self {
        Self { socket, is_held: AtomicBool::new(false) }
    }

    pub(super) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// For somebody else.
    pub(super) fn copy(&self) -> io::Result<OwnedFd> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => fcntl_dupfd_cloexec(listener, 0)?,
            Socket::Unix(listener) => fcntl_dupfd_cloexec(listener, 0)?,
        })
    }

    /// Whether somebody was given a copy.
    pub(super) fn note_held(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    /// Its file descriptor, and where it listens.
    pub(super) fn socket(&self) -> io::Result<(RawFd, Endpoint)> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => (listener.as_raw_fd(), Endpoint::Tcp(listener.local_addr()?)),
            Socket::Unix(listener) => {
                (listener.as_raw_fd(), endpoint_of_unix(&listener.local_addr()?))
            }
        })
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match &self.socket {
            Socket::Tcp(listener) => {
                listener.accept().await.map(|(stream, _)| Accepted::Tcp(stream))
            }
            Socket::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| Accepted::Unix(stream))
            }
        }
    }
}

/// Clients have no path of their own.
pub(super) fn endpoint_of_unix(address: &UnixAddr) -> Endpoint {
    let path = address.as_pathname().map(|path| path.to_string_lossy());
    Endpoint::Unix(path.unwrap_or_default().into())
}

/// A name may stand for an address of a family that this machine does without; one must do.
fn bind_any(addresses: &[SocketAddr], workers: usize) -> Result<Vec<Bound>, StartError> {
    let (mut bound, mut missing) = (Vec::new(), None);
    for &address in addresses {
        match bind_for_workers(address, workers) {
            Ok(one) => bound.push(one),
            Err(StartError::Bind(address, error)) if is_missing(&error) => {
                missing = Some(StartError::Bind(address, error));
            }
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

fn is_missing(error: &io::Error) -> bool {
    let unsupported = error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    unsupported || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn bind_for_workers(address: SocketAddr, workers: usize) -> Result<Bound, StartError> {
    // With SO_REUSEPORT alone, a second server would silently share the port.
    drop(bind(address, Sharing::No)?);
    let first = bind(address, Sharing::BetweenWorkers)?;
    // Port 0 has become a real one, which the others have to share.
    let address = first.local_addr().map_err(|error| StartError::Bind(address, error))?;
    let others = (1..workers).map(|_| bind(address, Sharing::BetweenWorkers));
    let sockets = std::iter::once(Ok(first)).chain(others).collect::<Result<_, _>>()?;
    Ok(Bound::Tcp { address, sockets })
}

/// Whether several sockets may be bound to one address.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Sharing {
    No,
    BetweenWorkers,
}

/// A bound socket that does not listen yet.
pub(super) fn bind(address: SocketAddr, sharing: Sharing) -> Result<TcpSocket, StartError> {
    let bound = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => {
                let socket = TcpSocket::new_v6()?;
                // Else `::` would take what belongs to a socket of 0.0.0.0 beside it.
                set_ipv6_v6only(&socket, true)?;
                socket
            }
        };
        // Connections of a former life that are still closing must not keep us out.
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(sharing == Sharing::BetweenWorkers)?;
        socket.bind(address)?;
        Ok(socket)
    };
    bound().map_err(|error| StartError::Bind(address, error))
}

/// The mask belongs to the whole process: to be called before any thread starts.
fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixSocket> {
    remove_unserved(path)?;
    let socket = UnixSocket::new_stream()?;
    // A socket that is bound first and restricted later is open to all in between.
    let before = umask(Mode::from_raw_mode(!mode & 0o777));
    let bound = socket.bind(path);
    umask(before);
    bound.map(|()| socket)
}

/// A server that ended leaves its socket behind; one that still answers must not lose it.
fn remove_unserved(path: &Path) -> io::Result<()> {
    let is_socket = |file: fs::Metadata| file.file_type().is_socket();
    if !fs::symlink_metadata(path).is_ok_and(is_socket) {
        return Ok(());
    }
    if PlainUnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    fs::remove_file(path)
}

fn listen_unix(socket: UnixSocket, backlog: u32, workers: &[Handle]) -> io::Result<Vec<Listener>> {
    // One socket for all: only TCP has SO_REUSEPORT. Any runtime does for the call.
    let context = workers.first().map(Handle::enter);
    let shared: PlainUnixListener = socket.listen(backlog)?.into_std()?;
    drop(context);
    // The first keeps the socket itself: a number left free below the listeners' would go to the
    // first client, and operators take the last of `stats conns` for the newest.
    let others = (1..workers.len()).map(|_| shared.try_clone()).collect::<io::Result<Vec<_>>>()?;
    let sockets = std::iter::once(shared).chain(others);
    let listener = |(socket, worker): (PlainUnixListener, &Handle)| {
        let _context = worker.enter();
        UnixListener::from_std(socket).map(Socket::Unix).map(Listener::own)
    };
    sockets.zip(workers).map(listener).collect()
}

/// Copies of sockets that listen; `backlog` for those that do not yet.
fn hold<'a, S: AsFd + 'a>(
    sockets: impl Iterator<Item = &'a S>,
    backlog: Option<u32>,
) -> io::Result<Vec<OwnedFd>> {
    let copy = |socket: &S| {
        if let Some(backlog) = backlog {
            rustix::net::listen(socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
        }
        Ok(fcntl_dupfd_cloexec(socket, 0)?)
    };
    sockets.map(copy).collect()
}

/// Each socket has to be accepted from, and each worker has to have one: where there are fewer,
/// several share one.
fn share_held(sockets: Vec<Held>, workers: &[Handle]) -> io::Result<Vec<(usize, Listener)>> {
    let count = sockets.len();
    let copies = (count..workers.len()).map(|worker| sockets[worker % count].try_clone());
    let copies = copies.collect::<io::Result<Vec<_>>>()?;
    let listener = |(index, socket): (usize, Held)| {
        let worker = index % workers.len();
        let _context = workers[worker].enter();
        let socket = match socket {
            Held::Tcp(socket) => TcpListener::from_std(socket).map(Socket::Tcp),
            Held::Unix(socket) => UnixListener::from_std(socket).map(Socket::Unix),
        };
        Ok((worker, Listener { socket: socket?, is_held: AtomicBool::new(true) }))
    };
    sockets.into_iter().chain(copies).enumerate().map(listener).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_higher_numbers_than_listeners() {
        let runtimes: Vec<_> = (0..3).map(|_| super::super::new_runtime().unwrap()).collect();
        let workers: Vec<_> = runtimes.iter().map(|runtime| runtime.handle().clone()).collect();
        let path = std::env::temp_dir().join(format!("sessiond-{}.socket", std::process::id()));
        let bound = Bound::new(&Listen::Unix { path: path.clone(), mode: 0o700 }, 3).unwrap();
        let Some(Bound::Unix { socket, .. }) = bound.first() else { unreachable!("as asked") };
        let bound_to = socket.as_raw_fd();
        let listeners = bound.into_iter().flat_map(|one| one.listen(1, &workers).unwrap());
        let numbers: Vec<_> = listeners.map(|one| one.1.socket().unwrap().0).collect();
        fs::remove_file(path).unwrap();
        assert!(numbers.contains(&bound_to), "{bound_to} is free again, {numbers:?} are not");
    }
}
