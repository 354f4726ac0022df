//! Why a server did not start, in words for whoever has started it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;

use super::{BadFile, StateError};
use crate::membership;

/// Why a server did not start.
#[derive(Debug)]
pub enum StartError {
    /// An address can't be bound.
    Bind(SocketAddr, io::Error),
    /// What was handed over with this number is no socket to accept clients from.
    Inherited(RawFd, String),
    /// So many sockets can't have been handed over.
    InheritedCount(Box<str>),
    /// A socket that listens can't be used.
    Hold(String, io::Error),
    /// A socket in the file system can't be made.
    BindUnix(PathBuf, io::Error),
    /// The process that runs does not give its place to this one.
    TakeOver(String),
    /// The file of names and passwords can't be used.
    Auth(PathBuf, String),
    /// What peers have to prove can't be read.
    Peers(BadFile),
    /// The state directory can't be used.
    State(StateError),
    /// This node can't take part in the log of views.
    Membership(membership::StartError),
    /// The operating system refuses what every server needs.
    System(&'static str, io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(address, error) if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "cannot listen on {address}: the address is in use; stop the other server or choose another with -l, -p, --peer-listen or --admin-listen"
            ),
            Self::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Inherited(number, why) => write!(
                f,
                "LISTEN_FDS: descriptor {number}: {why}; hand over listening TCP or unix stream sockets only, or unset LISTEN_FDS"
            ),
            Self::InheritedCount(text) => write!(
                f,
                "LISTEN_FDS={text}: expected how many sockets were handed over, from descriptor 3 on; unset it if none were"
            ),
            Self::Hold(name, error) => write!(f, "cannot accept clients on {name}: {error}"),
            Self::BindUnix(path, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "-s {}: another server answers there, or it is no socket", path.display())
            }
            Self::BindUnix(path, error) => write!(f, "-s {}: {error}", path.display()),
            Self::TakeOver(why) => write!(f, "--take-over: the process that runs: {why}"),
            Self::Auth(path, why) => write!(f, "-Y {}: {why}", path.display()),
            Self::Peers(error) => write!(f, "{error}"),
            Self::State(error) => write!(f, "{error}"),
            Self::Membership(error) => write!(f, "{error}"),
            Self::System(what, error) => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl StartError {
    /// Whether another process has what this one needs.
    pub(super) fn is_in_use(&self) -> bool {
        match self {
            Self::Bind(_, error) => error.kind() == io::ErrorKind::AddrInUse,
            Self::State(StateError::InUse(_)) => true,
            _ => false,
        }
    }
}
