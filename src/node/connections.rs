//! Who is connected: one table a worker, changed only when a connection opens or closes.
//!
//! What changes with every batch of commands lies in the connection's own entry and is written
//! without a lock.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::time::{Millis, Now};

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP.
    Tcp(SocketAddr),
    /// A socket in the file system; clients of one have no path of their own.
    Unix(Box<str>),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(SocketAddr::V4(address)) => write!(f, "tcp:{address}"),
            Self::Tcp(SocketAddr::V6(address)) => {
                write!(f, "tcp6:[{}]:{}", address.ip(), address.port())
            }
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// A connection as the operating system knows it.
#[derive(Clone, Debug)]
pub struct Socket {
    /// Its file descriptor: the number that `stats conns` and `watch` show.
    pub descriptor: i32,
    /// The client.
    pub remote: Endpoint,
    /// Where it connected.
    pub local: Endpoint,
}

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client left or broke the protocol's frame, or its connection broke.
    Error,
    /// The client is done.
    Normal,
    /// It was silent for too long.
    Idle,
    /// The server stops.
    Shutdown,
}

impl Ending {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Normal => "normal",
            Self::Idle => "idle_timeout",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What a connection is doing, under memcached's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Doing {
    Listening,
    Reading,
    Executing,
    AwaitingData,
    Watching,
}

impl Doing {
    const ALL: [Self; 5] =
        [Self::Listening, Self::Reading, Self::Executing, Self::AwaitingData, Self::Watching];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Listening => "conn_listening",
            Self::Reading => "conn_read",
            Self::Executing => "conn_parse_cmd",
            Self::AwaitingData => "conn_nread",
            Self::Watching => "conn_watch",
        }
    }
}

/// One open connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) worker: usize,
    doing: AtomicU8,
    last_command_ms: AtomicU64,
}

impl Connection {
    /// A batch of input has come.
    pub(super) fn begins(&self, now: Now) {
        self.doing.store(Doing::Executing as u8, Ordering::Relaxed);
        self.last_command_ms.store(now.local.0, Ordering::Relaxed);
    }

    /// All that could be done is done.
    pub(super) fn rests(&self, doing: Doing) {
        self.doing.store(doing as u8, Ordering::Relaxed);
    }

    pub(super) fn doing(&self) -> Doing {
        Doing::ALL[usize::from(self.doing.load(Ordering::Relaxed))]
    }

    pub(super) fn idle_s(&self, now: Now) -> u64 {
        now.local.since(Millis(self.last_command_ms.load(Ordering::Relaxed))) / 1000
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Connections {
    tables: Vec<Mutex<Table>>,
}

type Table = BTreeMap<i32, Arc<Connection>>;

impl Connections {
    pub(super) fn new(workers: usize) -> Self {
        Self { tables: (0..workers).map(|_| Mutex::default()).collect() }
    }

    pub(super) fn add(&self, worker: usize, socket: Socket, now: Now) -> Arc<Connection> {
        self.insert(worker, socket, Doing::Reading, now)
    }

    /// A listening socket shows itself too; it stays to the end of the process.
    pub(super) fn add_listener(&self, worker: usize, socket: Socket, now: Now) {
        self.insert(worker, socket, Doing::Listening, now);
    }

    fn insert(&self, worker: usize, socket: Socket, doing: Doing, now: Now) -> Arc<Connection> {
        let descriptor = socket.descriptor;
        let connection = Arc::new(Connection {
            socket,
            worker,
            doing: AtomicU8::new(doing as u8),
            last_command_ms: AtomicU64::new(now.local.0),
        });
        self.tables[worker].lock().insert(descriptor, Arc::clone(&connection));
        connection
    }

    pub(super) fn remove(&self, connection: &Connection) {
        self.tables[connection.worker].lock().remove(&connection.socket.descriptor);
    }

    /// All of them, by descriptor.
    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        let mut all: Vec<Arc<Connection>> = Vec::new();
        for table in &self.tables {
            all.extend(table.lock().values().map(Arc::clone));
        }
        all.sort_by_key(|connection| connection.socket.descriptor);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_as_in_memcached() {
        let tcp = |text: &str| Endpoint::Tcp(text.parse().unwrap()).to_string();
        assert_eq!(tcp("127.0.0.1:11211"), "tcp:127.0.0.1:11211");
        assert_eq!(tcp("[::1]:11211"), "tcp6:[::1]:11211");
        assert_eq!(Endpoint::Unix("/run/x".into()).to_string(), "unix:/run/x");
    }
}
