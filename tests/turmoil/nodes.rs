//! Three whole nodes whose connections break: what was confirmed is on all of them, a node that was
//! cut off comes back, and a session outlives its connections.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sessiond::replication::Timing;

use crate::host::{Hosts, NAMES, Ticket};
use crate::{disturb, pass, seeds};

/// Suspects nobody, so that no view changes while connections break.
const TRUSTING: Timing = Timing {
    beat_ms: 50,
    suspect_ms: 10_000,
    grant_ms: 20_000,
    boot_wait_ms: 2000,
    refusal_ms: 1000,
    request_ms: 30_000,
};

fn set(key: &str, value: &str) -> String {
    format!("set {key} 0 0 {}\r\n{value}\r\n", value.len())
}

fn get(key: &str) -> String {
    format!("get {key}\r\n")
}

fn found(key: &str, value: &str) -> String {
    format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len())
}

const STORED: &str = "STORED\r\n";

#[test]
fn what_is_written_through_one_node_is_read_through_the_others() {
    for seed in seeds(3) {
        let mut hosts = Hosts::started(seed, Timing::default());
        for number in 0..30 {
            let (writer, reader) = (NAMES[number % 3], NAMES[(number + 1) % 3]);
            let (key, value) = (format!("key{number}"), format!("of {writer}"));
            assert_eq!(hosts.ask(writer, &set(&key, &value)), STORED, "seed {seed}");
            assert_eq!(hosts.ask(reader, &get(&key)), found(&key, &value), "seed {seed}");
            assert_eq!(hosts.ask(reader, &format!("delete {key}\r\n")), "DELETED\r\n");
            assert_eq!(hosts.ask(writer, &get(&key)), "END\r\n", "seed {seed}");
        }
    }
}

#[test]
fn the_others_go_on_without_a_node_that_is_cut_off_and_it_comes_back() {
    for seed in seeds(5) {
        let mut hosts = Hosts::started(seed, Timing::default());
        let (cut, others) = away(seed);
        assert_eq!(hosts.ask(cut, &set("key", "old")), STORED);
        others.iter().for_each(|other| hosts.sim.partition(cut, *other));
        assert_eq!(hosts.ask(others[0], &set("key", "new")), STORED, "seed {seed}");
        hosts.until_members(&others);
        // It answers nothing that it can't prove, and asks others once they are there again.
        let read = hosts.begin(cut, &get("key"));
        pass(&mut hosts.sim, Duration::from_secs(3));
        assert_eq!(read.reply(), None, "seed {seed}: {:?}", hosts.stat(cut, "state"));
        others.iter().for_each(|other| hosts.sim.repair(cut, *other));
        hosts.until_members(&NAMES);
        hosts.until("read", |_| read.reply().is_some());
        assert_eq!(read.reply(), Some(found("key", "new")), "seed {seed}");
        hosts.until_equal();
    }
}

#[test]
fn a_node_that_was_held_up_says_nothing_old_and_comes_back() {
    for seed in seeds(5) {
        let mut hosts = Hosts::started(seed, Timing::default());
        let (held, others) = away(seed);
        assert_eq!(hosts.ask(held, &set("key", "old")), STORED);
        // Nothing gets lost: all of it comes at once afterwards.
        others.iter().for_each(|other| hosts.sim.hold(held, *other));
        hosts.until_members(&others);
        assert_eq!(hosts.ask(others[1], &set("key", "new")), STORED, "seed {seed}");
        let read = hosts.begin(held, &get("key"));
        pass(&mut hosts.sim, Duration::from_secs(1));
        others.iter().for_each(|other| hosts.sim.release(held, *other));
        hosts.until("read", |_| read.reply().is_some());
        assert_eq!(read.reply(), Some(found("key", "new")), "seed {seed}");
        hosts.until_members(&NAMES);
        hosts.until_equal();
    }
}

#[test]
fn a_session_goes_on_over_the_next_connection_and_no_view_changes() {
    for seed in seeds(5) {
        let mut hosts = Hosts::started(seed, TRUSTING);
        let epoch = hosts.stat("a", "epoch");
        let mut rng = StdRng::seed_from_u64(seed);
        for round in 0..5 {
            let (_, before) = hosts.dials();
            hosts.sim.partition("a", "b");
            let writes: Vec<Ticket> = (0..20)
                .map(|number| hosts.begin("a", &set(&format!("key{round}-{number}"), "value")))
                .collect();
            pass(&mut hosts.sim, Duration::from_millis(rng.random_range(20..300)));
            let waiting = writes.iter().filter(|write| write.reply().is_none()).count();
            assert!(waiting > 0, "seed {seed}: confirmed without b");
            hosts.sim.repair("a", "b");
            for write in &writes {
                hosts.until(&format!("stored {:?}", write.command), |_| write.reply().is_some());
                assert_eq!(write.reply().as_deref(), Some(STORED), "seed {seed}");
            }
            assert!(hosts.dials().1 > before, "seed {seed}: no connection was lost");
        }
        for name in NAMES {
            assert_eq!(hosts.stat(name, "epoch"), epoch, "seed {seed}: {name} saw a view change");
        }
        hosts.until_equal();
    }
}

#[test]
fn a_node_that_crashes_is_dead_at_once_and_is_filled_when_it_is_back() {
    for seed in seeds(5) {
        let mut hosts = Hosts::started(seed, Timing::default());
        let (crashed, others) = away(seed);
        assert_eq!(hosts.ask(crashed, &set("key", "value")), STORED);
        hosts.crash(crashed);
        let since = hosts.sim.elapsed();
        hosts.until_members(&others);
        let took = hosts.sim.elapsed() - since;
        // Its connections end and its port refuses: nobody waits until the silence is suspicious,
        // and for promises to run out.
        assert!(took < Duration::from_millis(350), "seed {seed}: {took:?}");
        assert_eq!(hosts.ask(others[0], &get("key")), found("key", "value"), "seed {seed}");
        hosts.bounce(crashed);
        hosts.until_members(&NAMES);
        assert_eq!(hosts.ask(crashed, &get("key")), found("key", "value"), "seed {seed}");
        hosts.until_equal();
    }
}

#[test]
fn a_peer_that_is_away_is_dialed_again_and_again_but_not_all_the_time() {
    const AWAY_S: u64 = 10;
    for seed in seeds(2) {
        let mut hosts = Hosts::started(seed, Timing::default());
        hosts.crash("c");
        hosts.until_members(&["a", "b"]);
        let (before, _) = hosts.dials();
        pass(&mut hosts.sim, Duration::from_secs(AWAY_S));
        let dials = hosts.dials().0 - before;
        // Two nodes, two connections each, one attempt every 100 ms.
        assert!(
            (20..=2 * 2 * 10).contains(&(dials / AWAY_S)),
            "seed {seed}: {dials} in {AWAY_S} s"
        );
    }
}

#[test]
fn what_was_confirmed_is_there_whatever_becomes_of_the_connections() {
    let mut confirmed = 0;
    for seed in seeds(5) {
        let mut hosts = Hosts::started(seed, Timing::default());
        let mut rng = StdRng::seed_from_u64(seed);
        let mut writes = Vec::new();
        for round in 0..10 {
            for (number, name) in NAMES.iter().enumerate() {
                let key = format!("key{round}-{number}");
                writes.push((key.clone(), hosts.begin(name, &set(&key, "value"))));
            }
            let a = rng.random_range(0..NAMES.len());
            let b = (a + rng.random_range(1..NAMES.len())) % NAMES.len();
            disturb(&mut hosts.sim, NAMES[a], NAMES[b], &mut rng);
            pass(&mut hosts.sim, Duration::from_millis(rng.random_range(1..500)));
        }
        hosts.until_members(&NAMES);
        hosts.until_equal();
        for (key, write) in &writes {
            if write.reply().as_deref() == Some(STORED) {
                confirmed += 1;
                for name in NAMES {
                    let read = hosts.ask(name, &get(key));
                    assert_eq!(read, found(key, "value"), "seed {seed}: lost at {name}");
                }
            }
        }
    }
    assert!(confirmed > 20 * seeds(5).count(), "{confirmed}: hardly anything was confirmed");
}

/// One of them, and the others.
fn away(seed: u64) -> (&'static str, Vec<&'static str>) {
    let one = NAMES[seed as usize % NAMES.len()];
    (one, NAMES.into_iter().filter(|name| *name != one).collect())
}
