//! The network of a group: a host for each node, two wires to each, and what may happen on one of
//! them. On the other are the clients, whom nobody disturbs.
//!
//! The thread that lays the wires is a host as well: the two switches are in it, and the clients.
//! What a node gets is dropped, refused or held where it arrives, so that its sender is told as much
//! as by a network.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::held::{self, Held, Lateness, QUEUE};
use super::host::{Host, order};

const CLIENT_PORT: u16 = 11211;
const PEER_PORT: u16 = 7000;

/// What happens to packets from one node to another, where they arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    #[default]
    Open,
    /// Nobody is told.
    Dropped,
    /// Each is answered with a reset, as if nobody were there.
    Refused,
    /// So many of a thousand are dropped.
    Lossy(u32),
}

/// The hosts of all nodes, and how they reach each other.
pub(crate) struct Wires {
    pub(crate) hosts: Vec<Host>,
    /// By sender and receiver.
    ways: Vec<Vec<Way>>,
    held: Vec<Held>,
}

/// Where clients reach a node.
pub(crate) fn client_address(node: usize) -> SocketAddr {
    SocketAddr::new(on(Wire::Clients, node), CLIENT_PORT)
}

/// Where other nodes do.
pub(crate) fn peer_address(node: usize) -> SocketAddr {
    SocketAddr::new(on(Wire::Peers, node), PEER_PORT)
}

#[derive(Clone, Copy)]
enum Wire {
    Peers = 1,
    Clients = 2,
}

/// Only here, whatever the machine's networks are.
fn on(wire: Wire, node: usize) -> IpAddr {
    Ipv4Addr::new(10, 7, wire as u8, node as u8 + 1).into()
}

impl Wires {
    /// Makes this thread the host of the switches and of the clients, and lays a wire from it to the
    /// host of each node.
    pub(crate) fn lay(nodes: usize) -> Result<Self, String> {
        super::host::enter()?;
        order("ip link set lo up")?;
        for switch in ["peers", "clients"] {
            order(&format!("ip link add {switch} type bridge"))?;
            order(&format!("ip link set {switch} up"))?;
        }
        order("ip addr add 10.7.2.254/24 dev clients")?;
        let hosts: Vec<Host> = (0..nodes).map(|_| Host::start()).collect::<Result<_, _>>()?;
        for (node, host) in hosts.iter().enumerate() {
            host.order("ip link set lo up")?;
            connect(host, node, Wire::Peers, "peers", "peer")?;
            connect(host, node, Wire::Clients, "clients", "client")?;
        }
        Ok(Self { hosts, ways: vec![vec![Way::Open; nodes]; nodes], held: Vec::new() })
    }

    /// From now on this happens to what each of `from` sends to each of `to`.
    pub(crate) fn set(&mut self, from: &[usize], to: &[usize], way: Way) -> Result<(), String> {
        for &to in to {
            for &from in from.iter().filter(|&&from| from != to) {
                self.ways[from][to] = way;
            }
            self.apply(to)?;
        }
        Ok(())
    }

    /// The same in both directions.
    pub(crate) fn between(&mut self, a: &[usize], b: &[usize], way: Way) -> Result<(), String> {
        self.set(a, b, way)?;
        self.set(b, a, way)
    }

    /// All rules of one receiver at once.
    fn apply(&self, to: usize) -> Result<(), String> {
        let mut rules = String::new();
        for (from, ways) in self.ways.iter().enumerate() {
            let verdict = match ways[to] {
                Way::Open => continue,
                Way::Dropped => "drop".into(),
                Way::Refused => "meta l4proto tcp reject with tcp reset".into(),
                Way::Lossy(part) => format!("numgen random mod 1000 < {part} drop"),
            };
            // Writing into a string cannot fail.
            let _ = writeln!(rules, "ip saddr {} {verdict}", on(Wire::Peers, from));
        }
        // The first line lets the second one find it.
        let script = format!(
            "table inet nemesis\ndelete table inet nemesis\ntable inet nemesis {{\n\
             chain arrived {{\ntype filter hook input priority 0\n{rules}}}\n}}\n"
        );
        self.hosts[to].order_with("nft -f -", script)
    }

    /// What these nodes get from others is late.
    pub(crate) fn hold(
        &mut self,
        nodes: &[usize],
        lateness: Lateness,
        seed: u64,
    ) -> Result<(), String> {
        for &node in nodes {
            let queue = self.hosts[node].run(held::open)?;
            self.held.push(Held::start(queue, lateness, seed ^ node as u64));
            self.hosts[node].order(format!("iptables -w -A INPUT -i peer {}", into_queue()))?;
        }
        Ok(())
    }

    /// What this node sends and gets goes through a wire of so many bits a second.
    pub(crate) fn slow(&self, node: usize, kbit: u32) -> Result<(), String> {
        // What waits longer is lost; a queue this long is common, and bad enough.
        let limit = format!("root tbf rate {kbit}kbit burst 16kb latency {}ms", SLOW_QUEUE_MS);
        self.hosts[node].order(format!("tc qdisc add dev peer {limit}"))?;
        order(&format!("tc qdisc add dev peers{node} {limit}"))
    }

    pub(crate) fn unslow(&self, node: usize) -> Result<(), String> {
        self.hosts[node].order("tc qdisc del dev peer root")?;
        order(&format!("tc qdisc del dev peers{node} root"))
    }

    /// The node's wire to the others is pulled out, or put back.
    pub(crate) fn plug(&self, node: usize, state: Plug) -> Result<(), String> {
        let word = if state == Plug::In { "up" } else { "down" };
        self.hosts[node].order(format!("ip link set peer {word}"))
    }

    /// The node loses its address among the others, or gets it back.
    pub(crate) fn name(&self, node: usize, state: Plug) -> Result<(), String> {
        let word = if state == Plug::In { "add" } else { "del" };
        self.hosts[node].order(format!("ip addr {word} {}/24 dev peer", on(Wire::Peers, node)))
    }

    /// Nothing is dropped, refused or held any more.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        if !self.held.is_empty() {
            for host in &self.hosts {
                host.order("iptables -w -F INPUT")?;
            }
            self.held.clear();
        }
        for to in 0..self.hosts.len() {
            let is_touched = self.ways.iter().any(|ways| ways[to] != Way::Open);
            self.ways.iter_mut().for_each(|ways| ways[to] = Way::Open);
            if is_touched {
                self.apply(to)?;
            }
        }
        Ok(())
    }
}

const SLOW_QUEUE_MS: u128 = Duration::from_millis(300).as_millis();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plug {
    In,
    Out,
}

/// Where nobody holds them, packets go through.
fn into_queue() -> String {
    format!("-j NFQUEUE --queue-num {QUEUE} --queue-bypass")
}

fn connect(host: &Host, node: usize, wire: Wire, switch: &str, end: &str) -> Result<(), String> {
    let port = format!("{switch}{node}");
    let thread = host.thread();
    order(&format!("ip link add {port} type veth peer name {end} netns {thread}"))?;
    order(&format!("ip link set {port} master {switch} up"))?;
    host.order(format!("ip addr add {}/24 dev {end}", on(wire, node)))?;
    host.order(format!("ip link set {end} up"))
}
