//! Connections that `watch`, each with a bounded buffer of lines it has not taken yet.

use crate::protocol::Events;
use crate::protocol::reply;
use crate::time::Now;

/// memcached's limit.
const WATCHERS_MAX: usize = 20;
/// What a watcher may leave untaken, in bytes; memcached's watcher_logbuf_size. Beyond it lines
/// are skipped and counted.
const UNTAKEN_MAX: usize = 256 << 10;

/// Tells watchers apart.
pub(in crate::node) type WatcherId = u64;

#[derive(Debug, Default)]
pub(super) struct Watchers {
    list: Vec<Watcher>,
    detail: bool,
    last_id: WatcherId,
    /// Every event gets a number, so that a reader sees what is missing.
    last_event: u64,
    logged: Logged,
    line: Vec<u8>,
}

#[derive(Debug)]
struct Watcher {
    id: WatcherId,
    events: Events,
    untaken: Vec<u8>,
    skipped: u64,
}

/// What `stats` shows of them.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::node) struct Logged {
    /// Events that were written.
    pub(in crate::node) written: u64,
    /// Events that were lost before.
    pub(in crate::node) lost: u64,
    /// Lines given to watchers.
    pub(in crate::node) sent: u64,
    /// Lines that their watchers had no room for.
    pub(in crate::node) skipped: u64,
    /// Who watches now.
    pub(in crate::node) watchers: u64,
}

impl Watchers {
    pub(super) fn add(&mut self, events: Events) -> Option<WatcherId> {
        if self.list.len() == WATCHERS_MAX {
            return None;
        }
        self.last_id += 1;
        let id = self.last_id;
        self.list.push(Watcher { id, events, untaken: Vec::new(), skipped: 0 });
        Some(id)
    }

    pub(super) fn remove(&mut self, id: WatcherId) {
        self.list.retain(|watcher| watcher.id != id);
    }

    pub(super) fn set_detail(&mut self, is_on: bool) {
        self.detail = is_on;
    }

    pub(super) fn wanted(&self) -> Events {
        let detail = if self.detail { Events::DETAIL } else { Events::default() };
        self.list.iter().fold(detail, |wanted, watcher| wanted.and(watcher.events))
    }

    pub(super) fn take(&mut self, id: WatcherId, out: &mut Vec<u8>) {
        if let Some(watcher) = self.list.iter_mut().find(|watcher| watcher.id == id) {
            out.append(&mut watcher.untaken);
        }
    }

    /// Cluster time began as the wall clock, and unlike it has the milliseconds.
    pub(super) fn log(&mut self, kind: Events, now: Now, text: std::fmt::Arguments<'_>) {
        self.last_event += 1;
        self.logged.written += 1;
        let Self { line, list, logged, last_event, .. } = self;
        line.clear();
        let (s, us) = (now.cluster.0 / 1000, now.cluster.0 % 1000 * 1000);
        reply::print(line, format_args!("ts={s}.{us:06} gid={last_event} {text}\n"));
        for watcher in list.iter_mut().filter(|watcher| watcher.events.meets(kind)) {
            if watcher.offer(line) {
                logged.sent += 1;
            } else {
                logged.skipped += 1;
            }
        }
    }

    pub(super) fn lost(&mut self, lines: u64) {
        self.logged.lost += lines;
    }

    pub(super) fn logged(&self) -> Logged {
        Logged { watchers: self.list.len() as u64, ..self.logged }
    }

    pub(super) fn reset(&mut self) {
        self.logged = Logged::default();
    }
}

impl Watcher {
    /// Whether the line has found room.
    fn offer(&mut self, line: &[u8]) -> bool {
        if self.untaken.len() + line.len() > UNTAKEN_MAX {
            self.skipped += 1;
            return false;
        }
        if self.skipped > 0 {
            reply::print(&mut self.untaken, format_args!("skipped={}\n", self.skipped));
            self.skipped = 0;
        }
        self.untaken.extend_from_slice(line);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_that_does_not_take_its_lines_misses_some_and_is_told() {
        let mut watchers = Watchers::default();
        let id = watchers.add(Events::FETCHERS).unwrap();
        for _ in 0..10_000 {
            watchers.log(Events::FETCHERS, Now::default(), format_args!("{:100}", "x"));
        }
        watchers.log(Events::MUTATIONS, Now::default(), format_args!("other"));
        let logged = watchers.logged();
        assert_eq!(logged.sent + logged.skipped, 10_000);
        let mut out = Vec::new();
        watchers.take(id, &mut out);
        assert!(out.len() <= UNTAKEN_MAX);
        out.clear();
        watchers.log(Events::FETCHERS, Now::default(), format_args!("y"));
        watchers.take(id, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(&format!("skipped={}\nts=0.000000 gid=10002 y", logged.skipped)));
    }

    #[test]
    fn watchers_are_bounded() {
        let mut watchers = Watchers::default();
        assert!((0..WATCHERS_MAX).all(|_| watchers.add(Events::FETCHERS).is_some()));
        assert!(watchers.add(Events::FETCHERS).is_none());
    }
}
