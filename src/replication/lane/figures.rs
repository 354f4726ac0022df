//! What filling learners has come to, for people to see.

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
