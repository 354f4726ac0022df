//! The node through its sessions: bytes in, bytes out.

use proptest::prelude::*;

use super::*;
pub(super) use alone::Alone;
use alone::WALL_S;

#[path = "../../tests/alone/mod.rs"]
mod alone;

const ITEM_MAX: usize = 1 << 20;

pub(super) struct Single {
    pub(super) node: Node<()>,
    pub(super) local_ms: u64,
}

impl Single {
    pub(super) fn new(evict: bool) -> Self {
        Self::with(Settings { evict, ..Settings::default() })
    }

    pub(super) fn with(settings: Settings) -> Self {
        let settings = Settings { memory: 8 << 20, ..settings };
        Self { node: alone::node(9, settings).0, local_ms: 1 }
    }

    pub(super) fn now(&self) -> Now {
        self.node.now(Millis(self.local_ms), WALL_S + (self.local_ms / 1000) as i64)
    }

    /// The replies to `input`, given in pieces of these lengths, over and over.
    pub(super) fn replies(&self, input: &[u8], lengths: &[usize]) -> Vec<u8> {
        self.replies_in(&mut Session::new(0, ITEM_MAX), input, lengths)
    }

    /// The same in a session that goes on.
    pub(super) fn replies_in(
        &self,
        session: &mut Session,
        input: &[u8],
        lengths: &[usize],
    ) -> Vec<u8> {
        let (mut out, mut host, mut buffer) = (Vec::new(), Alone::default(), Vec::new());
        let mut written = Vec::new();
        let (mut rest, mut turn) = (input, 0);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(lengths[turn % lengths.len()].min(rest.len()));
            (rest, turn) = (after, turn + 1);
            buffer.extend_from_slice(piece);
            loop {
                let (used, step) =
                    session.advance(&self.node, &buffer, self.now(), &mut out, &mut host);
                buffer.drain(..used);
                match step {
                    Step::Wait => session.resume(&self.node, host.answers.remove(0), &mut out),
                    Step::Write => written.append(&mut out),
                    Step::Yield => {}
                    Step::Read(_) | Step::Watch => break,
                    Step::Close | Step::Stop(_) => return [written, out].concat(),
                }
            }
        }
        [written, out].concat()
    }

    pub(super) fn says_in(&self, session: &mut Session, input: &str) -> String {
        String::from_utf8(self.replies_in(session, input.as_bytes(), &[usize::MAX])).unwrap()
    }

    pub(super) fn says(&self, input: &str) -> String {
        String::from_utf8(self.replies(input.as_bytes(), &[usize::MAX])).unwrap()
    }
}

#[test]
fn storage_commands_keep_their_conditions() {
    let single = Single::new(true);
    assert_eq!(single.says("add k 1 0 1\r\na\r\nadd k 2 0 1\r\nb\r\n"), "STORED\r\nNOT_STORED\r\n");
    assert_eq!(single.says("replace x 0 0 1\r\na\r\n"), "NOT_STORED\r\n");
    assert_eq!(
        single.says("append k 9 9 1\r\nz\r\nprepend k 9 9 1\r\ny\r\n"),
        "STORED\r\nSTORED\r\n"
    );
    assert_eq!(single.says("get k\r\n"), "VALUE k 1 3\r\nyaz\r\nEND\r\n");
    assert_eq!(single.says("append x 0 0 1\r\na\r\n"), "NOT_STORED\r\n");
}

#[test]
fn a_cas_unique_changes_with_the_value_and_only_with_it() {
    let single = Single::new(true);
    single.says("set k 0 0 1\r\na\r\n");
    let unique = |text: String| text.split_whitespace().nth(4).unwrap().to_owned();
    let first = unique(single.says("gets k\r\n"));
    single.says("touch k 100\r\n");
    assert_eq!(unique(single.says("gets k\r\n")), first);
    assert_eq!(single.says(&format!("cas k 0 0 1 {first}\r\nb\r\n")), "STORED\r\n");
    assert_eq!(single.says(&format!("cas k 0 0 1 {first}\r\nc\r\n")), "EXISTS\r\n");
    assert_eq!(single.says("cas x 0 0 1 1\r\nc\r\n"), "NOT_FOUND\r\n");
    assert_ne!(unique(single.says("gets k\r\n")), first);
}

#[test]
fn counting_wraps_up_stops_down_and_pads() {
    let single = Single::new(true);
    single.says("set n 0 0 2\r\n10\r\n");
    assert_eq!(single.says("decr n 1\r\nget n\r\n"), "9\r\nVALUE n 0 2\r\n9 \r\nEND\r\n");
    assert_eq!(single.says("decr n 99\r\n"), "0\r\n");
    assert_eq!(
        single.says("incr n 18446744073709551615\r\nincr n 2\r\n"),
        "18446744073709551615\r\n1\r\n"
    );
    single.says("set t 0 0 1\r\nx\r\n");
    assert_eq!(
        single.says("incr t 1\r\nincr none 1\r\n"),
        "CLIENT_ERROR cannot increment or decrement non-numeric value\r\nNOT_FOUND\r\n"
    );
}

#[test]
fn items_end_and_negative_exptimes_end_them_at_once() {
    let mut single = Single::new(true);
    single.says("set k 0 10 1\r\na\r\nset never 0 0 1\r\nb\r\n");
    assert_eq!(
        single.says("set gone 0 0 1\r\na\r\nset gone 0 -1 1\r\nb\r\nget gone\r\n"),
        "STORED\r\nSTORED\r\nEND\r\n"
    );
    single.local_ms += 9_900;
    assert!(single.says("get k\r\n").starts_with("VALUE"));
    assert!(single.says("gat 20 k\r\n").starts_with("VALUE"));
    single.local_ms += 15_000;
    assert!(single.says("get k\r\n").starts_with("VALUE"), "gat has moved its end");
    single.local_ms += 10_000;
    assert_eq!(single.says("get k\r\n"), "END\r\n");
    assert_eq!(single.says("touch never -1\r\nget never\r\n"), "TOUCHED\r\nEND\r\n");
}

#[test]
fn flush_all_empties_at_once_or_at_its_time() {
    let mut single = Single::new(true);
    single.says("set a 0 0 1\r\na\r\n");
    assert_eq!(
        single.says("flush_all\r\nget a\r\nset b 0 0 1\r\nb\r\n"),
        "OK\r\nEND\r\nSTORED\r\n"
    );
    assert_eq!(single.says("flush_all 5\r\nget b\r\n"), "OK\r\nVALUE b 0 1\r\nb\r\nEND\r\n");
    single.local_ms += 5_000;
    single.node.tick(single.now(), &mut Alone::default());
    assert_eq!(single.says("get b\r\n"), "END\r\n");
}

#[test]
fn a_value_too_large_takes_the_old_one_with_it() {
    let single = Single::new(true);
    single.says("set k 0 0 1\r\na\r\n");
    let big = format!("set k 0 0 {ITEM_MAX}\r\n{}\r\nget k\r\n", "x".repeat(ITEM_MAX));
    assert_eq!(single.says(&big), "SERVER_ERROR object too large for cache\r\nEND\r\n");
}

#[test]
fn without_eviction_a_full_node_says_so_and_keeps_the_rest() {
    let single = Single::new(false);
    let value = "x".repeat(100_000);
    let mut stored = 0;
    loop {
        match single.says(&format!("set k{stored} 0 0 100000\r\n{value}\r\n")).as_str() {
            "STORED\r\n" => stored += 1,
            reply => {
                assert_eq!(reply, "SERVER_ERROR out of memory storing object\r\n");
                break;
            }
        }
    }
    assert!(stored > 70, "8 MiB hold only {stored} values");
    assert!((0..stored).all(|n| single.says(&format!("get k{n}\r\n")).starts_with("VALUE")));
}

#[test]
fn a_shard_that_is_empty_gets_room_from_full_ones() {
    let single = Single::new(true);
    let value = "x".repeat(1_000_000);
    for n in 0..100 {
        let command = format!("set k{n} 0 0 1000000\r\n{value}\r\n");
        assert_eq!(single.says(&command), "STORED\r\n", "value {n}");
    }
    assert!(single.node.budget.used() <= 8 << 20);
}

#[test]
fn a_multi_get_is_written_in_bounded_parts() {
    let single = Single::new(true);
    let value = "x".repeat(50_000);
    single.says(&format!("set a 0 0 50000\r\n{value}\r\n"));
    let input = format!("gets{}\r\nget a \r\n", " a".repeat(100));
    let mut session = Session::new(0, ITEM_MAX);
    let (mut done, mut written, mut parts) = (0, 0, 0);
    loop {
        let (mut out, mut host) = (Vec::new(), Alone::default());
        let rest = &input.as_bytes()[done..];
        let (used, step) = session.advance(&single.node, rest, single.now(), &mut out, &mut host);
        assert!(out.len() < 120_000, "{} bytes at once", out.len());
        (done, written, parts) = (done + used, written + out.len(), parts + 1);
        if matches!(step, Step::Read(_)) {
            break;
        }
    }
    let one = single.says("get a\r\n").len();
    let hundred = single.says("gets a\r\n").len() * 100 - 99 * "END\r\n".len();
    assert_eq!(written, hundred + one);
    assert!(parts > 30);
}

#[test]
fn a_connection_yields_after_as_many_commands_as_a_turn_has() {
    let single = Single::with(Settings { requests_per_turn: 3, ..Settings::default() });
    let (mut session, mut rest) = (Session::new(0, ITEM_MAX), "version\r\n".repeat(8).into_bytes());
    let (mut out, mut host, mut turns) = (Vec::new(), Alone::default(), Vec::new());
    loop {
        let (used, step) = session.advance(&single.node, &rest, single.now(), &mut out, &mut host);
        rest.drain(..used);
        turns.push(used / "version\r\n".len());
        if matches!(step, Step::Read(_)) {
            break;
        }
        assert_eq!(step, Step::Yield);
    }
    assert_eq!(turns, [3, 3, 2]);
    assert_eq!(out, "VERSION 1.6.45\r\n".repeat(8).into_bytes());
}

#[test]
fn noreply_is_silent_and_still_done() {
    let single = Single::new(true);
    let input =
        "set k 0 0 1 noreply\r\na\r\nincr k 1 noreply\r\nset bad 0 0 1 noreply\r\nabc\r\nget k\r\n";
    assert!(single.says(input).ends_with("VALUE k 0 1\r\na\r\nEND\r\n"));
    assert_eq!(single.says("delete k noreply\r\nflush_all noreply\r\nget k\r\n"), "END\r\n");
}

#[test]
fn stats_count_what_clients_did() {
    let single = Single::new(true);
    single.says("set k 0 0 1\r\na\r\nget k none\r\ndelete k\r\n");
    let stats = single.says("stats\r\n");
    for line in
        ["cmd_get 2", "get_hits 1", "get_misses 1", "cmd_set 1", "delete_hits 1", "curr_items 0"]
    {
        assert!(stats.contains(&format!("STAT {line}\r\n")), "{line} in {stats}");
    }
    assert_eq!(single.says("stats nonsense\r\n"), "ERROR\r\n");
    assert!(single.says("stats reset\r\nstats\r\n").contains("STAT get_hits 0\r\n"));
}

#[test]
fn meta_replies_repeat_the_flags_in_their_order() {
    let single = Single::new(true);
    assert_eq!(single.says("ms k 5 T60 F7 c Oab k s\r\nhello\r\n").split(' ').next(), Some("HD"));
    assert_eq!(single.says("mg k s v f t k Oxy\r\n"), "VA 5 s5 f7 t60 kk Oxy\r\nhello\r\n");
    assert_eq!(single.says("mg none k Oab v\r\n"), "EN kk Oab\r\n".replace("kk", "knone"));
    assert_eq!(single.says("mg none q\r\nmg k q\r\nmn\r\n"), "HD\r\nMN\r\n");
    assert_eq!(single.says("mg k h l t\r\n"), "HD h1 l0 t60\r\n");
    assert_eq!(single.says("md k q\r\nmd k q\r\nmd k Oz\r\n"), "NF\r\nNF Oz\r\n");
}

#[test]
fn meta_set_has_modes_and_compares() {
    let single = Single::new(true);
    assert_eq!(single.says("ms k 1 ME\r\na\r\nms k 1 ME\r\nb\r\n"), "HD\r\nNS\r\n");
    assert_eq!(single.says("ms k 1 MA\r\nb\r\nms k 1 MP s\r\nc\r\n"), "HD\r\nHD s3\r\n");
    assert_eq!(single.says("mg k v\r\n"), "VA 3\r\ncab\r\n");
    assert_eq!(
        single.says("ms x 1 MA\r\nb\r\nms x 1 MA N60\r\nb\r\nmg x v t\r\n"),
        "NS\r\nHD\r\nVA 1 t60\r\nb\r\n"
    );
    assert_eq!(
        single.says("ms k 1 E77\r\nz\r\nms k 1 C76\r\ny\r\nms k 1 C77\r\nw\r\n"),
        "HD\r\nEX\r\nHD\r\n"
    );
    assert_eq!(single.says("ms none 1 C5\r\ny\r\nms none 1 MR\r\ny\r\n"), "NF\r\nNS\r\n");
    assert_eq!(
        single.says("ms k 2 MX\r\nzz\r\nmn\r\n"),
        "CLIENT_ERROR invalid mode for ms M token\r\nMN\r\n"
    );
    assert_eq!(
        single.says("ms k 2 Tx q\r\nzz\r\nmn\r\n"),
        "CLIENT_ERROR bad token in command line format\r\nMN\r\n"
    );
}

#[test]
fn one_client_wins_a_stale_item_and_the_others_know() {
    let single = Single::new(true);
    single.says("ms k 1 T100 E5\r\na\r\n");
    assert_eq!(single.says("md k I T30\r\n"), "HD\r\n");
    assert_eq!(single.says("mg k v t\r\n"), "VA 1 t30 X W\r\na\r\n");
    assert_eq!(single.says("mg k\r\n"), "HD Z X\r\n");
    assert_eq!(single.says("ms k 1 T0\r\nb\r\nmg k v\r\n"), "HD\r\nVA 1\r\nb\r\n");
}

#[test]
fn an_item_that_ends_soon_or_is_missing_is_given_to_one_to_renew() {
    let single = Single::new(true);
    assert_eq!(
        single.says("mg v s c N30 t\r\n").replace(char::is_numeric, "#"),
        "HD s# c################## t## W\r\n"
    );
    assert_eq!(single.says("mg v s N30 t\r\n"), "HD s0 t30 Z\r\n");
    single.says("ms r 1 T20\r\na\r\n");
    assert_eq!(single.says("mg r R10\r\nmg r R30\r\nmg r R30\r\n"), "HD\r\nHD W\r\nHD Z\r\n");
}

#[test]
fn meta_arithmetic_counts_vivifies_and_shows() {
    let single = Single::new(true);
    assert_eq!(
        single.says("ma n\r\nma n N0 J13 v\r\nma n v\r\n"),
        "NF\r\nVA 2\r\n13\r\nVA 2\r\n14\r\n"
    );
    assert_eq!(single.says("ma n D10 MD v t\r\nma n M+ D5 q\r\n"), "VA 1 t-1\r\n4\r\n");
    assert_eq!(
        single.says("ma n C1\r\nma n Mz\r\nma n Dx\r\n"),
        "EX\r\nCLIENT_ERROR invalid mode for ma M token\r\nCLIENT_ERROR invalid or duplicate flag\r\n"
    );
}

#[test]
fn a_base64_key_names_the_same_item_and_is_shown_as_it_was_stored() {
    let single = Single::new(true);
    assert_eq!(single.says("ms Zm9v 1 b k\r\na\r\n"), "HD kZm9v b\r\n");
    assert_eq!(
        single.says("mg foo v k\r\nget foo\r\n"),
        "VA 1 kZm9v b\r\na\r\nVALUE foo 0 1\r\na\r\nEND\r\n"
    );
    assert_eq!(single.says("mg Zm9 b v\r\n"), "CLIENT_ERROR error decoding key\r\n");
    assert!(single.says("me foo\r\n").starts_with("ME Zm9v exp=-1 la=0 cas="));
}

fn command() -> impl Strategy<Value = String> {
    let key = prop_oneof![Just("a"), Just("bb"), Just("c0123456789"), Just("n")];
    let noreply = prop_oneof![Just(""), Just(" noreply"), Just("  ")];
    let end = prop_oneof![Just("\r\n"), Just("\n")];
    (0..16u8, key, 0..40usize, noreply, end).prop_map(|(kind, key, size, noreply, end)| {
        let value = "7".repeat(size);
        match kind {
            0 | 1 => format!("set {key} 3 0 {size}{noreply}{end}{value}\r\n"),
            2 => format!("append {key} 0 0 {size}{noreply}{end}{value}\r\n"),
            3 => format!("get {key} zz  {key}{end}"),
            4 => format!("gats 0 {key} zz {key} {end}"),
            5 => format!("incr {key} {size}{noreply}{end}"),
            6 => format!("delete {key}{noreply}{end}"),
            7 => format!("set {key} x 0 {size}{end}"),
            8 => format!("set {key} 0 0 {size}{noreply}{end}{value}+\r\n"),
            9 => format!("{}{end}", "x".repeat(size)),
            11 => format!("ms {key} {size} T{size} c b{end}{value}\r\n"),
            12 => format!("mg {key} s v k O{size} t R30 N{size}{end}"),
            13 => format!("ms {key} {size} c c{end}{value}\r\nma {key} N{size} J5 v{end}"),
            14 => format!("md {key} I q T{size}{end}mn{end}"),
            10 => format!("touch {key} {size}{noreply}{end}"),
            _ => format!("get {} {key}{end}", "k".repeat(240 + size)),
        }
    })
}

proptest! {
    /// Where the network cuts the input never shows in the replies.
    #[test]
    fn cutting_the_input_changes_nothing(
        commands in prop::collection::vec(command(), 1..30),
        lengths in prop::collection::vec(1..50usize, 1..20),
    ) {
        let input = commands.concat().into_bytes();
        let whole = Single::new(true).replies(&input, &[usize::MAX]);
        prop_assert_eq!(&Single::new(true).replies(&input, &[1]), &whole);
        prop_assert_eq!(&Single::new(true).replies(&input, &lengths), &whole);
    }

    /// Whatever arrives, the session answers or closes.
    #[test]
    fn garbage_never_panics(input in prop::collection::vec(any::<u8>(), 0..400)) {
        Single::new(true).replies(&input, &[7]);
    }
}
