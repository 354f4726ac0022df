//! The first words on a connection between nodes: who are you, can you prove it, and do we belong
//! together?
//!
//! Nothing that was not proven, by whatever `guard.rs` asks for, leaves this file but as a refusal.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::PeerOptions;
use super::certificates;
use super::channel::Channel;
use super::courier::{Links, Waiter};
use super::guard::{Guard, Means};
use super::net::{Net, Stream};
use super::no_link::{HANDSHAKE_MAX, NoLink};
use super::secret::{self, Side, Talk};
use crate::node::Node;
use crate::replication::message::{self, Beside, Frame, Message, Purpose};
use crate::replication::{Dialect, Hello, LogWish, names};
use crate::stats::Refusal;

/// The longest frame before the peer is known.
const HELLO_MAX: usize = 2048;
/// What a frame may have around a largest item: the items before it in its chunk, and headers.
const FRAME_BESIDE: usize = 1 << 20;

/// What this node says of itself, and whom it expects.
pub(super) struct Greeting<N> {
    /// How it gets there.
    pub(super) net: N,
    guard: Arc<Guard>,
    cluster: Box<str>,
    node: Arc<Node<Waiter>>,
    links: Arc<Links>,
    is_witness: bool,
}

impl<N: Net> Greeting<N> {
    /// Of a peer that is let in: its certificate's end is shown.
    fn note_certificate<S: Stream>(&self, channel: &Channel<S>, name: &str) {
        let not_after_s = channel.certificates().and_then(certificates::not_after_s);
        if let Some(not_after_s) = not_after_s {
            self.node.note_peer_certificate(name, not_after_s);
        }
    }

    pub(super) fn new(
        net: N,
        guard: Arc<Guard>,
        peers: &PeerOptions,
        node: Arc<Node<Waiter>>,
        links: Arc<Links>,
    ) -> Self {
        let (cluster, is_witness) = (peers.cluster.clone(), peers.is_witness);
        Self { net, guard, cluster, node, links, is_witness }
    }

    /// The longest frame that a peer may send.
    pub(super) fn frame_max(&self) -> usize {
        self.node.options().settings.item_max + FRAME_BESIDE
    }

    fn hello(&self, purpose: Purpose) -> Hello {
        let (options, standing) = (self.node.options(), self.links.standing());
        Hello {
            speaks: options.speaks,
            cluster: self.cluster.clone(),
            name: options.me.name.clone(),
            incarnation: options.me.incarnation,
            roster: self.links.roster().clone(),
            item_max: options.settings.item_max as u64,
            succeeds: standing.succeeds,
            is_witness: self.is_witness,
            purpose: purpose.of(standing.beside),
        }
    }

    /// The configured peer that has said this, or why it does not belong here.
    fn check(&self, hello: &Hello) -> Result<usize, NoLink> {
        let ours = self.node.options().speaks;
        if ours.version_with(&hello.speaks).is_none() {
            let Dialect { oldest, newest, .. } = hello.speaks;
            let its = format!("it speaks protocol {oldest} to {newest}");
            let why = format!("{its}, this node {} to {}", ours.oldest, ours.newest);
            return Err(NoLink::NotAPeer(Refusal::Version, why));
        }
        self.check_group(hello).map_err(|why| NoLink::NotAPeer(Refusal::Group, why))
    }

    /// The same of two that understand each other.
    fn check_group(&self, hello: &Hello) -> Result<usize, String> {
        let options = self.node.options();
        if hello.cluster != self.cluster {
            return Err(format!("it is of cluster {:?}, not {:?}", hello.cluster, self.cluster));
        }
        let both_have_items = !(self.is_witness || hello.is_witness);
        if both_have_items && hello.item_max != options.settings.item_max as u64 {
            let (its, ours) = (hello.item_max, options.settings.item_max);
            return Err(format!("its largest item (-I) is {its} bytes, here {ours}"));
        }
        self.check_roster(hello)?;
        let is_peer = hello.name != options.me.name || self.is_other_life(hello);
        let known = self.links.find_life(&hello.name, hello.incarnation).or_else(|| {
            let is_beside = hello.purpose.beside().is_some();
            self.links.find_as(&hello.name, is_beside)
        });
        let known = known.filter(|_| is_peer);
        known.ok_or_else(|| format!("this node is just learning of {:?}", hello.name))
    }

    /// Whether one of the two lives of this node was started beside the other.
    fn is_other_life(&self, hello: &Hello) -> bool {
        let me = self.node.options().me.incarnation;
        let predecessor = |beside: Beside| beside.predecessor;
        hello.purpose.beside().map(predecessor) == Some(me)
            || self.links.standing().beside.map(predecessor) == Some(hello.incarnation)
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
pub(super) async fn dial<N: Net>(
    address: SocketAddr,
    peer: usize,
    greeting: &Greeting<N>,
    purpose: Purpose,
) -> Result<(Channel<N::Stream>, Hello), NoLink> {
    let talk = async {
        let stream = match greeting.net.dial(address).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(NoLink::Nobody);
            }
            connected => connected?,
        };
        let expected = greeting.links.name(peer);
        let means = greeting.guard.means();
        let mut channel = match &means {
            Means::Certificates(identity) => identity.dial(stream, expected).await?,
            Means::Open | Means::Secret(_) => Channel::Plain(stream),
        };
        let mut talk = challenge(&mut channel, means, Side::Dialer).await?;
        let hello = Message::Hello(greeting.hello(purpose));
        say_proven(&mut channel, &hello, &mut talk, Side::Dialer).await?;
        let answer = listen(&mut channel).await?;
        if matches!(answer, Message::HelloOk(_)) {
            check_proof(&mut channel, &answer, &mut talk, Side::Host).await?;
        }
        let hello = match answer {
            Message::HelloOk(hello) => hello,
            Message::Refuse(why) => return Err(NoLink::Refused(why)),
            _ => return Err(no_introduction()),
        };
        check_certificate(&channel, &hello.name)?;
        let found = greeting.check(&hello)?;
        if found != peer && greeting.links.name(found) == expected {
            return Err(NoLink::Elsewhere);
        }
        if found != peer {
            let why = format!("{:?} answers at its address", hello.name);
            return Err(NoLink::NotAPeer(Refusal::Group, why));
        }
        greeting.note_certificate(&channel, &hello.name);
        Ok((channel, hello))
    };
    timeout(HANDSHAKE_MAX, talk).await.unwrap_or(Err(NoLink::Slow))
}

/// Somebody who has dialed, and waits for an answer.
pub(super) struct Heard<S> {
    pub(super) peer: usize,
    pub(super) hello: Hello,
    pub(super) channel: Channel<S>,
    talk: Option<Talk>,
}

/// Hears who has dialed, and what for.
pub(super) async fn hear<N: Net>(
    stream: N::Stream,
    greeting: &Greeting<N>,
) -> Result<Heard<N::Stream>, NoLink> {
    let talk = async {
        let means = greeting.guard.means();
        let mut channel = match &means {
            Means::Certificates(identity) => identity.accept(stream).await?,
            Means::Open | Means::Secret(_) => Channel::Plain(stream),
        };
        let heard = introduced(&mut channel, means, greeting).await;
        if let Err(NoLink::NotAPeer(Refusal::Version | Refusal::Group | Refusal::Secret, why)) =
            &heard
            && let Err(error) = say(&mut channel, &Message::Refuse(why.as_str().into())).await
        {
            tracing::debug!(%error, "it has gone before it was refused");
        }
        let (peer, hello, talk) = heard?;
        Ok(Heard { peer, hello, channel, talk })
    };
    timeout(HANDSHAKE_MAX, talk).await.unwrap_or(Err(NoLink::Slow))
}

/// Who it is, after it has proven that. Only then is it told why it is not welcome.
async fn introduced<N: Net>(
    channel: &mut Channel<N::Stream>,
    means: Means,
    greeting: &Greeting<N>,
) -> Result<(usize, Hello, Option<Talk>), NoLink> {
    let mut talk = challenge(channel, means, Side::Host).await?;
    let said = listen(channel).await?;
    if matches!(said, Message::Hello(_)) {
        check_proof(channel, &said, &mut talk, Side::Dialer).await?;
    }
    let hello = match said {
        Message::Hello(hello) => hello,
        Message::Challenge(_) => {
            let why = "it shares a secret, this node none (--peer-secret-file)";
            return Err(NoLink::NotAPeer(Refusal::Secret, why.into()));
        }
        _ => return Err(no_introduction()),
    };
    check_certificate(channel, &hello.name)?;
    let peer = greeting.check(&hello)?;
    greeting.note_certificate(channel, &hello.name);
    Ok((peer, hello, talk))
}

/// The answer to whoever was heard.
pub(super) async fn welcome<N: Net>(
    heard: &mut Heard<N::Stream>,
    greeting: &Greeting<N>,
    purpose: Purpose,
) -> io::Result<()> {
    let answer = Message::HelloOk(greeting.hello(purpose));
    let said = say_proven(&mut heard.channel, &answer, &mut heard.talk, Side::Host);
    timeout(HANDSHAKE_MAX, said).await?
}

/// Tells whoever was heard why it is not welcome.
pub(super) async fn refuse<S: Stream>(heard: &mut Heard<S>, why: &str) -> io::Result<()> {
    timeout(HANDSHAKE_MAX, say(&mut heard.channel, &Message::Refuse(why.into()))).await?
}

/// Where a secret is shared, both sides begin with a number that was never used before.
async fn challenge<S: Stream>(
    channel: &mut Channel<S>,
    means: Means,
    side: Side,
) -> Result<Option<Talk>, NoLink> {
    let Means::Secret(secrets) = means else { return Ok(None) };
    let mine = secret::fresh()?;
    if matches!(side, Side::Dialer) {
        say(channel, &Message::Challenge(mine)).await?;
    }
    let theirs = match listen(channel).await? {
        Message::Challenge(theirs) => theirs,
        Message::Refuse(why) if matches!(side, Side::Dialer) => return Err(NoLink::Refused(why)),
        _ => {
            let why = "it shares no secret (--peer-secret-file)";
            return Err(NoLink::NotAPeer(Refusal::Secret, why.into()));
        }
    };
    Ok(Some(match side {
        Side::Dialer => Talk::new(secrets, mine, theirs),
        Side::Host => {
            say(channel, &Message::Challenge(mine)).await?;
            Talk::new(secrets, theirs, mine)
        }
    }))
}

async fn say_proven<S: Stream>(
    channel: &mut Channel<S>,
    message: &Message,
    talk: &mut Option<Talk>,
    side: Side,
) -> io::Result<()> {
    let mut frames = Vec::new();
    message::encode(message, &mut frames);
    if let Some(talk) = talk {
        talk.add(message);
        message::encode(&Message::Proof(talk.prove(side)), &mut frames);
    }
    channel.write_all(&frames).await?;
    channel.flush().await
}

/// Where a secret is shared, what was said is followed by the proof that its sender knows it.
async fn check_proof<S: Stream>(
    channel: &mut Channel<S>,
    said: &Message,
    talk: &mut Option<Talk>,
    side: Side,
) -> Result<(), NoLink> {
    let Some(talk) = talk else { return Ok(()) };
    talk.add(said);
    match listen(channel).await? {
        Message::Proof(proof) if talk.accepts(side, &proof) => Ok(()),
        _ => {
            let why = "it does not know the secret (--peer-secret-file)";
            Err(NoLink::NotAPeer(Refusal::Secret, why.into()))
        }
    }
}

/// Where there are certificates, the peer's is for the name that it gives itself.
fn check_certificate<S: Stream>(channel: &Channel<S>, name: &str) -> Result<(), NoLink> {
    match channel.certificates() {
        Some([own, ..]) if certificates::is_for(own, name) => Ok(()),
        None if matches!(channel, Channel::Plain(_)) => Ok(()),
        _ => {
            let why = format!("its certificate is not for {name:?}, which it says to be");
            Err(NoLink::NotAPeer(Refusal::Certificate, why))
        }
    }
}

fn no_introduction() -> NoLink {
    NoLink::NotAPeer(Refusal::Garbage, "it does not introduce itself".into())
}

async fn say(stream: &mut impl Stream, message: &Message) -> io::Result<()> {
    let mut frame = Vec::new();
    message::encode(message, &mut frame);
    stream.write_all(&frame).await?;
    stream.flush().await
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
            Err(bad) => return Err(NoLink::NotAPeer(Refusal::Garbage, bad.to_string())),
        }
    }
}

fn missing_of(input: &[u8]) -> usize {
    match input.first_chunk::<4>() {
        None => message::HEADER - input.len(),
        Some(length) => 4 + u32::from_le_bytes(*length) as usize - input.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::DuplexStream;

    use super::*;
    use crate::node;
    use crate::replication::message::{Nonce, Proof};
    use crate::replication::{Features, Incarnation, Member, Nodes, Place, Roster};
    use crate::server::clock::Clock;
    use crate::server::courier::Standing;
    use crate::server::guard::PeerSecurity;
    use crate::settings::Settings;
    use crate::time::Now;

    #[derive(Clone)]
    struct NoNet;

    impl Net for NoNet {
        type Stream = DuplexStream;
        type Listener = ();

        async fn dial(&self, _: SocketAddr) -> io::Result<DuplexStream> {
            Err(io::ErrorKind::HostUnreachable.into())
        }

        async fn accept(&self, (): &()) -> io::Result<(DuplexStream, SocketAddr)> {
            Err(io::ErrorKind::HostUnreachable.into())
        }
    }

    fn nodes() -> Nodes {
        let place = Place { address: ([127, 0, 0, 1], 1).into(), votes: true, is_given: false };
        ["a", "b"].map(|name| (name.into(), place)).into()
    }

    fn greeting(security: &PeerSecurity) -> Greeting<NoNet> {
        let me = Member { name: "a".into(), incarnation: Incarnation(1) };
        let options = node::Options::new(me, nodes(), 1);
        let roster = Roster { nodes: nodes(), ..Roster::default() };
        let (links, _) = Links::new(roster, Standing::default(), Clock::SYSTEM);
        links.add("b");
        Greeting {
            net: NoNet,
            guard: Arc::new(Guard::new(security, "a").unwrap()),
            cluster: "c".into(),
            node: Arc::new(Node::new(options, Now::default())),
            links: Arc::new(links),
            is_witness: false,
        }
    }

    /// What `b` would say of itself.
    fn hello() -> Message {
        Message::Hello(Hello {
            speaks: Dialect::default(),
            cluster: "c".into(),
            name: "b".into(),
            incarnation: Incarnation(2),
            roster: Roster { nodes: nodes(), ..Roster::default() },
            item_max: Settings::default().item_max as u64,
            succeeds: Vec::new(),
            is_witness: false,
            purpose: Purpose::Control,
        })
    }

    /// What comes of a stranger that says just this and goes.
    fn heard(greeting: &Greeting<NoNet>, said: &[u8]) -> Result<usize, NoLink> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut stranger, stream) = tokio::io::duplex(1 << 16);
            stranger.write_all(said).await.unwrap();
            stranger.shutdown().await.unwrap();
            hear(stream, greeting).await.map(|heard| heard.peer)
        })
    }

    fn secret() -> (PeerSecurity, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("sessiond-secret-{}", std::process::id()));
        std::fs::write(&path, "what all of them know").unwrap();
        (PeerSecurity::Secret(path.clone()), path)
    }

    #[test]
    fn where_nothing_is_asked_for_a_peer_is_let_in_by_its_name() {
        let mut said = Vec::new();
        message::encode(&hello(), &mut said);
        assert_eq!(heard(&greeting(&PeerSecurity::Open), &said).unwrap(), 0);
    }

    /// What comes of somebody who speaks this.
    fn speaking(speaks: Dialect) -> Result<usize, NoLink> {
        let Message::Hello(hello) = hello() else { unreachable!("a hello") };
        let mut said = Vec::new();
        message::encode(&Message::Hello(Hello { speaks, ..hello }), &mut said);
        heard(&greeting(&PeerSecurity::Open), &said)
    }

    #[test]
    fn whoever_speaks_one_version_of_this_node_is_let_in_whatever_else_it_knows() {
        let Dialect { oldest, newest, .. } = Dialect::default();
        let (older, newer) = (oldest - 1, newest + 1);
        let features = Features(u64::MAX);
        for (from, to) in [(older, oldest), (newest, newer), (older, newer)] {
            let speaks = Dialect { oldest: from, newest: to, features };
            assert_eq!(speaking(speaks).unwrap(), 0, "{from} to {to}");
        }
        for version in [older, newer] {
            let speaks = Dialect { oldest: version, newest: version, features };
            let refused = speaking(speaks).unwrap_err();
            let why = refused.to_string();
            assert!(matches!(refused, NoLink::NotAPeer(Refusal::Version, _)), "{why}");
            assert!(why.contains(&format!("it speaks protocol {version} to {version}")), "{why}");
        }
    }

    fn word() -> impl Strategy<Value = Vec<u8>> {
        let frame = |message: Message| {
            let mut frame = Vec::new();
            message::encode(&message, &mut frame);
            frame
        };
        prop_oneof![
            Just(frame(hello())),
            any::<[u8; 32]>().prop_map(move |bytes| frame(Message::Challenge(Nonce(bytes)))),
            any::<[u8; 32]>().prop_map(move |bytes| frame(Message::Proof(Proof(bytes)))),
            prop::collection::vec(any::<u8>(), 0..40),
            Just(frame(Message::Refuse("why".into()))),
        ]
    }

    #[test]
    fn whatever_is_said_in_whatever_order_lets_nobody_in_without_the_secret() {
        let (security, path) = secret();
        let greeting = greeting(&security);
        std::fs::remove_file(path).unwrap();
        let words = prop::collection::vec(word(), 0..6);
        let mut runner = proptest::test_runner::TestRunner::default();
        let tried = runner.run(&words, |words| {
            prop_assert!(heard(&greeting, &words.concat()).is_err());
            Ok(())
        });
        tried.unwrap();
    }
}
