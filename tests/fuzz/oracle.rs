//! What must hold for any input, shared by the fuzz targets and the replay of their corpus.
//!
//! Nothing panics; where the input was cut never shows in the replies; and no connection asks for
//! more memory than one item and one line.

#[path = "../alone/mod.rs"]
mod alone;

use sessiond::node::{Node, Session, Step};
use sessiond::protocol::{Parsed, Parser};
use sessiond::replication::message::{self, Frame};
use sessiond::settings::Settings;
use sessiond::time::Now;

use alone::Alone;

/// Small, so that the fuzzer finds values that are too large.
const ITEM_MAX: usize = 4096;
/// What a line may need beside an item.
const LINE_MAX: usize = 2048 + 256;
/// Commands that one input may hold: each takes at least a byte.
const STEPS_PER_BYTE: usize = 4;
/// How long anybody may have to wait on a single node.
const TICK_MS: u64 = 50;
const TICKS_MAX: usize = 4;

fn node() -> (Node<()>, Now) {
    let settings = Settings {
        memory: 8 << 20,
        item_max: ITEM_MAX,
        shutdown_enabled: true,
        ..Settings::default()
    };
    alone::node(1, settings)
}

/// The replies of a fresh node to `input`, cut into pieces of this length.
fn replies(input: &[u8], piece: usize) -> Vec<u8> {
    let (node, mut now) = node();
    let start_s = now.wall_s;
    let mut session = Session::new(0, ITEM_MAX);
    let (mut out, mut host, mut buffer) = (Vec::new(), Alone::default(), Vec::new());
    let mut written = Vec::new();
    for piece in input.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        let mut steps_left = STEPS_PER_BYTE * (buffer.len() + 2);
        loop {
            assert!(steps_left > 0, "the session makes no progress");
            steps_left -= 1;
            let (used, step) = session.advance(&node, &buffer, now, &mut out, &mut host);
            buffer.drain(..used);
            match step {
                Step::Watch => break,
                Step::Yield => {}
                Step::Read(wants) => {
                    assert!(wants <= ITEM_MAX + LINE_MAX, "a connection wants {wants} bytes");
                    break;
                }
                Step::Wait => {
                    // A second flush_all in a row is answered a moment later.
                    for _ in 0..TICKS_MAX {
                        if host.answers.is_empty() {
                            let later = now.local.plus(TICK_MS);
                            now = node.now(later, start_s);
                            node.tick(now, &mut host);
                        }
                    }
                    session.resume(&node, host.answers.remove(0), &mut out);
                }
                Step::Write => written.append(&mut out),
                Step::Close | Step::Stop(_) => return [written, out].concat(),
            }
        }
    }
    [written, out].concat()
}

/// A whole connection: the first byte says how its bytes are cut.
pub(crate) fn connection(data: &[u8]) {
    let Some((&piece, input)) = data.split_first() else {
        return;
    };
    let whole = replies(input, input.len());
    assert_eq!(replies(input, usize::from(piece)), whole, "cut into pieces of {piece}");
}

/// The parser alone makes progress or asks for more, and never uses more than there is.
pub(crate) fn parser(data: &[u8]) {
    let mut parser = Parser::new(ITEM_MAX);
    let mut rest = data;
    loop {
        let (used, more) = match parser.next(rest) {
            Parsed::Request { used, .. } | Parsed::Failed { used, .. } => (used, used > 0),
            Parsed::Incomplete { used, .. } => (used, used > 0),
            Parsed::Binary(_) | Parsed::Close { .. } => return,
        };
        assert!(used <= rest.len(), "used {used} of {} bytes", rest.len());
        rest = &rest[used..];
        if !more {
            return;
        }
    }
}

/// Whatever a peer sends decodes, or is refused; and what decodes survives another trip.
pub(crate) fn frame(data: &[u8]) {
    if let Ok(Frame::Message(used, message)) = message::decode(data, 1 << 20) {
        assert!(used <= data.len());
        let mut wire = Vec::new();
        message::encode(&message, &mut wire);
        assert_eq!(message::decode(&wire, 2 << 20), Ok(Frame::Message(wire.len(), message)));
    }
}
