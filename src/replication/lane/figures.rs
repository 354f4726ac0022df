//! What a lane has to do, and what filling learners has come to, for people to see.

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the start of a node, as owner and as learner.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct SyncFigures { $($(#[$doc])* pub $name: u64),* }

        impl SyncFigures {
            /// Adds those of another lane.
            pub fn add(&mut self, other: Self) { $(self.$name += other.$name;)* }

            /// What was added since then.
            #[must_use]
            pub fn since(self, earlier: Self) -> Self {
                Self { $($name: self.$name - earlier.$name),* }
            }

            /// Each with its name.
            pub fn named(self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

figures! {
    /// As a learner: how often an owner's digests were compared with its own.
    rounds,
    /// Slots among them that held something here or there,
    slots_compared,
    /// and that held the same.
    slots_equal,
    /// Items that went because the view may not have them.
    items_dropped,
    /// Changes of items that were not known to be right, and went for it.
    items_unsure,
    /// What came.
    items_received,
    /// Bytes of keys and values of it.
    bytes_received,
    /// As an owner: slots that learners wanted.
    slots_sent,
    /// What they got.
    items_sent,
    /// Bytes of keys and values of it.
    bytes_sent,
}

/// What a lane has to do, and what it has asked of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Keys with changes that are not everywhere yet.
    pub pending: u64,
    /// Commands of clients of this node that wait.
    pub waiting: u64,
    /// Commands that other nodes were asked to decide, from the start on.
    pub asked: u64,
    /// Reads among them, which this node could not prove.
    pub relayed_reads: u64,
    /// Of those that wait, the ones that nobody can be asked about now.
    pub held: u64,
    /// Commands that could not be given to anybody when they came, from the start on.
    pub ever_held: u64,
    /// Kept of messages whose view is not there yet.
    pub early_bytes: u64,
    /// Items of other owners that had to go here for lack of memory, from the start on.
    pub local_evictions: u64,
    /// Commands of other nodes that came when nobody waited for them any more, from the start on.
    pub expired: u64,
}

impl Backlog {
    /// Adds that of another lane.
    pub fn add(&mut self, other: &Self) {
        self.pending += other.pending;
        self.waiting += other.waiting;
        self.asked += other.asked;
        self.relayed_reads += other.relayed_reads;
        self.held += other.held;
        self.ever_held += other.ever_held;
        self.early_bytes += other.early_bytes;
        self.local_evictions += other.local_evictions;
        self.expired += other.expired;
    }
}
