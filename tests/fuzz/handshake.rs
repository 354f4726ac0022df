//! Whatever a stranger says on a connection between nodes, whoever has dialed: the node does not
//! panic, ends the connection, speaks in frames, and where a secret is shared tells a stranger nothing.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use sessiond::node::Options;
use sessiond::replication::message::{self, Frame};
use sessiond::replication::{Incarnation, Member, Message, Place};
use sessiond::server::{Clock, Net, PeerOptions, PeerSecurity, live};
use sessiond::settings::Settings;
use sessiond::time::Millis;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout};

pub(crate) const CLUSTER: &str = "fuzzed";
const FRAME_MAX: usize = 2 << 20;
/// A node has closed long before.
const PATIENCE: Duration = Duration::from_secs(30);

/// The one connection that there is, until somebody has it.
type Line = Rc<RefCell<Option<DuplexStream>>>;

#[derive(Clone)]
struct OneLine {
    to_dial: Line,
}

impl Net for OneLine {
    type Stream = DuplexStream;
    type Listener = Line;

    async fn dial(&self, _: SocketAddr) -> Result<DuplexStream> {
        self.to_dial.take().ok_or_else(|| ErrorKind::ConnectionRefused.into())
    }

    async fn accept(&self, listener: &Line) -> Result<(DuplexStream, SocketAddr)> {
        match listener.take() {
            Some(link) => Ok((link, ([127, 0, 0, 1], 1).into())),
            None => std::future::pending().await,
        }
    }
}

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn local() -> Millis {
    let began = BEGAN.get().unwrap_or_else(Instant::now);
    Millis(1_000_000 + began.elapsed().as_millis() as u64)
}

/// Wherever this is built: in the crate's own folder, or in that of the fuzz targets.
fn secret() -> PathBuf {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = folders.find_map(|folder| {
        let path = folder.join("tests/turmoil/secret.txt");
        path.exists().then_some(path)
    });
    found.expect("the secret of the simulated groups")
}

fn options(has_secret: bool) -> (Options, PeerOptions) {
    let place = Place { address: ([127, 0, 0, 1], 1).into(), votes: true, is_given: false };
    let me = Member { name: "a".into(), incarnation: Incarnation(1) };
    let node = Options {
        settings: Settings { workers: 1, memory: 2 << 20, ..Settings::default() },
        ..Options::new(me, ["a", "b"].map(|name| (name.into(), place)).into(), 1)
    };
    let peers = PeerOptions {
        cluster: CLUSTER.into(),
        listen: place.address,
        keeps_to_loopback: false,
        state_dir: None,
        is_witness: false,
        security: if has_secret { PeerSecurity::Secret(secret()) } else { PeerSecurity::Open },
    };
    (node, peers)
}

/// What the node says to somebody who says this and then no more.
async fn talk(has_secret: bool, is_dialed: bool, said: &[u8]) -> Vec<u8> {
    BEGAN.set(Some(Instant::now()));
    let (stranger, link) = duplex(1 << 16);
    let (line, nobody) = (Rc::new(RefCell::new(Some(link))), Line::default());
    let (to_dial, to_accept) = if is_dialed { (line, nobody) } else { (nobody, line) };
    let (node, peers) = options(has_secret);
    let clock = Clock { local, wall_s: || 1_800_000_000 };
    let living = live(node, peers, (OneLine { to_dial }, to_accept), clock).await;
    let living = living.map_err(|error| error.to_string()).expect("it starts");
    let (mut hears, mut speaks) = tokio::io::split(stranger);
    let mut heard = Vec::new();
    let conversation = async {
        let speak = async {
            // It may close before it has heard all.
            let _ = speaks.write_all(said).await;
            let _ = speaks.shutdown().await;
        };
        tokio::join!(speak, hears.read_to_end(&mut heard))
    };
    let (_, end) = timeout(PATIENCE, conversation).await.expect("the node ends the connection");
    end.expect("an orderly end");
    drop(living);
    heard
}

/// What may be skipped before it is.
fn first_of(mut said: &[u8]) -> Option<Message> {
    loop {
        match message::decode(said, FRAME_MAX) {
            Ok(Frame::Message(_, message)) => return Some(message),
            Ok(Frame::Skip(used)) => said = &said[used..],
            _ => return None,
        }
    }
}

/// See the module. The first byte says who has dialed, and whether a secret is shared.
pub(crate) fn handshake(data: &[u8]) {
    let Some((&how, said)) = data.split_first() else {
        return;
    };
    let (has_secret, is_dialed) = (how & 1 != 0, how & 2 != 0);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let heard = LocalSet::new().block_on(&runtime, talk(has_secret, is_dialed, said));
    let mut rest = &heard[..];
    while !rest.is_empty() {
        let (used, message) = match message::decode(rest, FRAME_MAX) {
            Ok(Frame::Message(used, message)) => (used, message),
            // It was cut off while it was speaking.
            Ok(Frame::Incomplete) => break,
            other => panic!("{other:?}"),
        };
        rest = &rest[used..];
        match message {
            Message::Refuse(_) | Message::Challenge(_) | Message::Proof(_) => {}
            Message::Hello(_) => assert!(is_dialed, "it was dialed, and introduces itself"),
            Message::HelloOk(_) => {
                assert!(!has_secret && !is_dialed, "nobody has proven anything");
                let Some(Message::Hello(hello)) = first_of(said) else {
                    panic!("nobody has introduced himself: {said:?}");
                };
                assert_eq!((&*hello.cluster, &*hello.name), (CLUSTER, "b"));
            }
            other => assert!(!has_secret, "a stranger is told {other:?}"),
        }
    }
}
