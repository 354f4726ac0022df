//! Reads messages off an accepted connection, until it ends.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, timeout};

use super::net::Stream;
use crate::replication::message::{self, BadFrame, Frame, Message};

/// A peer that is alive says something far more often: beats every 50 ms, data every 500 ms.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Bytes of messages that go into one write.
pub(super) const BATCH_BYTES: usize = 128 << 10;
/// At least so many are taken with one read, if they are there.
const READ_BYTES: usize = 32 << 10;

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
    input: BytesMut,
    /// Whole messages that were not taken yet.
    received: Bytes,
    frame_max: usize,
}

impl<S: Stream> Incoming<S> {
    pub(super) fn new(stream: S, frame_max: usize) -> Self {
        Self { stream, input: BytesMut::new(), received: Bytes::new(), frame_max }
    }

    /// Waits for something to come in; returns how many bytes of whole messages.
    pub(super) async fn read(&mut self) -> Result<usize, End> {
        // The same room as before, if all that was in it is done with.
        self.input.reserve(READ_BYTES);
        match timeout(SILENCE_MAX, self.stream.read_buf(&mut self.input)).await {
            Err(_) => return Err(End::Silent),
            Ok(Ok(0)) => return Err(End::Closed),
            Ok(Err(error)) => return Err(End::Failed(error)),
            Ok(Ok(_)) => {}
        }
        let whole = message::whole_frames(&self.input, self.frame_max).map_err(End::Bad)?;
        self.received = self.input.split_to(whole).freeze();
        Ok(whole)
    }

    /// The next message of what has come in. It shares the bytes of all.
    pub(super) fn next(&mut self) -> Result<Option<Message>, End> {
        loop {
            match message::decode_first(&mut self.received, self.frame_max).map_err(End::Bad)? {
                Frame::Message(_, message) => return Ok(Some(message)),
                Frame::Skip(_) => {}
                Frame::Incomplete => return Ok(None),
            }
        }
    }

    /// Several of them at once, up to a bound; an error comes behind those before it.
    pub(super) fn next_some(
        &mut self,
        most: usize,
        messages: &mut Vec<Message>,
    ) -> Result<(), End> {
        while messages.len() < most
            && let Some(message) = self.next()?
        {
            messages.push(message);
        }
        Ok(())
    }
}
