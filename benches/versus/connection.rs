//! One busy connection of the generator: writes an exchange, checks its replies as they arrive, goes on.
//!
//! Epoll is edge-triggered. A read that does not fill the buffer has emptied the socket, and after
//! the last expected byte nothing more can come, so there is one read per reply and no EAGAIN.
//!
//! Of values from 64 KiB on, one in 16 is compared; of the others the kernel only counts the bytes. Copying
//! and comparing all of them took the generator as long as the servers took to send them.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::net::{RecvFlags, recv};

use crate::client::closed;
use crate::dataset::{Dataset, Random};
use crate::exchange::{Draft, Exchange};
use crate::expected::NextRead;
use crate::failure::{Doing, Failure};
use crate::source::Source;
use crate::workloads::{Lifetime, Workload};

/// A value of this length costs more to look at than to ask for.
const LONG: usize = 64 * 1024;
/// One exchange in so many is compared in full.
const COMPARED: u32 = 16;

/// What all connections of a load have in common.
pub(crate) struct Shared<'a> {
    pub(crate) server: &'static str,
    /// Connections are spread over these.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) source: Source,
    pub(crate) workload: &'static Workload,
    pub(crate) dataset: &'a Dataset,
    pub(crate) random: Random,
    /// The next item that the server has not seen.
    pub(crate) fresh: usize,
    pub(crate) registry: Registry,
    /// Replies are read here, one connection after the other.
    pub(crate) buffer: Box<[u8]>,
}

/// Where a connection is in its cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More bytes have to come or go.
    Waiting,
    /// All exchanges of the cycle are done.
    CycleDone,
}

/// What epoll is asked to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    Nothing,
    Replies,
    RepliesAndRoom,
}

/// One connection and the exchange that is under way on it.
pub(crate) struct Connection<'a> {
    token: Token,
    stream: Option<TcpStream>,
    watched: Watched,
    exchange: Exchange<'a>,
    written: usize,
    step: usize,
    /// Exchanges so far.
    exchanges: u32,
    pub(crate) begun: Instant,
}

impl<'a> Connection<'a> {
    pub(crate) fn new(token: Token) -> Self {
        Self {
            token,
            stream: None,
            watched: Watched::Nothing,
            exchange: Exchange::default(),
            written: 0,
            step: 0,
            exchanges: 0,
            begun: Instant::now(),
        }
    }

    /// Connects where needed and sends the first exchange of a cycle.
    pub(crate) fn begin_cycle(
        &mut self,
        shared: &mut Shared<'a>,
        now: Instant,
    ) -> Result<(), Failure> {
        self.begun = now;
        if self.stream.is_none() {
            let address = shared.addresses[self.token.0 % shared.addresses.len()];
            let stream = shared.source.connect(address);
            self.stream = Some(stream.doing(|| format!("connecting to {}", shared.server))?);
            self.watched = Watched::Nothing;
        }
        self.begin_step(shared, 0)
    }

    /// Does what is possible without waiting.
    pub(crate) fn advance(&mut self, shared: &mut Shared<'a>) -> Result<Progress, Failure> {
        if self.written < self.exchange.request.len() {
            self.write(shared)?;
        }
        if !self.read(shared)? {
            return Ok(Progress::Waiting);
        }
        if self.step + 1 < shared.workload.steps.len() {
            self.begin_step(shared, self.step + 1)?;
            return Ok(Progress::Waiting);
        }
        if shared.workload.lifetime == Lifetime::OneCycle {
            self.stream = None;
        }
        Ok(Progress::CycleDone)
    }

    fn begin_step(&mut self, shared: &mut Shared<'a>, step: usize) -> Result<(), Failure> {
        self.step = step;
        self.written = 0;
        self.exchanges = self.exchanges.wrapping_add(1);
        self.exchange.clear();
        (shared.workload.steps[step])(&mut Draft {
            exchange: &mut self.exchange,
            dataset: shared.dataset,
            random: &mut shared.random,
            fresh: &mut shared.fresh,
        });
        self.write(shared)
    }

    fn write(&mut self, shared: &Shared<'_>) -> Result<(), Failure> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        while self.written < self.exchange.request.len() {
            match stream.write(&self.exchange.request[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.watch(shared, Watched::RepliesAndRoom);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).doing(|| format!("writing to {}", shared.server)),
            }
        }
        if self.watched == Watched::Nothing {
            self.watch(shared, Watched::Replies)?;
        }
        Ok(())
    }

    fn watch(&mut self, shared: &Shared<'_>, wanted: Watched) -> Result<(), Failure> {
        let interest = match wanted {
            Watched::RepliesAndRoom => Interest::READABLE | Interest::WRITABLE,
            Watched::Replies | Watched::Nothing => Interest::READABLE,
        };
        let known = std::mem::replace(&mut self.watched, wanted);
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        let done = if known == Watched::Nothing {
            shared.registry.register(stream, self.token, interest)
        } else if known != wanted {
            shared.registry.reregister(stream, self.token, interest)
        } else {
            Ok(())
        };
        done.doing(|| "asking epoll".to_owned())
    }

    /// Whether all replies of the exchange are here.
    fn read(&mut self, shared: &mut Shared<'a>) -> Result<bool, Failure> {
        let Some(stream) = &mut self.stream else {
            return Ok(false);
        };
        let long = if self.exchanges.is_multiple_of(COMPARED) { usize::MAX } else { LONG };
        let expected = &mut self.exchange.expected;
        loop {
            let next = expected.next_read(long);
            let (wanted, received) = receive(stream, next, &mut shared.buffer);
            let length = match received {
                Ok(0) => return Err(closed(shared.server)),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(error).doing(|| format!("reading from {}", shared.server));
                }
            };
            match next {
                NextRead::Skip(_) => expected.skip(length),
                NextRead::Read(_) => expected
                    .accept(&shared.buffer[..length])
                    .map_err(|(wanted, got)| Failure::wrong_reply(shared.server, wanted, got))?,
            }
            if expected.missing() == 0 {
                return Ok(true);
            }
            if length < wanted {
                return Ok(false);
            }
        }
    }
}

/// Returns how much was asked for and how much came.
fn receive(
    stream: &mut TcpStream,
    next: NextRead,
    buffer: &mut [u8],
) -> (usize, io::Result<usize>) {
    match next {
        NextRead::Read(length) => {
            let length = length.min(buffer.len());
            (length, stream.read(&mut buffer[..length]))
        }
        NextRead::Skip(length) => {
            let length = length.min(buffer.len());
            // On TCP this throws the bytes away without copying them.
            let received = recv(&*stream, &mut buffer[..length], RecvFlags::TRUNC);
            (length, received.map(|(_, length)| length).map_err(io::Error::from))
        }
    }
}
