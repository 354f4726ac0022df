//! `stats`: what the node has counted and what it holds, under memcached's names.

pub(super) mod classes;
mod connections;
mod general;
mod replication;

pub(super) use replication::{Peer, STATES, Standing, refused, spoken};

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::commands::{Context, Executed};
use super::{Node, settings_report};
use crate::protocol::reply;
use crate::protocol::{Detail, Events, Topic};
use crate::replication::Dialect;
use crate::stats::Totals;
use crate::store::{Counts, Work};
use crate::time::{Deadline, Now};

impl<W, H> Context<'_, W, H> {
    pub(super) fn stats(&mut self, topic: Topic) -> Executed<'static> {
        let (node, now, out) = (self.node, self.now, &mut *self.out);
        match topic {
            Topic::General => general::write(node, now, out),
            Topic::Items => classes::items(node, now, out),
            Topic::Slabs => classes::slabs(node, out),
            // Sizes are not counted; memcached's track_sizes is off by default too.
            Topic::Sizes => reply::stat(out, "sizes_status", "disabled"),
            Topic::Settings => settings(node, out),
            Topic::Connections => connections::write(node, now, out),
            Topic::Replication => replication::write(node, now, out),
            Topic::Detail(_) if !node.options.settings.dump_enabled => {
                return self.reply(reply::DETAIL_OFF);
            }
            Topic::Detail(Detail::Dump) => node.observers.dump_prefixes(out),
            Topic::Detail(detail) => {
                node.observers.set_detail(detail == Detail::On);
                return self.reply(reply::OK);
            }
            Topic::Reset => {
                reset(node);
                return self.reply(reply::RESET);
            }
            Topic::Cachedump { .. } | Topic::BadCachedump(_)
                if !node.options.settings.dump_enabled =>
            {
                return self.reply(reply::CACHEDUMP_OFF);
            }
            Topic::BadCachedump(line) => return self.reply(line),
            Topic::Cachedump { class, limit } => classes::cachedump(node, class, limit, now, out),
        }
        self.reply(reply::END)
    }
}

impl<W> Node<W> {
    /// `stats replication` without a client.
    pub fn report_replication(&self, now: Now, out: &mut Vec<u8>) {
        replication::write(self, now, out);
    }

    /// What of it there is to say of a node that only votes, and of its peers, which speak so.
    pub fn report_witness(&self, dialects: &BTreeMap<Box<str>, Dialect>, out: &mut Vec<u8>) {
        replication::write_witness(self, dialects, out);
    }
}

fn reset<W>(node: &Node<W>) {
    node.counters.iter().for_each(|counters| counters.reset());
    node.shards.iter().for_each(|shard| shard.lock().store().reset_counts());
    node.observers.reset();
}

/// As they are now: operators may have changed some of them since the start.
fn settings<W>(node: &Node<W>, out: &mut Vec<u8>) {
    let mut settings = node.options.settings.clone();
    settings.memory = node.budget.limit();
    settings.detail_enabled = node.observers.wants(Events::DETAIL);
    settings.tuning.lru_crawler = node.crawler.is_on.load(Ordering::Relaxed);
    settings_report::settings(&settings, out);
}

pub(super) fn totals<W>(node: &Node<W>) -> Totals {
    let mut totals = Totals::default();
    node.counters.iter().for_each(|counters| totals.add(counters));
    totals
}

pub(super) fn held<W>(node: &Node<W>) -> Counts {
    let mut sum = Counts::default();
    node.shards.iter().for_each(|shard| sum.add(&shard.lock().store().counts()));
    sum
}

/// By class; the first is none.
pub(super) fn held_by_class<W>(node: &Node<W>) -> Vec<Counts> {
    let mut held = vec![Counts::default(); node.sizes.largest() + 1];
    for shard in &node.shards {
        let mut shard = shard.lock();
        held.iter_mut().zip(shard.store().class_counts()).for_each(|(sum, one)| sum.add(one));
    }
    held
}

fn work<W>(node: &Node<W>) -> Work {
    let mut sum = Work::default();
    node.shards.iter().for_each(|shard| sum.add(shard.lock().store().work()));
    sum
}

/// Bytes of the items as memcached counts them: with what each costs beside key and value.
pub(super) fn item_bytes(held: &Counts) -> u64 {
    held.bytes + held.items() * crate::protocol::ITEM_OVERHEAD as u64
}

/// When an item ends, in seconds since 1970 as this host believes; `None` for never.
pub(super) fn end_s(deadline: Deadline, now: Now) -> Option<i64> {
    deadline.remaining_s(now).map(|remaining_s| now.wall_s + remaining_s as i64)
}

#[cfg(test)]
mod tests;
