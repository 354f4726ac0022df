//! The command line as it is typed, and what comes of it.

use std::net::SocketAddr;

use sessiond::replication::{Features, Timing};
use sessiond::server::PeerSecurity;

use super::*;

fn launch(line: &str) -> Result<Launch, String> {
    match parse(line.split_whitespace().map(OsString::from), [1, 2])? {
        Command::Run(launch) => Ok(*launch),
        Command::Print(text) => Err(text),
        Command::Tell { line, .. } => Err(line),
    }
}

fn settings(flags: &str) -> Settings {
    launch(&format!("sessiond {flags}")).unwrap().server.node.settings
}

fn addresses(line: &str) -> Vec<SocketAddr> {
    let tcp = |listen| match listen {
        Listen::Tcp { addresses } => addresses,
        Listen::Unix { .. } => panic!("{line} makes a socket in a file"),
    };
    launch(line).unwrap().server.listen.into_iter().flat_map(tcp).collect()
}

const PEERS: &str = "--peers b=127.0.0.1:2,a=127.0.0.1:1,c=127.0.0.1:3";
const CERTIFICATES: &str = "--peer-cert f --peer-key f --peer-ca f";
const GROUP: &str = "--cluster c --node-name a --peer-listen 127.0.0.1:7001";

#[test]
fn the_name_it_is_called_by_decides_where_it_listens() {
    let own = addresses("/usr/bin/sessiond");
    assert!(own.iter().all(|address| address.ip().is_loopback()));
    let drop_in = addresses("/usr/bin/memcached -p 1234");
    assert!(drop_in.iter().all(|address| address.ip().is_unspecified()));
    assert_eq!(drop_in[0].port(), 1234);
    assert_eq!(launch("/usr/bin/memcached").unwrap().warnings.len(), 1);
}

#[test]
fn memcacheds_flags_keep_their_meaning() {
    assert_eq!(addresses("sessiond -l 127.0.0.2 -p 1"), ["127.0.0.2:1".parse().unwrap()]);
    let settings = settings("-m 256 -c 9 -t 2 -M -vv -A -F -X -W -b 7 -I 2m -D / -a 0770");
    assert_eq!((settings.memory, settings.item_max), (256 << 20, 2 << 20));
    assert_eq!((settings.connections_max, settings.workers, settings.backlog), (9, 2, 7));
    assert_eq!((settings.prefix_delimiter, settings.detail_enabled), ('/', true));
    assert_eq!((settings.socket_mode, settings.verbosity), (0o770, 2));
    assert!(settings.shutdown_enabled);
    let left = [settings.evict, settings.flush_enabled, settings.dump_enabled];
    assert!(!left.contains(&true) && !settings.watch_enabled);
}

#[test]
fn without_flags_everything_is_as_memcached_has_it() {
    let (ours, theirs) = (settings(""), Settings::default());
    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
}

#[test]
fn the_lines_of_packages_and_installers_are_taken() {
    for line in [
        "-v -l 127.0.0.1 -p 11211 -c 5000 -U 0 -m 256",
        "-v -p 11211 -U 0 -c 8192 -m 1024",
        "-d -v -U 0 -m 512 -p 11211 -u memcache -l 127.0.0.1 -c 4096 -t 4 -P /run/m.pid",
        "-m 64 -p 11211 -u memcache -l 127.0.0.1 -l ::1 -P /run/m.pid",
        "-f 1.2 -n 72 -R 50 -L -C -k -r -B ascii -B auto",
        "--memory-limit=64 --conn-limit 10 --threads=2 --listen=127.0.0.1 --enable-shutdown",
        "-o modern -o no_modern,slab_automove=1,hash_algorithm=xxh3,idle_timeout=5",
        "-o relaxed_privileges,slab_chunk_max=1024,lru_crawler,temporary_ttl=10,hot_lru_pct=30",
        "-p0 -vvv -m64",
    ] {
        assert!(launch(&format!("memcached {line}")).is_ok(), "{line}");
    }
}

#[test]
fn several_addresses_add_up_where_other_flags_take_the_last() {
    let all = addresses("memcached -p 1 -p 2 -l 127.0.0.1 -l ::1");
    assert_eq!(all, ["127.0.0.1:2".parse().unwrap(), "[::1]:2".parse().unwrap()]);
    assert_eq!(settings("-l 127.0.0.1 -l ::1").listen.as_deref(), Some("127.0.0.1,::1"));
}

#[test]
fn a_socket_in_a_file_takes_the_place_of_all_ports() {
    let listen = launch("sessiond -s /tmp/s -a 777 -l 127.0.0.1").unwrap().server.listen;
    assert_eq!(listen, [Listen::Unix { path: "/tmp/s".into(), mode: 0o777 }]);
    assert!(launch("sessiond -p 0").unwrap().server.listen.is_empty());
    assert_eq!(addresses("sessiond -p -1")[0].port(), 0);
}

#[test]
fn sub_options_come_in_lists_and_are_kept() {
    let settings = settings("-o no_maxconns_fast,idle_timeout=9 -o hashpower=16,no_lru_crawler");
    assert_eq!((settings.maxconns_fast, settings.idle_timeout_s), (false, 9));
    assert_eq!((settings.tuning.hashpower, settings.tuning.lru_crawler), (16, false));
}

#[test]
fn what_is_taken_but_not_done_is_a_warning() {
    let warnings = |flags: &str| launch(&format!("sessiond {flags}")).unwrap().warnings;
    assert!(warnings("-B binary")[0].contains("text protocol"));
    assert!(warnings("-o drop_privileges")[0].contains("not restricted"));
    assert!(warnings("-v").is_empty());
}

#[test]
fn a_group_consists_of_its_peers_and_the_node_itself() {
    let options = launch(&format!("sessiond {GROUP} {PEERS}")).unwrap().server;
    let nodes = options.node.nodes;
    assert_eq!(nodes.keys().map(|name| &**name).collect::<String>(), "abc");
    assert_eq!(nodes["a"].address.port(), 1, "its own entry");
    let two = launch(&format!("sessiond {GROUP} --peers b=127.0.0.1:2")).unwrap().server;
    assert_eq!(two.node.nodes["a"].address, two.peers.unwrap().listen, "it has none");
    let alone = launch(&format!("sessiond {GROUP} --peers a=127.0.0.1:7")).unwrap().server;
    assert_eq!(alone.node.nodes.len(), 1, "a group may begin with one");
}

#[test]
fn all_nodes_vote_or_the_one_that_breaks_ties() {
    let options =
        |flags: &str| launch(&format!("sessiond {GROUP} {PEERS} {flags}")).unwrap().server;
    let voters = |flags: &str| {
        let nodes = options(flags).node.nodes;
        let voters = nodes.iter().filter(|(_, place)| place.votes);
        voters.map(|(name, _)| &**name).collect::<String>()
    };
    assert_eq!(voters(""), "abc");
    assert_eq!(voters("--tie-breaker b"), "b");
    assert!(options("").node.last_man_standing);
    assert!(!options("--last-man-standing off").node.last_man_standing);
    assert!(!options("").node.isolated_reads);
    assert!(options("--isolated-reads stale").node.isolated_reads);
}

#[test]
fn a_witness_votes_and_has_no_clients() {
    let options = |flags: &str| launch(&format!("sessiond {GROUP} {PEERS} --witness {flags}"));
    let server = options("-l 127.0.0.1 -p 7000").unwrap().server;
    assert!(server.listen.is_empty());
    assert!(server.peers.unwrap().is_witness);
    assert!(server.node.nodes.values().all(|place| place.votes));
    assert!(options("--tie-breaker b").unwrap_err().contains("--tie-breaker"));
    assert!(launch("sessiond --witness").unwrap_err().contains("--peers"));
}

#[test]
fn how_operators_change_the_nodes() {
    let said = |order: &str| launch(&format!("sessiond ctl --state-dir /d {order}")).unwrap_err();
    assert_eq!(said("add-node d=127.0.0.1:7"), "add-node\td\t127.0.0.1:7");
    assert_eq!(said("remove-node d"), "remove-node\td");
    assert_eq!(said("replace-node c d=[::1]:7"), "replace-node\tc\td\t[::1]:7");
    assert_eq!(said("replace-node c=127.0.0.1:7"), "replace-node\tc\tc\t127.0.0.1:7");
    assert!(said("add-node d").contains("expected NAME=HOST:PORT"));
    assert!(said("add-node d=nowhere").contains("expected HOST:PORT"));
    assert!(said("replace-node c d").contains("expected NAME=HOST:PORT"));
}

#[test]
fn what_operators_say_to_a_running_node() {
    for order in ["force-solo", "restart", "upgrade"] {
        assert_eq!(launch(&format!("sessiond ctl --state-dir /d {order}")).unwrap_err(), order);
    }
    let patience = |order: &str| {
        let line = format!("sessiond ctl --state-dir /d {order}");
        match parse(line.split_whitespace().map(OsString::from), [1, 2]).unwrap() {
            Command::Tell { patience, .. } => patience,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(patience("status"), None);
    assert_eq!(patience("restart"), Some(Duration::from_secs(180)));
    assert_eq!(patience("upgrade --timeout 1500"), Some(Duration::from_millis(1500)));
    assert_eq!(patience("restart --no-wait"), None);
    assert!(launch("sessiond ctl --state-dir /d restart --no-wait --timeout 1").is_err());
    assert!(launch("sessiond ctl status").unwrap_err().contains("required arguments"));
    assert!(launch("sessiond ctl --state-dir /d dance").unwrap_err().contains("dance"));
}

#[test]
fn what_is_suspicious_decides_how_often_nodes_beat() {
    let timing = |flags: &str| {
        let options = launch(&format!("sessiond {GROUP} {PEERS} {flags}")).unwrap().server;
        let Timing { beat_ms, suspect_ms, grant_ms, .. } = options.node.timing;
        (beat_ms, suspect_ms, grant_ms)
    };
    assert_eq!(timing(""), (50, 400, 800));
    assert_eq!(timing("--suspect 80"), (10, 80, 160));
    assert_eq!(timing("--suspect 5000"), (50, 5000, 10_000));
}

#[test]
fn parts_of_the_peer_protocol_can_be_left_out() {
    let features = |flags: &str| {
        let options = launch(&format!("sessiond {GROUP} {PEERS} {flags}")).unwrap().server;
        options.node.speaks.features
    };
    assert_eq!(features(""), Features::ALL);
    assert_eq!(features("--peer-features none"), Features::NONE);
    assert_eq!(features("--peer-features lifetimes,lifetimes"), Features::LIFETIMES);
}

#[test]
fn a_rate_has_units_or_none_at_all() {
    let rate = |flags: &str| {
        launch(&format!("sessiond {GROUP} {PEERS} {flags}")).unwrap().server.node.sync_rate
    };
    assert_eq!(rate(""), Some(64 << 20));
    assert_eq!(rate("--sync-rate 100k"), Some(100 << 10));
    assert_eq!(rate("--sync-rate 1000000"), Some(1_000_000));
    assert_eq!(rate("--sync-rate 2G"), Some(2 << 30));
    assert_eq!((rate("--sync-rate 0"), rate("--sync-rate unlimited")), (None, None));
}

#[test]
fn each_mistake_is_one_line_that_says_how_to_mend_it() {
    for (flags, says) in [
        ("-p x", "invalid value 'x'"),
        ("-p 65536", "65536"),
        ("--what", "unexpected argument '--what'"),
        ("-t 0", "1 to 128"),
        ("-c 0", "at least 1"),
        ("-c -1", "-1"),
        ("-m 1", "at least 2"),
        ("-m 200000", "at most 131071"),
        ("-o slab_chunk_max=0", "128 to 524288"),
        ("-m 8 -I 5m", "at least 10"),
        ("-I 1000", "1k to 1024m"),
        ("-I 1025m", "1k to 1024m"),
        ("-I x", "1k to 1024m"),
        ("-a 9", "octal"),
        ("-f 1", "more than 1"),
        ("-n 0", "at least 1"),
        ("-R 0", "at least 1"),
        ("-B http", "ascii, auto or binary"),
        ("-B binary -Y f", "-B ascii"),
        ("-l nowhere.invalid", "expected an address"),
        ("-o idle_timeout", "idle_timeout=10"),
        ("-o hashpower=99", "12 to 32"),
        ("-o hash_algorithm=md5", "murmur3"),
        ("-o nonsense", "no such option"),
        ("--peers a=127.0.0.1:1", "--cluster"),
        (&format!("{GROUP} --peers 10.0.0.7"), "NAME=HOST:PORT"),
        (&format!("{GROUP} --peers a=127.0.0.1:1,a=127.0.0.1:2"), "twice"),
        (&format!("{GROUP} --peers b=10.9.9.9:1"), "--peer-plain and --peer-secret-file"),
        (&format!("{GROUP} --peers b=10.9.9.9:1 --peer-plain"), "give --peer-secret-file"),
        (&format!("{GROUP} --peers b=10.9.9.9:1 --peer-secret-file f"), "with --peer-plain"),
        (&format!("{GROUP} {PEERS} --peer-cert f --peer-key f"), "all three"),
        (&format!("{GROUP} {PEERS} {CERTIFICATES} --peer-plain"), "leave one of them out"),
        (&format!("{GROUP} {PEERS} {CERTIFICATES} --peer-secret-file f"), "leave it out"),
        (&format!("{GROUP} {CERTIFICATES} --peers a=127.0.0.1:1,b!=127.0.0.1:2"), "\"b!\""),
        ("--peer-cert f", "--peer-cert needs --peers"),
        (&format!("{GROUP} {PEERS} --tie-breaker d"), "--tie-breaker d: no node"),
        (&format!("{GROUP} {PEERS} --last-man-standing on"), "refused or off"),
        (&format!("{GROUP} {PEERS} --suspect 10"), "50 to 10000"),
        (&format!("{GROUP} {PEERS} --peer-features x"), "\"x\": expected all, none, or names"),
        (&format!("{GROUP} {PEERS} --peer-features lifetimes,"), "\"\": expected all, none"),
        (&format!("{GROUP} {PEERS} --sync-rate 1k"), "--sync-rate 1k: expected"),
        (&format!("{GROUP} {PEERS} --sync-rate 65g"), "from 64k to 64g"),
        (&format!("{GROUP} {PEERS} --sync-rate fast"), "or unlimited"),
        (&format!("{GROUP} {PEERS} --sync-rate m"), "--sync-rate m: expected"),
        ("--state-dir /tmp", "--state-dir needs --peers"),
        ("--tie-breaker a", "--tie-breaker needs --peers"),
    ] {
        let error = launch(&format!("sessiond {flags}")).unwrap_err();
        assert!(error.contains(says), "{flags}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn off_this_machine_peers_prove_who_they_are() {
    for flags in [CERTIFICATES, "--peer-plain --peer-secret-file f"] {
        let launch = launch(&format!("sessiond {GROUP} --peers b=10.9.9.9:1 {flags}"));
        let peers = launch.unwrap().server.peers.unwrap();
        assert!(!matches!(peers.security, PeerSecurity::Open), "{flags}");
    }
    for flags in ["", "--peer-plain", "--peer-secret-file f", CERTIFICATES] {
        launch(&format!("sessiond {GROUP} {PEERS} {flags}")).unwrap();
    }
}

#[test]
fn what_would_be_a_lie_is_refused_by_name() {
    for flags in [
        "-U 11211",
        "-S",
        "-Z",
        "-e /dev/shm/m",
        "-N 2",
        "-o ext_path=/tmp/e:1G",
        "-o modern,ext_threads=2",
        "-o proxy_config=p.lua",
        "-o ssl_key=k",
        "-o sock_cookie_id=1",
    ] {
        let error = launch(&format!("memcached {flags}")).unwrap_err();
        let named = flags.split(['=', ',', ' ']).any(|word| word.len() > 1 && error.contains(word));
        assert!(named && error.lines().count() == 1, "{flags}: {error}");
    }
}

#[test]
fn the_version_starts_with_memcacheds() {
    let text = launch("sessiond -V").unwrap_err();
    assert!(text.starts_with("memcached 1.6.45\nsessiond "));
    assert!(launch("sessiond -h").unwrap_err().starts_with("memcached 1.6.45"));
    assert!(launch("sessiond -i").unwrap_err().contains("Apache"));
}

#[test]
fn the_help_mentions_nothing_that_is_refused() {
    // memcached's test suite, for one, takes what stands there for something to be tested.
    let help = launch("sessiond -h").unwrap_err().to_lowercase();
    for word in ["sasl", "ext_path", "proxy_config", "enable-ssl", "drop_privileges"] {
        assert!(!help.contains(word), "{word}");
    }
}

#[test]
fn a_server_is_supervised_where_that_is_asked_for() {
    let usual = launch("sessiond").unwrap();
    assert!(!usual.supervise);
    assert_eq!(usual.server.drain_timeout_ms, 30_000);
    assert_eq!(usual.upgrade_timeout, Duration::from_secs(60));
    let refused =
        |more: &str| launch(&format!("sessiond {GROUP} {PEERS} --take-over {more}")).unwrap_err();
    assert!(refused("").contains("needs --state-dir"));
    assert!(refused("--state-dir /d --supervise").contains("ctl upgrade"));
    assert!(refused("--state-dir /d --witness").contains("no clients"));
    let after = launch(&format!("sessiond {GROUP} {PEERS} --take-over --state-dir /d")).unwrap();
    assert!(after.server.takes_over && !usual.server.takes_over);
    let other = launch("sessiond --supervise --drain-timeout 1500 --upgrade-timeout 10").unwrap();
    assert!(other.supervise);
    assert_eq!(other.server.drain_timeout_ms, 1500);
    assert_eq!(other.upgrade_timeout, Duration::from_millis(10));
}

#[test]
fn a_new_program_begins_beside_the_present_one_where_it_can_be_filled() {
    let beside =
        |more: &str| launch(&format!("sessiond --supervise {more}")).map(|it| it.upgrades_beside);
    let group =
        "--cluster c --node-name a --peer-listen 127.0.0.1:1 --peers a=127.0.0.1:1,b=127.0.0.1:2";
    assert_eq!(beside(""), Ok(false), "nobody could fill it");
    assert_eq!(beside(group), Ok(false), "it could not know that the present one is over");
    assert_eq!(beside(&format!("{group} --state-dir /tmp/x")), Ok(true));
    assert_eq!(beside(&format!("{group} --state-dir /tmp/x --upgrade restart")), Ok(false));
    let wrong = beside("--upgrade twice").unwrap_err();
    assert!(wrong.contains("--upgrade twice: expected beside or restart"), "{wrong}");
}

#[test]
fn a_command_line_that_is_only_looked_at_starts_nothing() {
    assert_eq!(launch("sessiond --check -m 64").unwrap_err(), "");
    assert!(launch("sessiond --check -t 0").unwrap_err().contains("-t 0"));
}

#[test]
fn figures_are_for_this_machine_unless_said_otherwise() {
    let admin = |flags: &str| {
        let launch = launch(&format!("sessiond {flags}"))?;
        Ok::<_, String>((launch.server.admin, launch.warnings.len()))
    };
    assert_eq!(admin(""), Ok((None, 0)));
    let at = |text: &str| Some(text.parse().unwrap());
    assert_eq!(admin("--admin-listen 9150"), Ok((at("127.0.0.1:9150"), 0)));
    assert_eq!(admin("--admin-listen [::1]:1"), Ok((at("[::1]:1"), 0)));
    assert_eq!(admin("--admin-listen 0.0.0.0:9150"), Ok((at("0.0.0.0:9150"), 1)));
    for wrong in ["127.0.0.1", "65536", "-1", "a:b"] {
        let line = admin(&format!("--admin-listen={wrong}")).unwrap_err();
        assert!(line.starts_with("--admin-listen") && line.contains("HOST:PORT"), "{line}");
    }
}
