//! Whatever is in the file of a voter: the node says that it is no good, or goes on with it; it does
//! not panic, and what it writes it can read again.
//!
//! The consensus crate believes what it is given, and panics over what it would never have written, in
//! a task of its own. So panics are counted, wherever they are caught.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sessiond::membership::{Membership, Options, Outside, StartError, Timing};
use tokio::time::sleep;
use xxhash_rust::xxh3::xxh3_64;

use panics::panics_of;

#[path = "../panics/mod.rs"]
mod panics;

const FILE: &str = "membership";
/// The log does what it does with what it has found.
const A_WHILE: Duration = Duration::from_millis(500);

struct Nobody;

impl Outside for Nobody {
    fn send(&self, _: &str, _: Bytes) {}
    fn agreed(&self, _: Bytes) {}
    fn leader(&self, _: Option<Box<str>>) {}
}

/// Gone when the test is.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let thread = format!("{:?}", std::thread::current().id());
        let number: String = thread.chars().filter(char::is_ascii_digit).collect();
        let name = format!("sessiond-fuzz-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn start(folder: &Path) -> Result<Membership, StartError> {
    let options = Options {
        me: "a".into(),
        cluster: "fuzzed".into(),
        voters: vec!["a".into(), "b".into()],
        state_dir: Some(folder.to_owned()),
        timing: Timing::default(),
        seed: 1,
    };
    Membership::start(options, |_, _| true, Arc::new(Nobody)).await
}

/// As it is written: with a checksum that is right, so that what is behind it is looked at.
fn sealed(content: &[u8]) -> Vec<u8> {
    let checksum = xxh3_64(content).to_le_bytes();
    [b"sessiond", &1u32.to_le_bytes()[..], &checksum, content].concat()
}

async fn found(file: &[u8]) {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).expect("a folder");
    fs::write(folder.0.join(FILE), file).expect("a file");
    match start(&folder.0).await {
        Err(StartError::BadFile(..) | StartError::Foreign { .. }) => {}
        Err(other) => panic!("{other}"),
        Ok(membership) => {
            membership.propose(Bytes::from_static(b"new"));
            sleep(A_WHILE).await;
            membership.stop().await;
            let again = start(&folder.0).await.map_err(|error| error.to_string());
            again.expect("it reads what it has written").stop().await;
        }
    }
}

/// See the module. The first byte says whether the rest is the file, or what is behind its checksum.
pub(crate) fn state_file(data: &[u8]) {
    let Some((&how, rest)) = data.split_first() else {
        return;
    };
    let is_whole = how & 1 == 0;
    let file = if is_whole { rest.to_vec() } else { sealed(rest) };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    assert_eq!(panics_of(|| runtime.block_on(found(&file))), 0, "a task has panicked");
}
