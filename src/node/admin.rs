//! The commands of operators that change something or turn a connection into a stream.

use std::sync::atomic::Ordering;

use super::commands::{Context, Executed};
use super::dump::{Dump, Kind};
use crate::protocol::reply;
use crate::protocol::{Classes, Crawl, Events, Tune};
use crate::store::Evicted;
use crate::time::Now;

use super::observe::Encoded;
use super::report::classes::Pages;
use super::{Node, report};

/// The highest class that memcached could have.
const CLASS_MAX: i32 = 63;

impl<W, H> Context<'_, W, H> {
    pub(super) fn crawl(&mut self, crawl: Crawl) -> Executed<'static> {
        let crawler = &self.node.crawler;
        match crawl {
            Crawl::Enable if crawler.is_on.swap(true, Ordering::Relaxed) => {
                self.reply(reply::CRAWLER_ON)
            }
            Crawl::Disable => {
                crawler.is_on.store(false, Ordering::Relaxed);
                self.reply(reply::OK)
            }
            Crawl::Enable => self.reply(reply::OK),
            _ if !crawler.is_on.load(Ordering::Relaxed) => self.reply(reply::CRAWLER_OFF),
            Crawl::Sweep(Classes::Hash) => self.reply(reply::CRAWL_FAILED),
            Crawl::Sweep(classes) => self.start(Kind::Sweep, classes),
            Crawl::Metadump(classes) => {
                match self.refuse_stream(reply::METADUMP_OFF, reply::METADUMP_PIPELINED) {
                    Some(refused) => refused,
                    None => self.start(Kind::Metadump, classes),
                }
            }
            Crawl::Mgdump(classes) => {
                match self.refuse_stream(reply::MGDUMP_OFF, reply::MGDUMP_PIPELINED) {
                    Some(refused) => refused,
                    None => self.start(Kind::Mgdump, classes),
                }
            }
        }
    }

    /// memcached hands such a connection to another thread, which must not meet unsent replies.
    fn refuse_stream(&mut self, off: &[u8], pipelined: &[u8]) -> Option<Executed<'static>> {
        if !self.node.options.settings.dump_enabled {
            return Some(self.reply(off));
        }
        (!self.out.is_empty()).then(|| self.reply(pipelined))
    }

    fn start(&mut self, kind: Kind, classes: Classes) -> Executed<'static> {
        if classes == Classes::Bad {
            return self.reply(reply::BAD_CLASS);
        }
        self.node.crawler.starts.fetch_add(1, Ordering::Relaxed);
        if kind == Kind::Metadump {
            self.out.extend_from_slice(reply::OK);
        }
        Executed::Dump(Dump::new(kind, classes))
    }

    pub(super) fn tune(&mut self, tune: Tune, noreply: bool) -> Executed<'static> {
        let tuning = &self.node.options.settings.tuning;
        let line = match tune {
            Tune::Accepted => reply::OK,
            Tune::Lru if tuning.lru_maintainer => reply::OK,
            Tune::Lru => reply::ERROR,
            Tune::Reassign { .. } if !tuning.slab_reassign => reply::REASSIGN_OFF,
            Tune::Reassign { source, target } => self.reassign(source, target),
        };
        self.reply(if noreply { b"" } else { line })
    }

    /// Pages move by themselves when they are needed elsewhere; a sensible wish is accepted.
    fn reassign(&self, source: i32, target: i32) -> &'static [u8] {
        if source == target {
            return reply::REASSIGN_SAME;
        }
        if !(-1..=CLASS_MAX).contains(&source) || !(0..=CLASS_MAX).contains(&target) {
            return reply::REASSIGN_BAD_CLASS;
        }
        let Ok(class) = usize::try_from(source) else {
            return reply::OK; // From any class.
        };
        let held = report::held_by_class(self.node);
        match held.get(class) {
            Some(held) if class > 0 && Pages::of(self.node, class, held).pages > 1 => reply::OK,
            _ => reply::REASSIGN_NO_SPARE,
        }
    }

    pub(super) fn set_memory_limit(&mut self, megabytes: u32, noreply: bool) -> Executed<'static> {
        self.node.budget.set_limit((megabytes as usize) << 20);
        tracing::info!(megabytes, "memory limit changed");
        self.reply(if noreply { b"" } else { reply::OK })
    }

    pub(super) fn watch(&mut self, events: Option<Events>) -> Executed<'static> {
        if !self.node.options.settings.watch_enabled {
            return self.reply(reply::WATCH_OFF);
        }
        if !self.out.is_empty() {
            return self.reply(reply::WATCH_PIPELINED);
        }
        let Some(events) = events else {
            return self.reply(reply::ERROR);
        };
        match self.node.observers.watch(events) {
            Some(id) => {
                self.node.remember_evicted();
                self.out.extend_from_slice(reply::OK);
                Executed::Watch(id)
            }
            None => self.reply(reply::WATCHERS_FULL),
        }
    }

    pub(super) fn reply(&mut self, line: &[u8]) -> Executed<'static> {
        self.out.extend_from_slice(line);
        Executed::Done
    }
}

impl<W> Node<W> {
    /// Stores remember what they evict only while somebody watches.
    pub(super) fn remember_evicted(&self) {
        for shard in &self.shards {
            // Asked anew under each lock, so that of two who change it the later one wins.
            let mut shard = shard.lock();
            shard.store().remember_evicted(self.observers.wants(Events::EVICTIONS));
        }
    }

    /// Shows what a shard has evicted. Called only when somebody watches.
    pub(super) fn log_evicted(&self, lane: usize, now: Now) {
        let (evicted, forgotten) = self.shards[lane].lock().store().take_evicted();
        self.observers.lost(forgotten);
        for Evicted { key, was_fetched, deadline, idle_s, size } in evicted {
            let fetched = if was_fetched { "yes" } else { "no" };
            let ttl_s = deadline.remaining_s(now).map_or(-1, |s| s as i64);
            self.observers.log(
                Events::EVICTIONS,
                now,
                format_args!(
                    "type=eviction key={} fetch={fetched} ttl={ttl_s} la={idle_s} clsid={} size={size}",
                    Encoded(&key),
                    self.sizes.class_of(key.len() + size)
                ),
            );
        }
    }
}
