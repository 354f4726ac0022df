//! What the servers are asked to do: one entry of the table for each workload.
//!
//! To add one, add an entry; where no step fits, write one more small function on `Draft`.

use crate::dataset::{LARGE, LARGE_ITEMS, session_length};
use crate::exchange::Draft;

/// Writes the requests of one exchange.
pub(crate) type Step = fn(&mut Draft<'_, '_>);

/// A load on one server.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// What throughput and CPU are counted in.
    pub(crate) unit: &'static str,
    /// The exchanges of one cycle, one after the other. Latency is that of a cycle.
    pub(crate) steps: &'static [Step],
    /// How many units a cycle is.
    pub(crate) units: usize,
    /// The value length of an item.
    pub(crate) length_of: fn(usize) -> usize,
    /// Connections that each run one cycle after the other.
    pub(crate) connections: usize,
    /// Connections that are open and silent.
    pub(crate) idle: usize,
    pub(crate) lifetime: Lifetime,
    pub(crate) dialect: Dialect,
    pub(crate) room: Room,
    /// What a reader of the result must know; empty where it speaks for itself.
    pub(crate) caveat: &'static str,
}

/// How long a connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    Kept,
    /// Connecting and closing belong to the cycle.
    OneCycle,
}

/// Which commands a server must understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Classic,
    Meta,
}

/// Whether the servers have memory for all items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Nothing is ever evicted.
    Ample,
    /// Preloading alone has overfilled them: each new item drives out others.
    Full,
}

impl Room {
    /// The same `-m` for both servers.
    pub(crate) fn limit_mib(self) -> usize {
        match self {
            // More than the largest workload needs: 700 MB.
            Self::Ample => 1024,
            // Less than the smallest full one needs: 100 MB.
            Self::Full => 64,
        }
    }
}

const KIB: usize = 1024;
/// What Django writes for a logged-in user with a few settings.
const SMALL_SESSION: usize = 1900;

/// Fifty busy connections with 1 KiB values; the entries below say where they differ.
const USUAL: Workload = Workload {
    name: "",
    unit: "op",
    steps: &[],
    units: 1,
    length_of: |_| KIB,
    connections: 50,
    idle: 0,
    lifetime: Lifetime::Kept,
    dialect: Dialect::Classic,
    room: Room::Ample,
    caveat: "",
};

/// What a group is measured by, beside a single node.
pub(crate) static GROUP_WORKLOADS: &[Workload] = &[
    Workload { name: "group-get-1k", steps: &[get], ..USUAL },
    Workload { name: "group-set-1k", steps: &[set], ..USUAL },
    Workload { name: "group-set-1k-alone", steps: &[set], connections: 1, ..USUAL },
];

/// What a group is measured by beside Redis: with few connections there is nothing to batch.
pub(crate) static REPLICATED_WORKLOADS: &[Workload] = &[
    Workload { name: "replicated-set-1k", steps: &[set], connections: 1, ..USUAL },
    Workload { name: "replicated-set-1k", steps: &[set], connections: 8, ..USUAL },
    Workload { name: "replicated-set-1k", steps: &[set], connections: 48, ..USUAL },
];

/// The same for Redis, in the same order.
pub(crate) static REDIS_WORKLOADS: &[Workload] = &[
    Workload { name: "redis-set-wait-1k", steps: &[redis_set], connections: 1, ..USUAL },
    Workload { name: "redis-set-wait-1k", steps: &[redis_set], connections: 8, ..USUAL },
    Workload { name: "redis-set-wait-1k", steps: &[redis_set], connections: 48, ..USUAL },
];

/// Stores all items in a group, and in Redis, before anything is measured.
pub(crate) static REPLICATED_PRELOAD: [Workload; 2] = [
    Workload { name: "replicated-preload", steps: &[set_next], ..USUAL },
    Workload { name: "redis-preload", steps: &[redis_set_next], ..USUAL },
];

/// Every workload, in the order they run.
pub(crate) static WORKLOADS: &[Workload] = &[
    Workload { name: "get-1k", steps: &[mostly_get::<90>], ..USUAL },
    Workload { name: "get-4k", steps: &[mostly_get::<90>], length_of: |_| 4 * KIB, ..USUAL },
    Workload { name: "set-1k", steps: &[set], ..USUAL },
    Workload { name: "set-4k", steps: &[set], length_of: |_| 4 * KIB, ..USUAL },
    Workload {
        name: "session-mix",
        steps: &[mostly_get::<80>],
        length_of: session_length,
        ..USUAL
    },
    Workload {
        name: "multiget-24",
        unit: "key",
        steps: &[|draft| draft.multi_get(24)],
        units: 24,
        ..USUAL
    },
    Workload {
        name: "multiget-100",
        unit: "key",
        steps: &[|draft| draft.multi_get(100)],
        units: 100,
        ..USUAL
    },
    Workload {
        name: "pipelined-get-32",
        steps: &[pipelined_get::<32>],
        units: 32,
        caveat: "memcached 1.6.18 (Debian 12) is 2.4 to 3.5 times slower here than 1.6.45: \
                 judge by pipelined-mg-32, where they are equal",
        ..USUAL
    },
    Workload {
        name: "meta-get-1k",
        steps: &[mostly_meta_get::<90>],
        dialect: Dialect::Meta,
        ..USUAL
    },
    Workload { name: "meta-set-1k", steps: &[meta_set], dialect: Dialect::Meta, ..USUAL },
    Workload {
        name: "pipelined-mg-32",
        steps: &[pipelined_meta_get::<32>],
        units: 32,
        dialect: Dialect::Meta,
        ..USUAL
    },
    Workload {
        name: "connection-per-request",
        unit: "cycle",
        steps: &[get, get, set],
        length_of: |_| 2 * KIB,
        lifetime: Lifetime::OneCycle,
        ..USUAL
    },
    Workload {
        name: "horizon-page",
        unit: "page",
        steps: &[get_session, get_large, get_session, get_session, set_session, set_session],
        length_of: horizon_length,
        lifetime: Lifetime::OneCycle,
        ..USUAL
    },
    Workload { name: "idle-1000", steps: &[mostly_get::<90>], idle: 1000, ..USUAL },
    Workload { name: "evict-1k", steps: &[set_new], room: Room::Full, ..USUAL },
    Workload {
        name: "evict-mix",
        steps: &[set_new],
        length_of: session_length,
        room: Room::Full,
        ..USUAL
    },
];

/// What instructions are counted for. Gets are all gets here: a mean of two commands would help nobody.
pub(crate) static COUNTED: &[Workload] = &[
    Workload { name: "get-1k", steps: &[get], ..USUAL },
    Workload { name: "set-1k", steps: &[set], ..USUAL },
    Workload {
        name: "multiget-24",
        unit: "key",
        steps: &[|draft| draft.multi_get(24)],
        units: 24,
        ..USUAL
    },
    Workload {
        name: "pipelined-mg-32",
        steps: &[pipelined_meta_get::<32>],
        units: 32,
        dialect: Dialect::Meta,
        ..USUAL
    },
    Workload {
        name: "connection-per-request",
        unit: "cycle",
        steps: &[get, get, set],
        length_of: |_| 2 * KIB,
        lifetime: Lifetime::OneCycle,
        ..USUAL
    },
];

fn get(draft: &mut Draft<'_, '_>) {
    let item = draft.item();
    draft.get(item);
}

fn set(draft: &mut Draft<'_, '_>) {
    let item = draft.item();
    draft.set(item);
}

fn redis_set(draft: &mut Draft<'_, '_>) {
    let item = draft.item();
    draft.redis_set(item);
}

fn set_next(draft: &mut Draft<'_, '_>) {
    let item = draft.next_item();
    draft.set(item);
}

fn redis_set_next(draft: &mut Draft<'_, '_>) {
    let item = draft.next_item();
    draft.redis_set(item);
}

fn set_new(draft: &mut Draft<'_, '_>) {
    let item = draft.new_item();
    draft.set(item);
}

fn mostly_get<const PERCENT: usize>(draft: &mut Draft<'_, '_>) {
    if draft.percent(PERCENT) {
        get(draft);
    } else {
        set(draft);
    }
}

fn pipelined_get<const COUNT: usize>(draft: &mut Draft<'_, '_>) {
    for _ in 0..COUNT {
        get(draft);
    }
}

fn meta_get(draft: &mut Draft<'_, '_>) {
    let item = draft.item();
    draft.meta_get(item);
}

fn meta_set(draft: &mut Draft<'_, '_>) {
    let item = draft.item();
    draft.meta_set(item);
}

fn mostly_meta_get<const PERCENT: usize>(draft: &mut Draft<'_, '_>) {
    if draft.percent(PERCENT) {
        meta_get(draft);
    } else {
        meta_set(draft);
    }
}

fn pipelined_meta_get<const COUNT: usize>(draft: &mut Draft<'_, '_>) {
    for _ in 0..COUNT {
        meta_get(draft);
    }
}

fn get_session(draft: &mut Draft<'_, '_>) {
    let item = draft.session();
    draft.get(item);
}

fn set_session(draft: &mut Draft<'_, '_>) {
    let item = draft.session();
    draft.set(item);
}

fn get_large(draft: &mut Draft<'_, '_>) {
    let item = draft.large();
    draft.get(item);
}

/// A Horizon page reads one value of 260 KB (the catalogue of services) beside small sessions.
fn horizon_length(item: usize) -> usize {
    if item < LARGE_ITEMS { LARGE } else { SMALL_SESSION }
}
