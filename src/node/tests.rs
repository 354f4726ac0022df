//! The node through its sessions: bytes in, bytes out.

use proptest::prelude::*;

use super::*;
use crate::replication::Outside;

const ITEM_MAX: usize = 1 << 20;
const WALL_S: i64 = 1_800_000_000;

/// A single node has nobody to write to; a flush is answered at once.
#[derive(Default)]
pub(super) struct Alone {
    answers: Vec<Outcome>,
}

impl Outside<()> for Alone {
    fn send(&mut self, _: Incarnation, _: Message) {
        panic!("a single node has nobody to speak to");
    }

    fn answer(&mut self, (): (), outcome: Outcome) {
        self.answers.push(outcome);
    }
}

impl Host<()> for Alone {
    fn waiter(&mut self) {}
}

pub(super) struct Single {
    pub(super) node: Node<()>,
    pub(super) local_ms: u64,
}

impl Single {
    pub(super) fn new(evict: bool) -> Self {
        Self::with(evict, Switches::default())
    }

    pub(super) fn with(evict: bool, switches: Switches) -> Self {
        let options = Options {
            me: Member { name: "single".into(), incarnation: Incarnation(1) },
            peers: Vec::new(),
            memory: 8 << 20,
            item_max: ITEM_MAX,
            evict,
            boot_wait_ms: 2000,
            workers: 1,
            seed: 9,
            connections_max: 10,
            switches,
        };
        let now = Now { local: Millis(1), wall_s: WALL_S, ..Now::default() };
        let single = Self { node: Node::new(options, now), local_ms: 1 };
        single.node.tick(single.now(), &mut Alone::default());
        assert!(single.node.is_serving(), "nobody to wait for");
        single
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
        let (mut all, mut out) = (Vec::new(), Vec::new());
        let (mut host, mut buffer) = (Alone::default(), Vec::new());
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
                    Step::Write => all.append(&mut out),
                    Step::Read(_) | Step::Watch => break,
                    Step::Close => return [all, out].concat(),
                }
            }
        }
        [all, out].concat()
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

fn command() -> impl Strategy<Value = String> {
    let key = prop_oneof![Just("a"), Just("bb"), Just("c0123456789"), Just("n")];
    let noreply = prop_oneof![Just(""), Just(" noreply"), Just("  ")];
    let end = prop_oneof![Just("\r\n"), Just("\n")];
    (0..12u8, key, 0..40usize, noreply, end).prop_map(|(kind, key, size, noreply, end)| {
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
