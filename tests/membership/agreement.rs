//! Agreement: the same values in the same order, whoever dies.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::group::{Group, names, seeds, value};

#[tokio::test(start_paused = true)]
async fn a_single_voter_founds_alone() {
    let group = Group::started("a", 1).await;
    group.agree("a", 0, 1).await;
    group.agree("a", 1, 2).await;
    assert_eq!(group.told("a"), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn all_are_told_the_same_in_the_same_order() {
    for voters in ["a b c", "a b c d e"] {
        let group = Group::started(voters, 2).await;
        group.until_all_vote().await;
        for number in 1..=100 {
            let through = &group.voters[number as usize % group.voters.len()];
            group.agree(through, number - 1, number).await;
        }
        group.until_told(100).await;
        for name in &group.voters {
            assert_eq!(group.told(name), (1..=100).collect::<Vec<_>>());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_proposals_that_follow_the_same_value_one_wins() {
    let group = Group::started("a b c", 3).await;
    group.until_led().await;
    for number in 2..6 {
        group.node("a").propose(value(0, number * 10));
        group.node("b").propose(value(0, number * 10 + 1));
        group.node("c").propose(value(0, number * 10 + 2));
    }
    group.until("one", |group| !group.told("a").is_empty()).await;
    sleep(Duration::from_secs(1)).await;
    let told = group.told("a");
    assert_eq!(told.len(), 1);
    assert_eq!(group.told("b"), told);
    assert_eq!(group.told("c"), told);
}

#[tokio::test(start_paused = true)]
async fn a_minority_agrees_on_nothing() {
    let group = Group::started("a b c", 4).await;
    group.until_all_vote().await;
    group.agree("a", 0, 1).await;
    group.until_told(1).await;
    let leader = group.until_led().await;
    group.isolate(&leader);
    for _ in 0..50 {
        group.node(&leader).propose(value(1, 99));
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(group.told(&leader), [1]);
    assert_eq!(group.node(&leader).status().leader, None, "nobody answers it");
    let other = group.others(&leader).into_keys().next().unwrap();
    group.agree(&other, 1, 2).await;
    group.heal();
    group.until_told(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_replaced() {
    for seed in 0..20 {
        let mut group = Group::started("a b c", seed).await;
        group.until_all_vote().await;
        group.agree("a", 0, 1).await;
        group.until_told(1).await;
        sleep(Duration::from_millis(seed * 7)).await;
        let leader = group.until_led().await;
        let since = Instant::now();
        group.kill(&leader).await;
        let other = group.others("").into_keys().next().unwrap();
        let node = group.node(&other);
        while !group.told(&other).contains(&2) {
            node.propose(value(1, 2));
            sleep(Duration::from_millis(5)).await;
        }
        println!("seed {seed}: {leader} killed, agreed again after {:?}", since.elapsed());
        // The lease of the dead, then an election; without a proof it would be twice that.
        assert!(since.elapsed() < Duration::from_millis(200), "seed {seed}");
        group.until_told(2).await;
        let leaders = group.leaders(&other);
        assert_eq!(leaders[leaders.len() - 2..], [None, group.leader()]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_proposal_reaches_a_leader_through_a_third() {
    for seed in 0..10 {
        let group = Group::started("a b c", seed).await;
        group.until_all_vote().await;
        group.agree("a", 0, 1).await;
        group.until_told(1).await;
        let leader = group.until_led().await;
        let mut others = group.others(&leader).into_keys();
        let (away, between) = (others.next().unwrap(), others.next().unwrap());
        group.cut(&leader, &away);
        // By then it knows that it hears from the leader no more, and would lead itself.
        sleep(Duration::from_secs(1)).await;
        for _ in 0..20 {
            group.node(&away).propose(value(1, 2));
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(group.told(&between), [1, 2], "seed {seed}");
        assert_eq!(group.told(&leader), [1, 2], "seed {seed}");
    }
}

/// With files and a real clock, so that it says what a user would notice.
#[tokio::test]
async fn a_killed_leader_is_replaced_in_real_time() {
    let mut took = Vec::new();
    for seed in 0..8 {
        let mut group = Group::new("a b c", seed).on_disk();
        for name in names("a b c") {
            group.start(&name).await;
        }
        group.until_all_vote().await;
        group.agree("a", 0, 1).await;
        sleep(Duration::from_millis(seed * 11)).await;
        let leader = group.until_led().await;
        let since = Instant::now();
        group.kill(&leader).await;
        let other = group.others("").into_keys().next().unwrap();
        while !group.told(&other).contains(&2) {
            group.node(&other).propose(value(1, 2));
            sleep(Duration::from_millis(5)).await;
        }
        took.push(since.elapsed());
    }
    took.sort();
    println!("agreed again after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_leader_is_replaced_without_proof() {
    for seed in 0..10 {
        let group = Group::started("a b c", seed).await;
        group.until_all_vote().await;
        group.agree("a", 0, 1).await;
        group.until_told(1).await;
        sleep(Duration::from_millis(seed * 7)).await;
        let leader = group.until_led().await;
        let since = Instant::now();
        group.isolate(&leader);
        let other = group.others(&leader).into_keys().next().unwrap();
        while !group.told(&other).contains(&2) {
            group.node(&other).propose(value(1, 2));
            sleep(Duration::from_millis(5)).await;
        }
        println!("seed {seed}: {leader} silent, agreed again after {:?}", since.elapsed());
    }
}

/// Loss, delays, cuts and restarts with their files.
async fn a_storm(voters: &str, seed: u64) {
    let mut group = Group::new(voters, seed).on_disk();
    let all = names(voters);
    for name in &all {
        group.start(name).await;
    }
    group.until_all_vote().await;
    let mut random = StdRng::seed_from_u64(seed);
    group.weather(random.random_range(0.0..0.3), 0..random.random_range(2..30));
    for _ in 0..80 {
        let name = &all[random.random_range(0..all.len())];
        let other = &all[random.random_range(0..all.len())];
        match random.random_range(0..8) {
            0 | 1 if !group.is_running(name) => group.start(name).await,
            2 if group.is_running(name) => group.kill(name).await,
            3 if name != other => group.cut(name, other),
            4 => group.heal(),
            _ => group.propose_everywhere(),
        }
        sleep(Duration::from_millis(random.random_range(0..300))).await;
    }
    group.heal();
    group.weather(0.0, 0..2);
    for name in &all {
        if !group.is_running(name) {
            group.start(name).await;
        }
    }
    group.until_all_vote().await;
    let leader = group.until_led().await;
    // What was on its way may still come.
    sleep(Duration::from_secs(1)).await;
    let before = group.told(&leader).last().copied().unwrap_or(0);
    group.agree(&leader, before, u64::MAX).await;
    group.until_told(u64::MAX).await;
    group.assert_same_history();
}

#[tokio::test(start_paused = true)]
async fn a_storm_changes_nothing_that_was_agreed() {
    for seed in 0..seeds(8) {
        println!("seed {seed}");
        a_storm(["a b c", "a b c d e"][seed as usize % 2], seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_for_a_while_only_costs_a_voter_for_a_while() {
    let mut group = Group::new("a b c", 7).on_disk();
    for name in names("a b c") {
        group.start(&name).await;
    }
    group.until_all_vote().await;
    for (round, name) in ["a", "b", "c"].into_iter().enumerate() {
        let other = if name == "a" { "b" } else { "a" };
        let folder = group.file(name).parent().unwrap().to_owned();
        let aside = folder.with_extension("aside");
        std::fs::rename(&folder, &aside).unwrap();
        group.agree(other, round as u64 * 2, round as u64 * 2 + 1).await;
        sleep(Duration::from_secs(5)).await;
        std::fs::rename(&aside, &folder).unwrap();
        group.agree(other, round as u64 * 2 + 1, round as u64 * 2 + 2).await;
        group.until_told(round as u64 * 2 + 2).await;
        group.until_all_vote().await;
    }
}

#[tokio::test]
async fn a_restart_goes_on_from_the_file() {
    let mut group = Group::new("a b c", 6).on_disk();
    for name in names("a b c") {
        group.start(&name).await;
    }
    group.until_all_vote().await;
    for number in 1..=40 {
        group.agree("b", number - 1, number).await;
    }
    group.until_told(40).await;
    let founding = group.node("a").status().founding;
    for name in names("a b c") {
        group.kill(&name).await;
    }
    for name in names("a b c") {
        group.start(&name).await;
    }
    group.agree("b", 40, 41).await;
    group.until_told(41).await;
    assert_eq!(group.node("c").status().founding, founding);
    let file = group.file("a");
    assert!(std::fs::metadata(file).unwrap().len() < 8192);
}
