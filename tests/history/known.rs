//! Small histories, good and bad, whose verdict anybody can tell.

use bytes::Bytes;

use super::history::{
    Answer, Command, History, Operation, Reads, Reply, Violation, invariants, wire,
};

const DONE: Reply = Reply::Done { unique: None };

/// A history is told line by line: client, from, to (0 for never), command, reply.
struct Told(History);

impl Told {
    fn new() -> Self {
        Self(History::default())
    }

    fn then(mut self, client: u32, from: u64, to: u64, command: Command, reply: Reply) -> Self {
        let answer = (to > 0).then_some(Answer { at: to, reply });
        let key = "k".into();
        self.0.push(Operation { client, key, command, invoked: from, answer });
        self
    }

    fn unknown(self, client: u32, from: u64, command: Command) -> Self {
        self.then(client, from, 0, command, DONE)
    }

    fn passes(&self) {
        if let Err(violation) = self.0.check() {
            panic!("{violation}");
        }
        invariants::check(&self.0).expect("what is linearizable breaks no rule");
    }

    fn fails(&self) -> Box<Violation> {
        self.0.check().expect_err("no order explains this")
    }
}

fn set(value: &'static str) -> Command {
    Command::Set(value.into())
}

fn cas(unique: u64, value: &'static str) -> Command {
    Command::Cas { unique, value: value.into() }
}

fn hit(value: &'static str) -> Reply {
    Reply::Hit { value: value.into(), unique: None }
}

fn hit_with(value: &'static str, unique: u64) -> Reply {
    Reply::Hit { value: value.into(), unique: Some(unique) }
}

#[test]
fn one_after_the_other_passes() {
    Told::new()
        .then(1, 1, 2, Command::Get, Reply::Miss)
        .then(1, 3, 4, set("a"), DONE)
        .then(2, 5, 6, Command::Append("b".into()), DONE)
        .then(2, 7, 8, Command::Prepend("c".into()), DONE)
        .then(1, 9, 10, Command::Get, hit("cab"))
        .then(1, 11, 12, Command::Add("x".into()), Reply::NotStored)
        .then(1, 13, 14, Command::Replace("x".into()), DONE)
        .then(1, 15, 16, Command::Incr(1), Reply::NotNumeric)
        .then(1, 17, 18, Command::Touch, DONE)
        .then(1, 19, 20, Command::Delete, DONE)
        .then(1, 21, 22, Command::Delete, Reply::Miss)
        .then(1, 23, 24, Command::Replace("x".into()), Reply::NotStored)
        .then(1, 25, 26, Command::GetAndTouch, Reply::Miss)
        .passes();
}

#[test]
fn what_overlaps_may_have_happened_in_any_order() {
    let told = Told::new().then(1, 1, 10, set("a"), DONE).then(2, 2, 9, set("b"), DONE);
    told.then(3, 11, 12, Command::Get, hit("a")).then(3, 13, 14, Command::Get, hit("a")).passes();
    let told = Told::new().then(1, 1, 10, set("a"), DONE);
    told.then(3, 2, 3, Command::Get, hit("a")).then(3, 4, 5, Command::Get, hit("a")).passes();
}

#[test]
fn a_read_that_has_seen_a_write_is_not_followed_by_one_that_has_not() {
    let told = Told::new().then(1, 1, 10, set("a"), DONE);
    let told = told.then(2, 2, 3, Command::Get, hit("a")).then(3, 4, 5, Command::Get, Reply::Miss);
    let violation = told.fails();
    assert_eq!(violation.culprit.client, 3);
    assert_eq!(violation.excerpt.len(), 3, "{violation}");
}

#[test]
fn reads_taken_alone_may_go_back_while_a_change_is_under_way_and_only_then() {
    let told = Told::new().then(1, 1, 10, set("a"), DONE).unknown(4, 1, set("b"));
    let told = told.then(2, 2, 3, Command::Get, hit("a")).then(3, 4, 5, Command::Get, Reply::Miss);
    let told = told.then(2, 6, 7, Command::Get, hit("b")).then(3, 8, 9, Command::Get, hit("a"));
    told.fails();
    let checked = told.0.check_with(Reads::EachAlone).expect("the set is not confirmed yet");
    assert_eq!((checked.keys, checked.only_alone), (1, 1));
    let told = told.then(3, 11, 12, Command::Get, Reply::Miss);
    let violation = told.0.check_with(Reads::EachAlone).expect_err("now it is");
    assert_eq!(violation.culprit.invoked, 11);
}

#[test]
fn a_stale_read_after_a_confirmed_write_fails() {
    let told = Told::new().then(1, 1, 2, set("a"), DONE).then(1, 3, 4, set("b"), DONE);
    let told = told.then(2, 5, 6, Command::Get, hit("a")).then(2, 7, 8, Command::Get, hit("b"));
    let violation = told.fails();
    assert_eq!(violation.culprit.invoked, 5);
    assert!(violation.to_string().contains(">>          5..6"), "{violation}");
    assert!(!violation.excerpt.iter().any(|operation| operation.invoked == 7), "{violation}");
}

#[test]
fn a_deletion_that_does_not_last_fails() {
    let told = Told::new().then(1, 1, 2, set("a"), DONE).then(2, 3, 4, Command::Delete, DONE);
    let told = told.then(3, 5, 6, Command::Get, Reply::Miss).then(3, 7, 8, Command::Get, hit("a"));
    assert_eq!(told.fails().culprit.invoked, 7);
    let broken = invariants::check(&told.0).expect_err("it is back");
    assert!(broken.starts_with("deleted, and back again"), "{broken}");
}

#[test]
fn a_confirmed_write_that_is_lost_fails() {
    let told = Told::new().then(1, 1, 2, set("a"), DONE).then(1, 3, 4, set("b"), DONE);
    told.then(2, 5, 6, Command::Get, Reply::Miss).fails();
    // The same after a total loss is what memcached does.
    let mut told = Told::new().then(1, 1, 2, set("a"), DONE);
    told.0.lost(3, 4);
    told.then(2, 5, 6, Command::Get, Reply::Miss).passes();
}

#[test]
fn what_was_there_before_everything_was_lost_does_not_come_back() {
    let mut told = Told::new().then(1, 1, 2, set("a"), DONE);
    told.0.lost(3, 4);
    told.then(2, 5, 6, Command::Get, hit("a")).fails();
}

#[test]
fn an_incr_that_counts_twice_fails() {
    let told = Told::new().then(1, 1, 2, Command::Add("0".into()), DONE);
    let told = told.then(1, 3, 4, Command::Incr(1), Reply::Number(1));
    let twice = told.then(1, 5, 6, Command::Get, hit("2"));
    twice.fails();
    assert!(invariants::check(&twice.0).is_err());
    let told = Told::new().then(1, 1, 2, Command::Add("0".into()), DONE);
    let told = told.unknown(1, 3, Command::Incr(1)).unknown(2, 3, Command::Incr(1));
    let told = told.then(3, 5, 6, Command::Get, hit("1")).then(3, 7, 8, Command::Get, hit("2"));
    told.passes();
    let thrice = told.then(3, 9, 10, Command::Get, hit("3"));
    thrice.fails();
    let broken = invariants::check(&thrice.0).expect_err("two were begun");
    assert!(broken.starts_with("a counter must show 0 to 2"), "{broken}");
}

#[test]
fn numbers_are_kept_as_memcached_keeps_them() {
    Told::new()
        .then(1, 1, 2, set("10"), DONE)
        .then(1, 3, 4, Command::Decr(1), Reply::Number(9))
        .then(1, 5, 6, Command::Get, hit("9 "))
        .then(1, 7, 8, Command::Decr(100), Reply::Number(0))
        .then(1, 9, 10, Command::Incr(7), Reply::Number(7))
        .then(1, 11, 12, Command::Get, hit("7 "))
        .passes();
}

#[test]
fn two_who_win_with_one_unique_fail() {
    let told = Told::new().then(1, 1, 2, set("a"), DONE);
    let told = told.then(2, 3, 4, Command::Get, hit_with("a", 7));
    let told = told.then(3, 3, 4, Command::Get, hit_with("a", 7));
    let told = told.then(2, 5, 20, cas(7, "b"), DONE).then(3, 5, 20, cas(7, "c"), DONE);
    told.fails();
    let broken = invariants::check(&told.0).expect_err("two won");
    assert!(broken.starts_with("two won"), "{broken}");
}

#[test]
fn a_unique_belongs_to_one_stored_value() {
    let told = || {
        let told = Told::new().then(1, 1, 2, set("a"), DONE);
        told.then(2, 3, 4, Command::Get, hit_with("a", 7)).then(1, 5, 6, Command::Touch, DONE)
    };
    told().then(2, 7, 8, cas(7, "b"), DONE).then(2, 9, 10, Command::Get, hit("b")).passes();
    told().then(2, 7, 8, cas(8, "b"), Reply::Exists).passes();
    told().then(2, 7, 8, cas(7, "b"), Reply::Exists).fails();
    // The same value, but stored again.
    let again = || told().then(1, 7, 8, set("a"), DONE);
    again().then(2, 9, 10, cas(7, "b"), Reply::Exists).passes();
    again().then(2, 9, 10, cas(7, "b"), DONE).fails();
    again().then(2, 9, 10, Command::Get, hit_with("a", 7)).fails();
    again().then(2, 9, 10, Command::Get, hit_with("a", 8)).passes();
    // Between this gets and this cas there was a set.
    let told = again().then(2, 9, 10, Command::Get, hit_with("a", 8));
    told.then(2, 11, 12, cas(8, "b"), DONE).then(2, 13, 14, Command::Get, hit("b")).passes();
}

#[test]
fn a_meta_set_tells_the_unique_of_what_it_has_stored() {
    let told = || Told::new().then(1, 1, 2, set("a"), Reply::Done { unique: Some(7) });
    told().then(2, 3, 4, Command::Get, hit_with("a", 7)).passes();
    told().then(2, 3, 4, Command::Get, hit_with("a", 8)).fails();
    told().then(2, 3, 4, set("b"), Reply::Done { unique: Some(7) }).fails();
}

#[test]
fn a_write_whose_connection_broke_may_take_effect_late_or_never() {
    let told = || Told::new().then(1, 1, 2, set("a"), DONE).unknown(2, 3, set("b"));
    told().then(3, 5, 6, Command::Get, hit("a")).passes();
    told().then(3, 5, 6, Command::Get, hit("b")).passes();
    told()
        .then(3, 5, 6, Command::Get, hit("a"))
        .then(1, 7, 8, set("c"), DONE)
        .then(3, 9, 10, Command::Get, hit("c"))
        .then(3, 99, 100, Command::Get, hit("b"))
        .passes();
    // It takes effect once, and not before it was begun.
    let twice = told().then(3, 5, 6, Command::Get, hit("b")).then(1, 7, 8, set("c"), DONE);
    twice.then(3, 9, 10, Command::Get, hit("b")).fails();
    let early = Told::new().then(1, 1, 2, set("a"), DONE).then(3, 3, 4, Command::Get, hit("b"));
    early.unknown(2, 5, set("b")).fails();
}

#[test]
fn a_flush_reaches_every_key_and_an_unknown_one_may() {
    let told = || Told::new().then(1, 1, 2, set("a"), DONE);
    told().then(2, 3, 4, Command::Flush, DONE).then(1, 5, 6, Command::Get, Reply::Miss).passes();
    told().then(2, 3, 4, Command::Flush, DONE).then(1, 5, 6, Command::Get, hit("a")).fails();
    let told = told().unknown(2, 3, Command::Flush).then(1, 5, 6, Command::Get, hit("a"));
    told.then(1, 7, 8, Command::Get, Reply::Miss).passes();
}

#[test]
fn what_one_key_does_is_nothing_to_another() {
    let mut told = Told::new().then(1, 1, 2, set("a"), DONE);
    told.0.operations[0].key = "other".into();
    told.then(1, 3, 4, Command::Get, Reply::Miss).passes();
}

#[test]
fn commands_and_replies_survive_the_wire() {
    use wire::{Form, Heard};

    assert_eq!(wire::request(&cas(7, "ab"), "k", Form::Classic), b"cas k 0 0 2 7\r\nab\r\n");
    assert_eq!(wire::request(&cas(7, "ab"), "k", Form::Meta), b"ms k 2 c C7\r\nab\r\n");
    let replies: [(&[u8], Reply); 8] = [
        (b"VALUE k 0 2\r\nab\r\nEND\r\n", hit("ab")),
        (b"VALUE k 0 2 7\r\nab\r\nEND\r\n", hit_with("ab", 7)),
        (b"VA 2 c7\r\nab\r\n", hit_with("ab", 7)),
        (b"HD c7\r\n", Reply::Done { unique: Some(7) }),
        (b"END\r\n", Reply::Miss),
        (b"12\r\n", Reply::Number(12)),
        (b"NS \r\n", Reply::NotStored),
        (b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n", Reply::NotNumeric),
    ];
    for (bytes, reply) in replies {
        for length in 0..bytes.len() {
            assert_eq!(wire::reply(&bytes[..length]), Heard::Part);
        }
        assert_eq!(wire::reply(bytes), Heard::Reply(reply, bytes.len()));
    }
    let number = Reply::Hit { value: Bytes::from_static(b"3"), unique: None };
    assert_eq!(wire::as_answer_to(&Command::Incr(1), number), Reply::Number(3));
    assert_eq!(wire::reply(b"SERVER_ERROR x\r\n"), Heard::Other("SERVER_ERROR x".into()));
}

#[test]
fn many_unknown_writes_do_not_make_the_search_endless() {
    let values = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let mut told = Told::new().then(1, 1, 2, set("z"), DONE);
    for value in values {
        told = told.unknown(2, 3, set(value)).unknown(2, 3, Command::Incr(1));
    }
    for step in 0..200 {
        let (from, to) = (10 + step * 20, 15 + step * 20);
        told = told.then(1, from, to, set("y"), DONE);
        told = told.then(3, from + 10, to + 10, Command::Get, hit("y"));
    }
    told.then(1, 9_000, 9_001, Command::Get, hit("never written")).fails();
}
