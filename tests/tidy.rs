//! The rules of the house, as a test: who may use whom, which words live where, and how long a
//! file may get. The map they hold is in `docs/architecture.md`.

use std::fs;
use std::path::{Path, PathBuf};

/// Base modules: imported by all, importing only each other.
const BASE: &[&str] =
    &["chunk", "exposition", "key", "record", "settings", "stats", "time", "version"];

/// What each module may import besides the base and itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("store", &[]),
    ("replication", &[]),
    ("node", &["protocol", "store", "replication"]),
    ("membership", &[]),
    ("server", &["node", "membership", "replication", "protocol"]),
    ("config", &["process", "server", "node", "replication", "protocol"]),
    ("process", &[]),
    ("supervisor", &[]),
    ("main", &["config", "process", "server", "supervisor"]),
    ("lib", &[]),
];

/// Words, and the only places where they may stand.
const CONFINED: &[(&str, &[&str])] = &[
    ("tokio", &["server", "membership"]),
    ("async ", &["server", "membership"]),
    (".await", &["server", "membership"]),
    ("Mutex", &["node"]),
    ("RwLock", &["node"]),
    ("Instant::now", &["server/clock.rs", "membership", "supervisor"]),
    ("SystemTime::now", &["server/clock.rs"]),
    ("clock_gettime", &["server/clock.rs"]),
    ("TcpListener", &["server"]),
    ("TcpStream", &["server"]),
    ("UdpSocket", &[]),
    ("thread::", &["server"]),
    ("SysRng", &["main.rs"]),
    ("SystemRandom", &["server/secret.rs"]),
    ("use ring", &["server/secret.rs"]),
    ("rustls", &["server"]),
    ("hyper", &["server/admin.rs"]),
    ("http_body", &["server/admin.rs"]),
    ("ahash", &["store"]),
    // `main` only keeps its talk out of the log.
    ("openraft", &["membership", "main.rs"]),
    ("postcard", &["replication/message.rs", "membership/file.rs", "membership/wire.rs"]),
];

/// Words that stand nowhere outside tests.
const BANNED: &[&str] = &[
    ".unwrap()",
    "todo!",
    "unimplemented!",
    "TODO",
    "FIXME",
    "XXX",
    "#[ignore",
    "dbg!",
    "unsafe ",
    // One import a line, so that the arrows can be read.
    "crate::{",
];

/// Lines of a file without its unit tests.
const LINES_MAX: usize = 600;

/// All that may lie at the top.
const TOP: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "Makefile",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "rustfmt.toml",
    "clippy.toml",
    "src",
    "tests",
    "benches",
    "docs",
    "target",
];

struct Source {
    /// Below `src/`.
    path: String,
    /// Without unit tests and comments.
    code: String,
    lines: usize,
}

impl Source {
    fn module(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap_or_default()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    collect(&root().join("src"), &mut sources);
    assert!(sources.len() > 20, "the sources were not found");
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            // A file `tests.rs` is a module's unit tests, moved out for their length.
            if path.file_name().is_some_and(|name| name != "tests.rs") {
                sources.push(read(&path));
            }
        }
    }
}

fn read(path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("a readable file");
    let body = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: Vec<&str> =
        body.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let below = path.strip_prefix(root().join("src")).expect("a file below src");
    Source {
        path: below.to_string_lossy().replace('\\', "/"),
        code: code.join("\n"),
        lines: body.lines().count(),
    }
}

/// Every module named behind `crate::` or `sessiond::`.
fn imports(code: &str) -> Vec<String> {
    let after = |prefix: &str| -> Vec<String> {
        code.split(prefix)
            .skip(1)
            .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
            .collect()
    };
    [after("crate::"), after("sessiond::")].concat()
}

#[test]
fn arrows_only_point_down() {
    for source in sources() {
        let module = source.module();
        for import in imports(&source.code).iter().filter(|import| !import.is_empty()) {
            let is_base = BASE.contains(&import.as_str());
            let listed = MAY_USE.iter().find(|(name, _)| *name == module);
            let allowed = import == module
                || is_base
                || listed.is_some_and(|(_, allowed)| allowed.contains(&import.as_str()));
            assert!(allowed, "{} must not use {import}", source.path);
        }
        let known = BASE.contains(&module) || MAY_USE.iter().any(|(name, _)| *name == module);
        assert!(known, "{} has no place in the map", source.path);
    }
}

#[test]
fn words_stay_where_they_belong() {
    for source in sources() {
        for (word, homes) in CONFINED {
            let at_home = homes
                .iter()
                .any(|home| source.path == *home || source.path.starts_with(&format!("{home}/")));
            assert!(at_home || !source.code.contains(word), "{word:?} in {}", source.path);
        }
        for word in BANNED {
            assert!(!source.code.contains(word), "{word:?} in {}", source.path);
        }
    }
}

#[test]
fn no_file_is_too_long() {
    for Source { path, lines, .. } in sources() {
        assert!(lines <= LINES_MAX, "{path} has {lines} lines without its tests: split it");
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for source in sources() {
        let text = fs::read_to_string(root().join("src").join(&source.path)).unwrap();
        assert!(text.starts_with("//!"), "{} starts without a header", source.path);
    }
}

#[test]
fn the_top_level_holds_only_what_it_should() {
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || TOP.contains(&name.as_str()), "{name} at the top level");
    }
}
