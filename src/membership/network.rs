//! The consensus crate's way out: questions, each with its answer or a deadline.
//!
//! It does not send by itself: the agent does, which also sees the answers come in.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::types::{Founding, Snapshot, Types, Vote};
use super::wire::{Answer, Request};

/// A seat that does not answer at all is asked again after this long. Short: when a peer is
/// back, the group waits for it.
const BACKOFF: Duration = Duration::from_millis(50);

/// A question on its way to a peer.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) name: Box<str>,
    pub(super) founding: Founding,
    pub(super) to: u64,
    pub(super) request: Request,
    /// Dropped when the peer is not there.
    pub(super) answer: oneshot::Sender<Answer>,
}

/// Makes a way to each seat.
#[derive(Clone, Debug)]
pub(super) struct Ways {
    pub(super) founding: Founding,
    pub(super) questions: mpsc::UnboundedSender<Question>,
}

impl RaftNetworkFactory<Types> for Ways {
    type Network = Way;

    async fn new_client(&mut self, target: u64, node: &Box<str>) -> Way {
        Way { to: target, name: node.clone(), ways: self.clone() }
    }
}

/// The way to one seat.
#[derive(Debug)]
pub(super) struct Way {
    to: u64,
    name: Box<str>,
    ways: Ways,
}

enum NoAnswer {
    /// There is no link, or another voter sits there.
    Away,
    /// It took too long, or was lost.
    Late,
}

impl Way {
    async fn ask(&self, request: Request, deadline: Duration) -> Result<Answer, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        let (name, founding) = (self.name.clone(), self.ways.founding);
        let question = Question { name, founding, to: self.to, request, answer };
        self.ways.questions.send(question).map_err(|_| NoAnswer::Away)?;
        match timeout(deadline, answered).await {
            Ok(Ok(Answer::Refused) | Err(_)) => Err(NoAnswer::Away),
            Ok(Ok(answer)) => Ok(answer),
            Err(_) => Err(NoAnswer::Late),
        }
    }
}

type Failure = RPCError<u64, Box<str>, RaftError<u64>>;

impl From<NoAnswer> for Failure {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Away => {
                Unreachable::new(&io::Error::from(io::ErrorKind::NotConnected)).into()
            }
            NoAnswer::Late => NetworkError::new(&io::Error::from(io::ErrorKind::TimedOut)).into(),
        }
    }
}

impl From<NoAnswer> for StreamingError<Types, Fatal<u64>> {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Away => {
                Unreachable::new(&io::Error::from(io::ErrorKind::NotConnected)).into()
            }
            NoAnswer::Late => NetworkError::new(&io::Error::from(io::ErrorKind::TimedOut)).into(),
        }
    }
}

impl RaftNetwork<Types> for Way {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failure> {
        match self.ask(Request::Append(rpc), option.hard_ttl()).await? {
            Answer::Append(response) => Ok(response),
            _ => Err(NoAnswer::Away.into()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failure> {
        match self.ask(Request::Vote(rpc), option.hard_ttl()).await? {
            Answer::Vote(response) => Ok(response),
            _ => Err(NoAnswer::Away.into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let (meta, value): (_, Option<Bytes>) = (snapshot.meta, *snapshot.snapshot);
        let ask = self.ask(Request::Snapshot { vote, meta, value }, option.hard_ttl());
        let answer = tokio::select! {
            closed = cancel => return Err(closed.into()),
            answer = ask => answer?,
        };
        match answer {
            Answer::Snapshot(response) => Ok(response),
            _ => Err(NoAnswer::Away.into()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
