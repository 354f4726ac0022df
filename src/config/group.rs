//! The flags of a group: who the other nodes are.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};

use sessiond::replication::{Dialect, Features, NAME_MAX, NODES_MAX, Nodes, Place, Timing};
use sessiond::server::{CertificateFiles, PeerOptions, PeerSecurity, can_be_certified};

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
    /// What of the peer protocol is spoken.
    pub(super) speaks: Dialect,
    /// Bytes a second for those that join.
    pub(super) sync_rate: Option<u64>,
}

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
            ("--peer-cert", flags.peer_cert.is_some()),
            ("--peer-key", flags.peer_key.is_some()),
            ("--peer-ca", flags.peer_ca.is_some()),
            ("--peer-secret-file", flags.peer_secret_file.is_some()),
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
    let security = security(flags)?;
    let all_here = peers.values().all(|address| address.ip().is_loopback());
    allow(&security, flags, all_here && listen.ip().is_loopback())?;
    if matches!(security, PeerSecurity::Certificates(_)) {
        check_names(peers.keys().map(|name| &**name).chain([me]))?;
    }
    peers.entry(me.into()).or_insert(listen);
    if peers.len() > NODES_MAX {
        return Err(format!("--peers: a group has at most {NODES_MAX} nodes"));
    }
    let options = PeerOptions {
        cluster: cluster.into(),
        listen,
        keeps_to_loopback: keeps_to_loopback(&security, flags),
        state_dir: flags.state_dir.as_deref().map(super::absolute),
        is_witness: flags.witness,
        security,
    };
    Ok(Some(Group {
        nodes: nodes(flags, peers)?,
        options: Some(options),
        timing: timing(flags)?,
        last_man_standing: last_man_standing(flags)?,
        isolated_reads: isolated_reads(flags)?,
        speaks: Dialect { features: features(&flags.peer_features)?, ..Dialect::default() },
        sync_rate: sync_rate(&flags.sync_rate)?,
    }))
}

/// How peers prove who they are.
fn security(flags: &Flags) -> Result<PeerSecurity, String> {
    let path = |path: &String| super::absolute(path);
    match (&flags.peer_cert, &flags.peer_key, &flags.peer_ca, &flags.peer_secret_file) {
        (None, None, None, None) => Ok(PeerSecurity::Open),
        (None, None, None, Some(secret)) => Ok(PeerSecurity::Secret(path(secret))),
        (Some(cert), Some(key), Some(ca), None) => {
            let files = CertificateFiles { cert: path(cert), key: path(key), ca: path(ca) };
            Ok(PeerSecurity::Certificates(files))
        }
        (Some(_), Some(_), Some(_), Some(_)) => {
            Err("--peer-secret-file: certificates say who is who already; leave it out".into())
        }
        _ => Err("--peer-cert, --peer-key and --peer-ca: give all three of them".into()),
    }
}

/// Off this machine, somebody else could say to be a peer.
fn allow(security: &PeerSecurity, flags: &Flags, is_all_here: bool) -> Result<(), String> {
    let why = match security {
        PeerSecurity::Certificates(_) if flags.peer_plain => {
            "--peer-plain: with --peer-cert links are encrypted; leave one of them out"
        }
        PeerSecurity::Secret(_) if !is_all_here && !flags.peer_plain => {
            "--peer-secret-file: links are not encrypted with it; accept that with --peer-plain, or give --peer-cert, --peer-key and --peer-ca instead"
        }
        PeerSecurity::Open if !is_all_here && flags.peer_plain => {
            "--peer-plain: off 127.0.0.0/8 peers need a secret too; give --peer-secret-file"
        }
        PeerSecurity::Open if !is_all_here => {
            "peers off 127.0.0.0/8 must prove who they are: give --peer-cert, --peer-key and --peer-ca, or --peer-plain and --peer-secret-file"
        }
        _ => return Ok(()),
    };
    Err(why.into())
}

/// Whether a node that is added later has to be on this machine too.
fn keeps_to_loopback(security: &PeerSecurity, flags: &Flags) -> bool {
    match security {
        PeerSecurity::Certificates(_) => false,
        PeerSecurity::Secret(_) => !flags.peer_plain,
        PeerSecurity::Open => true,
    }
}

/// Certificates are for DNS names.
fn check_names<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    match names.find(|name| !can_be_certified(name)) {
        None => Ok(()),
        Some(name) => Err(format!(
            "--peer-cert: a certificate can't be for a node named {name:?}; use letters, digits, dots and hyphens"
        )),
    }
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
        // A node that is no member holds commands for others to answer, as long as it holds any.
        request_ms: flags.write_timeout.max(flags.hold_timeout),
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

/// A node of a group that changes over from one version to the next may have to go by less.
fn features(list: &str) -> Result<Features, String> {
    let one = |name| {
        let names: Vec<&str> = Features::NAMES.iter().map(|&(_, name)| name).collect();
        let known = names.join(", ");
        Features::named(name).ok_or_else(|| {
            format!("--peer-features {name:?}: expected all, none, or names of these: {known}")
        })
    };
    match list {
        "all" => Ok(Features::ALL),
        "none" => Ok(Features::NONE),
        list => list.split(',').try_fold(Features::NONE, |sum, name| Ok(sum.with(one(name)?))),
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

pub(super) fn socket_address(flag: &str, text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("{flag} {text:?}: expected HOST:PORT, e.g. 10.0.0.7:11212");
    let mut resolved = text.to_socket_addrs().map_err(|_| wrong())?;
    resolved.next().ok_or_else(wrong)
}
