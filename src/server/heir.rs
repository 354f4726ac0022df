//! A server that was started beside another one of the same node, to take its place: it waits until
//! it is a member instead of that one, lets clients in, and takes over what that one leaves when it is
//! over, for whatever reason. The lock of the state directory tells that.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Duration, sleep};

use super::handover::Handover;
use super::lives::{Beside, StateDir};
use super::succession::Estate;
use super::{Shared, StartError, StateError, accept, admin, clock, listener, received};
use crate::replication::{Incarnation, Member};

/// How often it is looked whether the time has come.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// A process that has just ended still holds its ports for some milliseconds.
const PORT_MAX_MS: u64 = 2000;
/// Says to the supervisor that the group has this life in place of the other.
const IN_PLACE: &[u8] = b"=";

/// See the module.
pub(super) struct Heir {
    beside: Beside,
    me: Incarnation,
    /// The node's port for peers.
    listen: SocketAddr,
    /// Where the links wait for what is left.
    estate: oneshot::Sender<Estate>,
    /// What was that one's.
    state: Option<StateDir>,
}

/// Those who serve clients meanwhile.
pub(super) struct Staff {
    workers: Vec<Handle>,
    shared: Arc<Shared>,
    /// Where clients of the other one come from.
    handover: Option<Handover>,
    next: usize,
}

impl Heir {
    pub(super) fn new(
        beside: Beside,
        me: &Member,
        listen: SocketAddr,
        estate: oneshot::Sender<Estate>,
    ) -> Self {
        Self { beside, me: me.incarnation, listen, estate, state: None }
    }

    /// Until clients are to be let in: this life is a member, or there is no other one any more.
    pub(super) async fn until_due(&mut self, shared: &Shared) -> Result<(), StartError> {
        while !self.is_in_place(shared) && !self.inherits()? {
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    fn is_in_place(&self, shared: &Shared) -> bool {
        shared.node.view().has_member(self.me)
    }

    /// Whether the other life is over, so that its directory is this one's.
    fn inherits(&mut self) -> Result<bool, StartError> {
        if self.state.is_none() {
            match self.beside.take_over() {
                Ok(state) => self.state = Some(state),
                Err(StateError::InUse(_)) => {}
                Err(error) => return Err(StartError::State(error)),
            }
        }
        Ok(self.state.is_some())
    }

    /// Takes clients over as they come, and the rest when the other life is over. What has to be kept
    /// as long as the process is returned.
    pub(super) async fn take_over(mut self, staff: &mut Staff) -> Result<StateDir, StartError> {
        let mut is_told = false;
        let state = loop {
            staff.take_clients();
            if !is_told && self.is_in_place(&staff.shared) {
                is_told = true;
                staff.tell_supervisor();
            }
            self.inherits()?;
            if let Some(state) = self.state.take() {
                break state;
            }
            sleep(LOOK_AGAIN).await;
        };
        // What it has sent last.
        staff.take_clients();
        let port = when_free(|| listener::bind(self.listen, listener::Sharing::No)).await?;
        let (done, taken) = oneshot::channel();
        let former = state.former.clone();
        if self.estate.send(Estate { port, former, done }).is_ok()
            && let Ok(taken) = taken.await
        {
            taken?;
        }
        tracing::info!(
            predecessor = self.beside.predecessor.0,
            "taken over: the other process has ended"
        );
        Ok(state)
    }
}

/// Those who ask for figures find them at the same address.
pub(super) async fn admin_when_free(address: SocketAddr) -> Result<admin::Bound, StartError> {
    when_free(|| admin::Bound::new(address)).await
}

/// Binds as soon as a process that has ended lets it go.
async fn when_free<T>(bind: impl Fn() -> Result<T, StartError>) -> Result<T, StartError> {
    let since = clock::local();
    loop {
        match bind() {
            Err(StartError::Bind(_, error))
                if error.kind() == io::ErrorKind::AddrInUse
                    && clock::local().since(since) < PORT_MAX_MS =>
            {
                sleep(LOOK_AGAIN).await;
            }
            bound => return bound,
        }
    }
}

impl Staff {
    pub(super) fn new(
        workers: Vec<Handle>,
        shared: Arc<Shared>,
        handover: Option<Handover>,
    ) -> Self {
        Self { workers, shared, handover, next: 0 }
    }

    fn take_clients(&mut self) {
        let clients = self.handover.as_ref().map(received).unwrap_or_default();
        for client in clients {
            let worker = self.next % self.workers.len();
            self.next += 1;
            let shared = Arc::clone(&self.shared);
            // On the thread that will serve it.
            self.workers[worker].spawn(async move { accept::take_over(client, worker, &shared) });
        }
    }

    fn tell_supervisor(&self) {
        let supervisor = self.handover.as_ref().map(|handover| &handover.supervisor);
        if let Some(Err(error)) = supervisor.map(|mut it: &UnixStream| it.write_all(IN_PLACE)) {
            tracing::debug!(%error, "the supervisor is not told");
        }
    }
}
