//! Who is alive: beats, refusals and proofs of death; and what was promised to whom.

use std::collections::{BTreeMap, BTreeSet};

use super::Timing;
use crate::replication::dialect::Dialect;
use crate::replication::message::Beat;
use crate::replication::view::{Incarnation, Member};
use crate::time::Millis;

/// The lives this node has met.
#[derive(Debug, Default)]
pub(super) struct Peers {
    met: BTreeMap<Incarnation, Peer>,
    dead: BTreeSet<Incarnation>,
    /// Those that speak and do not get on, and when that was last seen.
    stuck: BTreeMap<Incarnation, Millis>,
    refusals: BTreeMap<Box<str>, Refusals>,
}

/// One life of another node.
#[derive(Debug)]
struct Peer {
    name: Box<str>,
    speaks: Dialect,
    /// When it was last heard.
    heard: Option<Millis>,
    /// When that which it has heard of this node was sent.
    echoed: Option<Millis>,
    /// It has promised to take part in no view without this node until then, by this node's clock.
    promised: Millis,
    /// This node has promised it the same.
    granted: Millis,
    beat: Option<Beat>,
    rtt_ms: Option<u64>,
    /// The life of the same node that still holds the node's port, file and vote. When that is over,
    /// this one takes them, and says so.
    beside: Option<Incarnation>,
    /// How far its cluster time is ahead of this node's clock.
    lead_ms: Option<i64>,
}

/// A name at whose address nobody listens.
#[derive(Clone, Copy, Debug)]
struct Refusals {
    since: Millis,
    last: Millis,
    /// Its last connection ended as those of a process do that is over.
    has_ended: bool,
}

/// Of a clock that runs fast against the granter's, so much of a promise is not relied upon: 2 %.
const DRIFT_DIVISOR: u64 = 50;
/// Lanes repeat that somebody is stuck several times in this time.
const STUCK_MS: u64 = 300;
/// Refusals further apart are not one.
const REFUSALS_APART_MS: u64 = 1000;

impl Peers {
    /// A connection has shown this life.
    pub(super) fn meet(
        &mut self,
        member: &Member,
        succeeds: &[Incarnation],
        speaks: &Dialect,
        beside: Option<Incarnation>,
    ) {
        if beside.is_none() {
            self.refusals.remove(&member.name);
        }
        self.dead.extend(succeeds.iter().filter(|&&life| life != member.incarnation));
        let peer = || Peer {
            name: member.name.clone(),
            speaks: *speaks,
            heard: None,
            echoed: None,
            promised: Millis(0),
            granted: Millis(0),
            beat: None,
            rtt_ms: None,
            beside,
            lead_ms: None,
        };
        let peer = self.met.entry(member.incarnation).or_insert_with(peer);
        // What it has taken over it keeps.
        peer.beside = peer.beside.and(beside);
    }

    /// The predecessor beside which that life was started, as long as it has not taken over.
    pub(super) fn beside(&self, life: Incarnation) -> Option<Incarnation> {
        self.met.get(&life)?.beside
    }

    /// That very life is certainly over, whatever becomes of others of its name.
    pub(super) fn end(&mut self, life: Incarnation) {
        self.dead.insert(life);
    }

    /// A connection has shown that the node of this name only votes now.
    pub(super) fn met_witness(&mut self, name: &str, succeeds: &[Incarnation]) {
        self.refusals.remove(name);
        self.dead.extend(succeeds);
    }

    /// Nobody listens at that name's address. `has_ended`: after its process had closed its
    /// connection, which no firewall does.
    pub(super) fn refused(&mut self, name: &str, has_ended: bool, now: Millis) {
        let fresh = Refusals { since: now, last: now, has_ended };
        let refusals = self.refusals.entry(name.into()).or_insert(fresh);
        if now.since(refusals.last) > REFUSALS_APART_MS {
            refusals.since = now;
        }
        refusals.last = now;
        refusals.has_ended |= has_ended;
        if has_ended {
            // One that is beside another listens somewhere else.
            let is_it = |peer: &Peer| *peer.name == *name && peer.beside.is_none();
            let of_name = self.met.iter().filter(|(_, peer)| is_it(peer));
            self.dead.extend(of_name.map(|(&life, _)| life));
        }
    }

    /// Whether that name's address has been refusing for so long, up to now; and whether that came
    /// after the end of a process.
    pub(super) fn has_refused(&self, name: &str, for_ms: u64, now: Millis) -> Option<bool> {
        let refusals = self.refusals.get(name)?;
        let is_now = now.since(refusals.last) <= REFUSALS_APART_MS;
        let is_long = now.since(refusals.since) >= for_ms;
        let heard = self.met.values().filter(|peer| *peer.name == *name);
        let is_silent = heard.flat_map(|peer| peer.heard).all(|heard| heard <= refusals.since);
        (is_now && is_long && is_silent).then_some(refusals.has_ended)
    }

    /// A beat has come in; false when it is of a life that was never met.
    pub(super) fn hear(
        &mut self,
        from: Incarnation,
        beat: Beat,
        timing: &Timing,
        now: Millis,
    ) -> bool {
        let Some(peer) = self.met.get_mut(&from) else {
            return false;
        };
        peer.heard = Some(now);
        if let Some(echo) = beat.echo.filter(|&echo| echo <= now) {
            peer.echoed = peer.echoed.max(Some(echo));
            peer.rtt_ms = Some(now.since(echo).saturating_sub(beat.echo_age_ms));
            if beat.grants {
                // It had heard the beat of `echo` when it promised: its clock started later.
                let promise = timing.grant_ms - timing.grant_ms / DRIFT_DIVISOR;
                peer.promised = peer.promised.max(echo.plus(promise));
            }
        }
        let its_time = beat.cluster.plus(peer.rtt_ms.unwrap_or_default() / 2);
        peer.lead_ms = Some(its_time.0.cast_signed().wrapping_sub(now.0.cast_signed()));
        peer.beat = Some(beat);
        true
    }

    /// What a beat to it has to echo, and how long ago that came in.
    pub(super) fn echo(&self, to: Incarnation, now: Millis) -> Option<(Millis, u64)> {
        let peer = self.met.get(&to)?;
        Some((peer.beat.as_ref()?.sent, now.since(peer.heard?)))
    }

    /// Whether it was heard just now.
    pub(super) fn spoke_within(&self, life: Incarnation, for_ms: u64, now: Millis) -> bool {
        let heard = self.met.get(&life).and_then(|peer| peer.heard);
        heard.is_some_and(|heard| now.since(heard) < for_ms)
    }

    /// Whether both hear each other, and nothing speaks against it.
    pub(super) fn is_up(&self, life: Incarnation, timing: &Timing, now: Millis) -> bool {
        let is_fresh =
            |time: Option<Millis>| time.is_some_and(|t| now.since(t) < timing.suspect_ms);
        !self.dead.contains(&life)
            && !self.is_stuck(life, now)
            && self.met.get(&life).is_some_and(|peer| is_fresh(peer.heard) && is_fresh(peer.echoed))
    }

    /// A lane has seen that it does not get on.
    pub(super) fn note_stuck(&mut self, life: Incarnation, now: Millis) {
        self.stuck.insert(life, now);
    }

    pub(super) fn is_stuck(&self, life: Incarnation, now: Millis) -> bool {
        self.stuck.get(&life).is_some_and(|&seen| now.since(seen) < STUCK_MS)
    }

    pub(super) fn is_dead(&self, life: Incarnation) -> bool {
        self.dead.contains(&life)
    }

    /// All that were met and may be alive.
    pub(super) fn living(&self) -> impl Iterator<Item = (Incarnation, &str)> {
        let living = self.met.iter().filter(|(life, _)| !self.dead.contains(life));
        living.map(|(&life, peer)| (life, &*peer.name))
    }

    /// What it has last said.
    pub(super) fn beat(&self, life: Incarnation) -> Option<&Beat> {
        self.met.get(&life)?.beat.as_ref()
    }

    /// What of the protocol it speaks.
    pub(super) fn speaks(&self, life: Incarnation) -> Option<&Dialect> {
        Some(&self.met.get(&life)?.speaks)
    }

    pub(super) fn rtt_ms(&self, life: Incarnation) -> Option<u64> {
        self.met.get(&life)?.rtt_ms
    }

    pub(super) fn lead_ms(&self, life: Incarnation) -> Option<i64> {
        self.met.get(&life)?.lead_ms
    }

    /// Those who may rely on a promise of this node at that time.
    pub(super) fn promised_after(&self, now: Millis) -> impl Iterator<Item = Incarnation> {
        self.met.iter().filter(move |(_, peer)| peer.granted > now).map(|(&life, _)| life)
    }

    /// This node is about to promise it something.
    pub(super) fn grant(&mut self, to: Incarnation, until: Millis) {
        if let Some(peer) = self.met.get_mut(&to) {
            peer.granted = peer.granted.max(until);
        }
    }

    /// Until when somebody may rely on a promise of this node. The dead rely on nothing.
    pub(super) fn granted_to_others(
        &self,
        but: &[Incarnation],
        dead: &[Incarnation],
    ) -> Option<Millis> {
        let is_other = |life: &Incarnation| {
            !but.contains(life) && !dead.contains(life) && !self.dead.contains(life)
        };
        let others = self.met.iter().filter(|(life, _)| is_other(life));
        others.map(|(_, peer)| peer.granted).max()
    }

    /// Until when a majority of these, this node included, has promised to wait for it; `None` when
    /// it never had that. Alone it needs nobody.
    pub(super) fn lease_until(&self, members: &[Incarnation], me: Incarnation) -> Option<Millis> {
        let needed = members.len() / 2;
        if needed == 0 {
            return Some(Millis(u64::MAX));
        }
        let others = members.iter().filter(|&&life| life != me);
        let mut promised: Vec<Millis> =
            others.map(|life| self.met.get(life).map_or(Millis(0), |peer| peer.promised)).collect();
        promised.sort_unstable_by(|one, other| other.cmp(one));
        promised.get(needed - 1).copied().filter(|until| *until > Millis(0))
    }

    /// Forgets former lives that no view speaks of any more.
    pub(super) fn forget(&mut self, is_over: impl Fn(Incarnation) -> bool) {
        let Self { met, dead, .. } = self;
        met.retain(|life, _| !(dead.contains(life) && is_over(*life)));
    }
}
