//! Who may log in.

use subtle::{Choice, ConstantTimeEq};

/// memcached's bound; it is not meant to be a directory of users.
const ENTRIES_MAX: usize = 8;

/// Names with their passwords.
pub struct Credentials(Vec<Entry>);

struct Entry {
    user: Box<[u8]>,
    password: Box<[u8]>,
}

impl Credentials {
    /// Reads `user:password` lines. The error says which line is wrong, not what stands there.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let mut entries = Vec::new();
        for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            let colon = memchr::memchr(b':', line)
                .ok_or_else(|| format!("line {}: expected USER:PASSWORD", number + 1))?;
            let (user, password) = (line[..colon].into(), line[colon + 1..].into());
            entries.push(Entry { user, password });
        }
        match entries.len() {
            0 => Err("no line USER:PASSWORD".into()),
            1..=ENTRIES_MAX => Ok(Self(entries)),
            count => Err(format!("{count} lines; at most {ENTRIES_MAX} are taken")),
        }
    }

    /// Whether this is one of them. Takes as long for a wrong password as for a right one of the
    /// same length, and never stops early, so that the time tells nothing.
    pub(super) fn allow(&self, user: &[u8], password: &[u8]) -> bool {
        let fits = |entry: &Entry| entry.user.ct_eq(user) & entry.password.ct_eq(password);
        self.0.iter().map(fits).fold(Choice::from(0), |any, fits| any | fits).into()
    }
}

impl std::fmt::Debug for Credentials {
    /// Passwords must not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Credentials").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_with_its_own_password_is_allowed() {
        let credentials = Credentials::parse(b"foo:bar\r\n\nbaz:q:u x").unwrap();
        assert!(credentials.allow(b"foo", b"bar"));
        assert!(credentials.allow(b"baz", b"q:u x"));
        for (user, password) in [("foo", "q:u x"), ("foo", ""), ("", ""), ("foo", "barr")] {
            assert!(!credentials.allow(user.as_bytes(), password.as_bytes()), "{user}/{password}");
        }
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused_without_being_quoted() {
        let error = Credentials::parse(b"a:b\nsecret\n").unwrap_err();
        assert_eq!(error, "line 2: expected USER:PASSWORD");
        assert!(Credentials::parse(b"\n").unwrap_err().contains("no line"));
        assert!(Credentials::parse(&b"a:b\n".repeat(9)).unwrap_err().contains("9 lines"));
    }
}
