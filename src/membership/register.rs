//! The register itself: one value, replaced by each agreed entry that the rule lets through.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};

use super::image::Keeper;
use super::types::{Entry, LogId, Seats, Snapshot, SnapshotMeta, StorageError, Types};
use super::{Outside, Rule};

/// What all agreed entries so far have made of the value.
pub(super) struct Register {
    value: Option<Bytes>,
    applied: Option<LogId>,
    seats: Seats,
    rule: Rule,
    keeper: Keeper,
    outside: Arc<dyn Outside>,
}

impl Register {
    /// Takes up what the image holds, and tells it.
    pub(super) fn new(keeper: Keeper, rule: Rule, outside: Arc<dyn Outside>) -> Self {
        let snapshot = keeper.read(|image| image.snapshot.clone());
        let mut register =
            Self { value: None, applied: None, seats: Seats::default(), rule, keeper, outside };
        if let Some((meta, value)) = snapshot {
            register.replace(&meta, value);
        }
        register
    }

    fn replace(&mut self, meta: &SnapshotMeta, value: Option<Bytes>) {
        self.applied = meta.last_log_id;
        self.seats = meta.last_membership.clone();
        if self.value != value
            && let Some(value) = &value
        {
            self.tell(value);
        }
        self.value = value;
    }

    /// The crate's own task may still be applying when the seat is left.
    fn tell(&self, value: &Bytes) {
        if !self.keeper.is_closed() {
            self.outside.agreed(value.clone());
        }
    }

    fn apply_one(&mut self, entry: Entry) {
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(seats) => self.seats = Seats::new(Some(entry.log_id), seats),
            EntryPayload::Normal(proposed) => {
                if (self.rule)(self.value.as_deref(), &proposed) {
                    self.tell(&proposed);
                    self.value = Some(proposed);
                }
            }
        }
    }
}

impl RaftStateMachine<Types> for Register {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Seats), StorageError> {
        Ok((self.applied, self.seats.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(entries.into_iter().map(|entry| self.apply_one(entry)).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let index = self.applied.map_or(0, |id| id.index);
        Builder {
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.seats.clone(),
                snapshot_id: index.to_string(),
            },
            value: self.value.clone(),
            keeper: self.keeper.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Option<Bytes>>, StorageError> {
        Ok(Box::new(None))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Option<Bytes>>,
    ) -> Result<(), StorageError> {
        self.keeper.change(|image| {
            image.keep_snapshot(meta.clone(), (*snapshot).clone());
            // With it, and not after it: what is left of the log may not fit to it.
            meta.last_log_id.into_iter().for_each(|last| image.purge(last));
        });
        self.keeper.flush().await.map_err(no_snapshot)?;
        self.replace(meta, *snapshot);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let snapshot = self.keeper.read(|image| image.snapshot.clone());
        Ok(snapshot.map(|(meta, value)| Snapshot { meta, snapshot: Box::new(value) }))
    }
}

/// The register as it was when somebody asked for a snapshot.
pub(super) struct Builder {
    meta: SnapshotMeta,
    value: Option<Bytes>,
    keeper: Keeper,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let (meta, value) = (self.meta.clone(), self.value.clone());
        self.keeper.change(|image| image.keep_snapshot(meta, value));
        self.keeper.flush().await.map_err(no_snapshot)?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(self.value.clone()) })
    }
}

fn no_snapshot(error: io::Error) -> StorageError {
    StorageIOError::write_snapshot(None, &error).into()
}
