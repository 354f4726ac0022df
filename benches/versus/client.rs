//! A blocking connection for everything that is not measured: preloading, questions, idling.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::dataset::{Dataset, Random};
use crate::exchange::{Draft, Exchange};
use crate::failure::{Doing, Failure};
use crate::interrupt;

/// No healthy server is silent for longer.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Sets per write when loading: enough to make round trips cheap.
pub(crate) const BATCH: usize = 64;

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    server: &'static str,
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(server: &'static str, address: SocketAddr) -> Result<Self, Failure> {
        let open = || {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SILENCE_MAX))?;
            stream.set_write_timeout(Some(SILENCE_MAX))?;
            Ok(stream)
        };
        Ok(Self {
            server,
            stream: BufReader::new(open().doing(|| format!("connecting to {server}"))?),
        })
    }

    /// Sends the requests and insists on the expected replies.
    pub(crate) fn exchange(&mut self, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
        let server = self.server;
        self.send(&exchange.request)?;
        while exchange.expected.missing() > 0 {
            let received = self.stream.fill_buf();
            let received = received.doing(|| format!("reading from {server}"))?;
            let length = received.len();
            if length == 0 {
                return Err(closed(server));
            }
            exchange
                .expected
                .accept(received)
                .map_err(|(wanted, got)| Failure::wrong_reply(server, wanted, got))?;
            self.stream.consume(length);
        }
        Ok(())
    }

    /// Stores every item.
    pub(crate) fn preload(&mut self, dataset: &Dataset) -> Result<(), Failure> {
        let mut exchange = Exchange::default();
        for first in (0..dataset.items()).step_by(BATCH) {
            interrupt::check()?;
            exchange.clear();
            for item in first..dataset.items().min(first + BATCH) {
                exchange.set(&dataset.key(item), dataset.value(item));
            }
            self.exchange(&mut exchange)?;
        }
        Ok(())
    }

    /// Reads one item: what a connection does before it falls silent.
    pub(crate) fn get(&mut self, dataset: &Dataset, item: usize) -> Result<(), Failure> {
        let mut exchange = Exchange::default();
        let random = &mut Random::new(0);
        Draft { exchange: &mut exchange, dataset, random, fresh: &mut 0 }.get(item);
        self.exchange(&mut exchange)
    }

    /// The first line of the reply to a command.
    pub(crate) fn command(&mut self, command: &str) -> Result<String, Failure> {
        self.send(format!("{command}\r\n").as_bytes())?;
        self.line()
    }

    /// Whether the server knows the meta commands.
    pub(crate) fn speaks_meta(&mut self) -> Result<bool, Failure> {
        Ok(!self.command("mn")?.starts_with("ERROR"))
    }

    /// One number from `stats`.
    pub(crate) fn statistic(&mut self, name: &str) -> Result<u64, Failure> {
        self.number("stats", name)
    }

    /// One number from a command that answers with values.
    pub(crate) fn number(&mut self, command: &str, name: &str) -> Result<u64, Failure> {
        let value = self.fact(command, name)?;
        value.parse().map_err(|_| self.not_said(name, value))
    }

    /// One value from a command that answers with them, as `stats` does.
    pub(crate) fn fact(&mut self, command: &str, name: &str) -> Result<String, Failure> {
        let wanted = format!("STAT {name} ");
        let mut found = None;
        let mut line = self.command(command)?;
        while line.starts_with("STAT ") {
            found = found.or_else(|| line.strip_prefix(&wanted).map(str::to_owned));
            line = self.line()?;
        }
        found.ok_or_else(|| self.not_said(name, line))
    }

    fn not_said(&self, name: &str, received: String) -> Failure {
        Failure::WrongReply {
            server: self.server.to_owned(),
            expected: format!("STAT {name}"),
            received,
        }
    }

    fn send(&mut self, request: &[u8]) -> Result<(), Failure> {
        let server = self.server;
        let sent = self.stream.get_mut().write_all(request);
        sent.doing(|| format!("writing to {server}"))
    }

    fn line(&mut self) -> Result<String, Failure> {
        /// Longer than any line a healthy server sends.
        const LINE_MAX: u64 = 4096;
        let mut line = String::new();
        let server = self.server;
        let mut limited = (&mut self.stream).take(LINE_MAX);
        let length = limited.read_line(&mut line);
        if length.doing(|| format!("reading from {server}"))? == 0 {
            return Err(closed(self.server));
        }
        Ok(line.trim_end().to_owned())
    }
}

/// The server hung up although nobody asked it to.
pub(crate) fn closed(server: &str) -> Failure {
    Failure::Io {
        doing: format!("reading from {server}"),
        source: std::io::ErrorKind::UnexpectedEof.into(),
    }
}
