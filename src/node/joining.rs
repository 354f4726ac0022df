//! Nodes that join: the work of filling them, or of being filled, in small steps; what it came to.

use std::sync::atomic::Ordering;

use super::Node;
use crate::key::LANES;
use crate::replication::Outside;
use crate::replication::SyncFigures;
use crate::replication::View;
use crate::time::Now;

/// Steps in one go: by time, so that a slow machine does less at once, and by number.
const STEPS_MS: u64 = 2;
const STEPS_MAX: usize = 8 * LANES;

impl<W> Node<W> {
    /// Whether somebody joins, so that `sync` has something to do.
    pub fn is_syncing(&self) -> bool {
        self.syncing.load(Ordering::Relaxed)
    }

    /// Some steps, for about a millisecond; to be called every few while somebody joins.
    ///
    /// It goes on with the lane where it has stopped, so that all lanes are filled at the same time: a
    /// lane that is has its writes acknowledged behind all that is still sent in the others.
    pub fn sync<O: Outside<W>>(&self, now: Now, out: &mut O) {
        if !self.is_syncing() {
            return;
        }
        let began = out.local_time();
        for _ in 0..STEPS_MAX {
            let lane = self.next_to_sync.fetch_add(1, Ordering::Relaxed) % LANES;
            self.shards[lane].lock().sync(now, out);
            if out.local_time().since(began) >= STEPS_MS {
                return;
            }
        }
    }

    /// What filling others, and being filled, has come to in all lanes.
    pub fn sync_figures(&self) -> SyncFigures {
        let mut sum = SyncFigures::default();
        self.shards.iter().for_each(|shard| sum.add(shard.lock().sync_figures()));
        sum
    }

    /// A view is about to be installed.
    pub(super) fn note_joining(&self, view: &View, now: Now) {
        self.syncing.store(!view.learners.is_empty(), Ordering::Relaxed);
        let joined = self.shards.iter().map(|shard| shard.lock().joined(view));
        let Some(lanes) = joined.collect::<Option<Vec<_>>>() else {
            return;
        };
        let mut sum = SyncFigures::default();
        lanes.iter().for_each(|(_, figures)| sum.add(*figures));
        let since = lanes.iter().map(|(since, _)| *since).min().unwrap_or(now.local);
        tracing::info!(
            took_ms = now.local.since(since),
            rounds = sum.rounds,
            slots_compared = sum.slots_compared,
            slots_equal = sum.slots_equal,
            items_dropped = sum.items_dropped,
            items_received = sum.items_received,
            bytes_received = sum.bytes_received,
            "joined: this copy is what the others have"
        );
    }
}
