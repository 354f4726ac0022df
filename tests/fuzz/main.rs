//! Replays the corpus of the fuzz targets: what once was interesting stays tested, on stable Rust.

mod arbitrary;
mod handshake;
mod oracle;
mod peers;
mod state_file;

use std::fs;
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(folder).expect("a corpus") {
        let path = entry.expect("a readable corpus").path();
        run(&fs::read(&path).expect("a readable input"));
        inputs += 1;
    }
    assert!(inputs > 0, "the corpus of {target} is empty");
}

#[test]
fn connections() {
    replay("connection", oracle::connection);
}

#[test]
fn parsers() {
    replay("parser", oracle::parser);
}

#[test]
fn frames() {
    replay("frame", oracle::frame);
}

#[test]
fn peers_that_were_let_in() {
    replay("peers", peers::peers);
}

#[test]
fn handshakes() {
    replay("handshake", handshake::handshake);
}

#[test]
fn state_files() {
    replay("state_file", state_file::state_file);
}

/// Each byte of a file that a node wrote is another one, behind a checksum that is right: the numbers
/// in it contradict each other then, more often than not.
#[test]
fn state_files_that_contradict_themselves() {
    for written in ["alone_sealed", "two_sealed"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/state_file");
        let written = fs::read(folder.join(written)).expect("a file of a node");
        for (at, change) in (1..written.len()).flat_map(|at| [(at, 1), (at, 0x7f)]) {
            let mut file = written.clone();
            file[at] ^= change;
            state_file::state_file(&file);
        }
    }
}
