//! A whole group in one process, over a network that loses, delays and cuts as its seed says.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use sessiond::membership::{Founding, Membership, Options, Outside, Role, StartError, Timing};

/// A value is its number, and that of the one it follows.
pub(crate) fn value(before: u64, number: u64) -> Bytes {
    [before.to_le_bytes(), number.to_le_bytes()].concat().into()
}

pub(crate) fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[8..].try_into().unwrap())
}

fn before(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

pub(crate) fn follows(present: Option<&[u8]>, proposed: &[u8]) -> bool {
    present.map_or(0, number) == before(proposed)
}

pub(crate) struct Weather {
    pub(crate) random: StdRng,
    pub(crate) loss: f64,
    pub(crate) delay_ms: Range<u64>,
    /// Links that carry nothing, in this direction.
    pub(crate) cut: BTreeSet<(Box<str>, Box<str>)>,
    /// Some of the frames that were sent.
    pub(crate) tape: Vec<Bytes>,
}

pub(crate) type Told = Arc<Mutex<Vec<(u64, u64)>>>;
pub(crate) type Leaders = Arc<Mutex<Vec<Option<Box<str>>>>>;
pub(crate) type Nodes = BTreeMap<Box<str>, Arc<Membership>>;

#[derive(Clone)]
pub(crate) struct Net {
    pub(crate) nodes: Arc<Mutex<Nodes>>,
    pub(crate) weather: Arc<Mutex<Weather>>,
}

impl Net {
    fn carry(&self, from: &str, to: &str, frame: Bytes) {
        let delay = {
            let mut weather = self.weather.lock().unwrap();
            if weather.tape.len() < 60 {
                weather.tape.push(frame.clone());
            }
            let loss = weather.loss;
            if weather.cut.contains(&(from.into(), to.into())) || weather.random.random_bool(loss) {
                return;
            }
            let delay_ms = weather.delay_ms.clone();
            Duration::from_millis(weather.random.random_range(delay_ms))
        };
        let (net, from, to): (_, Box<str>, Box<str>) = (self.clone(), from.into(), to.into());
        tokio::spawn(async move {
            sleep(delay).await;
            let node = net.nodes.lock().unwrap().get(&to).cloned();
            if let Some(node) = node {
                node.receive(&from, frame);
            }
        });
    }
}

#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) me: Box<str>,
    pub(crate) net: Net,
    pub(crate) told: Told,
    pub(crate) leaders: Leaders,
}

impl Outside for Post {
    fn send(&self, to: &str, frame: Bytes) {
        self.net.carry(&self.me, to, frame);
    }

    fn agreed(&self, value: Bytes) {
        self.told.lock().unwrap().push((before(&value), number(&value)));
    }

    fn leader(&self, name: Option<Box<str>>) {
        self.leaders.lock().unwrap().push(name);
    }
}

pub(crate) struct Group {
    pub(crate) net: Net,
    pub(crate) voters: Vec<Box<str>>,
    /// What each node was told, in each of its lives.
    pub(crate) told: Vec<(Box<str>, Told)>,
    pub(crate) seed: u64,
    pub(crate) cluster: Box<str>,
    /// Of which all seeds of nodes are made.
    starts: u64,
    folder: Option<tempdir::Folder>,
    leaders: BTreeMap<Box<str>, Leaders>,
}

impl Group {
    pub(crate) fn new(voters: &str, seed: u64) -> Self {
        let weather = Weather {
            random: StdRng::seed_from_u64(seed),
            loss: 0.0,
            delay_ms: 0..2,
            cut: BTreeSet::new(),
            tape: Vec::new(),
        };
        let net = Net { nodes: Arc::default(), weather: Arc::new(Mutex::new(weather)) };
        Self {
            net,
            voters: names(voters),
            told: Vec::new(),
            seed,
            cluster: "test".into(),
            starts: 0,
            folder: None,
            leaders: BTreeMap::new(),
        }
    }

    pub(crate) fn on_disk(mut self) -> Self {
        self.folder = Some(tempdir::Folder::new(self.seed));
        self
    }

    pub(crate) async fn started(voters: &str, seed: u64) -> Self {
        let mut group = Self::new(voters, seed);
        for name in group.voters.clone() {
            group.start(&name).await;
        }
        group
    }

    pub(crate) fn options(&mut self, name: &str) -> Options {
        self.starts += 1;
        Options {
            me: name.into(),
            cluster: self.cluster.clone(),
            voters: self.voters.clone(),
            state_dir: self.folder.as_ref().map(|folder| folder.0.join(name)),
            timing: Timing::default(),
            seed: self.seed * 1_000_000 + self.starts,
        }
    }

    pub(crate) fn weather(&self, loss: f64, delay_ms: Range<u64>) {
        let mut weather = self.net.weather.lock().unwrap();
        (weather.loss, weather.delay_ms) = (loss, delay_ms);
    }

    /// Where that node keeps what it must not forget.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.as_ref().unwrap().0.join(name).join("membership")
    }

    /// Starts a node and brings its links up, but for those that are cut.
    pub(crate) async fn start(&mut self, name: &str) {
        self.try_start(name).await.unwrap();
    }

    pub(crate) async fn try_start(&mut self, name: &str) -> Result<(), StartError> {
        let options = self.options(name);
        let post = Post {
            me: name.into(),
            net: self.net.clone(),
            told: Arc::default(),
            leaders: Arc::default(),
        };
        let (told, leaders) = (Arc::clone(&post.told), Arc::clone(&post.leaders));
        let node = Arc::new(Membership::start(options, follows, Arc::new(post)).await?);
        self.told.push((name.into(), told));
        self.leaders.insert(name.into(), leaders);
        let others = self.others(name);
        self.net.nodes.lock().unwrap().insert(name.into(), Arc::clone(&node));
        for (other, peer) in others {
            if !self.is_cut(name, &other) {
                node.peer_up(&other);
                peer.peer_up(name);
            }
        }
        Ok(())
    }

    pub(crate) fn others(&self, name: &str) -> Nodes {
        let mut nodes = self.net.nodes.lock().unwrap().clone();
        nodes.remove(name);
        nodes
    }

    pub(crate) fn is_cut(&self, a: &str, b: &str) -> bool {
        self.net.weather.lock().unwrap().cut.contains(&(a.into(), b.into()))
    }

    pub(crate) fn node(&self, name: &str) -> Arc<Membership> {
        Arc::clone(&self.net.nodes.lock().unwrap()[name])
    }

    /// The process is over, and everybody sees that it is.
    pub(crate) async fn kill(&mut self, name: &str) {
        let node = self.net.nodes.lock().unwrap().remove(name).unwrap();
        for peer in self.others(name).into_values() {
            peer.peer_down(name);
            peer.peer_dead(name);
        }
        let mut node = Some(node);
        while let Some(shared) = node.take() {
            match Arc::try_unwrap(shared) {
                Ok(node) => node.stop().await,
                Err(shared) => {
                    // A frame is being delivered.
                    tokio::task::yield_now().await;
                    node = Some(shared);
                }
            }
        }
    }

    /// Links between these two carry nothing; `known`: and both know.
    pub(crate) fn cut(&self, a: &str, b: &str) {
        let mut weather = self.net.weather.lock().unwrap();
        weather.cut.insert((a.into(), b.into()));
        weather.cut.insert((b.into(), a.into()));
        drop(weather);
        let nodes = self.net.nodes.lock().unwrap();
        for (one, other) in [(a, b), (b, a)] {
            if let Some(node) = nodes.get(one) {
                node.peer_down(other);
            }
        }
    }

    pub(crate) fn isolate(&self, name: &str) {
        for other in self.others(name).keys() {
            self.cut(name, other);
        }
    }

    pub(crate) fn heal(&self) {
        let cut = std::mem::take(&mut self.net.weather.lock().unwrap().cut);
        let nodes = self.net.nodes.lock().unwrap();
        for (a, b) in cut {
            if let (Some(node), true) = (nodes.get(&a), nodes.contains_key(&b)) {
                node.peer_up(&b);
            }
        }
    }

    /// Everything that this node was told in its present life.
    pub(crate) fn told(&self, name: &str) -> Vec<u64> {
        let mut lives = self.told.iter().rev();
        let (_, told) = lives.find(|(of, _)| **of == *name).unwrap();
        told.lock().unwrap().iter().map(|(_, number)| *number).collect()
    }

    /// Those that this node was told to lead, in order.
    pub(crate) fn leaders(&self, name: &str) -> Vec<Option<Box<str>>> {
        self.leaders[name].lock().unwrap().clone()
    }

    pub(crate) fn leader(&self) -> Option<Box<str>> {
        let nodes = self.net.nodes.lock().unwrap().clone();
        let mut leaders: Vec<(u64, Box<str>)> = nodes
            .iter()
            .map(|(name, node)| (name, node.status()))
            .filter(|(name, status)| status.leader.as_ref() == Some(name))
            .map(|(name, status)| (status.term, name.clone()))
            .collect();
        leaders.sort();
        leaders.pop().map(|(_, name)| name)
    }

    /// Waits, on the moved clock, until this holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !holds(self) {
            let statuses: Vec<_> = {
                let nodes = self.net.nodes.lock().unwrap();
                nodes.iter().map(|(name, node)| (name.clone(), node.status())).collect()
            };
            assert!(
                since.elapsed() < Duration::from_secs(30),
                "seed {}: never {what}: {statuses:#?}",
                self.seed
            );
            sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) async fn until_led(&self) -> Box<str> {
        self.until("led", |group| group.leader().is_some()).await;
        self.leader().unwrap()
    }

    /// Proposes through that node until it is agreed there.
    pub(crate) async fn agree(&self, through: &str, before: u64, number: u64) {
        let node = self.node(through);
        let mut tries = 0;
        while !self.told(through).contains(&number) {
            if tries % 100 == 0 {
                node.propose(value(before, number));
            }
            tries += 1;
            assert!(tries < 20_000, "seed {}: {number} is never agreed", self.seed);
            sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) async fn until_told(&self, number: u64) {
        let told_all = |group: &Self| {
            let nodes = group.net.nodes.lock().unwrap().clone();
            nodes.keys().all(|name| group.told(name).last() == Some(&number))
        };
        self.until(&format!("told {number} everywhere"), told_all).await;
    }

    pub(crate) fn is_running(&self, name: &str) -> bool {
        self.net.nodes.lock().unwrap().contains_key(name)
    }

    pub(crate) fn tape(&self) -> Vec<Bytes> {
        self.net.weather.lock().unwrap().tape.clone()
    }

    /// Tells all nodes, and those that start from now on.
    pub(crate) fn set_voters(&mut self, voters: &str) {
        self.voters = names(voters);
        for node in self.net.nodes.lock().unwrap().values() {
            node.set_voters(self.voters.clone());
        }
    }

    /// Each node proposes what could follow what it knows.
    pub(crate) fn propose_everywhere(&mut self) {
        let nodes = self.net.nodes.lock().unwrap().clone();
        for (at, (name, node)) in nodes.into_iter().enumerate() {
            let before = self.told(&name).last().copied().unwrap_or(0);
            self.starts += 1;
            node.propose(value(before, self.starts * 10 + at as u64));
        }
    }

    /// The logs in which somebody leads, and so has a majority that has written something down.
    pub(crate) fn foundings_with_a_leader(&self) -> BTreeSet<Founding> {
        let nodes = self.net.nodes.lock().unwrap();
        let led = nodes.iter().map(|(name, node)| (name, node.status()));
        led.filter(|(name, status)| status.leader.as_ref() == Some(name))
            .filter_map(|(_, status)| status.founding)
            .collect()
    }

    /// What follows a value is the same, whoever was ever told.
    pub(crate) fn assert_same_history(&self) {
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        for (name, told) in &self.told {
            for (before, number) in told.lock().unwrap().iter() {
                let known = *next.entry(*before).or_insert(*number);
                assert_eq!(known, *number, "seed {}: two follow {before}, at {name}", self.seed);
            }
        }
    }

    pub(crate) async fn until_all_but(&self, name: &str) {
        self.until("seats", |group| {
            group.others(name).values().all(|node| node.status().voters == group.voters)
        })
        .await;
    }

    pub(crate) async fn until_all_vote(&self) {
        self.until("a seat for everybody", |group| {
            let nodes = group.net.nodes.lock().unwrap();
            nodes.values().all(|node| {
                let status = node.status();
                let votes = matches!(status.role, Role::Follower | Role::Leader);
                votes && status.voters == group.voters
            })
        })
        .await;
    }
}

pub(crate) fn names(list: &str) -> Vec<Box<str>> {
    list.split(' ').map(Into::into).collect()
}

/// How many storms: so many every day, more when the environment says so.
pub(crate) fn seeds(some: u64) -> u64 {
    std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(some)
}

/// A folder that goes with its owner.
mod tempdir {
    use std::path::PathBuf;

    pub(super) struct Folder(pub(super) PathBuf);

    impl Folder {
        pub(super) fn new(seed: u64) -> Self {
            use std::sync::atomic::{AtomicU64, Ordering};
            static COUNT: AtomicU64 = AtomicU64::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("sessiond-membership-{}-{seed}-{count}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
