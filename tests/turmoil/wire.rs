//! Messages over a simulated connection, as `server/` does it: an end after so much silence, and
//! another attempt after so long. The simulated TCP does not send again what was lost: a connection
//! that has lost a segment is silent for ever.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use turmoil::net::TcpStream;
use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use sessiond::replication::Message;
use sessiond::replication::message::{Frame, decode, encode};

pub(crate) const PORT: u16 = 11212;
/// A connection ends when nothing has come in, or nothing can be sent, for so long.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Something is said at least this often.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Between two attempts to reach a peer.
const REDIAL: Duration = Duration::from_millis(100);
const DIAL_MAX: Duration = Duration::from_secs(1);
const FRAME_MAX: usize = 1 << 20;

/// Reads messages off a connection.
pub(crate) struct Reader {
    stream: OwnedReadHalf,
    input: Vec<u8>,
    /// When something last came in.
    heard: Instant,
}

/// Writes them.
pub(crate) struct Writer(OwnedWriteHalf);

pub(crate) fn split(stream: TcpStream) -> (Reader, Writer) {
    let (stream, output) = stream.into_split();
    (Reader { stream, input: Vec::new(), heard: Instant::now() }, Writer(output))
}

impl Reader {
    /// The next message. Nothing is lost when this is dropped.
    pub(crate) async fn read(&mut self) -> Result<Message> {
        loop {
            match decode(&self.input, FRAME_MAX) {
                Ok(Frame::Message(used, message)) => {
                    self.input.drain(..used);
                    return Ok(message);
                }
                Ok(Frame::Incomplete) => {}
                odd => panic!("{odd:?} was never sent"),
            }
            let mut piece = [0; 4096];
            match timeout_at(self.heard + SILENCE_MAX, self.stream.read(&mut piece)).await?? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                length => {
                    self.heard = Instant::now();
                    self.input.extend_from_slice(&piece[..length]);
                }
            }
        }
    }
}

impl Writer {
    pub(crate) async fn write(&mut self, message: &Message) -> Result<()> {
        let mut frame = Vec::new();
        encode(message, &mut frame);
        self.write_frame(&frame).await
    }

    pub(crate) async fn write_frame(&mut self, frame: &[u8]) -> Result<()> {
        timeout(SILENCE_MAX, self.0.write_all(frame)).await?
    }
}

/// Dials for ever; what to do with each connection is the caller's.
pub(crate) async fn keep_dialing(peer: &str, mut talk: impl AsyncFnMut(TcpStream) -> Result<()>) {
    loop {
        let next = Instant::now() + REDIAL;
        let dialed = timeout(DIAL_MAX, TcpStream::connect((peer, PORT))).await;
        if let Ok(stream) = dialed.map_err(Error::from).flatten() {
            // However it ended, another one is needed.
            let _ = talk(stream).await;
        }
        sleep_until(next).await;
    }
}
