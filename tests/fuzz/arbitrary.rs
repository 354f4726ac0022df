//! Random lives of a node: messages that could be meant, with the numbers that hurt, among views,
//! commands and time.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sessiond::key::Key;
use sessiond::record::{
    Change, Digest, Direction, Fetched, Marks, Mutation, Outcome, Record, Sight, StoreMode, Terms,
};
use sessiond::replication::message::{
    self, Answered, Apply, Beat, FlushAll, Fwd, FwdDone, LaneMessage, RequestId, ViewFlush,
};
use sessiond::replication::{Features, Incarnation, Line, Message, View};
use sessiond::time::{Deadline, Millis};
use sessiond::version::{Epoch, Version};

use crate::peers::{COMMAND, ENTER, KEYS, LIVES, MEET, REFUSED, SAY, TICK, VIEW, member, peers};

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..6, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => any::<u64>()]
}

fn time() -> impl Strategy<Value = Millis> {
    let about_now = 1_800_000_000_000u64;
    prop_oneof![
        4 => (0u64..5000).prop_map(move |ms| Millis(about_now + ms)),
        2 => (0u64..5000).prop_map(Millis),
        1 => number().prop_map(Millis),
    ]
}

fn life() -> impl Strategy<Value = Incarnation> {
    prop_oneof![9 => select(&LIVES[..]), 1 => number()].prop_map(Incarnation)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    let far = select(vec![0, (1 << 23) - 1, 1 << 23, u32::MAX]);
    prop_oneof![12 => 1u32..8, 1 => far].prop_map(Epoch)
}

fn key() -> impl Strategy<Value = Bytes> {
    let odd =
        select(vec![0usize, 250, 251, 4000]).prop_map(|length| Bytes::from(vec![b'k'; length]));
    let usual = select(&KEYS[..]).prop_map(|key| Bytes::from_static(key.as_bytes()));
    prop_oneof![15 => usual, 1 => odd]
}

fn value() -> impl Strategy<Value = Bytes> {
    let lengths = select(vec![0usize, 1, 100, 3000, 60_000, 70_000, 200_000]);
    let long = lengths.prop_map(|length| Bytes::from(vec![b'x'; length]));
    prop_oneof![3 => "[0-9]{1,21}".prop_map(Bytes::from), 2 => long]
}

fn deadline() -> impl Strategy<Value = Deadline> {
    prop_oneof![time().prop_map(|time| time.0), number()].prop_map(Deadline::from_raw)
}

fn marks() -> impl Strategy<Value = Marks> {
    any::<(bool, bool, bool)>().prop_map(|(is_stale, is_won, has_binary_key)| Marks {
        is_stale,
        is_won,
        has_binary_key,
    })
}

fn version() -> impl Strategy<Value = Version> {
    let usual = (0u64..8, 0u64..1 << 40).prop_map(|(epoch, seq)| epoch << 40 | seq);
    prop_oneof![usual, number()].prop_map(Version::from_raw)
}

fn change() -> impl Strategy<Value = Change<Bytes>> {
    let put = (number(), any::<u32>(), deadline(), marks(), value());
    prop_oneof![
        4 => put.prop_map(|(cas, flags, deadline, marks, value)| Change::Put {
            cas, flags, deadline, marks, value
        }),
        1 => (number(), deadline(), marks())
            .prop_map(|(cas, deadline, marks)| Change::Meta { cas, deadline, marks }),
        1 => Just(Change::Delete),
    ]
}

fn record() -> impl Strategy<Value = Record<Bytes>> {
    (key(), version(), change()).prop_map(|(key, version, change)| Record { key, version, change })
}

fn terms() -> impl Strategy<Value = Terms> {
    let deadlines = (prop::option::of(deadline()), prop::option::of(deadline()));
    let uniques = (prop::option::of(number()), prop::option::of(number()));
    (uniques, deadlines, any::<bool>(), any::<bool>()).prop_map(
        |((compare, cas), (vivify, touch), is_stale, has_binary_key)| Terms {
            compare,
            cas,
            vivify,
            touch,
            is_stale,
            has_binary_key,
        },
    )
}

fn mutation() -> impl Strategy<Value = Mutation<Bytes>> {
    use StoreMode::{Add, Append, Prepend, Replace, Set};
    let mode = select(vec![Set, Add, Replace, Append, Prepend]);
    let direction = select(vec![Direction::Up, Direction::Down]);
    prop_oneof![
        (mode, any::<u32>(), deadline(), terms(), value()).prop_map(
            |(mode, flags, deadline, terms, value)| Mutation::Store {
                mode,
                flags,
                deadline,
                terms,
                value
            }
        ),
        (terms(), prop::option::of(any::<u32>()))
            .prop_map(|(terms, empty)| Mutation::Delete { terms, empty }),
        (direction, number(), number(), terms()).prop_map(|(direction, delta, initial, terms)| {
            Mutation::Count { direction, delta, initial, terms }
        }),
        deadline().prop_map(|deadline| Mutation::Touch { deadline }),
        (terms(), deadline()).prop_map(|(terms, recache)| Mutation::Fetch { terms, recache }),
        Just(Mutation::Read),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let plain = vec![Outcome::NotStored, Outcome::NotFound, Outcome::Flushed, Outcome::NoMemory];
    let item =
        (number(), deadline(), marks(), value()).prop_map(|(cas, deadline, marks, value)| {
            let sight = Sight { cas, deadline, marks, ..Sight::default() };
            Outcome::Item(Box::new(Fetched { sight, value }))
        });
    prop_oneof![
        select(plain),
        (number(), any::<u32>()).prop_map(|(cas, size)| Outcome::Stored { cas, size }),
        item,
    ]
}

fn answered() -> impl Strategy<Value = Answered> {
    (life(), number(), number(), outcome()).prop_map(|(origin, counter, done_up_to, outcome)| {
        Answered { request: RequestId { origin, counter }, done_up_to, outcome }
    })
}

fn lane_message() -> impl Strategy<Value = (Option<Bytes>, LaneMessage)> {
    use LaneMessage as Lane;
    let of_no_key = |message| (None, message);
    let fwd = (number(), number(), prop::option::of(time()), key(), mutation());
    let apply = (number(), number(), record(), prop::option::of(answered()));
    let digest = (0u32..3, number()).prop_map(|(items, sum)| Digest { items, sum });
    let digests = prop_oneof![
        select(vec![0usize, 1, 1365, 4095, 4096, 5000]).prop_map(|n| vec![Digest::default(); n]),
        vec(digest, 4096),
    ];
    prop_oneof![
        6 => fwd.prop_map(|(counter, done_up_to, until, key, mutation)| {
            (Some(key.clone()), Lane::Fwd(Fwd { counter, done_up_to, until, key, mutation }))
        }),
        3 => (number(), outcome())
            .prop_map(|(counter, outcome)| (None, Lane::FwdDone(FwdDone { counter, outcome }))),
        6 => apply.prop_map(|(position, committed, record, answered)| {
            let key = record.key.clone();
            (Some(key), Lane::Apply(Apply { position, committed, record, answered }))
        }),
        3 => number().prop_map(Lane::AppliedUpTo).prop_map(of_no_key),
        2 => number().prop_map(Lane::CommitUpTo).prop_map(of_no_key),
        4 => (vec(record(), 0..4), vec(answered(), 0..3), any::<bool>()).prop_map(
            |(records, answered, last)| {
                let key = records.first().map(|record| record.key.clone());
                (key, Lane::ViewFlush(ViewFlush { records, answered, last }))
            }
        ),
        2 => Just((None, Lane::Activated)),
        2 => digests.prop_map(Lane::SnapDigests).prop_map(of_no_key),
        2 => vec(any::<u16>().prop_map(|slot| slot % 4200), 0..20)
            .prop_map(Lane::SnapWant)
            .prop_map(of_no_key),
        2 => vec(record(), 0..4).prop_map(|records| {
            let key = records.first().map(|record| record.key.clone());
            (key, Lane::SnapChunk(records))
        }),
        1 => vec(answered(), 0..4).prop_map(Lane::SnapEnd).prop_map(of_no_key),
        1 => Just((None, Lane::SnapAck)),
        2 => vec((key(), version()), 0..4).prop_map(Lane::Lost).prop_map(of_no_key),
        1 => vec(key(), 0..4).prop_map(Lane::Bump).prop_map(of_no_key),
    ]
}

/// Nearly always in the lane of its key.
fn about_a_lane() -> impl Strategy<Value = Message> {
    (lane_message(), epoch(), 0u8..16, 0u8..10).prop_map(|((key, message), epoch, other, dice)| {
        let of_key = key.as_deref().and_then(Key::new).map(|key| key.hash().lane() as u8);
        let lane = of_key.filter(|_| dice > 0).unwrap_or(other);
        Message::Lane(lane, epoch, message)
    })
}

fn line() -> impl Strategy<Value = Line> {
    (0u32..4, 0u64..2).prop_map(|(number, random)| Line { number, random })
}

fn beat() -> impl Strategy<Value = Message> {
    let flush = (number(), prop::option::of(time())).prop_map(|(id, at)| FlushAll { id, at });
    let times = (time(), prop::option::of(time()), number(), time());
    let lists = (vec(life(), 0..5), vec(life(), 0..3), vec(flush, 0..3));
    let views = (line(), epoch(), epoch());
    (times, views, lists, any::<(bool, bool, bool)>()).prop_map(
        |((sent, echo, echo_age_ms, cluster), (line, known, active), (up, filled, flushes), is)| {
            Message::Beat(Beat {
                sent,
                echo,
                echo_age_ms,
                cluster,
                view: (line, known),
                active,
                grants: is.0,
                up,
                filled,
                flushes,
                is_seated: is.1,
                leaving: is.2,
            })
        },
    )
}

fn view() -> impl Strategy<Value = Message> {
    let epochs = (epoch(), epoch(), epoch());
    let lives = || vec(select(&LIVES[..]).prop_map(member), 0..5);
    let rest = (version(), prop::option::of(time()), any::<u64>());
    (epochs, line(), lives(), lives(), vec(life(), 0..3), rest).prop_map(
        |(epochs, line, members, learners, dead, (floor, flush_at, features))| {
            Message::View(Box::new(View {
                epoch: epochs.0,
                follows: epochs.1,
                generation: epochs.2,
                line,
                unsettled: vec![dead.clone()],
                members,
                learners,
                dead,
                floor,
                flush_at,
                cause: "x".into(),
                features: Features(features),
                ..View::default()
            }))
        },
    )
}

/// One step, as `peers` reads it.
fn step() -> impl Strategy<Value = Vec<u8>> {
    let said = prop_oneof![20 => about_a_lane(), 6 => beat(), 1 => view()];
    let said = (0u8..8, said).prop_map(|(from, message)| {
        let mut step = vec![SAY | from];
        message::encode(&message, &mut step);
        step
    });
    let other = |what: u8| any::<u8>().prop_map(move |more| vec![what, more]);
    prop_oneof![
        20 => said,
        4 => other(TICK),
        2 => other(VIEW),
        2 => other(ENTER),
        4 => other(COMMAND),
        1 => other(MEET),
        1 => other(REFUSED),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_peers_say_no_node_panics(steps in vec(step(), 0..80)) {
        // All know each other, and there is a view.
        let beginning = [vec![MEET, 1, MEET, 2, MEET, 3, VIEW, 7, TICK, 200, ENTER, 0], steps.concat()];
        peers(&beginning.concat());
    }
}
