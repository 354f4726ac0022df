//! Walks over all items on behalf of one client, piece by piece: `lru_crawler crawl`, `metadump`
//! and `mgdump`.
//!
//! A piece is a bounded number of items under one shard's lock; between pieces nothing is held,
//! so a dump of millions of items delays nobody and needs memory for one buffer of output.

use super::observe::Encoded;
use super::report;
use super::{Node, meta};
use crate::key::{Key, LANES};
use crate::protocol::Classes;
use crate::protocol::reply;
use crate::store::Item;
use crate::time::Now;

/// Items of one piece: some microseconds under the lock.
const PIECE_ITEMS: u32 = 256;
/// After this many pieces others have their turn, also when there was nothing to show.
const PIECES_MAX: usize = 64;

/// How far a walk has come.
#[derive(Debug)]
pub(super) struct Dump {
    kind: Kind,
    classes: Classes,
    lane: usize,
    cursor: u64,
}

/// What a walk does with the items it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Frees those that are over.
    Sweep,
    /// A line about each.
    Metadump,
    /// An `mg` command for each.
    Mgdump,
}

impl Dump {
    /// A walk over these classes.
    pub(super) fn new(kind: Kind, classes: Classes) -> Self {
        Self { kind, classes, lane: 0, cursor: 0 }
    }

    /// Goes on until it is over or `out` has `enough`; says whether it is over.
    pub(super) fn advance<W>(
        &mut self,
        node: &Node<W>,
        now: Now,
        out: &mut Vec<u8>,
        enough: usize,
    ) -> bool {
        for _ in 0..PIECES_MAX {
            if self.lane == LANES {
                out.extend_from_slice(self.end());
                return true;
            }
            if out.len() >= enough {
                return false;
            }
            self.piece(node, now, out);
        }
        false
    }

    fn piece<W>(&mut self, node: &Node<W>, now: Now, out: &mut Vec<u8>) {
        let mut shard = node.shards[self.lane].lock();
        if self.kind != Kind::Sweep && !shard.is_whole() {
            // What is left of an old copy is shown to nobody.
            (self.lane, self.cursor) = (self.lane + 1, 0);
            return;
        }
        let store = shard.store();
        let next = match self.kind {
            Kind::Sweep => store.sweep_from(self.cursor, PIECE_ITEMS, now),
            Kind::Metadump | Kind::Mgdump => {
                store.walk(self.cursor, PIECE_ITEMS, now, |key, item| {
                    let class = node.class_of(key, item.value.len());
                    if self.classes.has(class) {
                        match self.kind {
                            Kind::Mgdump => mgdump_line(key, item, out),
                            _ => metadump_line(key, item, class, now, out),
                        }
                    }
                })
            }
        };
        match next {
            Some(cursor) => self.cursor = cursor,
            None => (self.lane, self.cursor) = (self.lane + 1, 0),
        }
    }

    fn end(&self) -> &'static [u8] {
        match self.kind {
            Kind::Sweep => reply::OK,
            Kind::Metadump => reply::END,
            Kind::Mgdump => reply::EN,
        }
    }
}

fn metadump_line(key: Key<'_>, item: Item<'_>, class: u32, now: Now, out: &mut Vec<u8>) {
    reply::print(
        out,
        format_args!(
            "key={} exp={} la={} cas={} fetch={} cls={} size={} flags={} \n",
            Encoded(key.bytes()),
            report::end_s(item.deadline, now).unwrap_or(-1),
            now.wall_s - i64::from(item.idle_s),
            item.cas,
            if item.was_fetched { "yes" } else { "no" },
            class,
            crate::protocol::item_size(key, item.value.len()),
            item.flags
        ),
    );
}

fn mgdump_line(key: Key<'_>, item: Item<'_>, out: &mut Vec<u8>) {
    let is_binary = item.marks.has_binary_key;
    out.extend_from_slice(b"mg ");
    meta::write_key(out, key, is_binary);
    out.extend_from_slice(if is_binary { b" b\r\n" } else { b"\r\n" });
}
