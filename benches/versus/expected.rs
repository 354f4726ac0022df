//! The bytes a server must answer, and how far they have come.
//!
//! Values are borrowed from the dataset, not copied: for large ones the copy would cost the
//! generator more than everything else it does with them.

/// Text with values in between, and a cursor over both.
#[derive(Debug, Default)]
pub(crate) struct Expected<'a> {
    text: Vec<u8>,
    values: Vec<Value<'a>>,
    /// Segments are numbered: text, value, text, value, ..., text.
    segment: usize,
    /// How much of the current segment has come.
    offset: usize,
    missing: usize,
}

/// A value and where in the text it belongs.
#[derive(Debug)]
struct Value<'a> {
    position: usize,
    bytes: &'a [u8],
}

/// What to ask the socket for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextRead {
    /// At most so many bytes, to look at.
    Read(usize),
    /// At most so many bytes, to throw away.
    Skip(usize),
}

impl<'a> Expected<'a> {
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.values.clear();
        self.segment = 0;
        self.offset = 0;
        self.missing = 0;
    }

    pub(crate) fn push_text(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
        self.missing += text.len();
    }

    pub(crate) fn push_value(&mut self, bytes: &'a [u8]) {
        let position = self.text.len();
        self.values.push(Value { position, bytes });
        self.missing += bytes.len();
    }

    /// How many bytes have still to come.
    pub(crate) fn missing(&self) -> usize {
        self.missing
    }

    /// Takes the next bytes from the server; `Err` has what should have come and what came instead.
    pub(crate) fn accept<'b>(&mut self, mut received: &'b [u8]) -> Result<(), (&[u8], &'b [u8])> {
        while !received.is_empty() {
            let wanted = &self.segment()[self.offset..];
            let length = wanted.len().min(received.len());
            if wanted[..length] != received[..length] || self.missing == 0 {
                return Err((&self.segment()[self.offset..], received));
            }
            self.missing -= length;
            self.offset += length;
            received = &received[length..];
            self.leave_finished_segment();
        }
        Ok(())
    }

    /// How the next bytes are best received, if values as long as `long` need not be looked at.
    pub(crate) fn next_read(&self, long: usize) -> NextRead {
        let is_long = |value: &Value<'_>| value.bytes.len() >= long;
        match self.values.get(self.segment / 2) {
            Some(value) if is_long(value) && self.segment % 2 == 1 => {
                NextRead::Skip(value.bytes.len() - self.offset)
            }
            Some(value) if is_long(value) => NextRead::Read(self.segment().len() - self.offset),
            _ => NextRead::Read(usize::MAX),
        }
    }

    /// So many bytes of a value have come, whatever they were.
    pub(crate) fn skip(&mut self, length: usize) {
        assert!(
            self.segment % 2 == 1 && length <= self.segment().len() - self.offset,
            "only bytes of one value are skipped"
        );
        self.missing -= length;
        self.offset += length;
        self.leave_finished_segment();
    }

    fn leave_finished_segment(&mut self) {
        if self.offset == self.segment().len() && self.segment < 2 * self.values.len() {
            self.segment += 1;
            self.offset = 0;
        }
    }

    fn segment(&self) -> &[u8] {
        let value = self.values.get(self.segment / 2);
        if self.segment % 2 == 1 {
            return value.map_or(&[], |value| value.bytes);
        }
        let before = self.segment.checked_sub(2).map(|segment| segment / 2);
        let start = before.map_or(0, |index| self.values[index].position);
        let end = value.map_or(self.text.len(), |value| value.position);
        &self.text[start..end]
    }
}
