//! How many items fit into the same `-m`, and what memory the process then has.

use crate::client::{BATCH, Client};
use crate::dataset::{Dataset, key_of, session_length};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::interrupt;
use crate::rounds::Programs;
use crate::server::{Program, Server, Setup};

/// Small enough to fill in seconds, large enough that fixed costs do not matter.
pub(crate) const LIMIT_MIB: usize = 256;
/// Items are counted whenever this much was stored: a 32nd of the limit.
const BLOCK_BYTES: usize = LIMIT_MIB * 1024 * 1024 / 32;
/// An eighth of the limit without growth means full; evictions make the count waver a little.
const BLOCKS_WITHOUT_GROWTH: usize = 4;
const GROWTH_MIN: f64 = 1.001;
/// Four times the limit. Whoever still grows then does not honour `-m`.
const BLOCKS_MAX: usize = 128;

/// Values of one kind.
struct Mix {
    name: &'static str,
    length_of: fn(usize) -> usize,
}

const MIXES: &[Mix] = &[
    Mix { name: "100 B", length_of: |_| 100 },
    Mix { name: "1 KiB", length_of: |_| 1024 },
    Mix { name: "4 KiB", length_of: |_| 4096 },
    Mix { name: "2-12 KiB", length_of: session_length },
];

/// A full server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) items: u64,
    pub(crate) resident_bytes: u64,
}

/// One kind of values in both servers.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) name: &'static str,
    pub(crate) memcached: Held,
    pub(crate) sessiond: Held,
}

/// Fills both servers with every mix.
pub(crate) fn compare(programs: &Programs) -> Result<Vec<Filled>, Failure> {
    let fill_both = |mix: &Mix| {
        Ok(Filled {
            name: mix.name,
            memcached: held(&programs.memcached, mix)?,
            sessiond: held(&programs.sessiond, mix)?,
        })
    };
    MIXES.iter().map(fill_both).collect()
}

fn held(program: &Program, mix: &Mix) -> Result<Held, Failure> {
    let server = program.start(&Setup::with_limit(LIMIT_MIB))?;
    fill(&server, &Dataset::new(mix.length_of))?;
    let items = server.connect()?.statistic("curr_items")?;
    Ok(Held { items, resident_bytes: server.resident_bytes()? })
}

/// Stores new items until their number stays; returns how many it stored.
pub(crate) fn fill(server: &Server, dataset: &Dataset) -> Result<usize, Failure> {
    let mut client = server.connect()?;
    let mut stored = 0;
    let mut counts = Vec::with_capacity(BLOCKS_MAX);
    while counts.len() < BLOCKS_MAX && is_growing(&counts) {
        stored = store_block(&mut client, dataset, stored)?;
        counts.push(client.statistic("curr_items")?);
    }
    Ok(stored)
}

/// Whether the last blocks still raised the number of items.
fn is_growing(counts: &[u64]) -> bool {
    let Some(before) = counts.len().checked_sub(BLOCKS_WITHOUT_GROWTH + 1) else {
        return true;
    };
    let most = |counts: &[u64]| counts.iter().copied().max().unwrap_or(0) as f64;
    most(&counts[before + 1..]) > most(&counts[..=before]) * GROWTH_MIN
}

/// Stores items never seen before; returns the first one of the next block.
fn store_block(client: &mut Client, dataset: &Dataset, first: usize) -> Result<usize, Failure> {
    let mut exchange = Exchange::default();
    let mut item = first;
    let mut bytes = 0;
    while bytes < BLOCK_BYTES {
        interrupt::check()?;
        exchange.clear();
        for _ in 0..BATCH {
            exchange.set(&key_of(item), dataset.value(item));
            item += 1;
        }
        client.exchange(&mut exchange)?;
        bytes += exchange.request.len();
    }
    Ok(item)
}
