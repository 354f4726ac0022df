//! How a group begins, and how a node comes into one that has begun.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::Rng;
use tokio::time::Instant;

use super::Agent;
use crate::membership::VALUE_MAX;
use crate::membership::circle::Stand;
use crate::membership::image::Image;
use crate::membership::seat::{self, Seat};
use crate::membership::types::{Binding, Founding};
use crate::membership::wire::Frame;

/// A founder asks again after this many ticks.
const ASK_TICKS: u64 = 4;

/// A founding of this node that has no majority yet.
pub(super) struct Founded {
    /// Who said yes, and its id.
    yes: BTreeMap<Box<str>, u64>,
    asked_at: Option<u64>,
    majority_at: Option<Instant>,
}

impl Agent {
    /// Where this node stands among the others, and what follows from it.
    pub(super) async fn consider(&mut self) {
        if self.unseated.is_some() {
            return;
        }
        if self.is_left_out() {
            tracing::info!("this node votes no more, and gives up its place in the log");
            return self.forget().await;
        }
        // Elections take a moment.
        let led = self.own_leader().is_some() || !self.is_late();
        let stand = self.seat.as_ref().map(|seat| Stand { led, ..seat.stand() });
        if !self.circle.am_voter() && stand.is_none() {
            return;
        }
        if let Some((founding, by)) = self.circle.better(stand.as_ref()) {
            tracing::info!(number = founding.number, told_by = %by, "joining an existing group");
            return self.join(founding, by).await;
        }
        match stand {
            None => self.gather(None).await,
            Some(stand) if stand.committed => self.founded = None,
            Some(stand) if stand.started => self.reconsider().await,
            Some(stand) if stand.binding.founder == self.circle.me => self.ask_all().await,
            Some(stand) => self.gather(Some(stand.binding)).await,
        }
    }

    /// Whether those who vote now have agreed that this node does not. Its place would only keep
    /// others from founding when these have lost theirs.
    fn is_left_out(&self) -> bool {
        !self.circle.am_voter() && self.seat.as_ref().is_some_and(Seat::is_left_out)
    }

    /// Founds, when it is this node's turn.
    async fn gather(&mut self, bound: Option<Binding>) {
        let present = self.circle.present().len();
        // Somebody may be waiting, with all that was agreed, for those who have lost it.
        let exists = self.circle.better(None).is_some();
        if present < self.circle.majority() || !self.circle.am_voter() || exists {
            self.gathered_at = None;
            return;
        }
        let gathered_at = *self.gathered_at.get_or_insert_with(Instant::now);
        let all = present == self.circle.voters.len();
        let is_time = all || gathered_at.elapsed() >= self.ground.timing.gather;
        let is_free = bound.is_none_or(|binding| !self.circle.is_on(&binding) || self.is_late());
        if is_time && is_free && self.circle.am_lowest() {
            if !self.leave_if(Image::is_empty).await {
                return;
            }
            let founding = Founding { number: 1, random: self.random.next_u64() };
            tracing::info!(present, "founding the group");
            self.join(founding, self.circle.me.clone()).await;
            self.ask_all().await;
        }
    }

    /// Asks those who have not said yes; begins when enough have.
    async fn ask_all(&mut self) {
        let Some(seat) = &self.seat else { return };
        let (binding, majority) = (seat.binding.clone(), self.circle.majority());
        let founded = self.founded.get_or_insert_with(|| Founded {
            yes: BTreeMap::new(),
            asked_at: None,
            majority_at: None,
        });
        founded.yes.insert(self.circle.me.clone(), binding.id);
        let present = self.circle.present();
        let missing: Vec<&str> =
            present.iter().copied().filter(|name| !founded.yes.contains_key(*name)).collect();
        if founded.yes.len() >= majority {
            let majority_at = *founded.majority_at.get_or_insert_with(Instant::now);
            // Who says yes in time needs no seat later.
            if missing.is_empty() || majority_at.elapsed() >= self.ground.timing.gather / 4 {
                return self.begin().await;
            }
        }
        if founded.asked_at.is_none_or(|tick| self.ticks >= tick + ASK_TICKS) {
            founded.asked_at = Some(self.ticks);
            for name in missing {
                self.send(name, &Frame::Bind(binding.founding));
            }
        }
    }

    /// A seat for each voter, so that a majority is one of all; whoever has not said yes takes
    /// its seat later, as a voter that has lost its file does.
    async fn begin(&mut self) {
        let (Some(seat), Some(founded)) = (&self.seat, self.founded.take()) else { return };
        let random = &mut self.random;
        let seats = self.circle.voters.iter().map(|name| {
            (founded.yes.get(name).copied().unwrap_or_else(|| random.next_u64()), name.clone())
        });
        seat.found(seats.collect()).await;
        self.leaderless_at = Some(Instant::now());
    }

    /// A founder whose founding comes to nothing tries anew. Only if nobody but itself can have
    /// counted on what it has written down.
    async fn reconsider(&mut self) {
        let Some(seat) = &self.seat else { return };
        if self.is_late()
            && seat.binding.founder == self.circle.me
            && seat.is_alone()
            && self.leave_if(|image| image.is_alone() && !image.is_committed()).await
        {
            tracing::warn!("the founding got no majority; trying anew");
            self.forget().await;
        }
    }

    /// Whether nothing has come of the present founding for too long.
    fn is_late(&self) -> bool {
        let patience = self.ground.timing.patience;
        self.leaderless_at.is_some_and(|since| since.elapsed() >= patience)
    }

    /// A founder asks.
    pub(super) async fn bind(&mut self, founder: &str, founding: Founding) {
        if self.unseated.is_some() {
            return;
        }
        let stand = self.seat.as_ref().map(Seat::stand);
        let is_bound = stand.as_ref().is_some_and(|stand| stand.binding.founding == founding);
        if !is_bound {
            if !self.circle.may_bind(founder, stand.as_ref()) {
                return;
            }
            if !self.leave_if(Image::is_empty).await {
                return;
            }
            self.join(founding, founder.into()).await;
        }
        if let Some(seat) = &self.seat {
            self.send(founder, &Frame::Bound(founding, seat.binding.id));
        }
    }

    /// Somebody says yes.
    pub(super) fn bound(&mut self, from: Box<str>, founding: Founding, id: u64) {
        let is_mine = self.seat.as_ref().is_some_and(|seat| seat.binding.founding == founding);
        if let Some(founded) = self.founded.as_mut().filter(|_| is_mine)
            && self.circle.voters.contains(&from)
        {
            founded.yes.insert(from, id);
        }
    }

    pub(super) async fn found_generation(&mut self, value: Bytes) {
        if value.len() > VALUE_MAX {
            return tracing::error!(bytes = value.len(), "a value to found with is too long");
        }
        let mine = self.seat.as_ref().map_or(0, |seat| seat.binding.founding.number);
        let number = mine.max(self.newest_heard) + 1;
        let founding = Founding { number, random: self.random.next_u64() };
        tracing::warn!(number, "founding a new generation of the group, alone");
        let (founder, id) = (self.circle.me.clone(), self.random.next_u64());
        self.leave().await;
        self.sit(seat::generation(Binding { founding, founder, id }, value)).await;
        self.elect().await;
    }

    /// Takes an empty place in that log; what was known of another is over.
    async fn join(&mut self, founding: Founding, founder: Box<str>) {
        let id = self.random.next_u64();
        self.leave().await;
        self.sit(Image::new(Binding { founding, founder, id })).await;
    }

    /// Returns what was known.
    pub(super) async fn leave(&mut self) -> Option<Image> {
        self.founded = None;
        self.elect_at = None;
        self.heard_at = None;
        if let Some(admitting) = self.admitting.take() {
            admitting.abort();
        }
        // Nobody waits for these any more; the crate would wait for their deadlines.
        self.asked.clear();
        let unseated = self.unseated.take();
        match self.seat.take() {
            Some(seat) => Some(seat.leave().await),
            None => unseated,
        }
    }

    /// Leaves a log of which this holds. What was on its way in when that was decided may have
    /// changed it, and the peer may count on that: then it stays.
    async fn leave_if(&mut self, holds: impl FnOnce(&Image) -> bool) -> bool {
        match self.leave().await {
            Some(image) if !holds(&image) => {
                self.sit(image).await;
                false
            }
            _ => true,
        }
    }

    /// Leaves, for good: after a restart too.
    pub(super) async fn forget(&mut self) {
        self.leave().await;
        if let Some(folder) = &self.ground.folder
            && let Err(error) = folder.clear()
        {
            tracing::error!(%error, "cannot remove the membership file");
        }
    }

    pub(super) async fn sit(&mut self, image: Image) {
        match Seat::take(&self.ground, image.clone()).await {
            Ok(seat) => self.seat = Some(seat),
            Err(error) => {
                tracing::error!(%error, "no place in the group");
                self.unseated = Some(image);
            }
        }
        self.leaderless_at = Some(Instant::now());
        self.refresh();
    }
}
