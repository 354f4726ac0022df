//! The first words on a connection between nodes: who are you, and do we belong together?

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use super::PeerOptions;
use super::courier::{Links, Waiter};
use crate::node::Node;
use crate::replication::message::{self, Frame, Message, PROTOCOL, Purpose};
use crate::replication::{Hello, LogWish, names};

/// Both sides have to have said who they are by then.
const HANDSHAKE_MAX: Duration = Duration::from_secs(1);
/// A connection ends when what was sent is not acknowledged by the other host for so long; without
/// it, the kernel goes on trying for minutes.
const UNHEARD_MAX_MS: u32 = 2000;
/// Between two attempts to reach a peer; the first one after a connection's end is made at once.
pub(super) const REDIAL_MS: u64 = 100;
/// The same where somebody is there who does not want it: a node that was removed, or not added yet.
/// When there is news, it is dialed from there.
const UNWANTED_MS: u64 = 1000;
/// The longest frame before the peer is known.
const HELLO_MAX: usize = 2048;
/// What a frame may have around a largest item: the items before it in its chunk, and headers.
const FRAME_BESIDE: usize = 1 << 20;

/// What this node says of itself, and whom it expects.
pub(super) struct Greeting {
    cluster: Box<str>,
    node: Arc<Node<Waiter>>,
    links: Arc<Links>,
    is_witness: bool,
}

/// Why two nodes do not get together.
#[derive(Debug)]
pub(super) enum NoLink {
    /// Nobody listens there.
    Nobody,
    Io(io::Error),
    Slow,
    NotAPeer(String),
    Refused(Box<str>),
}

impl std::fmt::Display for NoLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nobody => write!(f, "connection refused"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Slow => write!(f, "no answer within {} ms", HANDSHAKE_MAX.as_millis()),
            Self::NotAPeer(why) => write!(f, "{why}"),
            Self::Refused(why) => write!(f, "refused by the peer: {why}"),
        }
    }
}

impl NoLink {
    /// When to try again.
    pub(super) fn pause_ms(&self) -> u64 {
        if matches!(self, Self::Refused(_)) { UNWANTED_MS } else { REDIAL_MS }
    }
}

impl From<io::Error> for NoLink {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Greeting {
    pub(super) fn new(peers: &PeerOptions, node: Arc<Node<Waiter>>, links: Arc<Links>) -> Self {
        Self { cluster: peers.cluster.clone(), node, links, is_witness: peers.is_witness }
    }

    /// The longest frame that a peer may send.
    pub(super) fn frame_max(&self) -> usize {
        self.node.options().settings.item_max + FRAME_BESIDE
    }

    fn hello(&self, purpose: Purpose) -> Hello {
        let options = self.node.options();
        Hello {
            protocol_min: PROTOCOL,
            protocol_max: PROTOCOL,
            cluster: self.cluster.clone(),
            name: options.me.name.clone(),
            incarnation: options.me.incarnation,
            roster: self.links.roster().clone(),
            item_max: options.settings.item_max as u64,
            succeeds: options.succeeds.clone(),
            is_witness: self.is_witness,
            purpose,
        }
    }

    /// The configured peer that has said this, or why it does not belong here.
    fn check(&self, hello: &Hello) -> Result<usize, String> {
        let options = self.node.options();
        if hello.protocol_min > PROTOCOL || hello.protocol_max < PROTOCOL {
            let (min, max) = (hello.protocol_min, hello.protocol_max);
            return Err(format!("it speaks protocol {min} to {max}, this node {PROTOCOL}"));
        }
        if hello.cluster != self.cluster {
            return Err(format!("it is of cluster {:?}, not {:?}", hello.cluster, self.cluster));
        }
        let both_have_items = !(self.is_witness || hello.is_witness);
        if both_have_items && hello.item_max != options.settings.item_max as u64 {
            let (its, ours) = (hello.item_max, options.settings.item_max);
            return Err(format!("its largest item (-I) is {its} bytes, here {ours}"));
        }
        self.check_roster(hello)?;
        let is_peer = hello.name != options.me.name;
        let known = self.links.find(&hello.name).filter(|_| is_peer);
        known.ok_or_else(|| format!("this node is just learning of {:?}", hello.name))
    }

    /// Whether both are nodes of one group, as far as the one that knows the later view can tell;
    /// the other one learns of it.
    fn check_roster(&self, hello: &Hello) -> Result<(), String> {
        let me = &self.node.options().me.name;
        let (theirs, ours) = (&hello.roster, self.links.roster().clone());
        if !theirs.is_agreed() && !ours.is_agreed() && !theirs.names_same(&ours) {
            let (its, own) = (names(&theirs.nodes), names(&ours.nodes));
            return Err(format!("its --peers and --tie-breaker mean {its}, here {own}"));
        }
        let is_news = theirs.as_of > ours.as_of;
        let newer = if is_news { theirs } else { &ours };
        let (is_here, is_there) =
            (newer.nodes.contains_key(me), newer.nodes.contains_key(&hello.name));
        // That this node was removed is news, from one that was with it; that it was not added yet
        // is none.
        let was_with = ours.is_agreed() && ours.nodes.contains_key(&hello.name);
        if is_news && (is_here || was_with) {
            self.links.wish(LogWish::Roster(theirs.clone()));
        }
        for (name, is_in) in [(me, is_here), (&hello.name, is_there)] {
            if !is_in {
                let nodes = names(&newer.nodes);
                return Err(format!(
                    "{name:?} is no node of this group, which is {nodes}: \
                     sessiond ctl add-node adds it"
                ));
            }
        }
        Ok(())
    }
}

/// Dials a peer, says what for, and hears who it is.
pub(super) async fn dial(
    address: SocketAddr,
    peer: usize,
    greeting: &Greeting,
    purpose: Purpose,
) -> Result<(TcpStream, Hello), NoLink> {
    let talk = async {
        let mut stream = match TcpStream::connect(address).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(NoLink::Nobody);
            }
            connected => connected?,
        };
        stream.set_nodelay(true)?;
        set_tcp_user_timeout(&stream, UNHEARD_MAX_MS).map_err(io::Error::from)?;
        say(&mut stream, &Message::Hello(greeting.hello(purpose))).await?;
        match listen(&mut stream).await? {
            Message::HelloOk(hello) => match greeting.check(&hello) {
                Ok(found) if found == peer => Ok((stream, hello)),
                Ok(_) => Err(NoLink::NotAPeer(format!("{:?} answers at its address", hello.name))),
                Err(why) => Err(NoLink::NotAPeer(why)),
            },
            Message::Refuse(why) => Err(NoLink::Refused(why)),
            _ => Err(NoLink::NotAPeer("it does not introduce itself".into())),
        }
    };
    timeout(HANDSHAKE_MAX, talk).await.unwrap_or(Err(NoLink::Slow))
}

/// Hears who has dialed, and what for.
pub(super) async fn hear(
    stream: &mut TcpStream,
    greeting: &Greeting,
) -> Result<(usize, Hello), NoLink> {
    let talk = async {
        let Message::Hello(hello) = listen(stream).await? else {
            return Err(NoLink::NotAPeer("it does not introduce itself".into()));
        };
        match greeting.check(&hello) {
            Ok(peer) => Ok((peer, hello)),
            Err(why) => {
                say(stream, &Message::Refuse(why.clone().into())).await?;
                Err(NoLink::NotAPeer(why))
            }
        }
    };
    timeout(HANDSHAKE_MAX, talk).await.unwrap_or(Err(NoLink::Slow))
}

/// The answer to whoever was heard.
pub(super) async fn welcome(
    stream: &mut TcpStream,
    greeting: &Greeting,
    purpose: Purpose,
) -> io::Result<()> {
    say(stream, &Message::HelloOk(greeting.hello(purpose))).await
}

/// Tells whoever was heard why it is not welcome.
pub(super) async fn refuse(stream: &mut TcpStream, why: &str) -> io::Result<()> {
    say(stream, &Message::Refuse(why.into())).await
}

async fn say(stream: &mut TcpStream, message: &Message) -> io::Result<()> {
    let mut frame = Vec::new();
    message::encode(message, &mut frame);
    stream.write_all(&frame).await
}

/// Reads one frame, and not a byte of what follows it.
async fn listen(stream: &mut TcpStream) -> Result<Message, NoLink> {
    let mut input = Vec::with_capacity(HELLO_MAX);
    loop {
        match message::decode(&input, HELLO_MAX) {
            Ok(Frame::Message(_, message)) => return Ok(message),
            Ok(Frame::Skip(_)) => input.clear(),
            Ok(Frame::Incomplete) => {
                let missing = missing_of(&input);
                let start = input.len();
                input.resize(start + missing, 0);
                stream.read_exact(&mut input[start..]).await?;
            }
            Err(bad) => return Err(NoLink::NotAPeer(bad.to_string())),
        }
    }
}

fn missing_of(input: &[u8]) -> usize {
    match input.first_chunk::<4>() {
        None => message::HEADER - input.len(),
        Some(length) => 4 + u32::from_le_bytes(*length) as usize - input.len(),
    }
}
