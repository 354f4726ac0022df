//! How groups begin: once.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sessiond::membership::{Founding, Role};
use tokio::time::sleep;

use crate::group::{Group, names, seeds, value};

#[tokio::test(start_paused = true)]
async fn a_majority_does_not_wait_forever_and_the_late_third_gets_its_seat() {
    let mut group = Group::new("a b c", 10);
    for name in ["b", "c"] {
        group.start(name).await;
    }
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(group.leader(), None, "it waits a moment for the third");
    group.agree("c", 0, 1).await;
    group.start("a").await;
    group.until_all_vote().await;
    group.until_told(1).await;
    group.agree("a", 1, 2).await;
    // Now the third counts: another may go.
    group.kill("b").await;
    group.agree("c", 2, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_minority_founds_nothing() {
    let mut group = Group::new("a b c d", 11);
    for name in ["a", "b"] {
        group.start(name).await;
    }
    sleep(Duration::from_secs(20)).await;
    assert_eq!(group.leader(), None);
    group.start("d").await;
    group.agree("b", 0, 1).await;
}

#[tokio::test(start_paused = true)]
async fn two_founders_that_do_not_see_each_other_found_one_group() {
    for (one, other) in [("a", "b"), ("b", "c"), ("a", "c")] {
        let mut group = Group::new("a b c", 16);
        group.cut(one, other);
        for name in names("a b c") {
            group.start(&name).await;
        }
        group.until_led().await;
        sleep(Duration::from_secs(10)).await;
        let founding = group.foundings_with_a_leader();
        assert_eq!(founding.len(), 1);
        group.heal();
        group.until_all_vote().await;
        group.until_led().await;
        assert_eq!(group.foundings_with_a_leader(), founding);
    }
}

#[tokio::test(start_paused = true)]
async fn who_hears_of_a_group_does_not_found_another() {
    let mut group = Group::new("a b c", 12);
    for name in ["b", "c"] {
        group.start(name).await;
    }
    group.agree("c", 0, 1).await;
    let founding = group.node("c").status().founding;
    // Two come back without their memory, and see the third, which alone can do nothing.
    group.kill("b").await;
    for name in ["a", "b"] {
        group.start(name).await;
    }
    sleep(Duration::from_secs(20)).await;
    assert_eq!(group.node("a").status().founding, founding);
    assert_eq!(group.leader(), None);
    // Whoever decides such things lets it go on by itself; the others follow.
    group.node("c").found_generation(value(0, 7));
    group.until_all_vote().await;
    group.until_told(7).await;
    group.agree("a", 7, 8).await;
    group.until_told(8).await;
    assert_eq!(group.node("b").status().founding.map(|founding| founding.number), Some(2));
}

/// Nodes start, stop with or without their files, and lose links, while the group is founded.
async fn founded_in_a_storm(voters: &str, seed: u64) {
    let mut group = Group::new(voters, seed).on_disk();
    let mut random = StdRng::seed_from_u64(seed);
    let all = names(voters);
    group.weather(random.random_range(0.0..0.2), 0..random.random_range(2..40));
    let mut foundings: BTreeSet<Founding> = BTreeSet::new();
    for _ in 0..60 {
        let name = &all[random.random_range(0..all.len())];
        let other = &all[random.random_range(0..all.len())];
        match random.random_range(0..6) {
            0 | 1 if !group.is_running(name) => group.start(name).await,
            2 if group.is_running(name) => group.kill(name).await,
            3 | 4 if name != other => group.cut(name, other),
            5 => group.heal(),
            _ => {}
        }
        group.propose_everywhere();
        sleep(Duration::from_millis(random.random_range(0..700))).await;
        foundings.extend(group.foundings_with_a_leader());
    }
    group.heal();
    group.weather(0.0, 0..2);
    for name in &all {
        if !group.is_running(name) {
            group.start(name).await;
        }
    }
    group.until_all_vote().await;
    group.until_led().await;
    foundings.extend(group.foundings_with_a_leader());
    assert_eq!(foundings.len(), 1, "seed {seed}: founded {foundings:?}");
    group.assert_same_history();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_founded_twice_in_a_storm() {
    for seed in 0..seeds(12) {
        println!("seed {seed}");
        founded_in_a_storm(["a b c", "a b", "a b c d", "a b c d e"][seed as usize % 4], seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_lone_survivor_goes_on_and_the_others_follow_it() {
    let mut group = Group::started("a b c", 13).await;
    group.until_all_vote().await;
    group.agree("a", 0, 1).await;
    group.until_told(1).await;
    group.kill("a").await;
    group.kill("b").await;
    group.node("c").found_generation(value(1, 5));
    group.agree("c", 5, 6).await;
    assert_eq!(group.node("c").status().role, Role::Leader);
    for name in ["a", "b"] {
        group.start(name).await;
    }
    group.until_all_vote().await;
    group.until_told(6).await;
    group.kill("c").await;
    group.agree("b", 6, 7).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_off_majority_gives_up_its_log_for_a_later_generation() {
    let group = Group::started("a b c", 14).await;
    group.until_all_vote().await;
    group.agree("a", 0, 1).await;
    group.until_told(1).await;
    group.isolate("c");
    group.node("c").found_generation(value(1, 50));
    group.agree("a", 1, 2).await;
    group.heal();
    group.until_all_vote().await;
    group.until_told(50).await;
}

#[tokio::test(start_paused = true)]
async fn who_surrenders_comes_back_to_the_majority() {
    let group = Group::started("a b c", 15).await;
    group.until_all_vote().await;
    group.agree("a", 0, 1).await;
    group.isolate("c");
    group.node("c").found_generation(value(1, 50));
    group.until("alone", |group| group.told("c").last() == Some(&50)).await;
    group.node("c").surrender();
    sleep(Duration::from_millis(50)).await;
    group.heal();
    group.until_all_vote().await;
    group.agree("c", 1, 2).await;
    group.until_told(2).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_either_goes_on_alone_again_and_again() {
    let mut group = Group::new("a b", 17).on_disk();
    group.start("a").await;
    group.start("b").await;
    group.until_all_vote().await;
    let mut last = 0;
    for (survivor, other) in [("a", "b"), ("b", "a"), ("b", "a"), ("a", "b")] {
        group.agree(survivor, last, last + 1).await;
        group.until_told(last + 1).await;
        group.kill(other).await;
        group.node(survivor).found_generation(value(last + 1, last + 2));
        group.agree(survivor, last + 2, last + 3).await;
        last += 3;
        group.start(other).await;
        group.until_all_vote().await;
        group.until_told(last).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_no_vote_goes_on_alone_and_gives_the_vote_back() {
    for seed in 30..40 {
        let mut group = Group::new("a", seed).on_disk();
        group.start("a").await;
        group.start("b").await;
        group.until("known", |group| group.node("b").status().leader.is_some()).await;
        let mut last = 0;
        for round in 1..4 {
            group.agree("a", last, 10 * round).await;
            group.kill("a").await;
            group.node("b").found_generation(value(10 * round, 10 * round + 1));
            group.agree("b", 10 * round + 1, 10 * round + 2).await;
            group.start("a").await;
            last = 10 * round + 2;
            group
                .until("voted by a again", |group| {
                    let (a, b) = (group.node("a").status(), group.node("b").status());
                    let is_led = |leader: Option<Box<str>>| leader.as_deref() == Some("a");
                    is_led(a.leader) && is_led(b.leader) && b.founding.is_none()
                })
                .await;
            group.until("told", |group| group.told("a").last() == Some(&last)).await;
        }
        // Now a has forgotten everything, and only it votes.
        group.kill("a").await;
        fs::remove_file(group.file("a")).unwrap();
        group.start("a").await;
        group.until("founded anew", |group| group.leader().as_deref() == Some("a")).await;
    }
}
