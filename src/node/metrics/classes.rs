//! The same by memcached's slab classes, for those that hold or have held items.

use super::Node;
use crate::exposition::{Exposition, Samples};
use crate::node::report::classes::{Pages, ages_s};
use crate::node::report::{held_by_class, item_bytes};
use crate::store::Counts;
use crate::time::Now;

/// One class.
struct Class {
    number: String,
    held: Counts,
    pages: Pages,
}

pub(super) fn write<W>(node: &Node<W>, now: Now, out: &mut Exposition) {
    let known = held_by_class(node).into_iter().enumerate().filter(|(_, held)| held.is_known);
    let class = |(class, held): (usize, Counts)| Class {
        number: class.to_string(),
        pages: Pages::of(node, class, &held),
        held,
    };
    let classes: Vec<Class> = known.map(class).collect();
    present(&classes, out);
    ages(&classes, ages_s(node, now), out);
    ends(&classes, out);
    moves(&classes, out);
    chunks(&classes, out);
    hits(&classes, out);
}

fn each(classes: &[Class], mut samples: Samples<'_>, figure: impl Fn(&Class) -> u64) {
    for class in classes {
        samples.labelled(&[("slab", &class.number)], figure(class));
    }
}

fn present(classes: &[Class], out: &mut Exposition) {
    let mut gauge = |name, help, figure: fn(&Counts) -> u64| {
        each(classes, out.gauge(name, help), |class| figure(&class.held));
    };
    gauge("memcached_slab_current_items", "Items held.", Counts::items);
    gauge("memcached_slab_hot_items", "Items that are new.", |held| held.segments[0]);
    gauge("memcached_slab_warm_items", "Items in use.", |held| held.segments[1]);
    gauge("memcached_slab_cold_items", "Items used long ago.", |held| held.segments[2]);
    gauge("memcached_slab_temporary_items", "Items that end soon, kept apart.", |held| {
        held.segments[3]
    });
    gauge("memcached_slab_mem_requested_bytes", "Bytes as memcached counts them.", item_bytes);
    gauge(
        "memcached_slab_items_evicted_time_seconds",
        "How long the last item that was evicted had not been used.",
        |held| held.evicted_idle_s,
    );
}

/// A segment has one age for all classes.
fn ages(classes: &[Class], [hot_s, warm_s, cold_s]: [u64; 3], out: &mut Exposition) {
    for (name, help, age_s) in [
        ("memcached_slab_items_age_seconds", "Idle time of the oldest cold item.", cold_s),
        ("memcached_slab_hot_age_seconds", "Idle time of the oldest new item.", hot_s),
        ("memcached_slab_warm_age_seconds", "Idle time of the oldest item in use.", warm_s),
    ] {
        each(classes, out.gauge(name, help), |_| age_s);
    }
}

fn ends(classes: &[Class], out: &mut Exposition) {
    let mut counter = |name, help, figure: fn(&Counts) -> u64| {
        each(classes, out.counter(name, help), |class| figure(&class.held));
    };
    counter("memcached_slab_items_evicted_total", "Items dropped for lack of memory.", |held| {
        held.evictions
    });
    counter("memcached_slab_items_evicted_nonzero_total", "Of those, with an end.", |held| {
        held.evicted_with_end
    });
    counter("memcached_slab_items_evicted_unfetched_total", "Of those, never read.", |held| {
        held.evicted_unfetched
    });
    counter(
        "memcached_slab_items_expired_unfetched_total",
        "Items that ended and were never read.",
        |held| held.expired_unfetched,
    );
    counter("memcached_slab_items_outofmemory_total", "Items that found no memory.", |held| {
        held.out_of_memory
    });
    counter(
        "memcached_slab_items_reclaimed_total",
        "Items that were over when they were come across.",
        |held| held.reclaimed,
    );
    counter(
        "memcached_slab_items_crawler_reclaimed_total",
        "Items that were over and were swept.",
        |held| held.swept,
    );
    counter("memcached_slab_items_tailrepairs_total", "Nothing needs that here.", |_| 0);
}

/// Counters although their names do not say so: the exporter's.
fn moves(classes: &[Class], out: &mut Exposition) {
    let mut counter = |name, help, figure: fn(&Counts) -> u64| {
        each(classes, out.counter(name, help), |class| figure(&class.held));
    };
    counter("memcached_slab_items_moves_to_cold", "Items moved to the cold segment.", |held| {
        held.moves_to_cold
    });
    counter("memcached_slab_items_moves_to_warm", "Items moved to the warm segment.", |held| {
        held.moves_to_warm
    });
    counter(
        "memcached_slab_items_moves_within_lru",
        "Items moved to the new end of warm.",
        |held| held.moves_within_lru,
    );
}

/// What memcached would cut its pages into.
fn chunks(classes: &[Class], out: &mut Exposition) {
    let mut gauge = |name, help, figure: fn(&Pages) -> u64| {
        each(classes, out.gauge(name, help), |class| figure(&class.pages));
    };
    gauge("memcached_slab_chunk_size_bytes", "Bytes of a chunk.", |pages| pages.chunk);
    gauge("memcached_slab_chunks_per_page", "Chunks of a page.", |pages| pages.per_page);
    gauge("memcached_slab_current_pages", "Pages that memcached would need.", |pages| pages.pages);
    gauge("memcached_slab_current_chunks", "Chunks of these.", |pages| {
        pages.pages * pages.per_page
    });
    gauge("memcached_slab_chunks_used", "Chunks with an item.", |pages| pages.used);
    gauge("memcached_slab_chunks_free", "Chunks without one.", |pages| {
        pages.pages * pages.per_page - pages.used
    });
    gauge("memcached_slab_chunks_free_end", "Nothing is left free at an end here.", |_| 0);
}

/// The other commands are counted for all classes together.
fn hits(classes: &[Class], out: &mut Exposition) {
    let mut commands =
        out.counter("memcached_slab_commands_total", "Reads that hit, and items stored.");
    for Class { number, held, .. } in classes {
        for (command, count) in [("get", held.hits.iter().sum()), ("set", held.total_items)] {
            let labels = [("slab", number.as_str()), ("command", command), ("status", "hit")];
            commands.labelled(&labels, count);
        }
    }
    let mut hits =
        out.counter("memcached_slab_lru_hits_total", "Reads that found an item, by segment.");
    for Class { number, held, .. } in classes {
        for (segment, count) in ["hot", "warm", "cold", "temporary"].into_iter().zip(held.hits) {
            hits.labelled(&[("slab", number), ("lru", segment)], count);
        }
    }
}
