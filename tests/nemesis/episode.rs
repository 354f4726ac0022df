//! A time in which a group was shaken, in microseconds.

/// One fault, and what it took the group to be whole again.
#[derive(Clone, Debug)]
pub(crate) struct Episode<K> {
    pub(crate) kind: K,
    pub(crate) from_us: u64,
    /// When all were members again.
    pub(crate) to_us: u64,
    /// When every node was dead.
    pub(crate) lost_us: Option<(u64, u64)>,
}
