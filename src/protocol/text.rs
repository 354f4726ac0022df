//! The grammar of one line of the text protocol.
//!
//! A line here is complete and has lost its CRLF. What depends on the bytes after it (data
//! blocks, lines longer than a buffer) is the parser's business.

use super::meta::{self, KeyBuffer, MetaStore};
use super::{MetaVerb, Request, Stop, StoreVerb, ValueForm, admin, reply};
use crate::key::{KEY_MAX, Key};

/// What one line asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Line<'a> {
    /// A command that is complete with its line.
    Request(Request<'a>),
    /// get and its kin: the keys are in the rest of the line.
    Retrieve { kind: Retrieval, keys: &'a [u8] },
    /// A storage command: its data block follows.
    Store(StoreHeader<'a>),
    /// A storage command with a mistake; its data block follows all the same.
    BadStore { length: usize, bad: BadLine },
    /// ms: its data block follows.
    MetaStore(MetaStore<'a>),
    /// An HTTP request: somebody tricked a browser into talking to us. Close without a word.
    Http,
}

/// Which retrieval command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Retrieval {
    Get(ValueForm),
    GetAndTouch { form: ValueForm, exptime: i32 },
}

/// A storage command without its data block.
#[derive(Debug, PartialEq)]
pub(super) struct StoreHeader<'a> {
    pub(super) verb: StoreVerb,
    pub(super) key: Key<'a>,
    pub(super) flags: u32,
    pub(super) exptime: i32,
    pub(super) length: usize,
    pub(super) noreply: bool,
}

/// A line that is answered with an error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BadLine {
    /// Empty when the client asked for no reply.
    pub(super) error: &'static [u8],
}

/// The longest data block whose length memcached reads: 2^31 - 3.
pub(super) const LENGTH_MAX: u64 = i32::MAX as u64 - 2;

/// Reads one line; a key in base64 is decoded into `buffer`.
pub(super) fn line<'a>(line: &'a [u8], buffer: &'a mut KeyBuffer) -> Parsing<'a> {
    let (word, arguments) = split_word(line);
    match word {
        b"get" => Ok(get(ValueForm::Plain, arguments)),
        b"gets" => Ok(get(ValueForm::WithCas, arguments)),
        b"gat" => gat(ValueForm::Plain, arguments),
        b"gats" => gat(ValueForm::WithCas, arguments),
        b"set" => store(StoreVerb::Set, arguments),
        b"add" => store(StoreVerb::Add, arguments),
        b"replace" => store(StoreVerb::Replace, arguments),
        b"append" => store(StoreVerb::Append, arguments),
        b"prepend" => store(StoreVerb::Prepend, arguments),
        b"cas" => store(StoreVerb::Cas(0), arguments),
        b"delete" => delete(arguments),
        b"incr" => count(true, arguments),
        b"decr" => count(false, arguments),
        b"touch" => touch(arguments),
        b"flush_all" => flush_all(arguments),
        b"mg" => meta::command(MetaVerb::Get, arguments, buffer),
        b"ms" => meta::store(arguments, buffer),
        b"md" => meta::command(MetaVerb::Delete, arguments, buffer),
        b"ma" => meta::command(MetaVerb::Count, arguments, buffer),
        b"me" => meta::command(MetaVerb::Debug, arguments, buffer),
        b"mn" => Ok(Line::Request(Request::MetaNoop)),
        b"version" => Ok(Line::Request(Request::Version)),
        b"verbosity" => verbosity(arguments),
        b"stats" => admin::stats(arguments),
        b"lru_crawler" => obedient(arguments, admin::lru_crawler(arguments)),
        b"watch" => admin::watch(arguments),
        b"cache_memlimit" => obedient(arguments, admin::cache_memlimit(arguments)),
        b"slabs" => obedient(arguments, admin::slabs(arguments)),
        b"lru" => obedient(arguments, admin::lru(arguments)),
        b"quit" => Ok(Line::Request(Request::Quit)),
        b"shutdown" => shutdown(arguments),
        _ => obedient(arguments, unknown(line)),
    }
}

pub(super) type Parsing<'a> = Result<Line<'a>, BadLine>;

fn get(form: ValueForm, arguments: &[u8]) -> Line<'_> {
    Line::Retrieve { kind: Retrieval::Get(form), keys: arguments }
}

fn gat(form: ValueForm, arguments: &[u8]) -> Parsing<'_> {
    let (exptime, keys) = token(arguments).ok_or(BAD_FORMAT)?;
    let exptime = signed(exptime).ok_or(BadLine::new(reply::INVALID_EXPTIME))?;
    Ok(Line::Retrieve { kind: Retrieval::GetAndTouch { form, exptime }, keys })
}

fn store(verb: StoreVerb, arguments: &[u8]) -> Parsing<'_> {
    if let Some(header) = plain_store(verb, arguments) {
        return Ok(Line::Store(header));
    }
    let noreply = is_noreply(arguments);
    let mut fields = Fields(arguments);
    let mut field = || fields.next().ok_or(BAD_FORMAT.silenced(noreply));
    let (key, flags, exptime, length) = (field()?, field()?, field()?, field()?);
    let unique = if matches!(verb, StoreVerb::Cas(_)) { Some(field()?) } else { None };
    let length = unsigned(length).filter(|&length| length <= LENGTH_MAX);
    let length = length.ok_or(BAD_FORMAT.silenced(noreply))? as usize;
    let header = || {
        Some(StoreHeader {
            verb: match unique {
                Some(unique) => StoreVerb::Cas(unsigned(unique)?),
                None => verb,
            },
            key: Key::new(key)?,
            // memcached keeps the low 32 bits of a larger number.
            flags: unsigned(flags)? as u32,
            exptime: signed(exptime)?,
            length,
            noreply,
        })
    };
    // With a length that can be read, the data block is known for what it is and not executed.
    Ok(header().map_or(Line::BadStore { length, bad: BAD_FORMAT.silenced(noreply) }, Line::Store))
}

/// What nearly all clients send: one space between fields, small numbers, and no noreply. `None` says
/// nothing about any other line.
#[inline]
fn plain_store(verb: StoreVerb, arguments: &[u8]) -> Option<StoreHeader<'_>> {
    if matches!(verb, StoreVerb::Cas(_)) {
        return None;
    }
    let (key, rest) = split_word(arguments.strip_prefix(b" ")?);
    let (flags, rest) = plain_number(rest)?;
    let (exptime, rest) = plain_number(rest)?;
    let (length, rest) = plain_number(rest)?;
    rest.is_empty().then_some(StoreHeader {
        verb,
        key: Key::new(key)?,
        flags,
        exptime: exptime as i32,
        length: length as usize,
        noreply: false,
    })
}

/// One space and at most nine digits.
#[inline]
fn plain_number(input: &[u8]) -> Option<(u32, &[u8])> {
    let (mut number, mut rest) = (0, input.strip_prefix(b" ")?);
    let most = rest.len();
    while let Some((digit @ b'0'..=b'9', behind)) = rest.split_first() {
        if most - behind.len() > 9 {
            return None;
        }
        number = number * 10 + u32::from(digit - b'0');
        rest = behind;
    }
    (rest.len() < most).then_some((number, rest))
}

fn delete(arguments: &[u8]) -> Parsing<'_> {
    let noreply = is_noreply(arguments);
    let mut fields = Fields(arguments);
    let key = fields.key().map_err(|bad| bad.silenced(noreply))?;
    // Old clients send a time of 0 behind the key; more than that is a mistake.
    if fields.count() > 1 + usize::from(noreply) {
        return Err(BAD_FORMAT.silenced(noreply));
    }
    Ok(Line::Request(Request::Delete { key, noreply }))
}

fn count(up: bool, arguments: &[u8]) -> Parsing<'_> {
    let noreply = is_noreply(arguments);
    let mut fields = Fields(arguments);
    let key = fields.key().map_err(|bad| bad.silenced(noreply))?;
    let delta = fields.next().ok_or(BAD_FORMAT.silenced(noreply))?;
    let delta = unsigned(delta).ok_or(BadLine::new(reply::INVALID_DELTA).silenced(noreply))?;
    Ok(Line::Request(Request::Count { up, key, delta, noreply }))
}

fn touch(arguments: &[u8]) -> Parsing<'_> {
    let noreply = is_noreply(arguments);
    let mut fields = Fields(arguments);
    let key = fields.key().map_err(|bad| bad.silenced(noreply))?;
    let exptime = fields.next().ok_or(BAD_FORMAT.silenced(noreply))?;
    let exptime = signed(exptime).ok_or(BadLine::new(reply::INVALID_EXPTIME).silenced(noreply))?;
    Ok(Line::Request(Request::Touch { key, exptime, noreply }))
}

fn flush_all(arguments: &[u8]) -> Parsing<'_> {
    let noreply = is_noreply(arguments);
    let delay = match token(arguments) {
        None | Some((b"noreply", _)) => 0,
        Some((delay, _)) => {
            signed(delay).ok_or(BadLine::new(reply::INVALID_EXPTIME).silenced(noreply))?
        }
    };
    Ok(Line::Request(Request::FlushAll { delay, noreply }))
}

fn verbosity(arguments: &[u8]) -> Parsing<'_> {
    let noreply = is_noreply(arguments);
    let (level, _) = token(arguments).ok_or(BAD_FORMAT)?;
    if level != b"noreply" && unsigned(level).is_none() {
        return Err(BAD_FORMAT.silenced(noreply));
    }
    Ok(Line::Request(Request::Verbosity { noreply }))
}

fn shutdown(arguments: &[u8]) -> Parsing<'_> {
    let mut words = Fields(arguments);
    let stop = match (words.next(), words.next()) {
        (None, _) => Some(Stop::Plain),
        (Some(b"graceful"), None) => Some(Stop::Graceful),
        // No way to stop is called so, and the client does not want to be told.
        _ if is_noreply(arguments) => return Err(BAD_FORMAT.silenced(true)),
        _ => None,
    };
    Ok(Line::Request(Request::Shutdown(stop)))
}

/// To memcached `noreply` is the last word of any command that is not read by all of its words.
fn obedient<'a>(arguments: &[u8], parsed: Parsing<'a>) -> Parsing<'a> {
    let noreply = is_noreply(arguments);
    match parsed {
        Ok(Line::Request(Request::Tune { tune, .. })) => {
            Ok(Line::Request(Request::Tune { tune, noreply }))
        }
        // It stands where a class should.
        Ok(Line::Request(Request::Crawl(_))) if noreply => Err(BAD_FORMAT.silenced(true)),
        parsed => parsed.map_err(|bad| bad.silenced(noreply)),
    }
}

fn unknown(line: &[u8]) -> Parsing<'_> {
    if last_token(line).starts_with(b"HTTP/") {
        return Ok(Line::Http);
    }
    // memcached looks at the second letter before it looks at the command.
    Err(if line.len() < 2 { BAD_FORMAT } else { BadLine::new(reply::ERROR) })
}

pub(super) const BAD_FORMAT: BadLine = BadLine::new(reply::BAD_FORMAT);

impl BadLine {
    pub(super) const fn new(error: &'static [u8]) -> Self {
        Self { error }
    }

    fn silenced(self, noreply: bool) -> Self {
        if noreply { Self { error: b"" } } else { self }
    }
}

pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn key(&mut self) -> Result<Key<'a>, BadLine> {
        self.next().and_then(Key::new).ok_or(BAD_FORMAT)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (field, rest) = token(self.0)?;
        self.0 = rest;
        Some(field)
    }
}

/// The next token and what follows it; only spaces separate tokens.
pub(super) fn token(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = input.iter().position(|&byte| byte != b' ')?;
    Some(split_word(&input[start..]))
}

/// Whether there is a token longer than a key may be: so many bytes in a row without a space. Looks at
/// a few of them only.
pub(super) fn has_long_token(mut input: &[u8]) -> bool {
    while let Some(window) = input.get(..=KEY_MAX) {
        match memchr::memrchr(b' ', window) {
            Some(space) => input = &input[space + 1..],
            None => return true,
        }
    }
    false
}

/// Whether there is no token.
pub(super) fn is_blank(input: &[u8]) -> bool {
    input.iter().all(|&byte| byte == b' ')
}

/// Cuts before the first space.
fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    line.split_at(word_len(line))
}

/// Bytes before the first space. Most tokens are too short for `memchr` to pay, and keys too long to
/// look at each byte of them: so eight at a time.
fn word_len(line: &[u8]) -> usize {
    let (words, rest) = line.as_chunks::<8>();
    for (place, &word) in words.iter().enumerate() {
        let found = spaces(u64::from_le_bytes(word));
        if found != 0 {
            return place * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let in_rest = rest.iter().position(|&byte| byte == b' ');
    words.len() * 8 + in_rest.unwrap_or(rest.len())
}

/// Its lowest bit is the highest of the first byte that is a space; those above may be wrong (Mycroft's
/// search for a zero byte).
fn spaces(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let zero_for_space = word ^ (ONES * b' ' as u64);
    zero_for_space.wrapping_sub(ONES) & !zero_for_space & (ONES << 7)
}

fn without_end_spaces(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|&byte| byte != b' ').map_or(0, |at| at + 1);
    &line[..end]
}

fn last_token(line: &[u8]) -> &[u8] {
    let line = without_end_spaces(line);
    let start = memchr::memrchr(b' ', line).map_or(0, |at| at + 1);
    &line[start..]
}

pub(super) fn is_noreply(arguments: &[u8]) -> bool {
    let before = without_end_spaces(arguments).strip_suffix(b"noreply");
    before.is_some_and(|before| before.last().is_none_or(|&byte| byte == b' '))
}

/// As C's strtoull reads it: a plus sign may stand before the digits.
pub(super) fn unsigned(field: &[u8]) -> Option<u64> {
    digits(field.strip_prefix(b"+").unwrap_or(field))
}

/// An exptime. Of a larger number memcached keeps the low 32 bits, and libmemcached relies on it:
/// it writes -1 as 4294967295.
pub(super) fn signed(field: &[u8]) -> Option<i32> {
    let value = match field.strip_prefix(b"-") {
        Some(field) => 0i64.checked_sub_unsigned(digits(field)?)?,
        None => i64::try_from(unsigned(field)?).ok()?,
    };
    Some(value as i32)
}

/// Decimal digits and nothing else, of a number that fits.
#[inline]
fn digits(field: &[u8]) -> Option<u64> {
    if field.is_empty() {
        return None;
    }
    field.iter().try_fold(0u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Tune;

    /// The line alone, without anything in base64.
    fn parsed(text: &[u8]) -> Parsing<'_> {
        super::line(text, Box::leak(Box::new([0; 250])))
    }

    fn line(text: &[u8]) -> Line<'_> {
        parsed(text).unwrap()
    }

    #[test]
    fn a_token_ends_at_the_first_space_wherever_that_is() {
        for len in 1..40 {
            for behind in [&b""[..], b" ", b" x", b" 12345678 9"] {
                // Neighbours of the space, which a search in words could take for one.
                let word: Vec<u8> =
                    b"!\x1f\xa0\xff\x00\x21".iter().copied().cycle().take(len).collect();
                let line = [b"  ", word.as_slice(), behind].concat();
                assert_eq!(token(&line), Some((word.as_slice(), behind)), "{len}, {behind:?}");
            }
        }
        assert_eq!((token(b""), token(b"   ")), (None, None));
    }

    #[test]
    fn a_long_token_is_found_wherever_it_stands() {
        for before in [0, 1, 200, 249, 250, 251, 252, 600] {
            for len in [1, 249, 250, 251, 252] {
                let line = [vec![b' '; before], vec![b'k'; len], b" k".to_vec()].concat();
                assert_eq!(has_long_token(&line), len > 250, "{len} behind {before}");
            }
        }
        assert!(!has_long_token(b"") && !has_long_token(&[b' '; 600]));
    }

    #[test]
    fn noreply_is_the_last_word_or_none() {
        let words = [&b"noreply"[..], b" noreply", b"k noreply  ", b" k 0 noreply"];
        assert!(words.iter().all(|words| is_noreply(words)));
        let words = [&b""[..], b"   ", b"xnoreply", b"noreply k", b"noreplyx", b"oreply"];
        assert!(!words.iter().any(|words| is_noreply(words)));
    }

    fn error_of(text: &[u8]) -> &'static [u8] {
        match parsed(text) {
            Err(bad) | Ok(Line::BadStore { bad, .. }) => bad.error,
            other => panic!("{other:?} is no error"),
        }
    }

    #[test]
    fn noreply_counts_only_as_the_last_token() {
        assert!(is_noreply(b" k 1 noreply  "));
        assert!(!is_noreply(b" noreply 1"));
        assert_eq!(
            line(b"delete noreply"),
            Line::Request(Request::Delete { key: Key::new(b"noreply").unwrap(), noreply: true })
        );
    }

    #[test]
    fn numbers_out_of_range_are_refused_and_wide_flags_are_cut() {
        assert_eq!(error_of(b"set k 0 9223372036854775808 1"), reply::BAD_FORMAT);
        assert_eq!(error_of(b"set k -1 0 1"), reply::BAD_FORMAT);
        assert_eq!(error_of(b"set k 18446744073709551616 0 1"), reply::BAD_FORMAT);
        let Line::Store(header) = line(b"set k 4294967297 0 1") else {
            panic!("a storage command")
        };
        assert_eq!(header.flags, 1);
        let Line::Store(header) = line(b"set k +1 4294967295 +1") else {
            panic!("a storage command")
        };
        assert_eq!((header.exptime, header.length), (-1, 1));
    }

    #[test]
    fn a_length_that_cannot_be_read_is_only_an_error() {
        for length in ["-1", "2147483646", "x", ""] {
            assert_eq!(error_of(format!("set k 0 0 {length}").as_bytes()), reply::BAD_FORMAT);
        }
    }

    #[test]
    fn a_mistake_beside_a_good_length_does_not_make_data_a_command() {
        let long = "k".repeat(251);
        for text in ["set k -1 0 5", "set k 0 x 5", "cas k 0 0 5 x", &format!("set {long} 0 0 5")] {
            let bad = BadLine::new(reply::BAD_FORMAT);
            assert_eq!(line(text.as_bytes()), Line::BadStore { length: 5, bad }, "{text}");
        }
    }

    #[test]
    fn each_command_has_its_own_error() {
        assert_eq!(error_of(b"incr k x"), reply::INVALID_DELTA);
        assert_eq!(error_of(b"touch k x"), reply::INVALID_EXPTIME);
        assert_eq!(error_of(b"gat x k"), reply::INVALID_EXPTIME);
        assert_eq!(error_of(b"flush_all x"), reply::INVALID_EXPTIME);
        assert_eq!(error_of(b"nonsense"), reply::ERROR);
        assert_eq!(error_of(b"GET k"), reply::ERROR);
        assert_eq!(error_of(b" get k"), reply::ERROR);
        assert_eq!(error_of(b""), reply::BAD_FORMAT);
        assert_eq!(error_of(b"x"), reply::BAD_FORMAT);
    }

    #[test]
    fn noreply_hides_errors() {
        assert_eq!(error_of(b"set k x 0 1 noreply"), b"");
        assert_eq!(error_of(b"incr k x noreply"), b"");
    }

    #[test]
    fn noreply_hides_errors_of_operators_too() {
        for text in [
            "flush_all abc noreply",
            "verbosity noreply",
            "verbosity x noreply",
            "lru_crawler noreply",
            "lru_crawler enable noreply",
            "lru_crawler metadump noreply",
            "lru_crawler sleep noreply",
            "cache_memlimit noreply",
            "cache_memlimit 1 noreply",
            "slabs noreply",
            "slabs reassign 1 2 noreply",
            "slabs automove 3 noreply",
            "lru mode x noreply",
            "shutdown now noreply",
            "shutdown noreply",
            "nonsense noreply",
        ] {
            match parsed(text.as_bytes()) {
                Err(bad) => assert_eq!(bad.error, b"", "{text}"),
                Ok(Line::Request(Request::Verbosity { noreply: true })) => {}
                other => panic!("{text}: {other:?}"),
            }
        }
        let quiet = Request::Tune { tune: Tune::Accepted, noreply: true };
        assert_eq!(line(b"slabs automove 1 noreply"), Line::Request(quiet));
    }

    #[test]
    fn http_is_recognised() {
        assert_eq!(line(b"GET / HTTP/1.1"), Line::Http);
        assert_eq!(line(b"POST /x HTTP/1.0 "), Line::Http);
    }

    #[test]
    fn shutdown_knows_one_word() {
        let shutdown = |stop| Line::Request(Request::Shutdown(stop));
        assert_eq!(line(b"shutdown"), shutdown(Some(Stop::Plain)));
        assert_eq!(line(b"shutdown graceful"), shutdown(Some(Stop::Graceful)));
        assert_eq!(line(b"shutdown now"), shutdown(None));
        assert_eq!(line(b"shutdown graceful now"), shutdown(None));
    }

    #[test]
    fn flush_all_takes_a_delay_and_noreply() {
        let flush = |delay, noreply| Line::Request(Request::FlushAll { delay, noreply });
        assert_eq!(line(b"flush_all"), flush(0, false));
        assert_eq!(line(b"flush_all "), flush(0, false));
        assert_eq!(line(b"flush_all noreply"), flush(0, true));
        assert_eq!(line(b"flush_all -5 noreply"), flush(-5, true));
    }

    #[test]
    fn a_plain_storage_command_reads_as_any_other() {
        for fields in
            ["k 0 0 5", "k 1 2592000 1024", "k 999999999 7 0", "k 4294967297 0 1", "k 1 0"]
        {
            let read =
                |text: String| format!("{:?}", super::line(text.as_bytes(), &mut [0; KEY_MAX]));
            let plain = read(format!("set {fields}"));
            // Another space takes the long way.
            assert_eq!(plain, read(format!("set  {fields}")), "{fields}");
        }
        assert_eq!(plain_number(b" 12 3"), Some((12, &b" 3"[..])));
        for odd in [&b"12"[..], b" ", b" +1", b" 1234567890"] {
            assert_eq!(plain_number(odd), None, "{odd:?}");
        }
    }
}
