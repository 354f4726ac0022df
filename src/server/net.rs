//! What the links between nodes need of a network, and the one that there is: TCP.
//!
//! Tests bring another, simulated one. Client sockets are not part of it.

use std::io;
use std::net::{SocketAddr, TcpStream as PlainTcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A connection ends when what was sent is not acknowledged by the other host for so long; without
/// it, the kernel goes on trying for minutes.
const UNHEARD_MAX_MS: u32 = 2000;

/// How nodes reach each other.
pub trait Net: Clone + 'static {
    /// A connection, whoever has dialed it.
    type Stream: Stream;
    /// Where others connect.
    type Listener: 'static;

    /// Connects to a peer.
    fn dial(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>>;

    /// The next peer that connects, and where it is.
    fn accept(
        &self,
        listener: &Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>>;

    /// Has it leave the present runtime; it can't be read or written until it joins one. There is
    /// nothing to do where all of a node is on one thread.
    fn leave(_: &mut Self::Stream) -> io::Result<()> {
        Ok(())
    }

    /// Has it join the present runtime: accepted on one thread, it may be served on another.
    fn join(_: &mut Self::Stream) -> io::Result<()> {
        Ok(())
    }
}

/// A connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Stream for S {}

/// The operating system's TCP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tcp;

/// One connection of it.
#[derive(Debug)]
pub(super) enum TcpLink {
    Joined(TcpStream),
    /// Between two runtimes.
    Left(PlainTcpStream),
    /// It has failed to leave or join.
    Lost,
}

impl Net for Tcp {
    type Stream = TcpLink;
    type Listener = TcpListener;

    async fn dial(&self, address: SocketAddr) -> io::Result<TcpLink> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        set_tcp_user_timeout(&stream, UNHEARD_MAX_MS)?;
        Ok(TcpLink::Joined(stream))
    }

    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpLink, SocketAddr)> {
        let (stream, address) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((TcpLink::Joined(stream), address))
    }

    fn leave(link: &mut TcpLink) -> io::Result<()> {
        if let TcpLink::Joined(stream) = std::mem::replace(link, TcpLink::Lost) {
            *link = TcpLink::Left(stream.into_std()?);
        }
        Ok(())
    }

    fn join(link: &mut TcpLink) -> io::Result<()> {
        if let TcpLink::Left(stream) = std::mem::replace(link, TcpLink::Lost) {
            *link = TcpLink::Joined(TcpStream::from_std(stream)?);
        }
        Ok(())
    }
}

impl TcpLink {
    fn joined(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match self {
            Self::Joined(stream) => Ok(Pin::new(stream)),
            Self::Left(_) | Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for TcpLink {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.joined()?.poll_read(context, into)
    }
}

impl AsyncWrite for TcpLink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.joined()?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.joined()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.joined()?.poll_shutdown(context)
    }
}
