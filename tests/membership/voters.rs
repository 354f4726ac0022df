//! Who votes: lost files, foreign files, and voters that come and go.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use sessiond::membership::{Role, StartError};
use tokio::time::sleep;

use crate::group::{Group, names, value};

async fn on_disk(seed: u64) -> Group {
    let mut group = Group::new("a b c", seed).on_disk();
    for name in names("a b c") {
        group.start(&name).await;
    }
    group.until_all_vote().await;
    group.agree("a", 0, 1).await;
    group.until_told(1).await;
    group
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_lost_its_file_comes_back_as_another() {
    for name in ["a", "b", "c"] {
        let mut group = on_disk(20).await;
        group.kill(name).await;
        group.until_led().await;
        fs::remove_file(group.file(name)).unwrap();
        group.start(name).await;
        group.until_all_vote().await;
        group.until_told(1).await;
        let other = if name == "b" { "c" } else { "b" };
        group.kill(other).await;
        group.agree(name, 1, 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_files_each_restart_is_a_new_voter() {
    let mut group = Group::started("a b c", 21).await;
    group.until_all_vote().await;
    for (round, name) in ["a", "b", "c", "a", "b", "c"].into_iter().enumerate() {
        group.agree(name, round as u64, round as u64 + 1).await;
        group.kill(name).await;
        group.start(name).await;
        group.until_all_vote().await;
    }
    group.until_told(6).await;
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_refused() {
    let mut group = on_disk(22).await;
    group.kill("a").await;
    let file = group.file("a");
    let good = fs::read(&file).unwrap();
    for broken in [&good[..good.len() - 1], &good[..10], &[], &[0; 100]] {
        fs::write(&file, broken).unwrap();
        let error = group.try_start("a").await.unwrap_err();
        assert!(matches!(error, StartError::BadFile(..)), "{error}");
        assert!(error.to_string().contains("move it away"), "{error}");
    }
    for at in 0..good.len() {
        let mut broken = good.clone();
        broken[at] ^= 0x10;
        fs::write(&file, &broken).unwrap();
        assert!(group.try_start("a").await.is_err(), "byte {at} is broken, and nobody sees it");
    }
    fs::write(&file, &good).unwrap();
    group.start("a").await;
    group.until_all_vote().await;
}

#[tokio::test(start_paused = true)]
async fn the_file_of_another_cluster_or_node_is_refused() {
    let mut group = on_disk(23).await;
    group.kill("a").await;
    group.kill("b").await;
    fs::copy(group.file("a"), group.file("b")).unwrap();
    let error = group.try_start("b").await.unwrap_err();
    assert!(matches!(error, StartError::Foreign { what: "node", .. }), "{error}");
    group.cluster = "other".into();
    let error = group.try_start("a").await.unwrap_err();
    assert!(matches!(error, StartError::Foreign { what: "cluster", .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn two_processes_never_share_a_folder() {
    let mut group = on_disk(24).await;
    let error = group.try_start("a").await.unwrap_err();
    assert!(matches!(error, StartError::InUse(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn voters_are_added_replaced_and_removed() {
    let mut group = Group::started("a b c", 25).await;
    group.until_all_vote().await;
    group.agree("a", 0, 1).await;
    // One more.
    group.set_voters("a b c d");
    group.start("d").await;
    group.until_all_vote().await;
    group.until_told(1).await;
    // One for another: b is dead and does not come back.
    group.kill("b").await;
    group.set_voters("a c d e");
    group.start("e").await;
    group.until_all_vote().await;
    group.agree("e", 1, 2).await;
    group.until_told(2).await;
    // The leader itself goes.
    let leader = group.until_led().await;
    let rest: Vec<&str> =
        ["a", "c", "d", "e"].into_iter().filter(|name| **name != *leader).collect();
    group.set_voters(&rest.join(" "));
    group
        .until("led by another", |group| {
            let status = group.node(rest[0]).status();
            let named: Vec<&str> = status.voters.iter().map(|name| &**name).collect();
            named == rest && status.leader.is_some_and(|name| name != leader)
        })
        .await;
    group.agree(rest[1], 2, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_vote_passes_proposals_on() {
    let mut group = Group::started("a b c", 26).await;
    group.start("z").await;
    group.until_all_but("z").await;
    group.until("known", |group| group.node("z").status().leader.is_some()).await;
    let node = group.node("z");
    node.propose(value(0, 1));
    group.until("agreed", |group| group.told("a") == [1]).await;
    assert_eq!(node.status().role, Role::Outside);
    let leader = node.status().leader.unwrap();
    group.kill(&leader).await;
    group
        .until("another leader", |group| {
            group.node("z").status().leader.is_some_and(|name| name != leader)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_tie_breaker_votes_alone() {
    let mut group = Group::new("a", 27);
    group.start("a").await;
    group.start("b").await;
    group.until("known", |group| group.node("b").status().leader.as_deref() == Some("a")).await;
    group.node("b").propose(value(0, 1));
    group.until("agreed", |group| group.told("a") == [1]).await;
    group.kill("b").await;
    group.agree("a", 1, 2).await;
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_counted_and_changes_nothing() {
    let group = Group::started("a b c", 28).await;
    group.until_all_vote().await;
    let node = group.node("a");
    let tape = group.tape();
    for frame in &tape {
        for cut in 0..frame.len() {
            node.receive("b", frame.slice(..cut));
        }
        sleep(Duration::from_millis(1)).await;
        for at in 0..frame.len() {
            let mut broken = frame.to_vec();
            broken[at] ^= 0x55;
            node.receive("stranger", Bytes::from(broken));
        }
        sleep(Duration::from_millis(1)).await;
    }
    node.receive("b", Bytes::from(vec![1; 2 << 20]));
    group.agree("a", 0, 1).await;
    assert!(node.status().bad_frames > tape.len() as u64);
}
