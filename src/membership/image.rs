//! All that a voter must not forget, in memory; and what the consensus crate does with it.
//!
//! There is one image per log. Whoever changes it says whether the change has to be on disk
//! before going on; the writer (`file.rs`) always writes the newest image whole, so several
//! changes share one write.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::types::{Binding, Entry, LogId, SnapshotMeta, StorageError, Types, Vote};

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Image {
    pub(super) binding: Binding,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) log: BTreeMap<u64, Entry>,
    pub(super) snapshot: Option<(SnapshotMeta, Option<Bytes>)>,
}

impl Image {
    /// A place in a founding, and nothing known of it.
    pub(super) fn new(binding: Binding) -> Self {
        Self {
            binding,
            vote: None,
            committed: None,
            purged: None,
            log: BTreeMap::new(),
            snapshot: None,
        }
    }

    /// Whether nothing of this log has ever reached this node.
    pub(super) fn is_empty(&self) -> bool {
        self.log.is_empty() && self.purged.is_none() && self.snapshot.is_none()
    }

    /// Whether something is known to be agreed.
    pub(super) fn is_committed(&self) -> bool {
        self.committed.is_some() || self.snapshot.is_some()
    }

    /// Whether nobody else can have counted on what is written down here: no other has ever led.
    pub(super) fn is_alone(&self) -> bool {
        let id = self.binding.id;
        self.vote.is_none_or(|vote| vote.leader_id().voted_for() == Some(id))
    }

    /// Keeps a snapshot, unless it is older than the one that is there: one that was being built may
    /// be overtaken by one of the leader.
    pub(super) fn keep_snapshot(&mut self, meta: SnapshotMeta, value: Option<Bytes>) {
        if self.covered() <= meta.last_log_id {
            self.snapshot = Some((meta, value));
        }
    }

    /// Drops entries up to this one, as far as a snapshot has them. The crate also purges before it
    /// has the snapshot installed: a file of that moment would have neither.
    pub(super) fn purge(&mut self, upto: LogId) {
        if self.covered() >= Some(upto) && self.purged < Some(upto) {
            self.log = self.log.split_off(&(upto.index + 1));
            self.purged = Some(upto);
        }
    }

    /// Up to where there is a snapshot.
    pub(super) fn covered(&self) -> Option<LogId> {
        self.snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id)
    }

    fn last(&self) -> Option<LogId> {
        self.log.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }
}

/// Asks the writer for the newest image to be on disk.
pub(super) type Flush = oneshot::Sender<io::Result<()>>;

/// The image of one log, shared by the parts of the consensus crate.
#[derive(Clone, Debug)]
pub(super) struct Keeper {
    image: Arc<watch::Sender<Image>>,
    /// Without it, the image lives in memory only.
    writer: Option<mpsc::UnboundedSender<Flush>>,
    is_closed: Arc<AtomicBool>,
}

impl Keeper {
    pub(super) fn new(
        image: Arc<watch::Sender<Image>>,
        writer: Option<mpsc::UnboundedSender<Flush>>,
    ) -> Self {
        Self { image, writer, is_closed: Arc::default() }
    }

    /// Looks at the image.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Image) -> T) -> T {
        look(&self.image.borrow())
    }

    /// Changes the image in memory; the next write to disk includes it.
    pub(super) fn change(&self, change: impl FnOnce(&mut Image)) {
        self.image.send_modify(change);
    }

    /// From now on nothing of this log counts: another one may begin.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Until the image, as it is now, is on disk.
    pub(super) async fn flush(&self) -> io::Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let gone = || io::Error::other("this log has been given up");
        let (sender, receiver) = oneshot::channel();
        writer.send(sender).map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }

    /// Soon, without waiting.
    fn flush_later(&self) {
        if let Some(writer) = &self.writer {
            let _ = writer.send(oneshot::channel().0);
        }
    }

    async fn flush_vote(&self) -> Result<(), StorageError> {
        self.flush().await.map_err(|error| openraft::StorageIOError::write_vote(&error).into())
    }

    async fn flush_logs(&self) -> Result<(), StorageError> {
        self.flush().await.map_err(|error| openraft::StorageIOError::write_logs(&error).into())
    }
}

impl RaftLogReader<Types> for Keeper {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.read(|image| image.log.range(range).map(|(_, entry)| entry.clone()).collect()))
    }
}

impl RaftLogStorage<Types> for Keeper {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        Ok(self
            .read(|image| LogState { last_purged_log_id: image.purged, last_log_id: image.last() }))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.change(|image| image.vote = Some(*vote));
        self.flush_vote().await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.read(|image| image.vote))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let is_first = self.read(|image| !image.is_committed());
        self.change(|image| image.committed = committed);
        // The first says that this founding has happened: a founder that forgot it might found a
        // second time. Later ones only bring a restart closer to what was agreed before it.
        if is_first {
            return self.flush_vote().await;
        }
        self.flush_later();
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.read(|image| image.committed))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.change(|image| {
            image.log.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        });
        callback.log_io_completed(self.flush().await);
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.change(|image| drop(image.log.split_off(&log_id.index)));
        self.flush_logs().await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.change(|image| image.purge(log_id));
        // What is purged is in the snapshot: should the old file come back, nothing is lost.
        Ok(())
    }
}
