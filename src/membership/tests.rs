//! Whole groups in one process, over a network that loses, delays and cuts as its seed says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use super::*;

/// A value is its number, and that of the one it follows.
fn value(before: u64, number: u64) -> Bytes {
    [before.to_le_bytes(), number.to_le_bytes()].concat().into()
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[8..].try_into().unwrap())
}

fn follows(present: Option<&[u8]>, proposed: &[u8]) -> bool {
    let before = u64::from_le_bytes(proposed[..8].try_into().unwrap());
    present.map_or(0, number) == before
}

struct Weather {
    random: StdRng,
    loss: f64,
    delay_ms: std::ops::Range<u64>,
    /// Links that carry nothing, in this direction.
    cut: BTreeSet<(Box<str>, Box<str>)>,
}

type Told = Arc<Mutex<Vec<u64>>>;
type Nodes = BTreeMap<Box<str>, Arc<Membership>>;

#[derive(Clone)]
struct Net {
    nodes: Arc<Mutex<Nodes>>,
    weather: Arc<Mutex<Weather>>,
}

impl Net {
    fn carry(&self, from: &str, to: &str, frame: Bytes) {
        let delay = {
            let mut weather = self.weather.lock().unwrap();
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
struct Post {
    me: Box<str>,
    net: Net,
    told: Told,
    leaders: Arc<Mutex<Vec<Option<Box<str>>>>>,
}

impl Outside for Post {
    fn send(&self, to: &str, frame: Bytes) {
        self.net.carry(&self.me, to, frame);
    }

    fn agreed(&self, value: Bytes) {
        self.told.lock().unwrap().push(number(&value));
    }

    fn leader(&self, name: Option<Box<str>>) {
        self.leaders.lock().unwrap().push(name);
    }
}

struct Group {
    net: Net,
    voters: Vec<Box<str>>,
    /// What each node was told, in each of its lives.
    told: Vec<(Box<str>, Told)>,
    seed: u64,
    folder: Option<tempdir::Folder>,
}

impl Group {
    fn new(voters: &str, seed: u64) -> Self {
        let weather = Weather {
            random: StdRng::seed_from_u64(seed),
            loss: 0.0,
            delay_ms: 0..2,
            cut: BTreeSet::new(),
        };
        let net = Net { nodes: Arc::default(), weather: Arc::new(Mutex::new(weather)) };
        Self { net, voters: names(voters), told: Vec::new(), seed, folder: None }
    }

    fn on_disk(mut self) -> Self {
        self.folder = Some(tempdir::Folder::new(self.seed));
        self
    }

    async fn started(voters: &str, seed: u64) -> Self {
        let mut group = Self::new(voters, seed);
        for name in group.voters.clone() {
            group.start(&name).await;
        }
        group
    }

    fn options(&mut self, name: &str) -> Options {
        self.seed += 1000;
        Options {
            me: name.into(),
            cluster: "test".into(),
            voters: self.voters.clone(),
            state_dir: self.folder.as_ref().map(|folder| folder.0.join(name)),
            timing: Timing::default(),
            seed: self.seed,
        }
    }

    /// Starts a node and brings its links up, but for those that are cut.
    async fn start(&mut self, name: &str) {
        let options = self.options(name);
        let post = Post {
            me: name.into(),
            net: self.net.clone(),
            told: Arc::default(),
            leaders: Arc::default(),
        };
        self.told.push((name.into(), Arc::clone(&post.told)));
        let node = Arc::new(Membership::start(options, follows, Arc::new(post)).await.unwrap());
        let others = self.others(name);
        self.net.nodes.lock().unwrap().insert(name.into(), Arc::clone(&node));
        for (other, peer) in others {
            if !self.is_cut(name, &other) {
                node.peer_up(&other);
                peer.peer_up(name);
            }
        }
    }

    fn others(&self, name: &str) -> Nodes {
        let mut nodes = self.net.nodes.lock().unwrap().clone();
        nodes.remove(name);
        nodes
    }

    fn is_cut(&self, a: &str, b: &str) -> bool {
        self.net.weather.lock().unwrap().cut.contains(&(a.into(), b.into()))
    }

    fn node(&self, name: &str) -> Arc<Membership> {
        Arc::clone(&self.net.nodes.lock().unwrap()[name])
    }

    /// The process is over, and everybody sees that it is.
    async fn kill(&mut self, name: &str) {
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
    fn cut(&self, a: &str, b: &str) {
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

    fn isolate(&self, name: &str) {
        for other in self.others(name).keys() {
            self.cut(name, other);
        }
    }

    fn heal(&self) {
        let cut = std::mem::take(&mut self.net.weather.lock().unwrap().cut);
        let nodes = self.net.nodes.lock().unwrap();
        for (a, b) in cut {
            if let (Some(node), true) = (nodes.get(&a), nodes.contains_key(&b)) {
                node.peer_up(&b);
            }
        }
    }

    /// Everything that this node was told in its present life.
    fn told(&self, name: &str) -> Vec<u64> {
        let mut lives = self.told.iter().rev();
        let (_, told) = lives.find(|(of, _)| **of == *name).unwrap();
        told.lock().unwrap().clone()
    }

    fn leader(&self) -> Option<Box<str>> {
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
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !holds(self) {
            let statuses: Vec<_> = {
                let nodes = self.net.nodes.lock().unwrap();
                nodes.iter().map(|(name, node)| (name.clone(), node.status())).collect()
            };
            assert!(
                since.elapsed() < Duration::from_secs(30),
                "seed {}: never {what}: {statuses:#?}",
                self.seed % 1000
            );
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn until_led(&self) -> Box<str> {
        self.until("led", |group| group.leader().is_some()).await;
        self.leader().unwrap()
    }

    /// Proposes through that node until it is agreed there.
    async fn agree(&self, through: &str, before: u64, number: u64) {
        let node = self.node(through);
        let mut tries = 0;
        while !self.told(through).contains(&number) {
            if tries % 100 == 0 {
                node.propose(value(before, number));
            }
            tries += 1;
            assert!(tries < 20_000, "seed {}: {number} is never agreed", self.seed % 1000);
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn until_told(&self, number: u64) {
        let told_all = |group: &Self| {
            let nodes = group.net.nodes.lock().unwrap().clone();
            nodes.keys().all(|name| group.told(name).last() == Some(&number))
        };
        self.until(&format!("told {number} everywhere"), told_all).await;
    }

    async fn until_all_vote(&self) {
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

fn names(list: &str) -> Vec<Box<str>> {
    list.split(' ').map(Into::into).collect()
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

#[tokio::test(start_paused = true)]
async fn a_single_voter_founds_alone() {
    let group = Group::started("a", 1).await;
    group.agree("a", 0, 1).await;
    group.agree("a", 1, 2).await;
    assert_eq!(group.told("a"), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn all_are_told_the_same_in_the_same_order() {
    for voters in ["a b c", "a b c d e"] {
        let group = Group::started(voters, 2).await;
        group.until_all_vote().await;
        for number in 1..=100 {
            let through = &group.voters[number as usize % group.voters.len()];
            group.agree(through, number - 1, number).await;
        }
        group.until_told(100).await;
        for name in &group.voters {
            assert_eq!(group.told(name), (1..=100).collect::<Vec<_>>());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_proposals_that_follow_the_same_value_one_wins() {
    let group = Group::started("a b c", 3).await;
    group.until_led().await;
    for number in 2..6 {
        group.node("a").propose(value(0, number * 10));
        group.node("b").propose(value(0, number * 10 + 1));
        group.node("c").propose(value(0, number * 10 + 2));
    }
    group.until("one", |group| !group.told("a").is_empty()).await;
    sleep(Duration::from_secs(1)).await;
    let told = group.told("a");
    assert_eq!(told.len(), 1);
    assert_eq!(group.told("b"), told);
    assert_eq!(group.told("c"), told);
}

#[tokio::test(start_paused = true)]
async fn a_minority_agrees_on_nothing() {
    let group = Group::started("a b c", 4).await;
    group.until_all_vote().await;
    group.agree("a", 0, 1).await;
    group.until_told(1).await;
    let leader = group.until_led().await;
    group.isolate(&leader);
    for _ in 0..50 {
        group.node(&leader).propose(value(1, 99));
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(group.told(&leader), [1]);
    assert_eq!(group.node(&leader).status().leader, None, "nobody answers it");
    let other = group.others(&leader).into_keys().next().unwrap();
    group.agree(&other, 1, 2).await;
    group.heal();
    group.until_told(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_replaced() {
    for seed in 0..20 {
        let mut group = Group::started("a b c", seed).await;
        group.until_all_vote().await;
        group.agree("a", 0, 1).await;
        group.until_told(1).await;
        sleep(Duration::from_millis(seed * 7)).await;
        let leader = group.until_led().await;
        let since = Instant::now();
        group.kill(&leader).await;
        let other = group.others("").into_keys().next().unwrap();
        let node = group.node(&other);
        while !group.told(&other).contains(&2) {
            node.propose(value(1, 2));
            sleep(Duration::from_millis(5)).await;
        }
        println!("seed {seed}: {leader} killed, agreed again after {:?}", since.elapsed());
        group.until_told(2).await;
    }
}

#[tokio::test]
async fn a_restart_goes_on_from_the_file() {
    let mut group = Group::new("a b c", 6).on_disk();
    for name in names("a b c") {
        group.start(&name).await;
    }
    group.until_all_vote().await;
    for number in 1..=40 {
        group.agree("b", number - 1, number).await;
    }
    group.until_told(40).await;
    let founding = group.node("a").status().founding;
    for name in names("a b c") {
        group.kill(&name).await;
    }
    for name in names("a b c") {
        group.start(&name).await;
    }
    group.agree("b", 40, 41).await;
    group.until_told(41).await;
    assert_eq!(group.node("c").status().founding, founding);
    let file = group.folder.as_ref().unwrap().0.join("a/membership");
    assert!(std::fs::metadata(file).unwrap().len() < 8192);
}
