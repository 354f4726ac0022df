//! What the memberships of two nodes say to each other, and how it is written.
//!
//! One byte of format, then postcard. A frame that is too long, of another format, or does not
//! decode to its last byte is refused whole.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::types::{Founding, SnapshotMeta, Types, Vote};

const FORMAT: u8 = 1;
/// Room for a snapshot, or a handful of entries of the largest size.
pub(super) const FRAME_MAX: usize = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Frame {
    /// Where the sender stands; all the time, and at each change.
    Greeting(Greeting),
    /// A founder asks: be part of my founding.
    Bind(Founding),
    /// Yes, under this id.
    Bound(Founding, u64),
    /// A question of the consensus crate.
    Call(Call),
    /// Its answer.
    Reply { call: u64, answer: Answer },
    /// Propose this, if you lead.
    Propose(Bytes),
    /// The same, or have whoever leads propose it: the sender can't reach that one.
    PassOn(Bytes),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// In which log the sender has a place, and under which id.
    pub(super) place: Option<(Founding, u64)>,
    /// Whether it knows of something agreed there.
    pub(super) committed: bool,
    /// Whether its log is not empty.
    pub(super) started: bool,
    pub(super) term: u64,
    /// Who leads, for all it knows.
    pub(super) leader: Option<Box<str>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) founding: Founding,
    /// The id that is meant, not the name: a voter that has forgotten its vote is another.
    pub(super) to: u64,
    pub(super) call: u64,
    pub(super) request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    Snapshot { vote: Vote, meta: SnapshotMeta, value: Option<Bytes> },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    Snapshot(SnapshotResponse<u64>),
    /// Not of that log, or not that id.
    Refused,
}

pub(super) fn encode(frame: &Frame) -> Option<Bytes> {
    let bytes = postcard::to_extend(frame, vec![FORMAT]);
    match bytes {
        Ok(bytes) if bytes.len() <= FRAME_MAX => Some(bytes.into()),
        Ok(bytes) => {
            tracing::error!(bytes = bytes.len(), "a membership frame is too long");
            None
        }
        Err(error) => {
            tracing::error!(%error, "cannot write a membership frame");
            None
        }
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Frame, &'static str> {
    if bytes.len() > FRAME_MAX {
        return Err("it is too long");
    }
    match bytes.split_first() {
        Some((&FORMAT, body)) => match postcard::take_from_bytes(body) {
            Ok((frame, [])) => Ok(frame),
            _ => Err("it does not decode"),
        },
        _ => Err("it is of another format"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let place = Some((Founding { number: 1, random: 2 }, 3));
        let greeting = Greeting { place, leader: Some("a".into()), ..Greeting::default() };
        let bytes = encode(&Frame::Greeting(greeting.clone())).unwrap();
        assert!(matches!(decode(&bytes), Ok(Frame::Greeting(read)) if read == greeting));
    }

    #[test]
    fn what_is_not_a_frame_to_its_last_byte_is_refused() {
        let good = encode(&Frame::Propose(Bytes::from_static(b"value"))).unwrap();
        assert!(decode(&good).is_ok());
        assert!(decode(&[&good[..], b"x"].concat()).is_err());
        assert!(decode(&good[..good.len() - 1]).is_err());
        assert!(decode(&[]).is_err());
        assert!(decode(&[FORMAT + 1, 0]).is_err());
        assert!(decode(&vec![FORMAT; FRAME_MAX + 1]).is_err());
    }

    #[test]
    fn a_value_of_the_largest_size_fits_with_all_that_go_in_one_frame() {
        use crate::membership::VALUE_MAX;
        use crate::membership::seat::ENTRIES_SENT;
        assert!(VALUE_MAX * ENTRIES_SENT as usize + 4096 < FRAME_MAX);
    }
}
