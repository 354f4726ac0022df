//! Binding the client address: early, so that a clash shows at once; listening comes later.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

use super::StartError;

/// One address with a socket for each worker. Nobody listens yet.
pub(super) struct Bound {
    pub(super) address: SocketAddr,
    pub(super) sockets: Vec<TcpSocket>,
}

impl Bound {
    /// Binds `address` once per worker, or says that somebody else has it.
    pub(super) fn new(address: SocketAddr, workers: usize) -> Result<Self, StartError> {
        // With SO_REUSEPORT alone, a second server would silently share the port.
        drop(bind(address, Sharing::No)?);
        let sockets = (0..workers).map(|_| bind(address, Sharing::BetweenWorkers));
        Ok(Self { address, sockets: sockets.collect::<Result<_, _>>()? })
    }
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
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Connections of a former life that are still closing must not keep us out.
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(sharing == Sharing::BetweenWorkers)?;
        socket.bind(address)?;
        Ok(socket)
    };
    bound().map_err(|error| StartError::Bind(address, error))
}
