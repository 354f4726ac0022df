//! Messages of epochs that this lane does not work in yet: they wait for their view.
//!
//! They are of a view that is on its way here, or of one that is being installed. What they keep is
//! counted for people, and not bounded: `docs/architecture.md` says why.

use super::{Incarnation, Items, Lane, LaneMessage, Outside, Violation};
use crate::record::Mutation;
use crate::replication::message::{Fwd, ViewFlush};
use crate::version::Epoch;

/// What a message takes beside keys and values, about.
const MESSAGE_BYTES: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Early {
    kept: Vec<(Incarnation, Epoch, LaneMessage)>,
    bytes: usize,
}

impl Early {
    pub(super) fn keep(&mut self, from: Incarnation, epoch: Epoch, message: LaneMessage) {
        self.bytes += weight(&message);
        self.kept.push((from, epoch, message));
    }

    /// The memory that they keep, about.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }
}

fn weight(message: &LaneMessage) -> usize {
    let forwarded = |fwd: &Fwd| match &fwd.mutation {
        Mutation::Store { value, .. } => fwd.key.len() + value.len(),
        _ => fwd.key.len(),
    };
    let payload = match message {
        LaneMessage::Apply(apply) => apply.record.size(),
        LaneMessage::Fwd(fwd) | LaneMessage::PassFwd(_, fwd) => forwarded(fwd),
        LaneMessage::ViewFlush(ViewFlush { records, answered, .. }) => {
            let records: usize = records.iter().map(|record| MESSAGE_BYTES + record.size()).sum();
            records + MESSAGE_BYTES * answered.len()
        }
        LaneMessage::SnapChunk(records) => {
            records.iter().map(|record| MESSAGE_BYTES + record.size()).sum()
        }
        LaneMessage::SnapEnd(answered) => MESSAGE_BYTES * answered.len(),
        LaneMessage::SnapDigests(digests) => size_of_val(&digests[..]),
        LaneMessage::SnapWant(slots) => size_of_val(&slots[..]),
        LaneMessage::Lost(keys) => keys.iter().map(|(key, _)| MESSAGE_BYTES + key.len()).sum(),
        LaneMessage::Bump(keys) => keys.iter().map(|key| MESSAGE_BYTES + key.len()).sum(),
        LaneMessage::FwdDone(_)
        | LaneMessage::PassDone(..)
        | LaneMessage::AppliedUpTo(_)
        | LaneMessage::CommitUpTo(_)
        | LaneMessage::Activated
        | LaneMessage::SnapAck => 0,
    };
    MESSAGE_BYTES + payload
}

impl<W> Lane<W> {
    /// Takes up messages that came before their view.
    pub(super) fn replay<I: Items, O: Outside<W>>(
        &mut self,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        for (from, epoch, message) in std::mem::take(&mut self.early).kept {
            self.receive(from, epoch, message, items, out)?;
        }
        Ok(())
    }
}
