//! The grammar of the meta commands: `<verb> <key> [<length>] <flag>*`.
//!
//! A flag is a letter, some with an argument right behind it. The flags are kept as they were
//! written, because replies repeat them in that order (memcached's protocol.txt, "Meta").

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::text::{BadLine, LENGTH_MAX, Line, signed, token, unsigned};
use super::{MetaMode, MetaOptions, MetaRequest, MetaVerb, Request, reply};
use crate::key::{KEY_MAX, Key};

/// Tokens in one line, the command and its key included.
const TOKENS_MAX: usize = 20;
/// Bytes of an opaque with its letter.
const OPAQUE_MAX: usize = 32;

/// Room for a key that was decoded from base64.
pub(super) type KeyBuffer = [u8; KEY_MAX];

/// ms with its flags read; its data block follows.
#[derive(Debug, PartialEq)]
pub(super) struct MetaStore<'a> {
    pub(super) length: usize,
    /// The command, or the error to answer when the data has been swallowed.
    pub(super) meta: Result<MetaRequest<'a>, &'static [u8]>,
}

/// mg, md, ma, me.
pub(super) fn command<'a>(
    verb: MetaVerb,
    arguments: &'a [u8],
    buffer: &'a mut KeyBuffer,
) -> Result<Line<'a>, BadLine> {
    let (key, flags) = token(arguments).ok_or(BadLine::new(reply::BAD_FORMAT))?;
    let meta = request(verb, key, flags, buffer).map_err(BadLine::new)?;
    Ok(Line::Request(Request::Meta(meta)))
}

/// ms: with an unusable length nothing is known of a data block.
pub(super) fn store<'a>(
    arguments: &'a [u8],
    buffer: &'a mut KeyBuffer,
) -> Result<Line<'a>, BadLine> {
    let (key, rest) = token(arguments).ok_or(BadLine::new(reply::BAD_FORMAT))?;
    let (length, flags) = token(rest).ok_or(BadLine::new(reply::BAD_FORMAT))?;
    let length = unsigned(length)
        .filter(|&length| length <= LENGTH_MAX)
        .ok_or(BadLine::new(reply::BAD_FORMAT))?;
    let meta = request(MetaVerb::Set, key, flags, buffer);
    Ok(Line::MetaStore(MetaStore { length: length as usize, meta }))
}

fn request<'a>(
    verb: MetaVerb,
    key: &'a [u8],
    flags: &'a [u8],
    buffer: &'a mut KeyBuffer,
) -> Result<MetaRequest<'a>, &'static [u8]> {
    if key.len() > KEY_MAX {
        return Err(reply::BAD_FORMAT);
    }
    let options = options(verb, flags)?;
    let bytes = if options.has_binary_key { decoded(key, buffer)? } else { key };
    let key = Key::new(bytes).ok_or(reply::BAD_KEY)?;
    Ok(MetaRequest { verb, key, flags: Flags(flags), options })
}

fn decoded<'a>(key: &[u8], buffer: &'a mut KeyBuffer) -> Result<&'a [u8], &'static [u8]> {
    let length = BASE64.decode_slice(key, buffer).map_err(|_| reply::BAD_KEY)?;
    Ok(&buffer[..length])
}

/// The flags of a line, in the order they were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags<'a>(&'a [u8]);

impl<'a> Flags<'a> {
    /// Flags that were kept for later.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// As they were written.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for Flags<'a> {
    /// The letter, and the whole token.
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (flag, rest) = token(self.0)?;
        self.0 = rest;
        Some((flag[0], flag))
    }
}

fn options(verb: MetaVerb, flags: &[u8]) -> Result<MetaOptions, &'static [u8]> {
    let flags = Flags(flags);
    // ms has its length between the key and the flags.
    let before = if verb == MetaVerb::Set { 3 } else { 2 };
    if flags.take(TOKENS_MAX).count() + before > TOKENS_MAX {
        return Err(reply::TOO_MANY_FLAGS);
    }
    let result = read(flags);
    match (verb, result) {
        (MetaVerb::Count, Err(error)) if error != reply::OPAQUE_TOO_LONG => {
            Err(reply::BAD_COUNT_FLAG)
        }
        (_, result) => result,
    }
}

fn read(flags: Flags<'_>) -> Result<MetaOptions, &'static [u8]> {
    let mut options = MetaOptions { delta: 1, ..MetaOptions::default() };
    let mut seen = [false; 128];
    let mut wrong: Option<&'static [u8]> = None;
    for (letter, flag) in flags {
        if !letter.is_ascii_alphabetic() {
            return Err(reply::BAD_FORMAT);
        }
        if std::mem::replace(&mut seen[usize::from(letter)], true) {
            return Err(reply::DUPLICATE_FLAG);
        }
        if let Err(error) = option(&mut options, letter, &flag[1..]) {
            if error == reply::INVALID_FLAG {
                return Err(error);
            }
            // A later unknown flag is reported rather than this one.
            wrong = Some(error);
        }
    }
    wrong.map_or(Ok(options), Err)
}

fn option(options: &mut MetaOptions, letter: u8, argument: &[u8]) -> Result<(), &'static [u8]> {
    let time = || signed(argument).ok_or(reply::BAD_TOKEN);
    let unique = || unsigned(argument).ok_or(reply::BAD_TOKEN);
    match letter {
        b'b' => options.has_binary_key = true,
        b'N' => options.vivify = Some(time()?),
        b'T' => options.touch = Some(time()?),
        b'R' => options.recache = Some(time()?),
        b'C' => options.compare = Some(unique()?),
        b'E' => options.cas = Some(unique()?),
        b'F' => options.flags = unsigned(argument).ok_or(reply::BAD_FORMAT)? as u32,
        b'J' => options.initial = unsigned(argument).ok_or(reply::BAD_INITIAL)?,
        b'D' => options.delta = unsigned(argument).ok_or(reply::BAD_DELTA)?,
        b'M' => options.mode = mode(argument),
        b'I' => options.is_stale = true,
        b'q' => options.is_quiet = true,
        b'u' => options.keeps_rank = true,
        b'v' => options.shows_value = true,
        b'x' => options.empties = true,
        b'O' if argument.len() >= OPAQUE_MAX => return Err(reply::OPAQUE_TOO_LONG),
        b'O' | b'P' | b'L' | b'k' | b's' | b't' | b'c' | b'f' | b'h' | b'l' => {}
        _ => return Err(reply::INVALID_FLAG),
    }
    Ok(())
}

/// Only the first letter counts.
fn mode(argument: &[u8]) -> MetaMode {
    match argument.first() {
        None => MetaMode::Default,
        Some(&letter) => MetaMode::Letter(letter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(flags: &str) -> &'static [u8] {
        options(MetaVerb::Get, flags.as_bytes()).unwrap_err()
    }

    #[test]
    fn each_mistake_has_its_line() {
        assert_eq!(error("v v"), reply::DUPLICATE_FLAG);
        assert_eq!(error("v !"), reply::BAD_FORMAT);
        assert_eq!(error("v Q"), reply::INVALID_FLAG);
        assert_eq!(error("Tx"), reply::BAD_TOKEN);
        assert_eq!(error("Fx"), reply::BAD_FORMAT);
        assert_eq!(error(&format!("O{}", "x".repeat(32))), reply::OPAQUE_TOO_LONG);
        let many: Vec<String> = ('a'..='z').map(String::from).collect();
        assert_eq!(error(&many.join(" ")), reply::TOO_MANY_FLAGS);
        assert_eq!(options(MetaVerb::Count, b"Dx"), Err(reply::BAD_COUNT_FLAG));
    }

    #[test]
    fn a_base64_key_is_decoded_in_place_of_the_written_one() {
        let mut buffer = [0; KEY_MAX];
        let Ok(Line::Request(Request::Meta(meta))) =
            command(MetaVerb::Get, b" Zm9v b v", &mut buffer)
        else {
            panic!("a command")
        };
        assert_eq!(meta.key.bytes(), b"foo");
        let mut buffer = [0; KEY_MAX];
        assert!(command(MetaVerb::Get, b" Zm9 b", &mut buffer).is_err());
    }
}
