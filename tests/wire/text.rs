//! Text with placeholders: what a script sends, and what it expects.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// The numbers that a script has captured, by name.
pub(crate) type Captured = BTreeMap<String, Vec<u8>>;

/// One line of a script, without its mark.
#[derive(Clone, Debug)]
pub(crate) struct Text(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Bytes(Vec<u8>),
    /// Unix time, this many seconds from now.
    Now(i64),
    Captured(String),
    Number,
    Any,
}

impl Text {
    /// Reads a line of a script; the error says what is wrong with it.
    pub(crate) fn parse(source: &str) -> Result<Self, String> {
        let mut pieces = vec![Piece::Bytes(Vec::new())];
        let mut rest = source;
        while let Some(at) = rest.find(['\\', '{']) {
            push(&mut pieces, Piece::Bytes(rest.as_bytes()[..at].to_vec()));
            let (piece, length) = if rest.as_bytes()[at] == b'\\' {
                escape(&rest[at + 1..])?
            } else {
                let end = rest[at..].find('}').ok_or("a brace is not closed")?;
                (placeholder(&rest[at + 1..at + end])?, end)
            };
            push(&mut pieces, piece);
            rest = &rest[at + 1 + length..];
        }
        push(&mut pieces, Piece::Bytes(rest.as_bytes().to_vec()));
        Ok(Self(pieces))
    }

    /// The same, with CRLF at its end unless it has its own line end.
    pub(crate) fn into_line(mut self) -> Self {
        if !self.ends_a_line() {
            push(&mut self.0, Piece::Bytes(b"\r\n".to_vec()));
        }
        self
    }

    /// The same, with CRLF at its end whatever it ends in.
    pub(crate) fn into_sent_line(mut self) -> Self {
        push(&mut self.0, Piece::Bytes(b"\r\n".to_vec()));
        self
    }

    fn ends_a_line(&self) -> bool {
        matches!(self.0.last(), Some(Piece::Bytes(bytes)) if bytes.ends_with(b"\n"))
    }

    /// How many line ends stand in it.
    pub(crate) fn line_ends(&self) -> usize {
        let ends = |piece: &Piece| match piece {
            Piece::Bytes(bytes) => bytes.iter().filter(|&&byte| byte == b'\n').count(),
            _ => 0,
        };
        self.0.iter().map(ends).sum()
    }

    /// The bytes to send.
    pub(crate) fn bytes(&self, captured: &Captured) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Bytes(more) => bytes.extend_from_slice(more),
                Piece::Now(offset) => bytes.extend_from_slice(now(*offset).as_bytes()),
                Piece::Captured(name) => {
                    let number = captured.get(name).ok_or(format!("no {{cas {name}}} yet"))?;
                    bytes.extend_from_slice(number);
                }
                Piece::Number | Piece::Any => return Err("{number} and {any} can't be sent".into()),
            }
        }
        Ok(bytes)
    }

    /// How many bytes it stands for, when nothing in it varies.
    pub(crate) fn fixed_length(&self) -> Option<usize> {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Bytes(bytes) => Some(bytes.len()),
                _ => None,
            })
            .sum()
    }

    /// Whether `input` is this text; captures on the way.
    pub(crate) fn matches(&self, input: &[u8], captured: &mut Captured) -> bool {
        matches(&self.0, input, captured)
    }
}

fn push(pieces: &mut Vec<Piece>, piece: Piece) {
    match (pieces.last_mut(), piece) {
        (Some(Piece::Bytes(before)), Piece::Bytes(more)) => before.extend(more),
        (_, piece) => pieces.push(piece),
    }
}

fn matches(pieces: &[Piece], input: &[u8], captured: &mut Captured) -> bool {
    let Some((piece, rest)) = pieces.split_first() else {
        return input.is_empty();
    };
    let digits = input.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match piece {
        Piece::Bytes(bytes) => {
            input.strip_prefix(&bytes[..]).is_some_and(|input| matches(rest, input, captured))
        }
        Piece::Now(offset) => {
            let time = now(*offset);
            input.strip_prefix(time.as_bytes()).is_some_and(|input| matches(rest, input, captured))
        }
        Piece::Number => digits > 0 && matches(rest, &input[digits..], captured),
        Piece::Captured(name) => {
            let number = &input[..digits];
            let is_right = match captured.get(name) {
                Some(before) => before == number,
                // Another name is another number.
                None => digits > 0 && captured.values().all(|other| other != number),
            };
            if !is_right || !matches(rest, &input[digits..], captured) {
                return false;
            }
            captured.insert(name.clone(), number.to_vec());
            true
        }
        Piece::Any => {
            let line = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
            (0..=line).any(|length| matches(rest, &input[length..], captured))
        }
    }
}

fn now(offset: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    (now as i64 + offset).to_string()
}

/// What a backslash stands for, and how many bytes follow it.
fn escape(rest: &str) -> Result<(Piece, usize), String> {
    let (byte, length) = match rest.as_bytes().first() {
        Some(b'r') => (b'\r', 1),
        Some(b'n') => (b'\n', 1),
        Some(b't') => (b'\t', 1),
        Some(byte @ (b'\\' | b'{')) => (*byte, 1),
        Some(b'x') => {
            let digits = rest.get(1..3).ok_or("\\x needs two digits")?;
            (u8::from_str_radix(digits, 16).map_err(|_| "\\x needs two hex digits")?, 3)
        }
        _ => return Err(format!("\\{rest:.1} is no escape")),
    };
    Ok((Piece::Bytes(vec![byte]), length))
}

fn placeholder(source: &str) -> Result<Piece, String> {
    let wrong = || format!("{{{source}}} is no placeholder");
    if let Some(offset) = source.strip_prefix("now") {
        return offset.parse().map(Piece::Now).map_err(|_| wrong());
    }
    if let Some(name) = source.strip_prefix("cas ") {
        return Ok(Piece::Captured(name.into()));
    }
    if let Some(arguments) = source.strip_prefix("repeat ") {
        let (what, times) = arguments.rsplit_once(' ').ok_or_else(wrong)?;
        let times = times.parse().map_err(|_| wrong())?;
        return Ok(Piece::Bytes(Text::parse(what)?.bytes(&Captured::new())?.repeat(times)));
    }
    match source {
        "here" => Ok(Piece::Bytes(super::script::folder().into_os_string().into_encoded_bytes())),
        "number" => Ok(Piece::Number),
        "any" => Ok(Piece::Any),
        _ => Err(wrong()),
    }
}
