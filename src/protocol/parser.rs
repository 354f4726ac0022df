//! Takes commands off a connection's input, however it was cut into pieces.
//!
//! Bounded: a line has at most 2 KiB (get lines may be longer and are taken in parts), a value
//! that can't fit is swallowed as it comes, and what is incomplete says how much it waits for.

use super::binary::{self, BinaryRequest};
use super::meta::{KeyBuffer, MetaStore};
use super::text::{self, Line, Retrieval, StoreHeader};
use super::{Keys, Request, StoreVerb, ValueForm, reply};
use crate::key::{KEY_MAX, Key};

/// The longest line, and from where on a get line is taken in parts.
const LINE_MAX: usize = 2048;

/// memcached allows this many spaces before the `get` of a longer line.
const SPACES_MAX: usize = 100;

/// What memcached's item adds to key and value: header, CAS unique, key's zero, CRLF.
pub const ITEM_OVERHEAD: usize = 48 + 8 + 1 + 2;

/// Bytes of an item as memcached counts them, for its limit and in its reports.
pub fn item_size(key: Key<'_>, value_len: usize) -> usize {
    ITEM_OVERHEAD + key.bytes().len() + value_len
}

/// What was found at the start of the input.
#[derive(Debug, PartialEq)]
pub enum Parsed<'a> {
    /// A command, and how many bytes it took.
    Request {
        /// Bytes to drop from the input.
        used: usize,
        /// The command.
        request: Request<'a>,
    },
    /// Not enough input.
    Incomplete {
        /// Bytes to drop from the input all the same.
        used: usize,
        /// How long the input has to be before it is worth trying again.
        wants: usize,
    },
    /// Not a command.
    Failed {
        /// Bytes to drop from the input.
        used: usize,
        /// The line to answer; empty for silence.
        error: &'static [u8],
    },
    /// A request of the binary protocol: refuse it, then close.
    Binary(BinaryRequest),
    /// Answer this line, then close: the rest of the input can't be trusted.
    Close {
        /// The line to answer; empty for silence.
        error: &'static [u8],
    },
}

/// Where the connection stands between two reads.
#[derive(Debug)]
pub struct Parser {
    item_max: usize,
    state: State,
    /// A key in base64 is decoded into this.
    key_buffer: KeyBuffer,
}

#[derive(Debug)]
enum State {
    /// Nothing has come yet.
    Start,
    /// At the start of a command.
    Line,
    /// Inside a retrieval line; `any` once it has named a key.
    Keys { kind: Retrieval, any: bool },
    /// Inside a retrieval line that has been answered with an error.
    RestOfLine,
    /// Inside a data block that nobody wants.
    Swallow { left: usize, then: Swallowed },
}

/// What is said when a data block has been swallowed.
#[derive(Debug)]
enum Swallowed {
    /// The value can't fit.
    Oversize { key: Option<Box<[u8]>>, noreply: bool },
    /// Its command was wrong.
    Failed(&'static [u8]),
}

impl Parser {
    /// A parser at the start of a connection, with memcached's `-I` in bytes.
    pub fn new(item_max: usize) -> Self {
        Self { item_max, state: State::Start, key_buffer: [0; KEY_MAX] }
    }

    /// Whether nothing of a command has been taken that is not complete.
    pub fn is_between_commands(&self) -> bool {
        matches!(self.state, State::Start | State::Line)
    }

    /// Takes the next command off `input`. The caller drops `used` bytes before the next call.
    pub fn next<'a>(&'a mut self, input: &'a [u8]) -> Parsed<'a> {
        if input.is_empty() {
            return Parsed::Incomplete { used: 0, wants: 1 };
        }
        let Self { item_max, state, key_buffer } = self;
        match state {
            State::Start => state.start(input, *item_max, key_buffer),
            State::Line => state.line(input, *item_max, key_buffer),
            State::Keys { .. } => state.keys(input, 0),
            State::RestOfLine => state.rest_of_line(input),
            State::Swallow { left, .. } => {
                let used = input.len().min(*left);
                *left -= used;
                state.swallowed(used)
            }
        }
    }

    /// The session has answered a part of a get line and goes on with the rest later.
    pub fn resume_keys(&mut self, form: ValueForm) {
        self.state = State::Keys { kind: Retrieval::Get(form), any: true };
    }

    /// The session met a bad key in a part of a longer line: drop what is left of that line.
    pub fn skip_line(&mut self) {
        if matches!(self.state, State::Keys { .. }) {
            self.state = State::RestOfLine;
        }
    }
}

impl State {
    /// The first byte tells the protocol.
    fn start<'a>(
        &mut self,
        input: &'a [u8],
        item_max: usize,
        key_buffer: &'a mut KeyBuffer,
    ) -> Parsed<'a> {
        match input.first() {
            None => return Parsed::Incomplete { used: 0, wants: 1 },
            Some(&binary::REQUEST_MAGIC) => {}
            Some(_) => {
                *self = Self::Line;
                return self.line(input, item_max, key_buffer);
            }
        }
        match input.get(..binary::HEADER).and_then(BinaryRequest::read) {
            Some(request) => Parsed::Binary(request),
            None => Parsed::Incomplete { used: 0, wants: binary::HEADER },
        }
    }

    fn line<'a>(
        &mut self,
        input: &'a [u8],
        item_max: usize,
        key_buffer: &'a mut KeyBuffer,
    ) -> Parsed<'a> {
        let window = &input[..input.len().min(LINE_MAX + 1)];
        let Some(end) = memchr::memchr(b'\n', window) else {
            return self.no_newline(input);
        };
        let used = end + 1;
        match text::line(strip_return(&input[..end]), key_buffer) {
            Err(bad) => Parsed::Failed { used, error: bad.error },
            Ok(Line::Request(request)) => Parsed::Request { used, request },
            Ok(Line::Store(header)) => self.store(header, used, input, item_max),
            Ok(Line::MetaStore(header)) => self.meta_store(header, used, input, item_max),
            Ok(Line::Retrieve { kind: Retrieval::Get(_), keys }) if text::has_long_token(keys) => {
                // As memcached, which answers the error alone.
                Parsed::Failed { used, error: reply::BAD_FORMAT }
            }
            Ok(Line::Retrieve { kind: Retrieval::Get(form), keys }) if !text::is_blank(keys) => {
                Parsed::Request {
                    used,
                    request: Request::Get { keys: Keys(keys), form, last: true },
                }
            }
            Ok(Line::Retrieve { kind, keys }) => {
                *self = Self::Keys { kind, any: false };
                // The keys reach to the end of the line, so they start this far into the input.
                self.keys(input, strip_return(&input[..end]).len() - keys.len())
            }
            Ok(Line::BadStore { length, bad }) => {
                self.swallow(used, length, Swallowed::Failed(bad.error))
            }
            Ok(Line::Http) => Parsed::Close { error: b"" },
        }
    }

    /// A long get line is worth answering in parts; any other is an attack or a mistake.
    fn no_newline<'a>(&mut self, input: &'a [u8]) -> Parsed<'a> {
        if input.len() <= LINE_MAX {
            return Parsed::Incomplete { used: 0, wants: input.len() + 1 };
        }
        let spaces = input.iter().take(SPACES_MAX).take_while(|&&byte| byte == b' ').count();
        let command = &input[spaces..];
        let (form, word) = match command {
            _ if command.starts_with(b"get ") => (ValueForm::Plain, 3),
            _ if command.starts_with(b"gets ") => (ValueForm::WithCas, 4),
            _ => return Parsed::Close { error: b"" },
        };
        if spaces > 0 {
            *self = Self::RestOfLine;
            return Parsed::Failed { used: input.len(), error: reply::ERROR };
        }
        *self = Self::Keys { kind: Retrieval::Get(form), any: false };
        self.keys(input, word)
    }

    /// Takes keys from `start` on: all of the line that is here for get, one at a time for gat.
    fn keys<'a>(&mut self, input: &'a [u8], start: usize) -> Parsed<'a> {
        let Self::Keys { kind, any } = self else {
            unreachable!("only called inside a retrieval line")
        };
        let newline = memchr::memchr(b'\n', &input[start..]).map(|at| start + at);
        let end = match newline {
            Some(newline) => start + strip_return(&input[start..newline]).len(),
            None => match memchr::memrchr(b' ', &input[start..]) {
                Some(space) => start + space,
                None => start,
            },
        };
        let here = &input[start..end];
        let Some((first, after_first)) = text::token(here) else {
            return self.no_key_here(input, end, newline);
        };
        *any = true;
        match *kind {
            Retrieval::Get(form) => {
                let request = Request::Get { keys: Keys(here), form, last: newline.is_some() };
                self.part(request, end, newline)
            }
            Retrieval::GetAndTouch { form, exptime } => {
                let Some(key) = Key::new(first) else {
                    return self.bad_key(end, newline);
                };
                let last = newline.is_some() && text::token(after_first).is_none();
                let request = Request::GetAndTouch { key: Some(key), exptime, form, last };
                if last {
                    self.part(request, end, newline)
                } else {
                    self.part(request, end - after_first.len(), None)
                }
            }
        }
    }

    fn part<'a>(&mut self, request: Request<'a>, end: usize, newline: Option<usize>) -> Parsed<'a> {
        if newline.is_some() {
            *self = Self::Line;
        }
        Parsed::Request { used: newline.map_or(end, |newline| newline + 1), request }
    }

    /// The line goes on, ends after its last key, or never had one.
    fn no_key_here<'a>(
        &mut self,
        input: &'a [u8],
        end: usize,
        newline: Option<usize>,
    ) -> Parsed<'a> {
        let Self::Keys { kind, any } = *self else {
            unreachable!("only called inside a retrieval line")
        };
        let Some(newline) = newline else {
            if input.len() - end > KEY_MAX + 2 {
                return self.bad_key(input.len(), None);
            }
            return Parsed::Incomplete { used: end, wants: input.len() - end + 1 };
        };
        *self = Self::Line;
        let used = newline + 1;
        let request = match kind {
            _ if !any => return Parsed::Failed { used, error: reply::BAD_FORMAT },
            Retrieval::Get(form) => Request::Get { keys: Keys(b""), form, last: true },
            Retrieval::GetAndTouch { form, exptime } => {
                Request::GetAndTouch { key: None, exptime, form, last: true }
            }
        };
        Parsed::Request { used, request }
    }

    fn bad_key<'a>(&mut self, end: usize, newline: Option<usize>) -> Parsed<'a> {
        *self = if newline.is_some() { Self::Line } else { Self::RestOfLine };
        Parsed::Failed {
            used: newline.map_or(end, |newline| newline + 1),
            error: reply::BAD_FORMAT,
        }
    }

    fn rest_of_line<'a>(&mut self, input: &'a [u8]) -> Parsed<'a> {
        match memchr::memchr(b'\n', input) {
            Some(newline) => {
                *self = Self::Line;
                Parsed::Failed { used: newline + 1, error: b"" }
            }
            None => Parsed::Incomplete { used: input.len(), wants: 1 },
        }
    }

    fn store<'a>(
        &mut self,
        header: StoreHeader<'a>,
        used: usize,
        input: &'a [u8],
        item_max: usize,
    ) -> Parsed<'a> {
        let StoreHeader { verb, key, flags, exptime, length, noreply } = header;
        if is_too_large(key, length, item_max) {
            let key = matches!(verb, StoreVerb::Set).then(|| key.bytes().into());
            return self.swallow(used, length, Swallowed::Oversize { key, noreply });
        }
        match data_block(input, used, length) {
            Ok(value) => Parsed::Request {
                used: used + length + 2,
                request: Request::Store { verb, key, flags, exptime, value, noreply },
            },
            Err(missing) => missing.parsed(if noreply { b"" } else { reply::BAD_DATA_CHUNK }),
        }
    }

    /// Meta commands show errors even where they are told to be quiet.
    fn meta_store<'a>(
        &mut self,
        header: MetaStore<'a>,
        used: usize,
        input: &'a [u8],
        item_max: usize,
    ) -> Parsed<'a> {
        let MetaStore { length, meta } = header;
        let meta = match meta {
            Ok(meta) => meta,
            Err(error) => return self.swallow(used, length, Swallowed::Failed(error)),
        };
        if is_too_large(meta.key, length, item_max) {
            let key = Some(meta.key.bytes().into());
            return self.swallow(used, length, Swallowed::Oversize { key, noreply: false });
        }
        match data_block(input, used, length) {
            Ok(value) => Parsed::Request {
                used: used + length + 2,
                request: Request::MetaStore(meta, value),
            },
            Err(missing) => missing.parsed(reply::BAD_DATA_CHUNK),
        }
    }

    fn swallow<'a>(&mut self, used: usize, length: usize, then: Swallowed) -> Parsed<'a> {
        *self = Self::Swallow { left: length + 2, then };
        Parsed::Incomplete { used, wants: 1 }
    }

    fn swallowed<'a>(&mut self, used: usize) -> Parsed<'a> {
        match std::mem::replace(self, Self::Line) {
            Self::Swallow { left: 0, then: Swallowed::Oversize { key, noreply } } => {
                Parsed::Request { used, request: Request::Oversize { key, noreply } }
            }
            Self::Swallow { left: 0, then: Swallowed::Failed(error) } => {
                Parsed::Failed { used, error }
            }
            unfinished => {
                *self = unfinished;
                Parsed::Incomplete { used, wants: 1 }
            }
        }
    }
}

fn is_too_large(key: Key<'_>, length: usize, item_max: usize) -> bool {
    item_size(key, length) > item_max
}

/// Why there is no data block.
enum NoBlock {
    /// It is not all here yet.
    Incomplete { wants: usize },
    /// It does not end in CRLF.
    Bad { used: usize },
}

impl NoBlock {
    fn parsed<'a>(self, error: &'static [u8]) -> Parsed<'a> {
        match self {
            Self::Incomplete { wants } => Parsed::Incomplete { used: 0, wants },
            Self::Bad { used } => Parsed::Failed { used, error },
        }
    }
}

/// The data block behind a line.
fn data_block(input: &[u8], used: usize, length: usize) -> Result<&[u8], NoBlock> {
    let total = used + length + 2;
    if input.len() < total {
        return Err(NoBlock::Incomplete { wants: total });
    }
    let (value, end) = input[used..total].split_at(length);
    if end == b"\r\n" { Ok(value) } else { Err(NoBlock::Bad { used: total }) }
}

fn strip_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM_MAX: usize = 1 << 20;

    /// Feeds the input `step` bytes at a time and writes down what came out.
    fn run(input: &[u8], step: usize) -> Vec<String> {
        let mut parser = Parser::new(ITEM_MAX);
        let (mut seen, mut buffer) = (Vec::new(), Vec::new());
        for piece in input.chunks(step) {
            buffer.extend_from_slice(piece);
            loop {
                let (used, line, more) = match parser.next(&buffer) {
                    Parsed::Request { used, request } => (used, describe(request), true),
                    Parsed::Failed { used, error } => (used, format!("{error:?}"), true),
                    Parsed::Incomplete { used, .. } => {
                        (used, String::new(), used > 0 && used < buffer.len())
                    }
                    Parsed::Binary(_) | Parsed::Close { .. } => return seen,
                };
                if !line.is_empty() {
                    seen.push(line);
                }
                buffer.drain(..used);
                if !more {
                    break;
                }
            }
        }
        seen
    }

    /// A get in parts reads like a get at once.
    fn describe(request: Request<'_>) -> String {
        match request {
            Request::Get { keys, last, .. } => {
                let keys: Vec<String> = keys.map(|key| format!("{key:?}")).collect();
                format!("{}{}", keys.join(","), if last { ";" } else { "," })
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn pieces_of_any_size_give_the_same_commands() {
        let input = b"set a 1 0 5\r\nhello\r\nget a b\r\ngat 5 a b  c \r\nbad\r\nset b 0 0 2\nxxxx\r\ndelete a noreply\r\nincr n 5\r\ngets a\n\nget\r\ngat 5\r\nversion x\r\n";
        let whole = run(input, input.len());
        assert_eq!(whole.len(), 15, "{whole:#?}");
        for step in 1..40 {
            assert_eq!(run(input, step), whole, "in pieces of {step}");
        }
    }

    #[test]
    fn a_get_line_of_any_length_is_taken_in_parts() {
        let mut input = b"get".to_vec();
        for n in 0..5000 {
            input.extend_from_slice(format!(" key{n}").as_bytes());
        }
        input.extend_from_slice(b"\r\nversion\r\n");
        let text = run(&input, 100).concat();
        assert_eq!(text.matches("Ok(Key").count(), 5000);
        assert!(text.ends_with(";Version"));
    }

    #[test]
    fn a_binary_request_is_known_by_its_first_byte_and_awaited_whole() {
        let header = [&[0x80, 0x01][..], &[0; 22]].concat();
        let mut parser = Parser::new(ITEM_MAX);
        assert_eq!(parser.next(&header[..1]), Parsed::Incomplete { used: 0, wants: 24 });
        assert_eq!(parser.next(&header[..23]), Parsed::Incomplete { used: 0, wants: 24 });
        assert!(matches!(parser.next(&header), Parsed::Binary(_)));
        let mut later = Parser::new(ITEM_MAX);
        later.state = State::Line;
        assert_eq!(later.next(b"\x80\x01\n"), Parsed::Failed { used: 3, error: reply::ERROR });
    }

    #[test]
    fn any_other_line_above_2_kib_closes() {
        let long = [b'x'; LINE_MAX + 1];
        assert_eq!(Parser::new(ITEM_MAX).next(&long), Parsed::Close { error: b"" });
    }

    #[test]
    fn an_oversize_value_is_swallowed_whole_and_then_answered() {
        let mut input = format!("set big 0 0 {}\r\n", ITEM_MAX).into_bytes();
        input.resize(input.len() + ITEM_MAX, b'x');
        input.extend_from_slice(b"\r\nversion\r\n");
        let seen = run(&input, 60_000);
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(seen[0].starts_with("Oversize"));
        assert_eq!(seen[1], "Version");
    }

    #[test]
    fn a_key_too_long_in_a_long_line_spoils_only_that_line() {
        let mut input = b"get ".to_vec();
        input.resize(9000, b'k');
        input.extend_from_slice(b" other\r\nversion\r\n");
        let seen = run(&input, 500);
        assert_eq!(seen.last().map(String::as_str), Some("Version"));
        assert!(seen[0].contains("67"), "an error line: {seen:?}");
    }
}
