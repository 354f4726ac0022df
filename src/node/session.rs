//! One client connection without its socket: bytes in, bytes out.
//!
//! Commands are executed in order. One that has to wait for other nodes stops the session until
//! it is resumed, so later commands of the connection always see its effect.

use std::sync::Arc;

use super::commands::{Context, Executed, Pending};
use super::connections::{Connection, Doing, Ending};
use super::dump::Dump;
use super::observe::WatcherId;
use super::{Host, Node};
use crate::protocol::{Parsed, Parser, Request};
use crate::record::Outcome;
use crate::time::Now;

/// Replies are handed over at the latest when this many bytes have come together.
const OUTPUT_MAX: usize = 256 << 10;

/// What a session without a socket is known as.
const NO_DESCRIPTOR: i32 = -1;

/// See the module.
#[derive(Debug)]
pub struct Session {
    worker: usize,
    parser: Parser,
    mode: Mode,
    /// Its entry among the open connections; tests and benches have none.
    connection: Option<Arc<Connection>>,
    /// The client spoke something that ends the connection.
    is_broken: bool,
}

/// What a session does with its input.
#[derive(Debug)]
enum Mode {
    /// Takes commands.
    Commands,
    /// Waits for the outcome of one.
    Pending(Pending),
    /// Leaves it where it is until a walk over all items is over.
    Dump(Dump),
    /// Ignores it: there is no way back from `watch`.
    Watch(WatcherId),
}

/// Why a session has stopped.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It has done what it could; the input should grow to this many bytes.
    Read(usize),
    /// The replies so far should be written and others have their turn before it goes on.
    Write,
    /// It waits for an outcome; see `resume`.
    Wait,
    /// It shows what happens elsewhere: write the replies and ask again in a moment.
    Watch,
    /// Write the replies, then close.
    Close,
}

impl Session {
    /// A session at the start of its connection, run by this worker.
    pub fn new(worker: usize, item_max: usize) -> Self {
        let parser = Parser::new(item_max);
        Self { worker, parser, mode: Mode::Commands, connection: None, is_broken: false }
    }

    /// A session that shows itself among the open connections.
    pub(super) fn of(connection: Arc<Connection>, item_max: usize) -> Self {
        Self { connection: Some(Arc::clone(&connection)), ..Self::new(connection.worker, item_max) }
    }

    /// Executes what `input` holds; returns how much of it is done with, and why it stopped.
    pub fn advance<W, H: Host<W>>(
        &mut self,
        node: &Node<W>,
        input: &[u8],
        now: Now,
        out: &mut Vec<u8>,
        host: &mut H,
    ) -> (usize, Step) {
        if let Some(connection) = &self.connection
            && !input.is_empty()
        {
            connection.begins(now);
        }
        let (done, step) = self.work(node, input, now, out, host);
        if let Some(connection) = &self.connection {
            connection.rests(doing(&step, &input[done..]));
        }
        (done, step)
    }

    fn work<W, H: Host<W>>(
        &mut self,
        node: &Node<W>,
        input: &[u8],
        now: Now,
        out: &mut Vec<u8>,
        host: &mut H,
    ) -> (usize, Step) {
        let mut done = 0;
        loop {
            match &mut self.mode {
                Mode::Commands => {}
                Mode::Pending(_) => return (done, Step::Wait),
                Mode::Watch(id) => {
                    node.observers.take(*id, out);
                    return (input.len(), Step::Watch);
                }
                Mode::Dump(dump) => {
                    if !dump.advance(node, now, out, OUTPUT_MAX) {
                        return (done, Step::Write);
                    }
                    self.mode = Mode::Commands;
                }
            }
            if out.len() >= OUTPUT_MAX {
                return (done, Step::Write);
            }
            match self.parser.next(&input[done..]) {
                Parsed::Incomplete { used, wants } => {
                    done += used;
                    // What was swallowed may be followed by more that is here already.
                    if used == 0 || done == input.len() {
                        return (done, Step::Read(wants));
                    }
                }
                Parsed::Binary(request) => {
                    request.refuse(out);
                    return (input.len(), self.breaks());
                }
                Parsed::Close { error } => {
                    out.extend_from_slice(error);
                    return (input.len(), self.breaks());
                }
                Parsed::Failed { used, error } => {
                    out.extend_from_slice(error);
                    done += used;
                }
                Parsed::Request { used, request } => {
                    done += used;
                    if self.execute(node, request, now, out, host) {
                        return (done, Step::Close);
                    }
                }
            }
        }
    }

    /// Says whether that was the last one.
    fn execute<W, H: Host<W>>(
        &mut self,
        node: &Node<W>,
        request: Request<'_>,
        now: Now,
        out: &mut Vec<u8>,
        host: &mut H,
    ) -> bool {
        let counters = node.counters(self.worker);
        let descriptor = self.connection().map_or(NO_DESCRIPTOR, |it| it.socket.descriptor);
        let mut context = Context { node, counters, now, descriptor, out, host };
        match context.execute(request) {
            Executed::Done => {}
            Executed::Pending(pending) => self.mode = Mode::Pending(pending),
            Executed::Dump(dump) => self.mode = Mode::Dump(dump),
            Executed::Watch(id) => self.mode = Mode::Watch(id),
            Executed::BadKey => self.parser.skip_line(),
            Executed::Quit => return true,
        }
        false
    }

    fn breaks(&mut self) -> Step {
        self.is_broken = true;
        Step::Close
    }

    /// The outcome that the session has waited for.
    pub fn resume<W>(&mut self, node: &Node<W>, outcome: Outcome, out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.mode, Mode::Commands) {
            Mode::Pending(pending) => {
                pending.answer(&outcome, node, node.counters(self.worker), out);
            }
            other => self.mode = other,
        }
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        self.connection.as_deref()
    }

    /// Why it really ended: what the client did counts for more than how the socket saw it.
    pub(super) fn ending(&self, seen: Ending) -> Ending {
        if self.is_broken { Ending::Error } else { seen }
    }

    pub(super) fn unwatch<W>(&self, node: &Node<W>) {
        if let Mode::Watch(id) = self.mode {
            node.observers.unwatch(id);
            node.remember_evicted();
        }
    }
}

fn doing(step: &Step, rest: &[u8]) -> Doing {
    /// No command line is longer.
    const LINE_MAX: usize = 2 << 10;
    match step {
        // A line that is complete and still not enough waits for its data block.
        Step::Read(_) if memchr::memchr(b'\n', &rest[..rest.len().min(LINE_MAX)]).is_some() => {
            Doing::AwaitingData
        }
        Step::Read(_) => Doing::Reading,
        Step::Watch => Doing::Watching,
        Step::Write | Step::Wait | Step::Close => Doing::Executing,
    }
}
