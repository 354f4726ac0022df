//! Reports by slab class: `stats items`, `slabs`, `cachedump`.
//!
//! The classes are those that memcached would have (see the store's tally). What it would cut its
//! pages into is computed from the items of a class; segments have one age for all classes.

use super::Node;
use crate::protocol::reply;
use crate::store::{Counts, Segment};
use crate::time::Now;

/// memcached's page, in bytes.
const PAGE: u64 = 1 << 20;
/// memcached's bound of a cachedump, in bytes.
const CACHEDUMP_MAX: usize = 2 << 20;
/// Items looked at under one lock.
const PIECE_ITEMS: u32 = 256;

pub(super) fn items<W>(node: &Node<W>, now: Now, out: &mut Vec<u8>) {
    let ages_s = ages_s(node, now);
    for (class, held) in super::held_by_class(node).iter().enumerate() {
        if held.items() > 0 {
            class_items(node, class, held, ages_s, out);
        }
    }
}

/// How long the oldest of the hot, the warm and the cold items has not been used.
pub(in crate::node) fn ages_s<W>(node: &Node<W>, now: Now) -> [u64; 3] {
    let age_s = |segment| {
        let ages = node.shards.iter().filter_map(|s| s.lock().store().oldest_idle_s(segment, now));
        u64::from(ages.max().unwrap_or_default())
    };
    [Segment::Hot, Segment::Warm, Segment::Cold].map(age_s)
}

fn class_items<W>(
    node: &Node<W>,
    class: usize,
    held: &Counts,
    ages_s: [u64; 3],
    out: &mut Vec<u8>,
) {
    let has_maintainer = node.options.settings.tuning.lru_maintainer;
    let mut line = |name: &str, value: u64| {
        reply::print(out, format_args!("STAT items:{class}:{name} {value}\r\n"));
    };
    line("number", held.items());
    if has_maintainer {
        let [hot, warm, cold, temporary] = held.segments;
        line("number_hot", hot);
        line("number_warm", warm);
        line("number_cold", cold);
        line("number_temp", temporary);
        line("age_hot", ages_s[0]);
        line("age_warm", ages_s[1]);
    }
    line("age", ages_s[2]);
    line("mem_requested", super::item_bytes(held));
    line("evicted", held.evictions);
    line("evicted_nonzero", held.evicted_with_end);
    line("evicted_time", held.evicted_idle_s);
    line("outofmemory", held.out_of_memory);
    line("tailrepairs", 0);
    line("reclaimed", held.reclaimed);
    line("expired_unfetched", held.expired_unfetched);
    line("evicted_unfetched", held.evicted_unfetched);
    if has_maintainer {
        line("evicted_active", held.evicted_active);
    }
    line("crawler_reclaimed", held.swept);
    line("crawler_items_checked", held.sweep_checked);
    line("lrutail_reflocked", 0);
    if has_maintainer {
        line("moves_to_cold", held.moves_to_cold);
        line("moves_to_warm", held.moves_to_warm);
        line("moves_within_lru", held.moves_within_lru);
        line("direct_reclaims", held.direct_reclaims);
        let [hot, warm, cold, temporary] = held.hits;
        line("hits_to_hot", hot);
        line("hits_to_warm", warm);
        line("hits_to_cold", cold);
        line("hits_to_temp", temporary);
    }
}

pub(super) fn slabs<W>(node: &Node<W>, out: &mut Vec<u8>) {
    let mut active = 0;
    for (class, held) in super::held_by_class(node).iter().enumerate() {
        if held.is_known {
            active += 1;
            class_slabs(node, class, held, out);
        }
    }
    reply::stat(out, "active_slabs", active);
    reply::stat(out, "total_malloced", node.budget.used() + node.budget.spare());
}

fn class_slabs<W>(node: &Node<W>, class: usize, held: &Counts, out: &mut Vec<u8>) {
    let Pages { chunk, per_page, pages, used } = Pages::of(node, class, held);
    let mut line = |name: &str, value: u64| {
        reply::print(out, format_args!("STAT {class}:{name} {value}\r\n"));
    };
    line("chunk_size", chunk);
    line("chunks_per_page", per_page);
    line("total_pages", pages);
    line("total_chunks", pages * per_page);
    line("used_chunks", used);
    line("free_chunks", pages * per_page - used);
    line("free_chunks_end", 0);
    line("get_hits", held.hits.iter().sum());
    line("cmd_set", held.total_items);
    // Counted for all classes together, in the general statistics.
    for name in ["delete_hits", "incr_hits", "decr_hits", "cas_hits", "cas_badval", "touch_hits"] {
        line(name, 0);
    }
}

/// What memcached would have cut for the items of a class.
pub(in crate::node) struct Pages {
    pub(in crate::node) chunk: u64,
    pub(in crate::node) per_page: u64,
    pub(in crate::node) pages: u64,
    pub(in crate::node) used: u64,
}

impl Pages {
    pub(in crate::node) fn of<W>(node: &Node<W>, class: usize, held: &Counts) -> Self {
        let chunk = node.sizes.chunk_size(class) as u64;
        let per_page = (PAGE / chunk).max(1);
        // In the highest class an item may take several chunks.
        let used = held.items().max(super::item_bytes(held).div_ceil(chunk));
        Self { chunk, per_page, pages: used.div_ceil(per_page), used }
    }
}

pub(super) fn cachedump<W>(node: &Node<W>, class: u32, limit: u32, now: Now, out: &mut Vec<u8>) {
    let end = out.len() + CACHEDUMP_MAX - reply::END.len();
    let mut left = if limit == 0 { u32::MAX } else { limit };
    for shard in &node.shards {
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            cursor = shard.lock().store().walk(from, PIECE_ITEMS, now, |key, item| {
                let before = out.len();
                let is_wanted = node.class_of(key, item.value.len()) == class;
                if !is_wanted || left == 0 || before >= end {
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
