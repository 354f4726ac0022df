//! The only place that reads the operating system's clocks, the one of the processor included.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rustix::time::{ClockId, clock_gettime};

use crate::node::Node;
use crate::time::{Millis, Now};

/// Where a node's tasks get the time from: simulated runs bring their own.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Goes on through a suspend and never jumps.
    pub local: fn() -> Millis,
    /// Seconds since 1970.
    pub wall_s: fn() -> i64,
}

impl Clock {
    /// The operating system's.
    pub(super) const SYSTEM: Self = Self { local, wall_s };
}

/// CLOCK_BOOTTIME, which goes on through a suspend and never jumps.
pub(crate) fn local() -> Millis {
    let time = clock_gettime(ClockId::Boottime);
    Millis(time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000)
}

/// The same in microseconds, for what lasts less than a millisecond.
pub(crate) fn local_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// Seconds since 1970, as this host believes.
pub(crate) fn wall_s() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec
}

/// Notes for `stats` how long this process and the kernel on its behalf have computed.
pub(crate) fn note_cpu_time<W>(node: &Node<W>) {
    let us = |time: TimeVal| (time.tv_sec() as u64) * 1_000_000 + time.tv_usec() as u64;
    // It can't fail for the process itself; if it did, the last figures would stay.
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        node.gauges().cpu_user_us.set(us(usage.user_time()));
        node.gauges().cpu_system_us.set(us(usage.system_time()));
    }
}

/// The present instant, as this node sees it.
pub(crate) fn now<W>(node: &Node<W>) -> Now {
    node.now(local(), wall_s())
}
