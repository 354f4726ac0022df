//! One client connection without its socket: bytes in, bytes out.
//!
//! Commands are executed in order. One that has to wait for other nodes stops the session until
//! it is resumed, so later commands of the connection always see its effect.

use super::commands::{Context, Executed, OUTPUT_MAX, Pending};
use super::{Host, Node};
use crate::protocol::{Login, Parsed, Parser, Said, Stop, reply};
use crate::record::Outcome;
use crate::stats::Counters;
use crate::time::Now;

/// See the module.
#[derive(Debug)]
pub struct Session {
    worker: usize,
    /// Until the client has logged in, where it has to.
    login: Option<Login>,
    parser: Parser,
    pending: Option<Pending>,
}

/// Why a session has stopped.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It has done what it could; the input should grow to this many bytes.
    Read(usize),
    /// The replies so far should be written before it goes on.
    Write,
    /// It waits for an outcome; see `resume`.
    Wait,
    /// This node may not answer now; go on when it serves again.
    Hold,
    /// Write the replies, then close.
    Close,
    /// Write the replies, close, and end the server: the client may, and has said so.
    Stop(Stop),
}

impl Session {
    /// A session at the start of its connection, run by this worker; nobody has to log in.
    pub fn new(worker: usize, item_max: usize) -> Self {
        Self { worker, login: None, parser: Parser::new(item_max), pending: None }
    }

    /// The same, but nothing is executed before a login.
    pub(super) fn behind_login(self) -> Self {
        Self { login: Some(Login::default()), ..self }
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
        let counters = node.counters(self.worker);
        let mut done = 0;
        while let Some(login) = &mut self.login {
            let (used, step) = log_in(login, node, counters, &input[done..], out);
            done += used;
            match step {
                Some(Step::Close) => return (input.len(), Step::Close),
                Some(step) => return (done, step),
                None => self.login = None,
            }
        }
        while self.pending.is_none() {
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
                Parsed::Close { error } => {
                    out.extend_from_slice(error);
                    return (input.len(), Step::Close);
                }
                Parsed::Failed { used, error } => {
                    out.extend_from_slice(error);
                    done += used;
                }
                Parsed::Request { used, request } => {
                    done += used;
                    let mut context = Context { node, counters, now, out: &mut *out, host };
                    match context.execute(request) {
                        Executed::Done => {}
                        Executed::Pending(pending) => self.pending = Some(pending),
                        Executed::BadKey => self.parser.skip_line(),
                        Executed::Held(rest, form) => {
                            done = rest.position_in(input);
                            self.parser.resume_keys(form);
                            return (done, Step::Hold);
                        }
                        Executed::HeldWhole => return (done - used, Step::Hold),
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
        (done, Step::Wait)
    }

    /// The outcome that the session has waited for.
    pub fn resume<W>(&mut self, node: &Node<W>, outcome: Outcome, out: &mut Vec<u8>) {
        if let Some(pending) = self.pending.take() {
            pending.answer(&outcome, node.counters(self.worker), out);
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
