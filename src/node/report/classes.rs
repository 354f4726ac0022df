//! Reports by slab class, of which there is one: `stats items`, `slabs`, `cachedump`.
//!
//! Items take what they need instead of a chunk of a fixed size, so a chunk is shown as large as
//! the average item is with its share of the tables.

use super::CLASS;
use super::Node;
use crate::protocol::reply;
use crate::store::Segment;
use crate::time::Now;

/// memcached's page, in bytes.
const PAGE: u64 = 1 << 20;
/// memcached's bound of a cachedump, in bytes.
const CACHEDUMP_MAX: usize = 2 << 20;
/// Slots looked at under one lock.
const PIECE_SLOTS: u32 = 256;

pub(super) fn items<W>(node: &Node<W>, now: Now, out: &mut Vec<u8>) {
    let (held, totals) = (super::held(node), super::totals(node));
    if held.items == 0 {
        return;
    }
    let ages = node
        .shards
        .iter()
        .filter_map(|shard| shard.lock().store().oldest_idle_s(Segment::Cold, now));
    let age_s = u64::from(ages.max().unwrap_or_default());
    let has_maintainer = node.options.settings.tuning.lru_maintainer;
    let mut line = |name: &str, value: u64| {
        reply::print(out, format_args!("STAT items:{CLASS}:{name} {value}\r\n"));
    };
    line("number", held.items);
    if has_maintainer {
        // A list without segments is what memcached calls all cold.
        line("number_hot", 0);
        line("number_warm", 0);
        line("number_cold", held.items);
        line("number_temp", 0);
        line("age_hot", 0);
        line("age_warm", 0);
    }
    line("age", age_s);
    line("mem_requested", super::item_bytes(&held));
    line("evicted", held.evictions);
    line("evicted_nonzero", held.evicted_with_end);
    line("evicted_time", held.evicted_idle_s);
    line("outofmemory", totals.store_no_memory);
    line("tailrepairs", 0);
    line("reclaimed", held.reclaimed);
    line("expired_unfetched", held.expired_unfetched);
    line("evicted_unfetched", held.evicted_unfetched);
    if has_maintainer {
        line("evicted_active", 0);
    }
    line("crawler_reclaimed", held.swept);
    line("crawler_items_checked", held.sweep_checked);
    line("lrutail_reflocked", 0);
    if has_maintainer {
        line("moves_to_cold", 0);
        line("moves_to_warm", 0);
        line("moves_within_lru", 0);
        line("direct_reclaims", 0);
        line("hits_to_hot", 0);
        line("hits_to_warm", 0);
        line("hits_to_cold", totals.get_hits);
        line("hits_to_temp", 0);
    }
}

pub(super) fn slabs<W>(node: &Node<W>, out: &mut Vec<u8>) {
    let (held, totals) = (super::held(node), super::totals(node));
    let used = node.budget.used() as u64;
    if used > 0 {
        let pages = used.div_ceil(PAGE);
        let chunk = used.div_ceil(held.items.max(1)).min(PAGE);
        let per_page = PAGE / chunk;
        // Rounding must not show more items than there is room for.
        let chunks = (pages * per_page).max(held.items);
        let mut line = |name: &str, value: u64| {
            reply::print(out, format_args!("STAT {CLASS}:{name} {value}\r\n"));
        };
        line("chunk_size", chunk);
        line("chunks_per_page", per_page);
        line("total_pages", pages);
        line("total_chunks", chunks);
        line("used_chunks", held.items);
        line("free_chunks", chunks - held.items);
        line("free_chunks_end", 0);
        line("get_hits", totals.get_hits);
        line("cmd_set", totals.cmd_set);
        line("delete_hits", totals.delete_hits);
        line("incr_hits", totals.incr_hits);
        line("decr_hits", totals.decr_hits);
        line("cas_hits", totals.cas_hits);
        line("cas_badval", totals.cas_badval);
        line("touch_hits", totals.touch_hits);
    }
    reply::stat(out, "active_slabs", u32::from(used > 0));
    reply::stat(out, "total_malloced", used);
}

pub(super) fn cachedump<W>(node: &Node<W>, class: u32, limit: u32, now: Now, out: &mut Vec<u8>) {
    if class != CLASS {
        return;
    }
    let end = out.len() + CACHEDUMP_MAX - reply::END.len();
    let mut left = if limit == 0 { u32::MAX } else { limit };
    for shard in &node.shards {
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            cursor = shard.lock().store().walk(from, PIECE_SLOTS, now, |key, item| {
                let before = out.len();
                if left == 0 || before >= end {
                    return;
                }
                left -= 1;
                out.extend_from_slice(b"ITEM ");
                out.extend_from_slice(key.bytes());
                let end_s = super::end_s(item.deadline, now).unwrap_or_default();
                reply::print(out, format_args!(" [{} b; {end_s} s]\r\n", item.value.len()));
                if out.len() > end {
                    out.truncate(before);
                    left = 0;
                }
            });
            if left == 0 {
                return;
            }
        }
    }
}
