//! A client's connection: one command at a time, blocking, with a timeout.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::history::wire::{self, Form, Heard};
use super::history::{Command, Reply};

/// Loopback answers at once, unless the process stands still and its queue is full.
const CONNECT_WAIT: Duration = Duration::from_millis(500);

/// A connection to one node.
pub(crate) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
}

/// What came back for a command.
pub(crate) enum Came {
    Reply(Reply),
    /// The node says that it cannot: whether it has is unknown.
    Refusal(String),
}

impl Connection {
    /// Connects; each answer has to come within `wait`.
    pub(crate) fn open(address: SocketAddr, wait: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_WAIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(wait))?;
        stream.set_write_timeout(Some(wait))?;
        Ok(Self { stream, input: Vec::new() })
    }

    /// One command and its reply.
    pub(crate) fn ask(&mut self, command: &Command, key: &str, form: Form) -> io::Result<Came> {
        self.send(command, key, form)?;
        self.receive(command)
    }

    /// A command alone.
    pub(crate) fn send(&mut self, command: &Command, key: &str, form: Form) -> io::Result<()> {
        self.stream.write_all(&wire::request(command, key, form))
    }

    /// The reply to one that was sent.
    pub(crate) fn receive(&mut self, command: &Command) -> io::Result<Came> {
        loop {
            match wire::reply(&self.input) {
                Heard::Part => self.read()?,
                Heard::Reply(reply, used) => {
                    self.input.drain(..used);
                    return Ok(Came::Reply(wire::as_answer_to(command, reply)));
                }
                Heard::Other(text) => return Ok(Came::Refusal(text)),
            }
        }
    }

    /// The lines up to END.
    pub(crate) fn lines(&mut self, request: &str) -> io::Result<Vec<String>> {
        self.stream.write_all(request.as_bytes())?;
        while !self.input.ends_with(b"END\r\n") {
            self.read()?;
        }
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.input)).into_owned();
        Ok(text.split("\r\n").map(Into::into).collect())
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.input.extend_from_slice(&buffer[..length]);
                Ok(())
            }
        }
    }
}
