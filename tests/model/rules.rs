//! What may be switched off, and how far a run goes.

/// One safety rule each. The protocol has all of them; a test takes one away and must then find
/// a broken promise, or the model would prove nothing about that rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Only a node with grants of a majority of its view (itself included) answers a read.
    pub(crate) lease_check: bool,
    /// Nobody takes part in a view before all its grants to nodes outside have run out.
    pub(crate) grant_wait: bool,
    /// A ViewFlush carries what is not known to be committed.
    pub(crate) roll_forward: bool,
    /// What a ViewFlush carried is not committed before all members work in the new view.
    pub(crate) late_commit: bool,
    /// A value that is not known to be committed is not shown.
    pub(crate) pending_wait: bool,
    /// A member that knows of a newer view acknowledges and commits nothing in the old one.
    pub(crate) freeze: bool,
    /// Nothing of a view is applied or acknowledged before one works in that view.
    pub(crate) epoch_buffering: bool,
    /// A request that the table of results knows is not executed again.
    pub(crate) dedupe: bool,
    /// A learner is filled again after every view change.
    pub(crate) learner_repeat: bool,
    /// An owner counts a learner only when it has everything that is committed.
    pub(crate) count_caught_up: bool,
    /// The table of results is part of the filling.
    pub(crate) table_travels: bool,
    /// And it replaces what the learner had.
    pub(crate) table_replaces: bool,
    /// A view keeps at least half of the members of the last active view.
    pub(crate) half: bool,
    /// And of every view after that one, which may be active for some of its members.
    pub(crate) half_of_each: bool,
    /// A view may keep less than half only if enough of the others are proven dead.
    pub(crate) small_view_needs_proof: bool,
    /// And its members then wait until the grants of the dead are over as well.
    pub(crate) small_view_waits: bool,
    /// A value is answered under the lease of the view in which it was read.
    pub(crate) read_in_one_view: bool,
    /// From its ViewFlush until it works in the new view a node answers no reads.
    pub(crate) read_stop: bool,
}

impl Rules {
    pub(crate) const ALL: Self = Self {
        lease_check: true,
        grant_wait: true,
        roll_forward: true,
        late_commit: true,
        pending_wait: true,
        freeze: true,
        epoch_buffering: true,
        dedupe: true,
        learner_repeat: true,
        count_caught_up: true,
        table_travels: true,
        table_replaces: true,
        half: true,
        half_of_each: true,
        small_view_needs_proof: true,
        small_view_waits: true,
        read_in_one_view: true,
        read_stop: true,
    };
}

/// How much may happen in one execution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Members and learners of the first view.
    pub(crate) members: u8,
    pub(crate) learners: u8,
    /// Nodes that are alive but in no view: they may become learners. They are empty.
    pub(crate) outsiders: u8,
    /// The owner of the key is the first of these that is a member.
    pub(crate) owners: [u8; crate::state::NODES],
    /// Mutations, each from a client of any member.
    pub(crate) operations: u8,
    /// View changes.
    pub(crate) views: u8,
    /// Processes that die.
    pub(crate) crashes: u8,
    /// Forwards that are sent twice within a view, because a link broke.
    pub(crate) resends: u8,
    /// Views that keep less than half are allowed, after a wait of a whole grant time.
    pub(crate) allows_small_views: bool,
    /// Reads that take their time between finding the value and checking the lease.
    pub(crate) slow_reads: u8,
    /// The clients sit on these nodes only.
    pub(crate) clients: u8,
}

impl Bounds {
    pub(crate) const THREE: Self = Self {
        members: 0b0111,
        learners: 0,
        outsiders: 0,
        owners: [0, 1, 2, 3],
        operations: 1,
        views: 1,
        crashes: 0,
        resends: 0,
        allows_small_views: false,
        slow_reads: 0,
        clients: 0b1111,
    };

    pub(crate) const TWO: Self = Self { members: 0b0011, ..Self::THREE };
}
