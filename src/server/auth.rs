//! The file of names and passwords: read at the start, and again when told to.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::StartError;
use super::courier::Waiter;
use crate::node::{Credentials, Node};

/// A file that is longer is not one of eight names and passwords.
const FILE_MAX: u64 = 64 << 10;

/// Reads the file, or says what is wrong with it.
pub(super) fn read(path: &Path) -> Result<Credentials, StartError> {
    let wrong = |why: String| StartError::Auth(path.into(), why);
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut text))
        .map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > FILE_MAX {
        return Err(wrong(format!("longer than {FILE_MAX} bytes")));
    }
    Credentials::parse(&text).map_err(wrong)
}

/// Reads the file again. What can't be used changes nothing: clients must not be locked out, nor
/// let in, by a slip of the editor.
pub(super) fn reload(node: &Node<Waiter>) {
    let Some(path) = &node.options().settings.auth_file else {
        tracing::info!(signal = "SIGHUP", "no names and passwords to read again: there is no -Y");
        return;
    };
    match read(path) {
        Ok(credentials) => {
            node.set_credentials(Some(credentials));
            tracing::info!(path = %path.display(), "names and passwords read again");
        }
        Err(error) => tracing::error!(%error, "names and passwords stay as they were"),
    }
}
