//! Commands as bytes, and replies from bytes: the classic and the meta form.

use bytes::Bytes;

use super::{Command, Reply};

/// How a command is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// get, set, ..
    Classic,
    /// gets and gats, so that a hit tells its CAS unique; otherwise as above.
    Unique,
    /// mg, ms, md, ma; every reply that can tell a CAS unique does.
    Meta,
}

/// A reply in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Not all of it is there yet.
    Part,
    /// This, and how many bytes it took.
    Reply(Reply, usize),
    /// What no item can answer: an error line, mostly.
    Other(String),
}

/// The bytes of a command.
pub(crate) fn request(command: &Command, key: &str, form: Form) -> Vec<u8> {
    let is_meta = form == Form::Meta;
    let line = match (command, form) {
        (Command::Get, Form::Classic) => format!("get {key}"),
        (Command::Get, Form::Unique) => format!("gets {key}"),
        (Command::Get, Form::Meta) => format!("mg {key} v c"),
        (Command::GetAndTouch, Form::Classic) => format!("gat 0 {key}"),
        (Command::GetAndTouch, Form::Unique) => format!("gats 0 {key}"),
        (Command::GetAndTouch, Form::Meta) => format!("mg {key} v c T0"),
        (Command::Touch, Form::Meta) => format!("mg {key} T0"),
        (Command::Touch, _) => format!("touch {key} 0"),
        (Command::Delete, Form::Meta) => format!("md {key}"),
        (Command::Delete, _) => format!("delete {key}"),
        (Command::Incr(by), Form::Meta) => format!("ma {key} v D{by}"),
        (Command::Incr(by), _) => format!("incr {key} {by}"),
        (Command::Decr(by), Form::Meta) => format!("ma {key} v D{by} MD"),
        (Command::Decr(by), _) => format!("decr {key} {by}"),
        (Command::Flush, _) => "flush_all".into(),
        (Command::Vanish, _) => unreachable!("nobody can ask for that"),
        (Command::Set(value), _) => return store("set", "", key, value, is_meta),
        (Command::Add(value), _) => return store("add", " ME", key, value, is_meta),
        (Command::Replace(value), _) => return store("replace", " MR", key, value, is_meta),
        (Command::Append(value), _) => return store("append", " MA", key, value, is_meta),
        (Command::Prepend(value), _) => return store("prepend", " MP", key, value, is_meta),
        (Command::Cas { unique, value }, Form::Meta) => {
            return store("", &format!(" C{unique}"), key, value, true);
        }
        (Command::Cas { unique, value }, _) => {
            let head = format!("cas {key} 0 0 {} {unique}\r\n", value.len());
            return [head.as_bytes(), value, b"\r\n"].concat();
        }
    };
    [line.as_bytes(), b"\r\n"].concat()
}

fn store(word: &str, flags: &str, key: &str, value: &[u8], is_meta: bool) -> Vec<u8> {
    let length = value.len();
    let head = match is_meta {
        true => format!("ms {key} {length} c{flags}\r\n"),
        false => format!("{word} {key} 0 0 {length}\r\n"),
    };
    [head.as_bytes(), value, b"\r\n"].concat()
}

/// Reads the reply to a command that was said in this form.
pub(crate) fn reply(input: &[u8]) -> Heard {
    let Some((line, rest)) = line(input) else {
        return Heard::Part;
    };
    let Ok(text) = std::str::from_utf8(line) else {
        return Heard::Other(line.escape_ascii().to_string());
    };
    let used = input.len() - rest.len();
    let mut words = text.split(' ');
    let done = |reply| Heard::Reply(reply, used);
    match words.next().unwrap_or_default() {
        "VALUE" => hit(input, used, words.nth(2), words.next(), b"END\r\n"),
        "VA" => {
            let length = words.next();
            hit(input, used, length, words.find_map(|flag| flag.strip_prefix('c')), b"")
        }
        "END" | "EN" | "NOT_FOUND" | "NF" => done(Reply::Miss),
        "STORED" | "DELETED" | "TOUCHED" | "OK" => done(Reply::Done { unique: None }),
        "HD" => {
            let unique = words.find_map(|flag| flag.strip_prefix('c'));
            done(Reply::Done { unique: unique.and_then(|unique| unique.parse().ok()) })
        }
        "NOT_STORED" | "NS" => done(Reply::NotStored),
        "EXISTS" | "EX" => done(Reply::Exists),
        "CLIENT_ERROR" if text.contains("non-numeric") => done(Reply::NotNumeric),
        word => match word.parse() {
            Ok(number) => done(Reply::Number(number)),
            Err(_) => Heard::Other(text.into()),
        },
    }
}

/// What ma answers is a hit by its form, and a number by its meaning.
pub(crate) fn as_answer_to(command: &Command, reply: Reply) -> Reply {
    match (command, reply) {
        (Command::Incr(_) | Command::Decr(_), Reply::Hit { value, unique }) => {
            let number =
                std::str::from_utf8(&value).ok().and_then(|text| text.trim_end().parse().ok());
            number.map_or(Reply::Hit { value, unique }, Reply::Number)
        }
        (_, reply) => reply,
    }
}

fn hit(input: &[u8], head: usize, length: Option<&str>, unique: Option<&str>, end: &[u8]) -> Heard {
    let Some(length) = length.and_then(|length| length.parse::<usize>().ok()) else {
        return Heard::Other(input[..head].escape_ascii().to_string());
    };
    let used = head + length + 2 + end.len();
    let Some(whole) = input.get(..used) else {
        return Heard::Part;
    };
    if whole[head + length..] != [b"\r\n", end].concat() {
        return Heard::Other(whole.escape_ascii().to_string());
    }
    let value = Bytes::copy_from_slice(&whole[head..head + length]);
    let unique = unique.and_then(|unique| unique.parse().ok());
    Heard::Reply(Reply::Hit { value, unique }, used)
}

fn line(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = input.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&input[..end], &input[end + 2..]))
}
