//! Filling a learner: each owner sends the items it owns on the same ordered link as its changes,
//! so no chunk can overtake a delete and no tombstones are needed.

use super::*;

/// About this much goes into one chunk.
const CHUNK_BYTES: usize = 64 << 10;

impl<W> Lane<W> {
    pub(super) fn start_filling<I: Items, O: Outside<W>>(&mut self, items: &mut I, out: &mut O) {
        let learners: Vec<_> =
            self.view.learners.iter().map(|learner| learner.incarnation).collect();
        for learner in learners {
            self.pump(learner, items, out);
        }
    }

    /// Sends chunks as far as the window allows; the last one is followed by the end.
    pub(super) fn pump<I: Items, O: Outside<W>>(
        &mut self,
        learner: Incarnation,
        items: &mut I,
        out: &mut O,
    ) {
        while let Some(cursor) = self.stream.chunk_wanted(learner) {
            let (me, owners) = (self.options.me, &self.owners);
            let wanted = |key: KeyHash| owners.owner(key) == Some(me);
            let (records, next) = items.scan(cursor, CHUNK_BYTES, &wanted);
            self.stream.chunk_sent(learner, next);
            self.tell(learner, LaneMessage::SnapChunk(records), out);
            if next.is_none() {
                self.stream.chunk_sent(learner, None);
                self.tell(learner, LaneMessage::SnapEnd(self.results.all()), out);
            }
        }
    }

    /// A learner takes items.
    pub(super) fn fill<I: Items, O: Outside<W>>(
        &mut self,
        from: Incarnation,
        records: &[Record<Bytes>],
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        if self.role != Role::Learner || !records.iter().all(is_sane) {
            return Err(Violation("a snapshot chunk that makes no sense here"));
        }
        records.iter().for_each(|record| items.apply(record));
        self.settle_lost(items, out);
        self.tell(from, LaneMessage::SnapAck, out);
        Ok(())
    }

    pub(super) fn count_if_caught_up(&mut self, learner: Incarnation) {
        if self.view.has_learner(learner) && self.stream.count(learner) {
            self.events.push(Event::Counted(self.view.epoch, learner));
        }
    }
}
