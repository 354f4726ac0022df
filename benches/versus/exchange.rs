//! One write to a server and the exact bytes that must come back.
//!
//! Flags are 1, as pymemcache marks pickled values; stock memcached spends four bytes on any but 0.
//! Knows the text and meta protocols from the client's side, and of Redis's one pair of commands; knows no
//! sockets.

use crate::dataset::{Dataset, Key, LARGE_ITEMS, Random};
use crate::expected::Expected;

/// Requests that are sent together, and their replies.
#[derive(Debug, Default)]
pub(crate) struct Exchange<'a> {
    pub(crate) request: Vec<u8>,
    pub(crate) expected: Expected<'a>,
}

impl<'a> Exchange<'a> {
    pub(crate) fn clear(&mut self) {
        self.request.clear();
        self.expected.clear();
    }

    pub(crate) fn set(&mut self, key: &Key, value: &[u8]) {
        let mut digits = itoa::Buffer::new();
        let length = digits.format(value.len()).as_bytes();
        self.send(&[b"set ", key, b" 1 0 ", length, b"\r\n", value, b"\r\n"]);
        self.expect(&[b"STORED\r\n"]);
    }

    /// Redis's SET, answered when two replicas have it.
    fn redis_set(&mut self, key: &Key, value: &[u8]) {
        let mut digits = itoa::Buffer::new();
        let length = digits.format(value.len()).as_bytes();
        self.send(&[b"*3\r\n$3\r\nSET\r\n$32\r\n", key, b"\r\n$", length, b"\r\n", value]);
        self.send(&[b"\r\n*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$1\r\n0\r\n"]);
        self.expect(&[b"+OK\r\n:2\r\n"]);
    }

    fn meta_set(&mut self, key: &Key, value: &[u8]) {
        let mut digits = itoa::Buffer::new();
        let length = digits.format(value.len()).as_bytes();
        self.send(&[b"ms ", key, b" ", length, b" F1\r\n", value, b"\r\n"]);
        self.expect(&[b"HD\r\n"]);
    }

    fn meta_get(&mut self, key: &Key, value: &'a [u8]) {
        let mut digits = itoa::Buffer::new();
        let length = digits.format(value.len()).as_bytes();
        self.send(&[b"mg ", key, b" v\r\n"]);
        self.expect(&[b"VA ", length, b"\r\n"]);
        self.expected.push_value(value);
        self.expect(&[b"\r\n"]);
    }

    fn expect_item(&mut self, key: &Key, value: &'a [u8]) {
        let mut digits = itoa::Buffer::new();
        let length = digits.format(value.len()).as_bytes();
        self.expect(&[b"VALUE ", key, b" 1 ", length, b"\r\n"]);
        self.expected.push_value(value);
        self.expect(&[b"\r\n"]);
    }

    fn send(&mut self, pieces: &[&[u8]]) {
        for piece in pieces {
            self.request.extend_from_slice(piece);
        }
    }

    fn expect(&mut self, pieces: &[&[u8]]) {
        for piece in pieces {
            self.expected.push_text(piece);
        }
    }
}

/// What a workload writes its requests on: an exchange, with the items to choose from.
pub(crate) struct Draft<'d, 'a> {
    pub(crate) exchange: &'d mut Exchange<'a>,
    pub(crate) dataset: &'a Dataset,
    pub(crate) random: &'d mut Random,
    /// The next item that no server has seen.
    pub(crate) fresh: &'d mut usize,
}

impl Draft<'_, '_> {
    /// Any item.
    pub(crate) fn item(&mut self) -> usize {
        self.random.within(0..self.dataset.items())
    }

    /// Any item but the large ones.
    pub(crate) fn session(&mut self) -> usize {
        self.random.within(LARGE_ITEMS..self.dataset.items())
    }

    /// One of the large items.
    pub(crate) fn large(&mut self) -> usize {
        self.random.within(0..LARGE_ITEMS)
    }

    /// An item that was never stored.
    pub(crate) fn new_item(&mut self) -> usize {
        *self.fresh += 1;
        *self.fresh - 1
    }

    /// Each item in its turn.
    pub(crate) fn next_item(&mut self) -> usize {
        self.new_item() % self.dataset.items()
    }

    /// True this often.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.random.within(0..100) < percent
    }

    pub(crate) fn get(&mut self, item: usize) {
        let key = self.dataset.key(item);
        self.exchange.send(&[b"get ", &key, b"\r\n"]);
        self.exchange.expect_item(&key, self.dataset.value(item));
        self.exchange.expect(&[b"END\r\n"]);
    }

    /// One request for `count` items.
    pub(crate) fn multi_get(&mut self, count: usize) {
        self.exchange.send(&[b"get"]);
        for _ in 0..count {
            let item = self.item();
            let key = self.dataset.key(item);
            self.exchange.send(&[b" ", &key]);
            self.exchange.expect_item(&key, self.dataset.value(item));
        }
        self.exchange.send(&[b"\r\n"]);
        self.exchange.expect(&[b"END\r\n"]);
    }

    pub(crate) fn set(&mut self, item: usize) {
        let value = self.dataset.value(item);
        self.exchange.set(&self.dataset.key(item), value);
    }

    pub(crate) fn redis_set(&mut self, item: usize) {
        let value = self.dataset.value(item);
        self.exchange.redis_set(&self.dataset.key(item), value);
    }

    pub(crate) fn meta_get(&mut self, item: usize) {
        let value = self.dataset.value(item);
        self.exchange.meta_get(&self.dataset.key(item), value);
    }

    pub(crate) fn meta_set(&mut self, item: usize) {
        let value = self.dataset.value(item);
        self.exchange.meta_set(&self.dataset.key(item), value);
    }
}
