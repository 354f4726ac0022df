//! Where connections come from: addresses and ports in turn, chosen by us and not by the kernel.
//!
//! A closed connection blocks its pair of ports for a second. The kernel picks from 14,000 ports
//! first, so beyond 14,000 connections a second each `connect` searches all of them in vain.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;

use mio::net::TcpStream;
use socket2::{Domain, Socket, Type};

/// Below the kernel's own choice: a port bound by us is lost to all other programs' `connect`
/// until a minute after it was closed.
const PORTS: Range<u32> = 16_384..32_768;
/// 127.0.0.2 and 127.0.0.3: 32,768 pairs for each server. More, and those that are closed overflow
/// the kernel's table; fewer, and they come round in less than a second.
const HOSTS: u32 = 2;
/// So many neighbouring ports are never taken by others.
const TRIES: u32 = 100;

/// The pairs of address and port, in turn.
#[derive(Debug, Default)]
pub(crate) struct Source(u32);

impl Source {
    /// Begins to connect; the stream is writable once that has succeeded.
    pub(crate) fn connect(&mut self, address: SocketAddr) -> io::Result<TcpStream> {
        let mut result = Err(ErrorKind::AddrInUse.into());
        for _ in 0..TRIES {
            result = connect_from(self.next(), address);
            let is_taken = result.as_ref().is_err_and(|error: &io::Error| {
                matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable)
            });
            if !is_taken {
                break;
            }
        }
        result
    }

    fn next(&mut self) -> SocketAddr {
        let number = self.0;
        self.0 = (number + 1) % (PORTS.len() as u32 * HOSTS);
        let host = Ipv4Addr::new(127, 0, 0, 2 + (number % HOSTS) as u8);
        let port = PORTS.start + number / HOSTS;
        SocketAddr::from((host, port as u16))
    }
}

fn connect_from(source: SocketAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&source.into())?;
    match socket.connect(&address.into()) {
        Err(error)
            if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
        {
            return Err(error);
        }
        _ => {}
    }
    // No TCP_NODELAY, that would be one call more: a request is one write and the last reply has
    // acknowledged the one before, so nothing is ever held back.
    Ok(TcpStream::from_std(socket.into()))
}
