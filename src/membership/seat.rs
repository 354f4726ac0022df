//! This node's place in one log: the consensus crate with its register, file and network.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use openraft::metrics::RaftMetrics;
use openraft::{Config, ServerState, SnapshotPolicy};
use tokio::sync::{mpsc, watch};

use super::circle::{Seats, Stand};
use super::file::{self, Folder, Writer};
use super::image::{Image, Keeper};
use super::network::{Question, Ways};
use super::register::Register;
use super::types::{Binding, LogId, Raft, Snapshot, SnapshotMeta, Vote};
use super::wire::{Answer, Request};
use super::{Outside, Role, Rule, StartError, Timing};

/// So few entries are kept that the file stays small; and so many, that a node that was away for
/// a moment is told what it missed instead of everything.
const ENTRIES_KEPT: u64 = 16;

/// In one frame.
pub(super) const ENTRIES_SENT: u64 = 8;

/// As many entries may wait for a majority. More are not accepted: they would only be the same
/// proposal again.
const WAITING_MAX: u64 = 64;

/// What all seats of this node have in common.
pub(super) struct Ground {
    pub(super) folder: Option<Arc<Folder>>,
    pub(super) rule: Rule,
    pub(super) outside: Arc<dyn Outside>,
    pub(super) questions: mpsc::UnboundedSender<Question>,
    pub(super) timing: Timing,
}

/// A place in one log.
pub(super) struct Seat {
    pub(super) raft: Raft,
    pub(super) binding: Binding,
    pub(super) metrics: watch::Receiver<RaftMetrics<u64, Box<str>>>,
    keeper: Keeper,
    writer: Option<Writer>,
}

impl Seat {
    /// Goes on with this image, which is on disk first.
    pub(super) async fn take(ground: &Ground, image: Image) -> Result<Self, StartError> {
        let binding = image.binding.clone();
        let (keeper, writer) = file::keep(ground.folder.as_ref(), image);
        keeper.flush().await.map_err(no_seat)?;
        let register = Register::new(keeper.clone(), ground.rule, Arc::clone(&ground.outside));
        let ways = Ways { founding: binding.founding, questions: ground.questions.clone() };
        let config = Arc::new(config(&ground.timing)?);
        let raft = Raft::new(binding.id, config, ways, keeper.clone(), register);
        let raft = raft.await.map_err(no_seat)?;
        let metrics = raft.metrics();
        Ok(Self { raft, binding, metrics, keeper, writer })
    }

    /// Until nothing of it acts or writes any more; returns what it knew.
    pub(super) async fn leave(self) -> Image {
        self.keeper.close();
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "the membership did not end in order");
        }
        if let Some(writer) = self.writer {
            writer.end().await;
        }
        self.keeper.read(Image::clone)
    }

    pub(super) fn stand(&self) -> Stand {
        let binding = self.binding.clone();
        let (started, committed) =
            self.keeper.read(|image| (!image.is_empty(), image.is_committed()));
        Stand { binding, started, committed, led: false }
    }

    pub(super) fn is_alone(&self) -> bool {
        self.keeper.read(Image::is_alone)
    }

    /// Who leads, by name.
    pub(super) fn leader(&self) -> Option<Box<str>> {
        let metrics = self.metrics.borrow();
        let leader = metrics.current_leader?;
        metrics.membership_config.membership().get_node(&leader).cloned()
    }

    pub(super) fn is_leader(&self) -> bool {
        self.metrics.borrow().current_leader == Some(self.binding.id)
    }

    pub(super) fn term(&self) -> u64 {
        self.metrics.borrow().current_term
    }

    pub(super) fn role(&self) -> Role {
        match self.metrics.borrow().state {
            ServerState::Learner => Role::Learner,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Leader => Role::Leader,
            ServerState::Shutdown => Role::Outside,
        }
    }

    /// Those who vote, and all that have a seat.
    pub(super) fn seats(&self) -> (Seats, Seats) {
        let metrics = self.metrics.borrow();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let all: Seats = membership.nodes().map(|(id, name)| (*id, name.clone())).collect();
        let voters = all.iter().filter(|(id, _)| voters.contains(id));
        (voters.map(|(id, name)| (*id, name.clone())).collect(), all)
    }

    /// Whether it is agreed that this node has no seat any more.
    pub(super) fn is_left_out(&self) -> bool {
        let metrics = self.metrics.borrow();
        let seats = &metrics.membership_config;
        is_agreed(&metrics) && !seats.membership().nodes().any(|(id, _)| *id == self.binding.id)
    }

    /// Whether it is agreed that this node votes.
    pub(super) fn is_seated(&self) -> bool {
        let metrics = self.metrics.borrow();
        let seats = metrics.membership_config.membership();
        is_agreed(&metrics) && seats.voter_ids().any(|id| id == self.binding.id)
    }

    /// Whether a change of the seats is under way, or was left half done.
    pub(super) fn is_joint(&self) -> bool {
        self.metrics.borrow().membership_config.membership().get_joint_config().len() > 1
    }

    pub(super) async fn found(&self, seats: BTreeMap<u64, Box<str>>) {
        if let Err(error) = self.raft.initialize(seats).await {
            tracing::warn!(%error, "cannot found the group");
        }
    }

    /// As the leader.
    pub(super) async fn propose(&self, value: Bytes) {
        let (last, applied) = {
            let metrics = self.metrics.borrow();
            (metrics.last_log_index, metrics.last_applied.map(|id| id.index))
        };
        if last.unwrap_or(0) > applied.unwrap_or(0) + WAITING_MAX {
            return tracing::debug!("a proposal is dropped: too many wait for a majority");
        }
        // Whether it becomes the value, `agreed` tells.
        if let Err(error) = self.raft.client_write_ff(value).await {
            tracing::warn!(%error, "cannot propose");
        }
    }
}

/// Whether the seats as they are known here are agreed on, and none are on their way out or in.
fn is_agreed(metrics: &RaftMetrics<u64, Box<str>>) -> bool {
    let seats = &metrics.membership_config;
    let is_known = seats.log_id().is_some_and(|at| metrics.last_applied >= Some(at));
    is_known && seats.membership().get_joint_config().len() == 1
}

/// The crate's answer to a question of a peer; none while it is ending.
pub(super) async fn answer(raft: Raft, request: Request) -> Option<Answer> {
    match request {
        Request::Append(request) => raft.append_entries(request).await.ok().map(Answer::Append),
        Request::Vote(request) => raft.vote(request).await.ok().map(Answer::Vote),
        Request::Snapshot { vote, meta, value } => {
            let snapshot = Snapshot { meta, snapshot: Box::new(value) };
            raft.install_full_snapshot(vote, snapshot).await.ok().map(Answer::Snapshot)
        }
    }
}

/// A log that begins with this value and one voter.
pub(super) fn generation(binding: Binding, value: Bytes) -> Image {
    let leader = openraft::CommittedLeaderId::new(1, binding.id);
    let first = LogId::new(leader, 0);
    let seats = BTreeMap::from([(binding.id, binding.founder.clone())]);
    let voters = seats.keys().copied().collect();
    let membership = openraft::Membership::new(vec![voters], seats);
    let meta = SnapshotMeta {
        last_log_id: Some(first),
        last_membership: openraft::StoredMembership::new(Some(first), membership),
        snapshot_id: "founded".into(),
    };
    Image {
        vote: Some(Vote::new(1, binding.id)),
        committed: Some(first),
        purged: Some(first),
        snapshot: Some((meta, Some(value))),
        ..Image::new(binding)
    }
}

fn config(timing: &Timing) -> Result<Config, StartError> {
    let millis = |duration: std::time::Duration| duration.as_millis() as u64;
    Config {
        cluster_name: "membership".into(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(ENTRIES_KEPT),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        replication_lag_threshold: 4 * ENTRIES_KEPT,
        max_payload_entries: ENTRIES_SENT,
        ..Config::default()
    }
    .validate()
    .map_err(no_seat)
}

fn no_seat(error: impl std::fmt::Display) -> StartError {
    StartError::Consensus(error.to_string())
}
