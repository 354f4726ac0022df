//! The load generator: keeps all connections of a workload busy for a while, on one thread.
//!
//! A closed loop: each connection has one exchange under way and sends the next when the replies are there.

use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::client::{Client, SILENCE_MAX};
use crate::connection::{Connection, Progress, Shared};
use crate::dataset::{Dataset, Random};
use crate::failure::{Doing, Failure};
use crate::histogram::Histogram;
use crate::interrupt;
use crate::server::Server;
use crate::source::Source;
use crate::workloads::Workload;

/// How soon Ctrl-C and a silent server are noticed.
const POLL_MAX: Duration = Duration::from_millis(100);
/// Holds all replies of most exchanges and still fits the L2 cache.
const BUFFER_BYTES: usize = 256 * 1024;

/// What was measured at the client's end.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) cycles: Histogram,
    pub(crate) elapsed: Duration,
}

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extent {
    /// No cycle begins later than this.
    Time(Duration),
    /// Exactly so many cycles; at least as many as there are connections.
    Cycles(u64),
}

impl Extent {
    fn is_over(self, elapsed: Duration, begun: u64) -> bool {
        match self {
            Self::Time(duration) => elapsed >= duration,
            Self::Cycles(cycles) => begun >= cycles,
        }
    }
}

/// A workload, connected to one server and ready to run.
pub(crate) struct Load<'a> {
    poll: Poll,
    events: Events,
    connections: Vec<Connection<'a>>,
    shared: Shared<'a>,
    /// Kept open, never used again.
    _idle: Vec<Client>,
}

impl<'a> Load<'a> {
    /// Opens the idle connections, to the first server; the busy ones connect when they begin.
    pub(crate) fn open(
        workload: &'static Workload,
        dataset: &'a Dataset,
        servers: &[&Server],
    ) -> Result<Self, Failure> {
        let server = servers[0];
        let poll = Poll::new().doing(|| "creating an epoll".to_owned())?;
        let registry = poll.registry().try_clone().doing(|| "cloning an epoll".to_owned())?;
        Ok(Self {
            poll,
            events: Events::with_capacity(workload.connections),
            connections: (0..workload.connections)
                .map(|number| Connection::new(Token(number)))
                .collect(),
            shared: Shared {
                server: server.name,
                addresses: servers.iter().map(|server| server.address).collect(),
                source: Source::default(),
                workload,
                dataset,
                random: Random::new(2),
                fresh: dataset.items(),
                registry,
                buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            },
            _idle: open_idle(server, workload.idle, dataset)?,
        })
    }

    /// Runs cycles, and ends with no request under way.
    pub(crate) fn run(&mut self, extent: Extent) -> Result<Tally, Failure> {
        let started_at = Instant::now();
        let mut cycles = Histogram::default();
        for connection in &mut self.connections {
            connection.begin_cycle(&mut self.shared, Instant::now())?;
        }
        let mut busy = self.connections.len();
        let mut begun = busy as u64;
        while busy > 0 {
            self.wait_for_events()?;
            for event in &self.events {
                let connection = &mut self.connections[event.token().0];
                if connection.advance(&mut self.shared)? == Progress::Waiting {
                    continue;
                }
                let now = Instant::now();
                cycles.record(now - connection.begun);
                if extent.is_over(now - started_at, begun) {
                    busy -= 1;
                } else {
                    begun += 1;
                    connection.begin_cycle(&mut self.shared, now)?;
                }
            }
        }
        Ok(Tally { cycles, elapsed: started_at.elapsed() })
    }

    fn wait_for_events(&mut self) -> Result<(), Failure> {
        let polls_max = SILENCE_MAX.as_millis() / POLL_MAX.as_millis();
        for _ in 0..polls_max {
            interrupt::check()?;
            match self.poll.poll(&mut self.events, Some(POLL_MAX)) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => other.doing(|| "waiting for replies".to_owned())?,
            }
            if !self.events.is_empty() {
                return Ok(());
            }
        }
        Err(Failure::Silent { server: self.shared.server.to_owned(), after: SILENCE_MAX })
    }
}

/// Connections that did something once, as real ones have before they fall silent.
pub(crate) fn open_idle(
    server: &Server,
    count: usize,
    dataset: &Dataset,
) -> Result<Vec<Client>, Failure> {
    (0..count)
        .map(|_| {
            interrupt::check()?;
            let mut client = server.connect()?;
            client.get(dataset, 0)?;
            Ok(client)
        })
        .collect()
}
