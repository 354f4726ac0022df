//! One client connection without its socket: bytes in, bytes out.
//!
//! Commands are executed in order. One that has to wait for other nodes stops the session until
//! it is resumed, so later commands of the connection always see its effect.

use super::commands::{Context, Executed, OUTPUT_MAX, Pending};
use super::{Host, Node};
use crate::protocol::{Parsed, Parser};
use crate::record::Outcome;
use crate::time::Now;

/// See the module.
#[derive(Debug)]
pub struct Session {
    worker: usize,
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
}

impl Session {
    /// A session at the start of its connection, run by this worker.
    pub fn new(worker: usize, item_max: usize) -> Self {
        Self { worker, parser: Parser::new(item_max), pending: None }
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
