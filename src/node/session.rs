//! One client connection without its socket: bytes in, bytes out.
//!
//! Commands are executed in order. One that has to wait for other nodes stops the session until
//! it is resumed, so later commands of the connection always see its effect.

use std::sync::Arc;

use super::commands::{Context, Executed, OUTPUT_MAX, Pending, Verb};
use super::connections::{Connection, Doing, Ending};
use super::dump::Dump;
use super::observe::WatcherId;
use super::{Host, Node};
use crate::protocol::{Login, Parsed, Parser, Said, Stop, reply};
use crate::record::Outcome;
use crate::stats::Counters;
use crate::time::Now;

/// What a session without a socket is known as.
const NO_DESCRIPTOR: i32 = -1;

/// See the module.
#[derive(Debug)]
pub struct Session {
    worker: usize,
    /// Until the client has logged in, where it has to.
    login: Option<Login>,
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
    /// Others should have their turn before it goes on; the replies so far may wait for more.
    Yield,
    /// It waits for an outcome; see `resume`.
    Wait,
    /// It shows what happens elsewhere: write the replies and ask again in a moment.
    Watch,
    /// Write the replies, then close.
    Close,
    /// Write the replies, close, and end the server: the client may, and has said so.
    Stop(Stop),
}

impl Session {
    /// A session at the start of its connection, run by this worker; nobody has to log in.
    pub fn new(worker: usize, item_max: usize) -> Self {
        let (parser, mode) = (Parser::new(item_max), Mode::Commands);
        Self { worker, login: None, parser, mode, connection: None, is_broken: false }
    }

    /// The same, but nothing is executed before a login.
    pub(super) fn behind_login(self) -> Self {
        Self { login: Some(Login::default()), ..self }
    }

    /// The same, of a client that has logged in before.
    pub fn let_in(self) -> Self {
        Self { login: None, ..self }
    }

    /// Whether the client may do what it likes.
    pub fn is_logged_in(&self) -> bool {
        self.login.is_none()
    }

    /// Whether everything that the client has begun is done.
    pub fn is_between_commands(&self) -> bool {
        let is_logging_in = self.login.as_ref().is_some_and(|login| !login.is_between_attempts());
        matches!(self.mode, Mode::Commands) && self.parser.is_between_commands() && !is_logging_in
    }

    /// A session that shows itself among the open connections.
    pub(super) fn of(connection: Arc<Connection>, item_max: usize) -> Self {
        let session = Self::new(connection.worker, item_max);
        Self { connection: Some(connection), ..session }
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
        let counters = node.counters(self.worker);
        while let Some(login) = &mut self.login {
            let (used, step) = log_in(login, node, counters, &input[done..], out);
            done += used;
            match step {
                Some(Step::Close) => return (input.len(), self.breaks()),
                Some(step) => return (done, step),
                None => self.login = None,
            }
        }
        let descriptor = self.connection().map_or(NO_DESCRIPTOR, |it| it.socket.descriptor);
        let mut commands_left = node.options.settings.requests_per_turn;
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
            if done == input.len() {
                return (done, Step::Read(1));
            }
            if out.len() >= OUTPUT_MAX {
                return (done, Step::Write);
            }
            if commands_left == 0 {
                return (done, Step::Yield);
            }
            commands_left = commands_left.saturating_sub(1);
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
                    let mut context =
                        Context { node, counters, now, descriptor, out: &mut *out, host };
                    match context.execute(request) {
                        Executed::Done => {}
                        Executed::Pending(pending) => self.mode = Mode::Pending(pending),
                        Executed::Dump(dump) => self.mode = Mode::Dump(dump),
                        Executed::Watch(id) => self.mode = Mode::Watch(id),
                        Executed::BadKey => self.parser.skip_line(),
                        Executed::Asked(pending, rest, form) => {
                            done = rest.position_in(input);
                            self.parser.resume_keys(form);
                            self.mode = Mode::Pending(pending);
                        }
                        Executed::Paused(rest, form) => {
                            done = rest.position_in(input);
                            self.parser.resume_keys(form);
                        }
                        Executed::Quit => return (done, Step::Close),
                        Executed::Stop(stop) => return (done, Step::Stop(stop)),
                    }
                }
            }
        }
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

    /// Whether the command that waits only reads.
    pub fn waits_for_read(&self) -> bool {
        matches!(&self.mode, Mode::Pending(Pending { verb: Verb::Get | Verb::MetaFetch, .. }))
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

/// Takes attempts to log in off the input. `None`: the client is in.
fn log_in<W>(
    login: &mut Login,
    node: &Node<W>,
    counters: &Counters,
    input: &[u8],
    out: &mut Vec<u8>,
) -> (usize, Option<Step>) {
    let mut done = 0;
    loop {
        if out.len() >= OUTPUT_MAX {
            return (done, Some(Step::Write));
        }
        match login.next(&input[done..]) {
            Said::Incomplete { used, wants } => {
                done += used;
                if used == 0 {
                    return (done, Some(Step::Read(wants)));
                }
            }
            Said::Close { error } => {
                out.extend_from_slice(error);
                return (done, Some(Step::Close));
            }
            Said::Failed { used, error } => {
                out.extend_from_slice(error);
                done += used;
            }
            Said::Name { used, user, password } => {
                done += used;
                counters.auth_cmds.add(1);
                if node.allows(user, password) {
                    out.extend_from_slice(reply::STORED);
                    return (done, None);
                }
                counters.auth_errors.add(1);
                out.extend_from_slice(reply::LOGIN_FAILED);
            }
        }
    }
}

fn doing(step: &Step, rest: &[u8]) -> Doing {
    /// No command line is longer.
    const LINE_MAX: usize = 2 << 10;
    match step {
        Step::Read(_) if rest.is_empty() => Doing::Reading,
        // A line that is complete and still not enough waits for its data block.
        Step::Read(_) if memchr::memchr(b'\n', &rest[..rest.len().min(LINE_MAX)]).is_some() => {
            Doing::AwaitingData
        }
        Step::Read(_) => Doing::Reading,
        Step::Watch => Doing::Watching,
        Step::Write | Step::Yield | Step::Wait | Step::Close | Step::Stop(_) => Doing::Executing,
    }
}
