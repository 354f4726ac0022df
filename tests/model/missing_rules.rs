//! One rule taken away: each time, a promise must break. `--nocapture` shows how.

use crate::rules::{Bounds, Rules};
use crate::search::{breaks, holds_with};

const ALL: Rules = Rules::ALL;

/// Small, and yet every rule but three is needed in it.
const JOIN: Bounds = Bounds { members: 0b011, learners: 0b100, views: 2, ..Bounds::THREE };

#[test]
fn without_the_lease_check() {
    breaks("no lease check", Rules { lease_check: false, ..ALL }, JOIN);
}

#[test]
fn without_the_grant_wait() {
    breaks("no grant wait", Rules { grant_wait: false, ..ALL }, JOIN);
}

#[test]
fn without_roll_forward() {
    breaks("no roll forward", Rules { roll_forward: false, ..ALL }, JOIN);
}

#[test]
fn when_what_is_rolled_forward_counts_as_committed_at_once() {
    breaks("no late commit", Rules { late_commit: false, ..ALL }, JOIN);
}

#[test]
fn when_pending_values_are_shown() {
    breaks("no pending wait", Rules { pending_wait: false, ..ALL }, JOIN);
}

#[test]
fn when_members_acknowledge_after_they_have_heard_of_a_newer_view() {
    breaks("no freeze", Rules { freeze: false, ..ALL }, JOIN);
}

#[test]
fn when_records_of_a_future_view_are_applied() {
    breaks("no epoch buffering", Rules { epoch_buffering: false, ..ALL }, JOIN);
}

#[test]
fn when_a_known_request_is_executed_again() {
    breaks("no dedupe", Rules { dedupe: false, ..ALL }, JOIN);
}

#[test]
fn when_a_learner_is_not_filled_again() {
    breaks("no repeat", Rules { learner_repeat: false, ..ALL }, JOIN);
}

#[test]
fn when_a_learner_counts_before_it_has_what_is_committed() {
    breaks("counted early", Rules { count_caught_up: false, ..ALL }, JOIN);
}

#[test]
fn when_a_learner_gets_no_table_of_results() {
    breaks("no table", Rules { table_travels: false, ..ALL }, JOIN);
}

#[test]
fn when_a_learner_keeps_its_old_table_of_results() {
    breaks("old table kept", Rules { table_replaces: false, ..ALL }, JOIN);
}

#[test]
fn when_a_view_may_drop_a_majority() {
    breaks("no half rule", Rules { half: false, ..ALL }, JOIN);
}

#[test]
fn when_half_is_counted_in_the_last_active_view_only() {
    breaks("half of the active view", Rules { half_of_each: false, ..ALL }, JOIN);
}

#[test]
fn when_one_waits_for_a_grant_time_instead_of_proof() {
    let bounds = Bounds { allows_small_views: true, ..Bounds::THREE };
    breaks("no proof", Rules { small_view_needs_proof: false, ..ALL }, bounds);
}

#[test]
fn when_the_grants_of_the_dead_are_not_waited_for() {
    let bounds = Bounds { allows_small_views: true, crashes: 1, ..Bounds::THREE };
    breaks("no wait for the dead", Rules { small_view_waits: false, ..ALL }, bounds);
}

#[test]
fn when_a_read_is_answered_under_the_lease_of_a_later_view() {
    let bounds = Bounds { views: 3, slow_reads: 1, ..Bounds::TWO };
    breaks("read across views", Rules { read_in_one_view: false, ..ALL }, bounds);
}

/// The one rule that nothing needs: what a node may still show after its ViewFlush, nobody can
/// have replaced, because nothing is committed in the new view before it works there too. The
/// protocol keeps the rule; this says that a read slipping through does no harm.
#[test]
fn reads_may_go_on_between_view_flush_and_the_new_view() {
    let rules = Rules { read_stop: false, ..ALL };
    holds_with("reads go on", rules, Bounds { crashes: 1, ..JOIN });
    let bounds = Bounds { views: 2, crashes: 1, ..Bounds::THREE };
    holds_with("reads go on, two changes", rules, bounds);
}
