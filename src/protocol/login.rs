//! The only command of a connection that has to log in first: a `set` whose data is `user password`.
//!
//! Knows no names and no passwords. Bounded by the longest line and the longest token.

use super::reply;
use super::text::token;

/// As for any line.
const LINE_MAX: usize = 2048;
/// memcached closes on a line that is shorter: it can't become a login.
const LINE_MIN: usize = 6;
/// The longest data block, without its CRLF.
const TOKEN_MAX: u32 = 16 << 10;

/// What a client that has to log in has said.
#[derive(Debug, PartialEq)]
pub enum Said<'a> {
    /// Not enough yet.
    Incomplete {
        /// Bytes to drop from the input all the same.
        used: usize,
        /// How long the input has to be before it is worth trying again.
        wants: usize,
    },
    /// Who it claims to be.
    Name {
        /// Bytes to drop from the input.
        used: usize,
        /// Its name.
        user: &'a [u8],
        /// The proof.
        password: &'a [u8],
    },
    /// Something else; it may try again.
    Failed {
        /// Bytes to drop from the input.
        used: usize,
        /// The line to answer.
        error: &'static [u8],
    },
    /// Answer this line, if any, then close.
    Close {
        /// The line to answer; empty for silence.
        error: &'static [u8],
    },
}

/// Where such a connection stands between two reads.
#[derive(Debug, Default)]
pub struct Login {
    /// The length of the data block that has to come, with its CRLF.
    data_length: Option<usize>,
}

impl Login {
    /// Whether nothing of an attempt has been taken yet.
    pub fn is_between_attempts(&self) -> bool {
        self.data_length.is_none()
    }

    /// Takes the next attempt off `input`. The caller drops `used` bytes before the next call.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Said<'a> {
        let Some(length) = self.data_length else {
            return self.line(input);
        };
        if input.len() < length {
            return Said::Incomplete { used: 0, wants: length };
        }
        self.data_length = None;
        read_token(&input[..length])
    }

    fn line<'a>(&mut self, input: &'a [u8]) -> Said<'a> {
        let window = &input[..input.len().min(LINE_MAX + 1)];
        let Some(end) = memchr::memchr(b'\n', window) else {
            return match input.len() {
                length if length > LINE_MAX => Said::Close { error: b"" },
                length => Said::Incomplete { used: 0, wants: length + 1 },
            };
        };
        if end < LINE_MIN {
            return Said::Close { error: b"" };
        }
        let line = &input[..end];
        let used = end + 1;
        match length_in(line.strip_suffix(b"\r").unwrap_or(line)) {
            None => Said::Failed { used, error: reply::UNAUTHENTICATED },
            // What follows can't be told from commands, and is not worth swallowing.
            Some(length) if length > TOKEN_MAX => Said::Close { error: reply::LOGIN_TOO_LONG },
            Some(length) => {
                let length = length as usize + 2;
                self.data_length = Some(length);
                Said::Incomplete { used, wants: length }
            }
        }
    }
}

/// Of `set <key> <flags> <exptime> <bytes>`, where only the first and the last word count.
fn length_in(line: &[u8]) -> Option<u32> {
    let mut words = [&b""[..]; 5];
    let mut rest = line;
    for word in &mut words {
        (*word, rest) = token(rest)?;
    }
    if words[0] != b"set" {
        return None;
    }
    std::str::from_utf8(words[4]).ok()?.parse().ok()
}

fn read_token(block: &[u8]) -> Said<'_> {
    let used = block.len();
    let Some(text) = block.strip_suffix(b"\r\n") else {
        return Said::Failed { used, error: reply::LOGIN_TERMINATION };
    };
    match memchr::memchr(b' ', text) {
        Some(space) => Said::Name { used, user: &text[..space], password: &text[space + 1..] },
        None => Said::Failed { used, error: reply::LOGIN_FORMAT },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every answer to the input, given one byte at a time.
    fn run(input: &[u8]) -> Vec<String> {
        let (mut login, mut buffer, mut seen) = (Login::default(), Vec::new(), Vec::new());
        for byte in input {
            buffer.push(*byte);
            let (used, line) = match login.next(&buffer) {
                Said::Incomplete { used, .. } => (used, None),
                Said::Name { used, user, password } => {
                    let (user, password) = (user.escape_ascii(), password.escape_ascii());
                    (used, Some(format!("{user}/{password}")))
                }
                Said::Failed { used, error } => (used, Some(error.escape_ascii().to_string())),
                Said::Close { error } => {
                    seen.push(format!("close {}", error.escape_ascii()));
                    return seen;
                }
            };
            seen.extend(line);
            buffer.drain(..used);
        }
        seen
    }

    #[test]
    fn a_set_of_a_name_and_a_password_is_a_login() {
        assert_eq!(run(b"set a b c 8\r\nfoo bar \r\n"), ["foo/bar "]);
        assert_eq!(run(b"set x 0 0 7 noreply\nfoo bar\r\n"), ["foo/bar"]);
        assert_eq!(run(b"set x 0 0 1\r\n \r\n"), ["/"]);
    }

    #[test]
    fn anything_else_is_refused_and_may_be_followed_by_a_login() {
        assert_eq!(
            run(b"get foo\r\nset x 0 0\r\nset x 0 0 x\r\nset x 0 0 3\r\na b\r\n"),
            [
                "CLIENT_ERROR unauthenticated\\r\\n",
                "CLIENT_ERROR unauthenticated\\r\\n",
                "CLIENT_ERROR unauthenticated\\r\\n",
                "a/b",
            ]
        );
    }

    #[test]
    fn a_token_needs_its_end_and_a_space() {
        assert_eq!(
            run(b"set x 0 0 2\r\nhixx\nset x 0 0 2\r\nhi\r\n"),
            ["CLIENT_ERROR bad command line termination\\r\\n", "close ",]
        );
        assert_eq!(
            run(b"set x 0 0 2\r\nhi\r\n"),
            ["CLIENT_ERROR bad authentication token format\\r\\n"]
        );
    }

    #[test]
    fn what_cannot_become_a_login_closes() {
        assert_eq!(run(b"mn\r\n"), ["close "]);
        assert_eq!(run(&[b'x'; LINE_MAX + 1]), ["close "]);
        let long = "close CLIENT_ERROR auth token too long\\r\\n";
        assert_eq!(run(b"set x 0 0 16385\r\n"), [long]);
        assert_eq!(run(b"set x 0 0 4294967295\r\n"), [long]);
    }
}
