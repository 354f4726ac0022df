//! What operators see, through sessions: bytes in, bytes out.

use crate::key::Key;
use crate::node::tests::{Alone, Single};
use crate::node::{Credentials, Ending, Endpoint, Session, Socket};
use crate::settings::{Settings, Tuning};

/// The lines of `STAT name value`, in their order.
fn stats(text: &str) -> Vec<(&str, &str)> {
    let lines = text.strip_suffix("END\r\n").expect("an end").lines();
    lines.map(|line| line.strip_prefix("STAT ").unwrap().split_once(' ').unwrap()).collect()
}

fn stat<'a>(text: &'a str, name: &str) -> &'a str {
    let found = stats(text).into_iter().find(|(other, _)| *other == name);
    found.unwrap_or_else(|| panic!("no {name} in {text}")).1
}

fn socket(descriptor: i32) -> Socket {
    Socket {
        descriptor,
        remote: Endpoint::Tcp("10.0.0.9:4000".parse().unwrap()),
        local: Endpoint::Tcp("10.0.0.1:11211".parse().unwrap()),
    }
}

fn tuned(tuning: Tuning) -> Settings {
    Settings { tuning, ..Settings::default() }
}

/// memcached 1.6.45's list, in its order; names in brackets go with a switch.
const GENERAL: &str = "pid uptime time version libevent pointer_size rusage_user rusage_system \
    max_connections curr_connections total_connections rejected_connections \
    connection_structures response_obj_oom response_obj_count response_obj_bytes read_buf_count \
    read_buf_bytes read_buf_bytes_free read_buf_oom reserved_fds cmd_get cmd_set cmd_flush \
    cmd_touch cmd_meta get_hits get_misses get_expired get_flushed delete_misses delete_hits \
    incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits \
    touch_misses store_too_large store_no_memory auth_cmds auth_errors bytes_read bytes_written \
    limit_maxbytes accepting_conns listen_disabled_num time_in_listen_disabled_us threads \
    conn_yields hash_power_level hash_bytes hash_is_expanding slab_reassign_rescues \
    slab_reassign_chunk_rescues slab_reassign_inline_reclaim slab_reassign_busy_items \
    slab_reassign_busy_deletes slab_reassign_busy_nomem slab_reassign_last_busy_status \
    slab_reassign_running slabs_moved [lru_crawler_running] [lru_crawler_starts] \
    [lru_maintainer_juggles] malloc_fails log_worker_dropped log_worker_written \
    log_watcher_skipped log_watcher_sent log_watchers unexpected_napi_ids round_robin_fallback \
    bytes curr_items total_items slab_global_page_pool expired_unfetched evicted_unfetched \
    [evicted_active] evictions reclaimed crawler_reclaimed crawler_items_checked \
    lrutail_reflocked [moves_to_cold] [moves_to_warm] [moves_within_lru] [direct_reclaims] \
    [lru_bumps_dropped]";

#[test]
fn the_general_list_has_memcacheds_names_in_memcacheds_order() {
    let text = Single::new(true).says("stats\r\n");
    let names: Vec<_> = stats(&text).into_iter().map(|(name, _)| name).collect();
    let all: Vec<_> =
        GENERAL.split_whitespace().map(|name| name.trim_matches(['[', ']'])).collect();
    assert_eq!(names, all);
    assert!(stats(&text).iter().all(|(_, value)| !value.contains(' ')), "clients split there");
}

#[test]
fn what_is_switched_off_leaves_the_general_list() {
    let switches = tuned(Tuning { lru_crawler: false, lru_maintainer: false, ..Tuning::default() });
    let text = Single::with(switches).says("stats\r\n");
    assert_eq!(stats(&text).len(), 84, "the count that memcached's own test expects");
    assert!(!text.contains("lru_"));
}

#[test]
fn reads_that_find_nothing_are_told_apart() {
    let mut single = Single::new(true);
    single.says("set short 0 1 1\r\na\r\nset flushed 0 0 1\r\na\r\n");
    single.local_ms += 1000;
    single.says("get short\r\nflush_all\r\nget flushed\r\nget none\r\n");
    let text = single.says("stats\r\n");
    for (name, value) in [("get_misses", "3"), ("get_expired", "1"), ("get_flushed", "1")] {
        assert_eq!(stat(&text, name), value, "{name}");
    }
}

#[test]
fn a_read_that_touches_is_counted_as_memcached_does() {
    let single = Single::new(true);
    single.says("set a 0 0 1\r\nx\r\ngat 0 a none\r\nmg a T0 v\r\nmg none T0\r\n");
    let text = single.says("stats\r\n");
    for (name, value) in [
        ("cmd_get", "1"),
        ("get_hits", "0"),
        ("get_misses", "1"),
        ("cmd_touch", "3"),
        ("touch_hits", "2"),
        ("touch_misses", "1"),
    ] {
        assert_eq!(stat(&text, name), value, "{name}");
    }
}

#[test]
fn a_flush_that_is_not_allowed_is_counted_all_the_same() {
    let single = Single::with(Settings { flush_enabled: false, ..Settings::default() });
    single.says("flush_all\r\n");
    assert_eq!(stat(&single.says("stats\r\n"), "cmd_flush"), "1");
}

#[test]
fn reset_clears_counts_and_keeps_what_is_there() {
    let single = Single::new(true);
    single.says("stats detail on\r\nset p:k 0 0 1\r\na\r\nget p:k\r\n");
    assert_eq!(single.says("stats reset\r\n"), "RESET\r\n");
    let text = single.says("stats\r\n");
    for (name, value) in [("cmd_set", "0"), ("total_items", "0"), ("curr_items", "1")] {
        assert_eq!(stat(&text, name), value, "{name}");
    }
    assert_ne!(stat(&text, "bytes"), "0");
    assert_eq!(single.says("stats detail dump\r\n"), "END\r\n");
}

#[test]
fn items_slabs_and_dumps_agree_on_the_one_class() {
    let mut single = Single::new(true);
    assert_eq!(single.says("stats items\r\n"), "END\r\n");
    assert!(single.says("stats slabs\r\n").starts_with("STAT active_slabs 0\r\n"));
    single.says("set a:b 5 100 3\r\nabc\r\nset never 0 0 1\r\nx\r\n");
    single.local_ms += 7000;
    let items = single.says("stats items\r\n");
    assert_eq!(stat(&items, "items:1:number"), "2");
    assert_eq!(stat(&items, "items:1:age"), "7");
    assert_eq!(stat(&items, "items:1:mem_requested"), stat(&single.says("stats\r\n"), "bytes"));
    let slabs = single.says("stats slabs\r\n");
    assert_eq!(stat(&slabs, "1:used_chunks"), "2");
    assert_eq!(stat(&slabs, "active_slabs"), "1");
    let end = single.now().wall_s + 93;
    let dump = single.says("stats cachedump 1 0\r\n");
    assert!(dump.contains(&format!("ITEM a:b [3 b; {end} s]\r\n")), "{dump}");
    assert!(dump.contains("ITEM never [1 b; 0 s]\r\n"), "{dump}");
    assert_eq!(single.says("stats cachedump 1 1\r\n").lines().count(), 2);
    assert_eq!(single.says("stats cachedump 2 0\r\n"), "END\r\n");
    let bad = single.says("stats cachedump 64 0\r\nstats cachedump x 1\r\nstats cachedump 1\r\n");
    assert_eq!(
        bad,
        "CLIENT_ERROR Illegal slab id\r\nCLIENT_ERROR bad command line format\r\nCLIENT_ERROR bad command line\r\n"
    );
}

#[test]
fn a_cachedump_is_bounded() {
    let single = Single::new(true);
    let name = "k".repeat(240);
    for n in 0..12_000 {
        single.says(&format!("set {name}{n} 0 0 1 noreply\r\nx\r\n"));
    }
    let dump = single.says("stats cachedump 6 0\r\n");
    assert!(dump.len() <= 2 << 20 && dump.len() > (2 << 20) - 300, "{}", dump.len());
    assert!(dump.ends_with(" s]\r\nEND\r\n"));
}

#[test]
fn detail_counts_by_prefix_while_it_is_on() {
    let single = Single::new(true);
    single.says("set foo:1 0 0 1\r\na\r\n");
    assert_eq!(single.says("stats detail on\r\n"), "OK\r\n");
    single.says("set foo:1 0 0 1\r\na\r\nget foo:1 foo:2\r\ndelete foo:3\r\ngat 0 foo:1\r\n");
    let shown = "PREFIX foo get 3 hit 2 set 1 del 1\r\nEND\r\n";
    assert_eq!(single.says("stats detail dump\r\n"), shown);
    single.says("stats detail off\r\nget foo:1\r\n");
    assert_eq!(single.says("stats detail dump\r\n"), shown);
}

#[test]
fn open_connections_show_themselves() {
    let mut single = Single::new(true);
    let address = Endpoint::Tcp("0.0.0.0:11211".parse().unwrap());
    single.node.listens(0, 3, address, single.now());
    let mut slow = single.node.open(0, socket(8), single.now());
    let mut asking = single.node.open(0, socket(7), single.now());
    single.says_in(&mut slow, "set k 0 0 10\r\nabc");
    single.local_ms += 2000;
    let text = single.says_in(&mut asking, "stats conns\r\n");
    assert_eq!(
        text,
        "STAT 3:addr tcp:0.0.0.0:11211\r\n\
         STAT 3:state conn_listening\r\n\
         STAT 3:secs_since_last_cmd 2\r\n\
         STAT 7:addr tcp:10.0.0.9:4000\r\n\
         STAT 7:listen_addr tcp:10.0.0.1:11211\r\n\
         STAT 7:state conn_parse_cmd\r\n\
         STAT 7:secs_since_last_cmd 0\r\n\
         STAT 8:addr tcp:10.0.0.9:4000\r\n\
         STAT 8:listen_addr tcp:10.0.0.1:11211\r\n\
         STAT 8:state conn_nread\r\n\
         STAT 8:secs_since_last_cmd 2\r\n\
         END\r\n"
    );
    single.node.close(&slow, Ending::Normal, single.now());
    assert!(!single.says_in(&mut asking, "stats conns\r\n").contains("STAT 8:"));
}

#[test]
fn a_metadump_shows_every_item_in_bounded_pieces() {
    let single = Single::new(true);
    for n in 0..20_000 {
        single.says(&format!("set key:{n} 7 0 1 noreply\r\nx\r\n"));
    }
    single.says("get key:0\r\n");
    let mut session = Session::new(0, 1 << 20);
    let (mut text, mut out, mut largest) = (Vec::new(), Vec::new(), 0);
    let mut input = &b"lru_crawler metadump all\r\nversion\r\n"[..];
    loop {
        let (now, mut host) = (single.now(), Alone::default());
        let (used, step) = session.advance(&single.node, input, now, &mut out, &mut host);
        input = &input[used..];
        largest = largest.max(out.len());
        text.append(&mut out);
        if matches!(step, crate::node::Step::Read(_)) {
            break;
        }
    }
    let text = String::from_utf8(text).unwrap();
    assert!(largest < 400 << 10, "a buffer of {largest} bytes");
    assert!(text.starts_with("OK\r\nkey="));
    assert!(text.ends_with("END\r\nVERSION 1.6.45\r\n"), "commands go on behind it");
    assert_eq!(text.matches("key=key%3A").count(), 20_000);
    let line = text.lines().find(|line| line.starts_with("key=key%3A0 ")).unwrap();
    let (start, end) = line.split_once(" cas=").unwrap();
    assert_eq!(start, format!("key=key%3A0 exp=-1 la={}", single.now().wall_s));
    let size = crate::protocol::item_size(Key::new(b"key:0").unwrap(), 1);
    assert!(end.ends_with(&format!(" fetch=yes cls=1 size={size} flags=7 ")), "{end}");
}

#[test]
fn deletions_say_which_command_and_how_much_it_was() {
    let single = Single::new(true);
    let mut watcher = single.node.open(0, socket(5), single.now());
    single.says_in(&mut watcher, "watch mutations deletions\r\n");
    single.says("ms a 2\r\nxy\r\nms b 3\r\nxyz\r\nmd none\r\nmd a I\r\nmd a\r\nmd b x\r\n");
    let too_large = "x".repeat(2 << 20);
    single.says(&format!("set b 0 0 {}\r\n{too_large}\r\n", too_large.len()));
    let seen = single.says_in(&mut watcher, "\r\n");
    let texts: Vec<&str> = seen.lines().map(|line| line.splitn(3, ' ').nth(2).unwrap()).collect();
    assert_eq!(
        texts[2..],
        [
            "type=deleted key=a cmd=md clsid=1 size=2",
            "type=deleted key=b cmd=md clsid=1 size=3",
            "type=item_store key=b status=too_large cmd=set ttl=0 clsid=0 cfd=-1 size=0",
        ]
    );
    assert_eq!(single.says("get b\r\n"), "END\r\n", "the old value does not stay");
}

#[test]
fn one_item_and_all_items_are_shown_with_the_same_size() {
    let single = Single::new(true);
    single.says("set k 0 0 3\r\nabc\r\n");
    let size = |text: &str| {
        let (_, size) = text.split_once(" size=").expect("a size");
        size.split_whitespace().next().unwrap().to_owned()
    };
    let dump = single.says("lru_crawler metadump all\r\n");
    assert_eq!(size(&single.says("me k\r\n")), size(&dump));
}

#[test]
fn dumps_have_memcacheds_conditions() {
    let single = Single::new(true);
    single.says("set k 0 0 1\r\na\r\n");
    for (input, says) in [
        ("lru_crawler mgdump all", "mg k\r\nEN\r\n"),
        ("lru_crawler mgdump hash", "mg k\r\nEN\r\n"),
        ("lru_crawler mgdump 2,3", "EN\r\n"),
        ("lru_crawler metadump 2", "OK\r\nEND\r\n"),
        ("lru_crawler metadump 99", "BADCLASS invalid class id\r\n"),
        ("lru_crawler enable", "ERROR failed to start lru crawler thread\r\n"),
        (
            "lru_crawler disable\r\nlru_crawler metadump all",
            "OK\r\nCLIENT_ERROR lru crawler disabled\r\n",
        ),
        ("lru_crawler crawl 1", "CLIENT_ERROR lru crawler disabled\r\n"),
        ("lru_crawler enable", "OK\r\n"),
        (
            "version\r\nlru_crawler metadump all",
            "VERSION 1.6.45\r\nERROR cannot pipeline other commands before metadump\r\n",
        ),
        (
            "version\r\nwatch",
            "VERSION 1.6.45\r\nERROR cannot pipeline other commands before watch\r\n",
        ),
        ("watch birds", "ERROR\r\n"),
    ] {
        assert_eq!(single.says(&format!("{input}\r\n")), says, "{input}");
    }
    let forbidden = Settings { dump_enabled: false, watch_enabled: false, ..Settings::default() };
    let single = Single::with(forbidden);
    assert_eq!(single.says("lru_crawler metadump 99\r\n"), "ERROR metadump not allowed\r\n");
    assert_eq!(single.says("lru_crawler mgdump all\r\n"), "ERROR key dump not allowed\r\n");
    assert_eq!(
        single.says("stats cachedump 1\r\n"),
        "CLIENT_ERROR stats cachedump not allowed\r\n"
    );
    assert_eq!(single.says("watch\r\n"), "CLIENT_ERROR watch commands not allowed\r\n");
}

#[test]
fn a_crawl_frees_what_is_over_and_only_an_enabled_one_works_by_itself() {
    let switches = tuned(Tuning { lru_crawler: false, ..Tuning::default() });
    let mut single = Single::with(switches);
    for n in 0..30 {
        single.says(&format!("set s{n} 0 1 1\r\nx\r\nset l{n} 0 0 1\r\nx\r\n"));
    }
    single.local_ms += 3000;
    single.node.tick(single.now(), &mut Alone::default());
    assert_eq!(stat(&single.says("stats slabs\r\n"), "1:used_chunks"), "60");
    assert_eq!(single.says("lru_crawler enable\r\n"), "OK\r\n");
    assert_eq!(single.says("lru_crawler crawl 1\r\n"), "OK\r\n");
    let items = single.says("stats items\r\n");
    assert_eq!(stat(&items, "items:1:number"), "30");
    assert_eq!(stat(&items, "items:1:crawler_reclaimed"), "30");
    assert_eq!(stat(&single.says("stats\r\n"), "lru_crawler_starts"), "1");
}

#[test]
fn watchers_see_what_they_asked_for() {
    let single = Single::new(true);
    let mut watcher = single.node.open(0, socket(5), single.now());
    let words = "watch fetchers mutations deletions connevents\r\n";
    assert_eq!(single.says_in(&mut watcher, words), "OK\r\n");
    let mut client = single.node.open(0, socket(6), single.now());
    single.says_in(&mut client, "get a:b\r\nset a:b 0 60 4\r\nvbar\r\nget a:b\r\ndelete a:b\r\n");
    assert_eq!(stat(&single.says("stats\r\n"), "log_watchers"), "1");
    single.node.close(&client, Ending::Normal, single.now());
    let seen = single.says_in(&mut watcher, "\r\n");
    let texts: Vec<&str> = seen.lines().map(|line| line.splitn(3, ' ').nth(2).unwrap()).collect();
    assert_eq!(
        texts,
        [
            "type=conn_new rip=10.0.0.9 rport=4000 transport=tcp cfd=6",
            "type=item_get key=a%3Ab status=not_found clsid=0 cfd=6 size=0",
            "type=item_get key=a%3Ab status=not_found clsid=0 cfd=6 size=0",
            "type=item_store key=a%3Ab status=stored cmd=set ttl=60 clsid=1 cfd=6 size=4",
            "type=item_get key=a%3Ab status=found clsid=1 cfd=6 size=4",
            "type=item_get key=a%3Ab status=found clsid=1 cfd=6 size=4",
            "type=deleted key=a%3Ab cmd=delete clsid=1 size=4",
            "type=conn_close rip=10.0.0.9 rport=4000 transport=tcp reason=normal cfd=6",
        ]
    );
    assert!(seen.starts_with(&format!("ts={}.", single.now().cluster.0 / 1000)), "{seen}");
    single.node.close(&watcher, Ending::Normal, single.now());
    assert_eq!(stat(&single.says("stats\r\n"), "log_watchers"), "0");
}

#[test]
fn evictions_can_be_watched() {
    let single = Single::new(true);
    let mut watcher = Session::new(0, 1 << 20);
    single.says_in(&mut watcher, "watch evictions\r\n");
    let value = "x".repeat(500_000);
    for n in 0..40 {
        single.says(&format!("set k{n} 0 0 500000\r\n{value}\r\n"));
    }
    single.node.tick(single.now(), &mut Alone::default());
    let seen = single.says_in(&mut watcher, "\r\n");
    let line = "type=eviction key=k0 fetch=no ttl=-1 la=0 clsid=39 size=500000";
    assert!(seen.contains(line), "{seen}");
    let evictions: usize = stat(&single.says("stats\r\n"), "evictions").parse().unwrap();
    assert_eq!(seen.lines().count(), evictions);
}

#[test]
fn the_memory_limit_moves() {
    let single = Single::new(true);
    assert_eq!(single.says("cache_memlimit 16\r\n"), "OK\r\n");
    assert_eq!(stat(&single.says("stats\r\n"), "limit_maxbytes"), "16777216");
    assert_eq!(single.says("cache_memlimit 8 noreply\r\n"), "");
}

#[test]
fn slabs_and_lru_are_judged_as_by_memcached() {
    let single = Single::new(true);
    let value = "x".repeat(500_000);
    for n in 0..3 {
        single.says(&format!("set k{n} 0 0 500000\r\n{value}\r\nset s{n} 0 0 1\r\nx\r\n"));
    }
    for (input, says) in [
        ("slabs reassign 1 1", "SAME src and dst class are identical\r\n"),
        ("slabs reassign 39 1", "OK\r\n"),
        ("slabs reassign -1 1", "OK\r\n"),
        ("slabs reassign 1 2", "NOSPARE source class has no spare pages\r\n"),
        ("slabs reassign 2 1", "NOSPARE source class has no spare pages\r\n"),
        ("slabs reassign 99 1", "BADCLASS invalid src or dst class id\r\n"),
        ("lru mode flat", "OK\r\n"),
    ] {
        assert_eq!(single.says(&format!("{input}\r\n")), says, "{input}");
    }
    let off = tuned(Tuning { slab_reassign: false, lru_maintainer: false, ..Tuning::default() });
    let single = Single::with(off);
    assert_eq!(
        single.says("slabs reassign 1 2\r\n"),
        "CLIENT_ERROR slab reassignment disabled\r\n"
    );
    assert_eq!(single.says("lru mode flat\r\n"), "ERROR\r\n");
}

#[test]
fn a_binary_client_is_refused_in_its_own_protocol() {
    let single = Single::new(true);
    let mut request = [0; 24];
    (request[0], request[1]) = (0x80, 0x0b);
    request[12..16].copy_from_slice(b"\x01\x02\x03\x04");
    for lengths in [&[usize::MAX][..], &[1], &[23]] {
        let reply = single.replies(&request, lengths);
        assert_eq!(reply[..8], [0x81, 0x0b, 0, 0, 0, 0, 0x00, 0x81]);
        assert_eq!(reply[12..16], [1, 2, 3, 4]);
        assert_eq!(reply.len(), 24 + usize::from(reply[11]));
    }
}

#[test]
fn settings_show_what_operators_have_changed() {
    let single = Single::new(true);
    single.says("cache_memlimit 16\r\nstats detail on\r\nlru_crawler disable\r\n");
    let text = single.says("stats settings\r\n");
    for (name, value) in
        [("maxbytes", "16777216"), ("detail_enabled", "yes"), ("lru_crawler", "no")]
    {
        assert_eq!(stat(&text, name), value, "{name}");
    }
}

#[test]
fn idle_kicks_are_shown_where_there_can_be_any() {
    assert!(!Single::new(true).says("stats\r\n").contains("idle_kicks"));
    let single = Single::with(Settings { idle_timeout_s: 5, ..Settings::default() });
    assert_eq!(stat(&single.says("stats\r\n"), "idle_kicks"), "0");
}

#[test]
fn meta_commands_are_watched_as_what_they_do() {
    let single = Single::new(true);
    let mut watcher = Session::new(0, 1 << 20);
    single.says_in(&mut watcher, "watch fetchers mutations deletions\r\n");
    single.says("mg k v\r\nms k 1\r\na\r\nmg k T60\r\nms k 1 C1\r\nb\r\nmd k\r\n");
    let seen = single.says_in(&mut watcher, "\r\n");
    let word = |line: &str, name: &str| {
        let found = line.split(' ').find_map(|word| word.strip_prefix(name));
        found.unwrap_or_default().to_owned()
    };
    let seen: Vec<String> = seen
        .lines()
        .map(|line| format!("{} {}", word(line, "type="), word(line, "status=")))
        .collect();
    assert_eq!(
        seen,
        [
            "item_get not_found",
            "item_get not_found",
            "item_store stored",
            "item_get found",
            "item_get found",
            "item_store exists",
            "item_get found",
            "deleted ",
        ]
    );
}

#[test]
fn an_opened_session_has_to_log_in_before_anything_else() {
    let settings = Settings { auth_file: Some("users".into()), ..Settings::default() };
    let single = Single::with(settings);
    single.node.set_credentials(Some(Credentials::parse(b"me:secret").unwrap()));
    let mut session = single.node.open(0, socket(5), single.now());
    for input in ["get k", "stats", "watch", "lru_crawler metadump all"] {
        let says = single.says_in(&mut session, &format!("{input}\r\n"));
        assert_eq!(says, "CLIENT_ERROR unauthenticated\r\n", "{input}");
    }
    assert_eq!(single.says_in(&mut session, "set x 0 0 9\r\nme secret\r\n"), "STORED\r\n");
    assert_eq!(single.says_in(&mut session, "get k\r\n"), "END\r\n");
}
