//! The flags of a group: who the other nodes are.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};

use sessiond::replication::{NAME_MAX, NODES_MAX, Nodes, Place, Timing};
use sessiond::server::PeerOptions;

use super::flags::Flags;

/// The other nodes; by default there are none.
#[derive(Default)]
pub(super) struct Group {
    /// All of them, this one included.
    pub(super) nodes: Nodes,
    /// How they meet.
    pub(super) options: Option<PeerOptions>,
    /// How soon the silent are suspected, and what follows from that.
    pub(super) timing: Timing,
    /// Whether the last that is left may go on.
    pub(super) last_man_standing: bool,
    /// Whether a node that reaches no other answers reads.
    pub(super) isolated_reads: bool,
}

/// Below, a busy machine looks dead; above, a dead one looks busy for too long.
const SUSPECT_MS: std::ops::RangeInclusive<u64> = 50..=10_000;
/// Of a silence that is suspicious, some beats must have room in it.
const BEATS_IN_SILENCE: u64 = 8;
const BEAT_MAX_MS: u64 = 50;

/// `None`: a node of its own.
pub(super) fn group(flags: &Flags) -> Result<Option<Group>, String> {
    let Some(list) = &flags.peers else {
        let needs_peers = [
            ("--cluster", flags.cluster.is_some()),
            ("--peer-listen", flags.peer_listen.is_some()),
            ("--state-dir", flags.state_dir.is_some()),
            ("--tie-breaker", flags.tie_breaker.is_some()),
            ("--witness", flags.witness),
        ];
        return match needs_peers.into_iter().find(|(_, is_given)| *is_given) {
            None => Ok(None),
            Some((flag, _)) => Err(format!("{flag} needs --peers NAME=HOST:PORT,...")),
        };
    };
    let cluster = flags.cluster.as_deref().ok_or("--peers needs --cluster NAME")?;
    let me = flags.node_name.as_deref().ok_or("--peers needs --node-name NAME")?;
    let listen = flags.peer_listen.as_deref().ok_or("--peers needs --peer-listen HOST:PORT")?;
    let listen = socket_address("--peer-listen", listen)?;
    let mut peers = peers(list)?;
    let all_here = peers.values().all(|address| address.ip().is_loopback());
    if !(flags.peer_plain || all_here && listen.ip().is_loopback()) {
        return Err(
            "peer links are not encrypted: keep --peers and --peer-listen on 127.0.0.0/8, or accept it with --peer-plain"
                .into(),
        );
    }
    peers.entry(me.into()).or_insert(listen);
    if peers.len() > NODES_MAX {
        return Err(format!("--peers: a group has at most {NODES_MAX} nodes"));
    }
    let options = PeerOptions {
        cluster: cluster.into(),
        listen,
        keeps_to_loopback: !flags.peer_plain,
        state_dir: flags.state_dir.as_deref().map(super::absolute),
        is_witness: flags.witness,
    };
    Ok(Some(Group {
        nodes: nodes(flags, peers)?,
        options: Some(options),
        timing: timing(flags)?,
        last_man_standing: last_man_standing(flags)?,
        isolated_reads: isolated_reads(flags)?,
    }))
}

/// All vote, or the one that breaks ties.
fn nodes(flags: &Flags, peers: Peers) -> Result<Nodes, String> {
    let tie_breaker = flags.tie_breaker.as_deref();
    match tie_breaker {
        Some(_) if flags.witness => {
            return Err(
                "--witness: with --tie-breaker only that node votes; leave one of them out".into(),
            );
        }
        Some(name) if !peers.contains_key(name) => {
            return Err(format!("--tie-breaker {name}: no node of --peers has that name"));
        }
        _ => {}
    }
    let place = |(name, address): (Box<str>, SocketAddr)| {
        let votes = tie_breaker.is_none_or(|breaker| *breaker == *name);
        (name, Place { address, votes, is_given: false })
    };
    Ok(peers.into_iter().map(place).collect())
}

fn timing(flags: &Flags) -> Result<Timing, String> {
    let suspect_ms = flags.suspect;
    if !SUSPECT_MS.contains(&suspect_ms) {
        let (least, most) = (SUSPECT_MS.start(), SUSPECT_MS.end());
        return Err(format!("--suspect {suspect_ms}: expected {least} to {most} milliseconds"));
    }
    Ok(Timing {
        beat_ms: BEAT_MAX_MS.min(suspect_ms / BEATS_IN_SILENCE),
        suspect_ms,
        grant_ms: 2 * suspect_ms,
        ..Timing::default()
    })
}

fn last_man_standing(flags: &Flags) -> Result<bool, String> {
    match flags.last_man_standing.as_str() {
        "refused" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("--last-man-standing {other}: expected refused or off")),
    }
}

fn isolated_reads(flags: &Flags) -> Result<bool, String> {
    match flags.isolated_reads.as_str() {
        "deny" => Ok(false),
        "stale" => Ok(true),
        other => Err(format!("--isolated-reads {other}: expected deny or stale")),
    }
}

fn peers(list: &str) -> Result<Peers, String> {
    let mut peers = Peers::new();
    for entry in list.split(',').filter(|entry| !entry.is_empty()) {
        let (name, address) = peer("--peers", entry)?;
        if peers.insert(name.clone(), address).is_some() {
            return Err(format!("--peers names {name:?} twice"));
        }
    }
    Ok(peers)
}

/// Where nodes are, by name.
type Peers = BTreeMap<Box<str>, SocketAddr>;

/// One `NAME=HOST:PORT`.
pub(super) fn peer(flag: &str, entry: &str) -> Result<(Box<str>, SocketAddr), String> {
    let (name, address) = entry.split_once('=').ok_or_else(|| {
        format!("{flag} {entry:?}: expected NAME=HOST:PORT, e.g. web1=10.0.0.7:11212")
    })?;
    if !(1..=NAME_MAX).contains(&name.len()) {
        return Err(format!("{flag} {name:?}: a name has 1 to {NAME_MAX} bytes"));
    }
    Ok((name.into(), socket_address(flag, address)?))
}

fn socket_address(flag: &str, text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("{flag} {text:?}: expected HOST:PORT, e.g. 10.0.0.7:11212");
    let mut resolved = text.to_socket_addrs().map_err(|_| wrong())?;
    resolved.next().ok_or_else(wrong)
}
