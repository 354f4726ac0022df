//! How often each mechanism ran.

use sessiond::node::Node;
use sessiond::replication::SyncFigures;
use sessiond::time::Now;

macro_rules! summary {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts of one run, or of many.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Summary { $($(#[$doc])* pub(crate) $name: u64),* }

        impl Summary {
            /// Adds another run.
            pub(crate) fn add(&mut self, other: &Self) { $(self.$name += other.$name;)* }

            /// What has never happened.
            pub(crate) fn missing(&self) -> Vec<&'static str> {
                let mut missing = Vec::new();
                $(if self.$name == 0 { missing.push(stringify!($name)); })*
                missing
            }
        }
    };
}

summary! {
    /// Commands that clients gave, and those whose connection broke.
    commands, unknown_outcomes,
    /// Operations judged, and keys.
    checked_operations, checked_keys,
    /// Messages.
    forwards, endless_forwards, relayed_reads, passed_on, applies, snapshot_items,
    flushes_with_records, rolled_forward,
    /// Of learners: comparisons with an owner, what was equal, what had to go; slots that owners sent.
    digest_rounds, equal_slots, dropped_by_learners, sent_slots,
    /// Where memory is short.
    evictions, lost_by_members,
    /// Faults.
    crashes, silent_crashes, leaves, restarts, pauses, stalls, cuts, one_way_cuts, torn_links, all_dead,
    /// Groups of five and of seven.
    of_five, of_seven,
    /// Of the group.
    views, views_of_less, deaths, silences, admissions, last_men, cold_starts, flush_alls, grant_waits,
    /// New lives beside the present one: those that took its place, that got no time to, that died
    /// before, and whose predecessor did.
    upgrades, upgrades_given_up, successors_died, predecessors_died,
    /// Changes of the nodes, those of living ones, and those that would leave too few.
    nodes_added, nodes_removed, nodes_replaced, removed_alive, changes_refused,
    /// Nodes that an operator let go on without those whose votes were needed.
    forced_solo,
    /// Commands that clients waited for longer than a second.
    held,
}

impl Summary {
    /// The life of a node is over, or the run.
    pub(crate) fn note_end<W>(&mut self, node: &Node<W>) {
        self.grant_waits += node.group_status(Now::default()).grant_waits;
        let SyncFigures { rounds, slots_equal, items_dropped, slots_sent, .. } =
            node.sync_figures();
        self.digest_rounds += rounds;
        self.equal_slots += slots_equal;
        self.dropped_by_learners += items_dropped;
        self.sent_slots += slots_sent;
    }
}
