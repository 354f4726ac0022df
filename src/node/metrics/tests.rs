//! What a scrape gets, line by line.

use std::collections::{BTreeMap, BTreeSet};

use crate::exposition::Exposition;
use crate::node::tests::{Alone, Single};
use crate::replication::{Incarnation, Member, View};
use crate::version::Epoch;

/// The exporter's, whose names are older than the rule that a counter ends in `_total`.
const OLD_NAMES: [&str; 3] = [
    "memcached_slab_items_moves_to_cold",
    "memcached_slab_items_moves_to_warm",
    "memcached_slab_items_moves_within_lru",
];

fn scrape(single: &Single) -> String {
    let mut out = Exposition::default();
    single.node.metrics(single.now(), &mut out);
    out.into_text()
}

/// After some traffic, so that classes have samples.
fn used() -> Single {
    let single = Single::new(true);
    single.says("set a 0 0 1\r\nx\r\n");
    single.says(&format!("set b 0 0 3000\r\n{}\r\nget a\r\nget c\r\n", "y".repeat(3000)));
    single
}

fn is_name(text: &str) -> bool {
    let may_be = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    text.starts_with(may_be) && text.chars().all(|c| may_be(c) || c.is_ascii_digit())
}

/// The name of a sample, its labels as they stand, and its value.
fn parts(sample: &str) -> (&str, &str, &str) {
    let (series, value) = sample.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    (name, labels, value)
}

#[test]
fn every_sample_stands_below_the_help_and_the_type_of_its_family() {
    let text = scrape(&used());
    let (mut kinds, mut help, mut seen) = (BTreeMap::new(), "", BTreeSet::new());
    let mut family = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').unwrap();
            assert!(words.ends_with('.') && words.len() > 10, "{line}");
            help = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(help, name, "the help comes first");
            assert!(is_name(name), "{name}");
            assert!(kinds.insert(name, kind).is_none(), "{name} twice");
            family = name;
        } else {
            let (name, labels, value) = parts(line);
            let part = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} in {family}"));
            let parts = if kinds[family] == "histogram" { "_bucket _sum _count" } else { "" };
            assert!(part.is_empty() != parts.contains("_sum"), "{line}");
            assert!(parts.split(' ').any(|one| one == part), "{line}");
            assert!(value.parse::<f64>().unwrap() >= 0.0, "{line}");
            assert!(seen.insert((name, labels)), "{line} twice");
        }
    }
    assert!(kinds.len() > 90, "{} families", kinds.len());
    for (name, kind) in kinds {
        let is_counter = kind == "counter" && !OLD_NAMES.contains(&name);
        assert_eq!(is_counter, name.ends_with("_total"), "{name} is a {kind}");
    }
}

#[test]
fn figures_are_those_of_stats() {
    let text = scrape(&used());
    for line in [
        "memcached_up 1",
        "memcached_version{version=\"1.6.45\"} 1",
        "memcached_current_items 2",
        "memcached_items_total 2",
        "memcached_limit_bytes 8388608",
        "memcached_commands_total{command=\"get\",status=\"hit\"} 1",
        "memcached_commands_total{command=\"get\",status=\"miss\"} 1",
        "memcached_commands_total{command=\"set\",status=\"hit\"} 2",
        "memcached_slab_current_items{slab=\"1\"} 1",
        "memcached_slab_commands_total{slab=\"1\",command=\"get\",status=\"hit\"} 1",
        "memcached_slab_lru_hits_total{slab=\"1\",lru=\"cold\"} 1",
        "memcached_slab_chunk_size_bytes{slab=\"1\"} 96",
        "sessiond_ready 1",
        "sessiond_state{state=\"member\"} 1",
        "sessiond_state{state=\"fenced\"} 0",
        "sessiond_view_nodes{role=\"member\"} 1",
        "sessiond_configured_nodes 1",
        "sessiond_view_changes_total{cause=\"founding\"} 1",
        "sessiond_view_changes_total{cause=\"last_man_standing\"} 0",
        "sessiond_fences_total 0",
        "sessiond_commit_wait_seconds_count 0",
    ] {
        assert!(text.lines().any(|other| other == line), "no {line} in {text}");
    }
    assert!(!text.contains("sessiond_peer_up{"), "there is no peer");
}

#[test]
fn a_node_alone_is_ready() {
    let single = Single::new(true);
    assert_eq!(single.node.readiness(single.now()), Ok(()));
}

#[test]
fn a_node_that_is_being_filled_says_so_and_one_that_is_left_out_waits() {
    let single = Single::new(true);
    let next = |members: &[u64], learners: &[u64]| {
        let list = |lives: &[u64]| lives.iter().map(|&n| member(n)).collect();
        let present = single.node.view();
        let view = View {
            epoch: Epoch(present.epoch.0 + 1),
            follows: present.epoch,
            members: list(members),
            learners: list(learners),
            ..present
        };
        single.node.agreed(view, single.now(), &mut Alone::default());
        single.node.readiness(single.now()).unwrap_err()
    };
    assert_eq!(next(&[2], &[1]), "joining: is being filled by the others");
    assert_eq!(next(&[2], &[]), "waiting: is in no view of its group");
    let text = scrape(&single);
    for line in ["sessiond_ready 0", "sessiond_state{state=\"waiting\"} 1", "memcached_up 1"] {
        assert!(text.lines().any(|other| other == line), "no {line} in {text}");
    }
}

fn member(n: u64) -> Member {
    Member { name: format!("n{n}").into(), incarnation: Incarnation(n) }
}
