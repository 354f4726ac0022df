//! Counts by prefix of the key, for `stats detail`.

use std::collections::BTreeMap;

use crate::protocol::reply;

/// Clients choose the prefixes; more than this many are not counted.
const PREFIXES_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Prefixes {
    delimiter: u8,
    counts: BTreeMap<Box<[u8]>, Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) gets: u64,
    pub(super) hits: u64,
    pub(super) sets: u64,
    pub(super) deletes: u64,
}

impl Prefixes {
    pub(super) fn new(delimiter: u8) -> Self {
        Self { delimiter, counts: BTreeMap::new() }
    }

    /// Keys without the delimiter have no prefix and are not counted, as in memcached.
    pub(super) fn count(&mut self, key: &[u8], change: impl FnOnce(&mut Counts)) {
        let Some(end) = memchr::memchr(self.delimiter, key) else {
            return;
        };
        let prefix = &key[..end];
        if let Some(counts) = self.counts.get_mut(prefix) {
            return change(counts);
        }
        if self.counts.len() < PREFIXES_MAX {
            change(self.counts.entry(prefix.into()).or_default());
        }
    }

    pub(super) fn dump(&self, out: &mut Vec<u8>) {
        for (prefix, counts) in &self.counts {
            let Counts { gets, hits, sets, deletes } = counts;
            out.extend_from_slice(b"PREFIX ");
            out.extend_from_slice(prefix);
            reply::print(out, format_args!(" get {gets} hit {hits} set {sets} del {deletes}\r\n"));
        }
    }

    pub(super) fn clear(&mut self) {
        self.counts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_the_first_delimiter() {
        let mut prefixes = Prefixes::new(b':');
        for key in [&b"a:b:c"[..], b"a:d", b"none", b":empty"] {
            prefixes.count(key, |counts| counts.gets += 1);
        }
        let mut out = Vec::new();
        prefixes.dump(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "PREFIX  get 1 hit 0 set 0 del 0\r\nPREFIX a get 2 hit 0 set 0 del 0\r\n");
    }

    #[test]
    fn prefixes_are_bounded() {
        let mut prefixes = Prefixes::new(b':');
        for n in 0..PREFIXES_MAX + 10 {
            prefixes.count(format!("{n}:x").as_bytes(), |counts| counts.sets += 1);
        }
        assert_eq!(prefixes.counts.len(), PREFIXES_MAX);
    }
}
