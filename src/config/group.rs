//! The flags of a group: who the other nodes are.

use std::net::{SocketAddr, ToSocketAddrs};

use sessiond::replication::Timing;
use sessiond::server::{CertificateFiles, PeerOptions, PeerSecurity, can_be_certified};

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
    let all_here = peers.iter().all(|(_, address)| address.ip().is_loopback());
    allow(&security, flags, all_here && listen.ip().is_loopback())?;
    if matches!(security, PeerSecurity::Certificates(_)) {
        check_names(peers.iter().map(|(name, _)| &**name).chain([me]))?;
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
        security,
    };
    Ok(Some(Group {
        names,
        options: Some(options),
        timing: timing(flags)?,
        last_man_standing: last_man_standing(flags)?,
        isolated_reads: isolated_reads(flags)?,
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

/// Certificates are for DNS names.
fn check_names<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    match names.find(|name| !can_be_certified(name)) {
        None => Ok(()),
        Some(name) => Err(format!(
            "--peer-cert: a certificate can't be for a node named {name:?}; use letters, digits, dots and hyphens"
        )),
    }
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
