//! The rules that keep the promises, each with a switch.
//!
//! They are all on, always; tests turn one off to see that its absence is noticed.

/// What must hold; see `docs/replication.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A read is answered only under a lease.
    pub lease: bool,
    /// A new view waits until what was promised to those left out has run out.
    pub grant_wait: bool,
    /// A new view begins with what any of its members has applied.
    pub roll_forward: bool,
    /// What came over is committed only when all members work in the new view.
    pub late_commit: bool,
    /// A value that is not committed is shown to nobody.
    pub pending_wait: bool,
    /// What belongs to a view that is not active here yet waits for it.
    pub epoch_buffer: bool,
    /// A request that is sent again is not decided again.
    pub dedupe: bool,
    /// A request is carried out only while its client may wait for it.
    pub lifetime: bool,
    /// After each change of the view a learner is compared with the owners, and filled, anew.
    pub refill: bool,
    /// A view keeps at least half of the one before.
    pub half: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            lease: true,
            grant_wait: true,
            roll_forward: true,
            late_commit: true,
            pending_wait: true,
            epoch_buffer: true,
            dedupe: true,
            lifetime: true,
            refill: true,
            half: true,
        }
    }
}
