//! One client connection: reads into the thread's buffer, lets the session work, writes once per
//! batch.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::{Duration, sleep, timeout};

use super::buffers::{self, Buffers};
use super::courier::Courier;
use super::{Shared, clock, drain};
use crate::node::{Ending, Session, Socket, Step};
use crate::record::Outcome;
use crate::stats::Counters;

/// How long events wait until a watcher sees them.
const WATCH_PAUSE: Duration = Duration::from_millis(20);

/// Commands that a client may send while it waits for the outcome of another, in bytes. Above it,
/// nobody looks whether it is still there.
const AHEAD_MAX: usize = 64 << 10;
/// How often a command that waits looks whether this node has become able to answer, or unable.
const PATIENCE_LOOK: Duration = Duration::from_millis(1000);
/// A client may close its half behind its last command (`nc -N`): the answer of a group that works
/// is there long before this. Whoever has closed is not waited for any longer.
const CLOSED_MAX: Duration = Duration::from_millis(300);

/// A client's socket.
pub(super) trait Stream: AsFd + AsyncRead + AsyncWrite + Unpin {
    /// Whether a read would find something, the end included; otherwise the task is woken then.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Writes what fits at once.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Has its end be an error on the other side: clients go to another server after an error, and
    /// not after an orderly end.
    fn break_off(&self);
}

impl Stream for TcpStream {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes)
    }

    fn break_off(&self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!(%error, "no SO_LINGER");
        }
    }
}

impl Stream for UnixStream {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes)
    }

    fn break_off(&self) {}
}

/// What a process knows of a client when it begins to serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// It has connected.
    Connection,
    /// It has logged in, at the process before.
    Login,
}

/// How the end of a connection came.
enum Left {
    Closed,
    /// It is idle, and goes on with the next process.
    Open,
}

/// How the wait for an outcome has ended.
enum Waited {
    Outcome(Outcome),
    /// The client does not wait any more.
    Gone,
    /// The outcome is unknown, and only closing the connection says so.
    Unknown,
    /// Nobody has looked at the command, or can say what came of it: this node can't answer.
    Unanswered,
}

/// A client's connection and what is left of its last read.
struct Connection<S> {
    stream: S,
    /// A client that neither sends nor reads for so long is let go.
    idle_max: Option<Duration>,
    session: Session,
    courier: Courier,
    buffers: Buffers,
}

/// Serves a connection to its end. Errors of its socket end it and nothing else.
pub(super) async fn serve<S: Stream>(
    (stream, socket): (S, Socket),
    since: Since,
    idle_max: Option<Duration>,
    worker: usize,
    shared: Arc<Shared>,
) {
    let node = &shared.node;
    let session = node.open(worker, socket, clock::now(node));
    let mut connection = Connection {
        stream,
        idle_max,
        session: if since == Since::Login { session.let_in() } else { session },
        courier: Courier::new(Arc::clone(&shared.links)),
        buffers: Buffers::default(),
    };
    let result = shared.drain.serving(worker, connection.run(worker, &shared)).await;
    buffers::give(std::mem::take(&mut connection.buffers));
    let ending = match &result {
        Ok(_) if shared.is_stopping() => Ending::Shutdown,
        Ok(_) => Ending::Normal,
        Err(error) if idle_max.is_some() && error.kind() == io::ErrorKind::TimedOut => {
            node.counters(worker).idle_kicks.add(1);
            Ending::Idle
        }
        Err(error) => {
            tracing::debug!(%error, "connection lost");
            Ending::Error
        }
    };
    // Before the socket closes: the next one may get its number.
    node.close(&connection.session, ending, clock::now(node));
    if let Ok(Left::Open) = result {
        shared.drain.pass_on(&connection.stream, connection.session.is_logged_in());
    }
    node.gauges().connections.give_back();
}

impl<S: Stream> Connection<S> {
    async fn run(&mut self, worker: usize, shared: &Shared) -> io::Result<Left> {
        let counters = shared.node.counters(worker);
        let mut wants = 1;
        loop {
            let read = match self.idle_max {
                None => self.hear(wants, &shared.drain).await?,
                limit => within(limit, self.hear(wants, &shared.drain)).await?,
            };
            if read == 0 {
                let goes_on = shared.drain.is_passing_on() && self.session.is_between_commands();
                return Ok(if goes_on { Left::Open } else { Left::Closed });
            }
            counters.bytes_read.add(read as u64);
            match self.work(worker, shared).await? {
                Some(more) => wants = more,
                None => return Ok(Left::Closed),
            }
            if shared.is_stopping() {
                return Ok(Left::Closed);
            }
        }
    }

    /// Waits for input as `fill` does. When connections are closed or passed on, one whose client
    /// says nothing is at its end.
    async fn hear(&mut self, wants: usize, drain: &drain::State) -> io::Result<usize> {
        let says_nothing = self.buffers.input.is_empty();
        let is_between = says_nothing && self.session.is_between_commands();
        let mut filling = pin!(self.fill(wants));
        poll_fn(|context| match filling.as_mut().poll(context) {
            Poll::Pending if says_nothing && drain.ends(is_between) => Poll::Ready(Ok(0)),
            polled => polled,
        })
        .await
    }

    /// Executes all complete commands. Returns how long the input should get, or `None` at the end.
    async fn work(&mut self, worker: usize, shared: &Shared) -> io::Result<Option<usize>> {
        let counters = shared.node.counters(worker);
        loop {
            let now = clock::now(&shared.node);
            let (done, step) = self.session.advance(
                &shared.node,
                &self.buffers.input,
                now,
                &mut self.buffers.output,
                &mut self.courier,
            );
            self.buffers.input.drain(..done);
            // Unlike memcached, which writes before it yields: a write for every 20 commands took a
            // fifth off the throughput of pipelines, and gained their clients nothing.
            if step != Step::Yield {
                let written = self.write_at_once(counters)?;
                if !self.buffers.output.is_empty() {
                    self.write_rest(written, counters).await?;
                }
            }
            match step {
                Step::Write | Step::Yield => {
                    counters.conn_yields.add(1);
                    tokio::task::yield_now().await;
                }
                Step::Watch => {
                    let goes_on = self.pause().await?;
                    if !goes_on || shared.is_stopping() || shared.drain.ends_listeners() {
                        return Ok(None);
                    }
                }
                Step::Wait => {
                    self.put_back();
                    match self.outcome(counters, shared).await? {
                        Waited::Outcome(outcome) => {
                            self.hold();
                            self.session.resume(&shared.node, outcome, &mut self.buffers.output);
                        }
                        Waited::Gone | Waited::Unknown => return Ok(None),
                        Waited::Unanswered => {
                            self.stream.break_off();
                            return Ok(None);
                        }
                    }
                }
                Step::Close => return Ok(None),
                Step::Stop(stop) => {
                    shared.stop(stop);
                    return Ok(None);
                }
                Step::Read(wants) => {
                    self.put_back();
                    return Ok(Some(wants));
                }
            }
        }
    }

    /// Waits for input. Only while there is some to keep does the connection hold buffers.
    fn fill(&mut self, wants: usize) -> impl Future<Output = io::Result<usize>> {
        let Self { stream, buffers, .. } = self;
        let mut is_asked = false;
        poll_fn(move |context| {
            // At first there is nearly always nothing: asking costs less than getting ready to read.
            if !is_asked {
                is_asked = true;
                if stream.poll_readable(context).is_pending() {
                    return Poll::Pending;
                }
            }
            if buffers.is_none() {
                *buffers = buffers::take();
            }
            let input = &mut buffers.input;
            if wants > input.capacity() {
                input.reserve(wants - input.len());
            }
            let polled = pin!(stream.read_buf(input)).poll(context);
            if polled.is_pending() && input.is_empty() {
                buffers::give(std::mem::take(buffers));
            }
            polled
        })
    }

    /// Waits a moment for events; false when the client has left. What it says is not heard.
    async fn pause(&mut self) -> io::Result<bool> {
        let mut unheard = [0; 256];
        tokio::select! {
            () = sleep(WATCH_PAUSE) => Ok(true),
            read = self.stream.read(&mut unheard) => Ok(read? > 0),
        }
    }

    /// Writes all replies, or says how much of them: nearly always they fit.
    fn write_at_once(&mut self, counters: &Counters) -> io::Result<usize> {
        if self.buffers.output.is_empty() {
            return Ok(0);
        }
        match self.stream.try_write(&self.buffers.output) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Ok(written) if written == self.buffers.output.len() => {
                self.has_written(counters);
                Ok(0)
            }
            result => result,
        }
    }

    /// Writes what did not fit at once.
    async fn write_rest(&mut self, mut written: usize, counters: &Counters) -> io::Result<()> {
        while written < self.buffers.output.len() {
            match within(self.idle_max, self.stream.write(&self.buffers.output[written..])).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                more => written += more,
            }
        }
        self.has_written(counters);
        Ok(())
    }

    fn has_written(&mut self, counters: &Counters) {
        counters.bytes_written.add(self.buffers.output.len() as u64);
        self.buffers.output.clear();
    }

    /// Waits for the outcome of the command that the session has begun, as long as the client does.
    async fn outcome(&mut self, counters: &Counters, shared: &Shared) -> io::Result<Waited> {
        let Some(receiver) = self.courier.take_waiting() else {
            return Ok(Waited::Unknown);
        };
        shared.waiting.try_take(u64::MAX);
        let since_us = clock::local_us();
        let waited = self.wait(receiver, counters, shared).await;
        shared.waiting.give_back();
        if matches!(waited, Ok(Waited::Outcome(_))) {
            let is_read = self.session.waits_for_read();
            let waits = if is_read { &counters.read_waits } else { &counters.commit_waits };
            waits.note(clock::local_us().saturating_sub(since_us));
        }
        waited
    }

    /// What the client says meanwhile is taken in: only so its end is noticed. An error of its
    /// socket ends the wait too.
    async fn wait(
        &mut self,
        mut receiver: oneshot::Receiver<Outcome>,
        counters: &Counters,
        shared: &Shared,
    ) -> io::Result<Waited> {
        let since = clock::local();
        let mut is_closed = false;
        loop {
            let waited = Duration::from_millis(clock::local().since(since));
            let limit = shared.patience();
            if waited >= limit {
                return Ok(shared.give_up(waited, counters));
            }
            if is_closed && waited >= CLOSED_MAX {
                return Ok(Waited::Gone);
            }
            let rest = if is_closed { CLOSED_MAX - waited } else { limit - waited };
            let may_read = !is_closed && self.buffers.input.len() < AHEAD_MAX;
            let wants = self.buffers.input.len() + 1;
            tokio::select! {
                biased;
                outcome = &mut receiver => return Ok(match outcome {
                    Ok(outcome) => Waited::Outcome(outcome),
                    Err(_) => {
                        tracing::warn!("outcome unknown: this node left the group before it came");
                        Waited::Unknown
                    }
                }),
                read = self.fill(wants), if may_read => match read? {
                    0 => is_closed = true,
                    bytes => counters.bytes_read.add(bytes as u64),
                },
                () = sleep(rest.min(PATIENCE_LOOK)) => {}
            }
        }
    }

    fn hold(&mut self) {
        if self.buffers.is_none() {
            self.buffers = buffers::take();
        }
    }

    /// Where nothing is left in them, which is nearly always.
    fn put_back(&mut self) {
        if self.buffers.input.is_empty() {
            buffers::give(std::mem::take(&mut self.buffers));
        } else {
            self.buffers.trim_output();
        }
    }
}

impl Shared {
    /// How long a command may wait now: a node that can't answer may soon be able to.
    fn patience(&self) -> Duration {
        let is_serving = self.node.is_serving();
        let ms = if is_serving { self.write_timeout_ms } else { self.hold_timeout_ms };
        Duration::from_millis(ms)
    }

    fn give_up(&self, waited: Duration, counters: &Counters) -> Waited {
        let waited_ms = waited.as_millis() as u64;
        if self.node.is_serving() {
            counters.write_timeouts.add(1);
            tracing::warn!(waited_ms, "command timed out: its outcome is unknown");
            return Waited::Unknown;
        }
        counters.hold_timeouts.add(1);
        tracing::warn!(waited_ms, "command not answered: this node is no member of its group");
        Waited::Unanswered
    }
}

/// The client gets this long for its part.
async fn within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match limit {
        None => work.await,
        Some(limit) => timeout(limit, work).await.map_err(io::Error::from)?,
    }
}
