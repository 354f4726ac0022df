//! The flags of a group: who the other nodes are.

use std::net::{SocketAddr, ToSocketAddrs};

use sessiond::server::PeerOptions;

use super::flags::Flags;

/// The other nodes.
pub(super) struct Group {
    /// Their names, in order.
    pub(super) names: Vec<Box<str>>,
    /// How they meet.
    pub(super) options: PeerOptions,
}

/// At most this many nodes hold full copies of each other.
const NODES_MAX: usize = 7;
/// Names go into the first message between nodes, which is short.
const NAME_MAX: usize = 64;
/// A link is down when nothing has come in for this long.
const SUSPECT_MS: u64 = 2000;

/// `None`: a node of its own.
pub(super) fn group(flags: &Flags) -> Result<Option<Group>, String> {
    let Some(list) = &flags.peers else {
        return match (&flags.cluster, &flags.peer_listen) {
            (None, None) => Ok(None),
            _ => Err("--cluster and --peer-listen need --peers NAME=HOST:PORT,...".into()),
        };
    };
    let cluster = flags.cluster.as_deref().ok_or("--peers needs --cluster NAME")?;
    let me = flags.node_name.as_deref().ok_or("--peers needs --node-name NAME")?;
    let listen = flags.peer_listen.as_deref().ok_or("--peers needs --peer-listen HOST:PORT")?;
    let listen = socket_address("--peer-listen", listen)?;
    let mut peers = peers(list)?;
    let all_here = peers.iter().all(|(_, address)| address.ip().is_loopback());
    if !(flags.peer_plain || all_here && listen.ip().is_loopback()) {
        return Err(
            "peer links are not encrypted: keep --peers and --peer-listen on 127.0.0.0/8, or accept it with --peer-plain"
                .into(),
        );
    }
    peers.retain(|(name, _)| **name != *me);
    if peers.len() >= NODES_MAX {
        return Err(format!("--peers: a group has at most {NODES_MAX} nodes"));
    }
    peers.sort();
    let (names, addresses) = peers.into_iter().unzip();
    let options =
        PeerOptions { cluster: cluster.into(), listen, addresses, suspect_ms: SUSPECT_MS };
    Ok(Some(Group { names, options }))
}

fn peers(list: &str) -> Result<Vec<(Box<str>, SocketAddr)>, String> {
    let mut peers: Vec<(Box<str>, SocketAddr)> = Vec::new();
    for entry in list.split(',').filter(|entry| !entry.is_empty()) {
        let (name, address) = entry.split_once('=').ok_or_else(|| {
            format!("--peers {entry:?}: expected NAME=HOST:PORT, e.g. web1=10.0.0.7:11212")
        })?;
        if peers.iter().any(|(other, _)| **other == *name) {
            return Err(format!("--peers names {name:?} twice"));
        }
        if !(1..=NAME_MAX).contains(&name.len()) {
            return Err(format!("--peers {name:?}: a name has 1 to {NAME_MAX} bytes"));
        }
        peers.push((name.into(), socket_address("--peers", address)?));
    }
    Ok(peers)
}

fn socket_address(flag: &str, text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("{flag} {text:?}: expected HOST:PORT, e.g. 10.0.0.7:11212");
    let mut resolved = text.to_socket_addrs().map_err(|_| wrong())?;
    resolved.next().ok_or_else(wrong)
}
