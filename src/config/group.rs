//! The flags of a group: who the other nodes are.

use std::net::{SocketAddr, ToSocketAddrs};

use sessiond::replication::Timing;
use sessiond::server::PeerOptions;

use super::flags::Flags;

/// The other nodes; by default there are none.
#[derive(Default)]
pub(super) struct Group {
    /// Their names, in order.
    pub(super) names: Vec<Box<str>>,
    /// How they meet.
    pub(super) options: Option<PeerOptions>,
    /// How soon the silent are suspected, and what follows from that.
    pub(super) timing: Timing,
    /// Whether the last that is left may go on.
    pub(super) last_man_standing: bool,
    /// Whether a node that reaches no other answers reads.
    pub(super) isolated_reads: bool,
    /// Bytes a second for those that join.
    pub(super) sync_rate: Option<u64>,
}

/// At most this many nodes hold full copies of each other.
const NODES_MAX: usize = 7;
/// Names go into the first message between nodes, which is short.
const NAME_MAX: usize = 64;
/// Below, a busy machine looks dead; above, a dead one looks busy for too long.
const SUSPECT_MS: std::ops::RangeInclusive<u64> = 50..=10_000;
/// Of a silence that is suspicious, some beats must have room in it.
const BEATS_IN_SILENCE: u64 = 8;
const BEAT_MAX_MS: u64 = 50;

/// Below, a chunk takes longer than anybody waits for; above, nothing is left to limit.
const SYNC_RATE: std::ops::RangeInclusive<u64> = 64 << 10..=64 << 30;

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
    let (names, addresses): (Vec<Box<str>>, Vec<_>) = peers.into_iter().unzip();
    let options = PeerOptions {
        cluster: cluster.into(),
        listen,
        addresses,
        voters: voters(flags, me, &names)?,
        state_dir: flags.state_dir.as_deref().map(super::absolute),
        is_witness: flags.witness,
    };
    Ok(Some(Group {
        names,
        options: Some(options),
        timing: timing(flags)?,
        last_man_standing: last_man_standing(flags)?,
        isolated_reads: isolated_reads(flags)?,
        sync_rate: sync_rate(&flags.sync_rate)?,
    }))
}

/// All, or the one that breaks ties.
fn voters(flags: &Flags, me: &str, others: &[Box<str>]) -> Result<Vec<Box<str>>, String> {
    let mut all = others.to_vec();
    all.push(me.into());
    all.sort();
    match &flags.tie_breaker {
        Some(_) if flags.witness => {
            Err("--witness: with --tie-breaker only that node votes; leave one of them out".into())
        }
        None => Ok(all),
        Some(name) if all.iter().any(|other| **other == **name) => Ok(vec![name.as_str().into()]),
        Some(name) => Err(format!("--tie-breaker {name}: no node of --peers has that name")),
    }
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

/// `None`: as fast as it goes.
fn sync_rate(text: &str) -> Result<Option<u64>, String> {
    if text == "unlimited" || text == "0" {
        return Ok(None);
    }
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let rate = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    match rate.filter(|rate| SYNC_RATE.contains(rate)) {
        Some(rate) => Ok(Some(rate)),
        None => Err(format!(
            "--sync-rate {text}: expected bytes per second from 64k to 64g, or unlimited"
        )),
    }
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
