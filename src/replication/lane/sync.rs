//! The owner's half of filling a learner: it tells in short what it owns, and sends the slots in
//! which the learner differs.
//!
//! All of it goes on the same ordered link as its changes, so no chunk can overtake a delete and no
//! tombstones are needed, and digests compare two states of one moment.

use super::*;

/// About this much goes into one chunk.
const CHUNK_BYTES: usize = 32 << 10;
/// Chunks that may be on their way to a learner at once. With 16 lanes that makes a mebibyte, behind
/// which the changes wait that a learner has to acknowledge where it is counted already.
const CHUNKS_IN_FLIGHT: u32 = 2;
/// Slots are sent in passes of about so many items each, but not in more passes than that: each is a
/// walk over the whole lane. When the view changes, the slots of the passes before are equal.
const PASS_ITEMS: usize = 8192;
const PASSES_MAX: usize = 4;

/// How far a learner is filled.
#[derive(Debug)]
pub(super) struct Filling {
    step: Step,
    /// Chunks, or the end, that it has not acknowledged.
    unacked: u32,
}

#[derive(Debug)]
enum Step {
    /// It knows the digests, and has not said in which slots it differs.
    Comparing,
    /// It gets these slots.
    Sending(Passes),
    /// It was told that this was all.
    Ended,
}

/// The slots that a learner gets, and where the walk is.
#[derive(Debug)]
struct Passes {
    /// Those that come after this pass.
    later: Vec<u16>,
    slots_each: usize,
    present: Slots,
    cursor: u64,
}

impl Passes {
    fn new(wanted: Vec<u16>, items: usize) -> Self {
        let passes = (items / PASS_ITEMS).clamp(1, PASSES_MAX);
        let slots_each = wanted.len().div_ceil(passes);
        Self { later: wanted, slots_each, present: Slots::default(), cursor: 0 }
    }

    /// Turns to the next pass; false if there is none.
    fn turn(&mut self) -> bool {
        let count = self.slots_each.min(self.later.len());
        self.present = self.later.drain(..count).map(usize::from).collect();
        self.cursor = 0;
        count > 0
    }
}

impl Filling {
    fn is_done(&self) -> bool {
        matches!(self.step, Step::Ended) && self.unacked == 0
    }
}

impl<W> Lane<W> {
    /// Tells all learners of a new view what is owned here.
    pub(super) fn start_filling<I: Items, O: Outside<W>>(&mut self, items: &mut I, out: &mut O) {
        let learners = self.view.learners.iter().map(|learner| learner.incarnation);
        let open: Vec<_> = learners.filter(|&life| !self.stream.counts(life)).collect();
        if open.is_empty() {
            return;
        }
        let slots = self.slots_of(self.options.me).into_iter();
        let digests: Vec<_> = slots.map(|slot| items.digest(usize::from(slot))).collect();
        for learner in open {
            self.fillings.insert(learner, Filling { step: Step::Comparing, unacked: 0 });
            self.tell(learner, LaneMessage::SnapDigests(digests.clone()), out);
        }
    }

    /// A learner differs in these slots.
    pub(super) fn wanted<I: Items, O: Outside<W>>(
        &mut self,
        learner: Incarnation,
        wanted: Vec<u16>,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        let owned = self.slots_of(self.options.me);
        let filling = self.fillings.get_mut(&learner);
        let filling = filling.filter(|filling| matches!(filling.step, Step::Comparing));
        let are_ours = wanted.is_sorted_by(|one, next| one < next)
            && wanted.iter().all(|slot| owned.binary_search(slot).is_ok());
        let Some(filling) = filling.filter(|_| are_ours) else {
            return Err(Violation("a wish for slots that makes no sense here"));
        };
        self.figures.slots_sent += wanted.len() as u64;
        let count: usize =
            wanted.iter().map(|&slot| items.digest(usize::from(slot)).items as usize).sum();
        let mut passes = Passes::new(wanted, count);
        if passes.turn() {
            filling.step = Step::Sending(passes);
            self.send_piece(learner, items, out);
        } else {
            self.end_filling(learner, out);
        }
        Ok(())
    }

    fn end_filling<O: Outside<W>>(&mut self, learner: Incarnation, out: &mut O) {
        if let Some(filling) = self.fillings.get_mut(&learner) {
            *filling = Filling { step: Step::Ended, unacked: filling.unacked + 1 };
            self.tell(learner, LaneMessage::SnapEnd(self.results.all()), out);
        }
    }

    /// A chunk, or the end, has come over.
    pub(super) fn chunk_acked<I: Items, O: Outside<W>>(
        &mut self,
        learner: Incarnation,
        items: &mut I,
        out: &mut O,
    ) -> Result<(), Violation> {
        let filling = self.fillings.get_mut(&learner).filter(|filling| filling.unacked > 0);
        let filling = filling.ok_or(Violation("an ack for a chunk that was never sent"))?;
        filling.unacked -= 1;
        self.send_piece(learner, items, out);
        self.count_if_caught_up(learner);
        Ok(())
    }

    /// Looks at some items and sends those that the learner is to have, if it may have more now.
    fn send_piece<I: Items, O: Outside<W>>(
        &mut self,
        learner: Incarnation,
        items: &mut I,
        out: &mut O,
    ) {
        let Some(filling) = self.fillings.get_mut(&learner) else {
            return;
        };
        let Filling { step: Step::Sending(passes), unacked } = filling else {
            return;
        };
        let now = out.local_time();
        if *unacked >= CHUNKS_IN_FLIGHT || !self.options.pace.is_open(now) {
            return;
        }
        let wanted = |key: KeyHash| passes.present.has(key.slot());
        let (records, next) = items.scan(passes.cursor, CHUNK_BYTES, &wanted);
        passes.cursor = next.unwrap_or_default();
        let is_over = next.is_none() && !passes.turn();
        if !records.is_empty() {
            *unacked += 1;
            let bytes: usize = records.iter().map(Record::size).sum();
            self.options.pace.spend(bytes, now);
            self.figures.items_sent += records.len() as u64;
            self.figures.bytes_sent += bytes as u64;
            self.tell(learner, LaneMessage::SnapChunk(records), out);
        }
        if is_over {
            self.end_filling(learner, out);
        }
    }

    /// A bounded step of whatever is left to do for learners, or as one; to be called every few
    /// milliseconds while there are any.
    pub fn sync<I: Items, O: Outside<W>>(&mut self, items: &mut I, out: &mut O) {
        if self.change.is_some() {
            return;
        }
        let learners: Vec<_> = self.fillings.keys().copied().collect();
        for learner in learners {
            self.send_piece(learner, items, out);
        }
        for owner in self.dropping() {
            self.drop_piece(owner, items, out);
        }
    }

    pub(super) fn count_if_caught_up(&mut self, learner: Incarnation) {
        let is_filled = self.fillings.get(&learner).is_some_and(Filling::is_done);
        if is_filled && self.stream.count(learner) {
            self.events.push(Event::Counted(self.view.epoch, learner));
        }
    }
}
