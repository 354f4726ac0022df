//! Reads messages off an accepted connection, until it ends.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, timeout};

use super::net::Stream;
use crate::replication::message::{self, BadFrame, Frame, Message};

/// A peer that is alive says something far more often: beats every 50 ms, data every 500 ms.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Bytes of messages that go into one write, and about as many into one read.
pub(super) const BATCH_BYTES: usize = 128 << 10;

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum End {
    /// By the peer, in order: its process closed it, or is over.
    Closed,
    Silent,
    Failed(io::Error),
    Bad(BadFrame),
    /// It says what may not be said there.
    Wrong(&'static str),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => write!(f, "closed by peer"),
            Self::Silent => write!(f, "silent for {} ms", SILENCE_MAX.as_millis()),
            Self::Failed(error) => write!(f, "{error}"),
            Self::Bad(bad) => write!(f, "{bad}"),
            Self::Wrong(rule) => write!(f, "{rule}"),
        }
    }
}

/// Sends what was collected.
pub(super) async fn send(stream: &mut impl Stream, batch: &[u8]) -> Result<(), End> {
    let sent = async {
        stream.write_all(batch).await?;
        // TLS may keep some of it back.
        stream.flush().await
    };
    match timeout(SILENCE_MAX, sent).await {
        Ok(sent) => sent.map_err(End::Failed),
        Err(_) => Err(End::Silent),
    }
}

/// An accepted connection.
pub(super) struct Incoming<S> {
    stream: S,
    input: Vec<u8>,
    frame_max: usize,
}

impl<S: Stream> Incoming<S> {
    pub(super) fn new(stream: S, frame_max: usize) -> Self {
        Self { stream, input: Vec::with_capacity(BATCH_BYTES), frame_max }
    }

    /// What has come in, and how many bytes; it may be nothing whole.
    pub(super) async fn read(&mut self) -> Result<(Vec<Message>, usize), End> {
        let bytes = match timeout(SILENCE_MAX, self.stream.read_buf(&mut self.input)).await {
            Err(_) => return Err(End::Silent),
            Ok(Ok(0)) => return Err(End::Closed),
            Ok(Err(error)) => return Err(End::Failed(error)),
            Ok(Ok(bytes)) => bytes,
        };
        let messages = messages_in(&mut self.input, self.frame_max).map_err(End::Bad)?;
        Ok((messages, bytes))
    }
}

/// Takes all complete messages off the input.
fn messages_in(input: &mut Vec<u8>, frame_max: usize) -> Result<Vec<Message>, BadFrame> {
    let (mut messages, mut used) = (Vec::new(), 0);
    loop {
        match message::decode(&input[used..], frame_max)? {
            Frame::Message(length, message) => {
                messages.push(message);
                used += length;
            }
            Frame::Skip(length) => used += length,
            Frame::Incomplete => break,
        }
    }
    input.drain(..used);
    // A large item must not keep its room for ever; a small read must not wait for a large one.
    if input.is_empty() && input.capacity() > 4 * BATCH_BYTES {
        *input = Vec::with_capacity(BATCH_BYTES);
    }
    input.reserve(BATCH_BYTES / 4);
    Ok(messages)
}
