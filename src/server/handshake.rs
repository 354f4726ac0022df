//! The first words on a connection between nodes: who are you, and do we belong together?

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, timeout};

use super::PeerOptions;
use super::courier::Waiter;
use super::net::{Net, Stream};
use crate::node::Node;
use crate::replication::Hello;
use crate::replication::message::{self, Frame, Message, PROTOCOL, Purpose};

/// Both sides have to have said who they are by then.
const HANDSHAKE_MAX: Duration = Duration::from_secs(1);
/// The longest frame before the peer is known.
const HELLO_MAX: usize = 2048;
/// What a frame may have around a largest item: the items before it in its chunk, and headers.
const FRAME_BESIDE: usize = 1 << 20;

/// What this node says of itself, and whom it expects.
pub(super) struct Greeting<N> {
    /// How it gets there.
    pub(super) net: N,
    cluster: Box<str>,
    node: Arc<Node<Waiter>>,
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

impl From<io::Error> for NoLink {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl<N: Net> Greeting<N> {
    pub(super) fn new(net: N, peers: &PeerOptions, node: Arc<Node<Waiter>>) -> Self {
        Self { net, cluster: peers.cluster.clone(), node, is_witness: peers.is_witness }
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
            nodes: self.nodes(),
            item_max: options.settings.item_max as u64,
            succeeds: options.succeeds.clone(),
            is_witness: self.is_witness,
            purpose,
        }
    }

    /// The names of the whole group, in the same order on all nodes.
    fn nodes(&self) -> Vec<Box<str>> {
        let options = self.node.options();
        let mut nodes = options.peers.clone();
        nodes.push(options.me.name.clone());
        nodes.sort();
        nodes
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
        if hello.nodes != self.nodes() {
            return Err(format!("its --peers name {:?}, here {:?}", hello.nodes, self.nodes()));
        }
        options
            .peers
            .iter()
            .position(|name| *name == hello.name)
            .ok_or_else(|| format!("its name {:?} is not in --peers", hello.name))
    }
}

/// Dials a peer, says what for, and hears who it is.
pub(super) async fn dial<N: Net>(
    address: SocketAddr,
    peer: usize,
    greeting: &Greeting<N>,
    purpose: Purpose,
) -> Result<(N::Stream, Hello), NoLink> {
    let talk = async {
        let mut stream = match greeting.net.dial(address).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(NoLink::Nobody);
            }
            connected => connected?,
        };
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
pub(super) async fn hear<N: Net>(
    stream: &mut N::Stream,
    greeting: &Greeting<N>,
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
pub(super) async fn welcome<N: Net>(
    stream: &mut N::Stream,
    greeting: &Greeting<N>,
    purpose: Purpose,
) -> io::Result<()> {
    say(stream, &Message::HelloOk(greeting.hello(purpose))).await
}

/// Tells whoever was heard why it is not welcome.
pub(super) async fn refuse(stream: &mut impl Stream, why: &str) -> io::Result<()> {
    say(stream, &Message::Refuse(why.into())).await
}

async fn say(stream: &mut impl Stream, message: &Message) -> io::Result<()> {
    let mut frame = Vec::new();
    message::encode(message, &mut frame);
    stream.write_all(&frame).await
}

/// Reads one frame, and not a byte of what follows it.
async fn listen(stream: &mut impl Stream) -> Result<Message, NoLink> {
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
