//! A small replicated register: one value, the same on all voters, whatever it means.
//!
//! What to propose is decided elsewhere, by pure code; here is only agreement on it, keeping it,
//! and founding the set of those who vote. Nobody else knows the consensus crate, and nothing
//! here knows what is in the value. Frames go to peers by name, through `Outside`; they may be
//! lost, doubled or late.

mod agent;
mod circle;
mod file;
mod image;
mod network;
mod register;
mod seat;
mod sound;
mod types;
mod wire;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

pub use types::Founding;

/// Frames of peers that wait for the agent. More are dropped, as the network may do.
const FRAMES_MAX: usize = 1024;

/// The longest value: a frame carries several.
pub const VALUE_MAX: usize = 64 << 10;

/// How this node takes part.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub me: Box<str>,
    /// The name of the group: a file of another is refused.
    pub cluster: Box<str>,
    /// The names of all that vote; the same on all nodes, and those of the last `set_voters`, or
    /// the leader changes back to these. A node that is not among them only passes proposals on.
    pub voters: Vec<Box<str>>,
    /// Where what a voter must not forget is kept. Without it, each start is a new voter.
    pub state_dir: Option<PathBuf>,
    /// How long things take.
    pub timing: Timing,
    /// Random; ids are made of it, so it must be another one at each start.
    pub seed: u64,
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A leader is heard of this often, roughly.
    pub heartbeat: Duration,
    /// A silent leader is replaced after two to three times this...
    pub election_min: Duration,
    /// ... but never, proven dead or not, within this.
    pub election_max: Duration,
    /// At the very first start, a majority waits this long for the rest.
    pub gather: Duration,
    /// A founding that gets no majority is given up after this long.
    pub patience: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(30),
            election_min: Duration::from_millis(80),
            election_max: Duration::from_millis(120),
            gather: Duration::from_secs(2),
            patience: Duration::from_secs(3),
        }
    }
}

/// Whether a proposed value may follow the present one. Pure, and the same on all nodes.
pub type Rule = fn(present: Option<&[u8]>, proposed: &[u8]) -> bool;

/// What the register needs of, and tells to, everything else. Called on the runtime that it was
/// started on; must not block.
pub trait Outside: Send + Sync + 'static {
    /// Sends this to the peer of that name; it may get lost.
    fn send(&self, to: &str, frame: Bytes);
    /// The value is this now. In order; also at the start, with what the file holds, and when a
    /// new generation begins.
    fn agreed(&self, value: Bytes);
    /// Another leads now, or nobody.
    fn leader(&self, name: Option<Box<str>>);
}

/// Why there is no register.
#[derive(Debug)]
pub enum StartError {
    /// The folder or its file can't be used.
    Folder(PathBuf, io::Error),
    /// Another process has it.
    InUse(PathBuf),
    /// The file is not what was written.
    BadFile(PathBuf, String),
    /// The file belongs to another cluster or node.
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Box<str>,
        /// "cluster" or "node".
        what: &'static str,
    },
    /// The consensus crate does not start.
    Consensus(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path, error) => {
                write!(f, "cannot keep the membership in {}: {error}", path.display())
            }
            Self::InUse(path) => write!(
                f,
                "{} is in use by another sessiond; each needs a folder of its own",
                path.display()
            ),
            Self::BadFile(path, why) => write!(
                f,
                "{} cannot be used: {why}; move it away, and this node comes back as a new voter",
                path.display()
            ),
            Self::Foreign { path, found, what } => write!(
                f,
                "{} belongs to the {what} {found:?}; choose another folder or move it away",
                path.display()
            ),
            Self::Consensus(why) => write!(f, "cannot start the membership: {why}"),
        }
    }
}

impl std::error::Error for StartError {}

/// What a node is in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It has no place: not founded yet, or no voter at all.
    #[default]
    Outside,
    /// It waits to be admitted.
    Learner,
    /// It follows the leader.
    Follower,
    /// It wants to lead.
    Candidate,
    /// It leads.
    Leader,
}

/// For `stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What this node is.
    pub role: Role,
    /// Counts the elections.
    pub term: u64,
    /// Who leads.
    pub leader: Option<Box<str>>,
    /// Who votes, sorted.
    pub voters: Vec<Box<str>>,
    /// Whether this very seat is agreed to be one of theirs.
    pub is_seated: bool,
    /// Whether that is being changed: until it is, a majority of those before is needed too.
    pub is_changing: bool,
    /// Which log.
    pub founding: Option<Founding>,
    /// Frames that could not be understood.
    pub bad_frames: u64,
}

/// What the agent is told, in order.
enum Command {
    Propose(Bytes),
    Up(Box<str>),
    Down(Box<str>),
    Dead(Box<str>),
    Voters(Vec<Box<str>>),
    Generation(Bytes),
    Surrender,
    Stop(oneshot::Sender<()>),
}

/// This node's part in the register. It ends when this is dropped.
#[derive(Debug)]
pub struct Membership {
    /// Unbounded: what is told here is rare, and none of it may be lost.
    commands: mpsc::UnboundedSender<Command>,
    frames: mpsc::Sender<(Box<str>, Bytes)>,
    status: watch::Receiver<Status>,
}

impl Membership {
    /// Starts on the current tokio runtime, with what the file holds.
    pub async fn start(
        options: Options,
        rule: Rule,
        outside: Arc<dyn Outside>,
    ) -> Result<Self, StartError> {
        let (commands, told) = mpsc::unbounded_channel();
        let (frames, received) = mpsc::channel(FRAMES_MAX);
        let (sender, status) = watch::channel(Status::default());
        let agent = agent::Agent::new(options, rule, outside, sender).await?;
        tokio::spawn(agent.run(told, received));
        Ok(Self { commands, frames, status })
    }

    /// Asks for this to become the value. Nothing says whether it will: who cares repeats it.
    pub fn propose(&self, value: Bytes) {
        self.tell(Command::Propose(value));
    }

    /// A frame of that peer has come in.
    pub fn receive(&self, from: &str, frame: Bytes) {
        // Full: lost on the way, as any frame may be.
        let _ = self.frames.try_send((from.into(), frame));
    }

    /// There is a link to that peer.
    pub fn peer_up(&self, name: &str) {
        self.tell(Command::Up(name.into()));
    }

    /// There is none any more.
    pub fn peer_down(&self, name: &str) {
        self.tell(Command::Down(name.into()));
    }

    /// That peer's process is proven to be over: if it leads, another is elected at once.
    pub fn peer_dead(&self, name: &str) {
        self.tell(Command::Dead(name.into()));
    }

    /// From now on these vote. To be told to all nodes; the leader carries it out, as far as the
    /// new ones can be reached.
    pub fn set_voters(&self, voters: Vec<Box<str>>) {
        self.tell(Command::Voters(voters));
    }

    /// Starts a new generation of the log with this node as its only voter, and this value. The
    /// others give up theirs and come back when they hear of it.
    pub fn found_generation(&self, value: Bytes) {
        self.tell(Command::Generation(value));
    }

    /// Gives up all that is known here, and waits to be admitted by those who went on.
    pub fn surrender(&self) {
        self.tell(Command::Surrender);
    }

    /// Where things stand.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The same, as it changes.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Ends in order: afterwards the folder is free.
    pub async fn stop(self) {
        let (sender, stopped) = oneshot::channel();
        self.tell(Command::Stop(sender));
        let _ = stopped.await;
    }

    fn tell(&self, command: Command) {
        // The agent only ends with this handle, or with the runtime.
        let _ = self.commands.send(command);
    }
}
