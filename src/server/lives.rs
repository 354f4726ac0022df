//! The former lives of this node, kept in its state directory: whoever holds the lock of the
//! directory knows that they are over, and says so to the others.
//!
//! The log of views keeps its file there too; what is in that is none of our business.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::replication::Incarnation;

const FILE: &str = "lives";
const DRAFT: &str = "lives.new";
const FIRST_LINE: &str = "sessiond lives 1";
/// What a view may still speak of; older ones are long forgotten.
const KEPT: usize = 8;
/// Some names and numbers; more is no file of ours.
const FILE_MAX: u64 = 4 << 10;
/// A number of the machine: a copy of the directory elsewhere proves nothing about processes here.
const MACHINE: &str = "/etc/machine-id";

/// The state directory, locked as long as this lives.
#[derive(Debug)]
pub(super) struct StateDir {
    _lock: File,
    /// They are over.
    pub(super) former: Vec<Incarnation>,
}

/// Why the directory can't be used.
#[derive(Debug)]
pub enum StateError {
    /// Another process has it.
    InUse(PathBuf),
    /// It, or the file, can't be read or written.
    Io(PathBuf, io::Error),
    /// The file is of another node: what it says would be taken for this one's.
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is: cluster and node.
        owner: String,
    },
    /// The file is not what was written.
    Bad(PathBuf),
}

impl std::fmt::Display for StateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InUse(path) => write!(
                f,
                "--state-dir {}: in use by another process; each node needs one of its own",
                path.display()
            ),
            Self::Io(path, error) => write!(f, "--state-dir: {}: {error}", path.display()),
            Self::Foreign { path, owner } => write!(
                f,
                "--state-dir: {} belongs to {owner}; choose another directory, or move it away",
                path.display()
            ),
            Self::Bad(path) => write!(
                f,
                "--state-dir: {} is not what sessiond writes; move it away",
                path.display()
            ),
        }
    }
}

impl StateDir {
    /// Makes and locks the directory, and adds this life to those in its file.
    pub(super) fn open(
        path: &Path,
        cluster: &str,
        name: &str,
        life: Incarnation,
    ) -> Result<Self, StateError> {
        let failed = |error: io::Error| StateError::Io(path.to_owned(), error);
        fs::create_dir_all(path).map_err(failed)?;
        // The directory itself: nothing in it has to be there, and nobody can move the lock away.
        let lock = File::open(path).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StateError::InUse(path.to_owned())),
            Err(error) => return Err(failed(error.into())),
        }
        let machine = machine();
        let file = path.join(FILE);
        let known = read(&file)?;
        if let Some(known) = &known
            && (known.cluster != cluster || known.name != name)
        {
            let owner = format!("node {:?} of cluster {:?}", known.name, known.cluster);
            return Err(StateError::Foreign { path: file, owner });
        }
        let former = match known {
            Some(known) if known.machine == machine => known.lives,
            Some(_) => {
                tracing::warn!(
                    path = %file.display(),
                    "written on another machine: this node's former lives are not counted as over"
                );
                Vec::new()
            }
            None => Vec::new(),
        };
        let mut lives = former.clone();
        lives.push(life);
        lives.drain(..lives.len().saturating_sub(KEPT));
        let lives = Lives { cluster: cluster.into(), name: name.into(), machine, lives };
        write(path, &lives).map_err(|error| StateError::Io(file, error))?;
        Ok(Self { _lock: lock, former })
    }
}

/// What is in the file.
struct Lives {
    cluster: String,
    name: String,
    machine: String,
    /// The newest last.
    lives: Vec<Incarnation>,
}

fn machine() -> String {
    let id = fs::read_to_string(MACHINE).unwrap_or_default();
    id.trim().chars().filter(char::is_ascii_alphanumeric).collect()
}

fn read(path: &Path) -> Result<Option<Lives>, StateError> {
    let failed = |error| StateError::Io(path.to_owned(), error);
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(about) if about.len() > FILE_MAX => return Err(StateError::Bad(path.to_owned())),
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|_| StateError::Bad(path.to_owned()))?;
    parse(&text).map(Some).ok_or_else(|| StateError::Bad(path.to_owned()))
}

fn parse(text: &str) -> Option<Lives> {
    let mut lines = text.strip_suffix("\nend\n")?.lines();
    if lines.next() != Some(FIRST_LINE) {
        return None;
    }
    let mut value_of = |word: &str| lines.next()?.strip_prefix(word).map(str::to_owned);
    let (cluster, name, machine) =
        (value_of("cluster ")?, value_of("node ")?, value_of("machine ")?);
    let life = |line: &str| {
        let digits = line.strip_prefix("life ")?;
        u64::from_str_radix(digits, 16).ok().map(Incarnation)
    };
    let lives = lines.map(life).collect::<Option<_>>()?;
    Some(Lives { cluster, name, machine, lives })
}

/// Written beside the old one and moved into its place, so that there is always a whole one.
fn write(folder: &Path, Lives { cluster, name, machine, lives }: &Lives) -> io::Result<()> {
    let mut text = format!("{FIRST_LINE}\ncluster {cluster}\nnode {name}\nmachine {machine}\n");
    text.extend(lives.iter().map(|life| format!("life {:016x}\n", life.0)));
    text.push_str("end\n");
    let draft = folder.join(DRAFT);
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(draft, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sessiond-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn open(&self, name: &str, life: u64) -> Result<StateDir, StateError> {
            StateDir::open(&self.0, "c", name, Incarnation(life))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_last_lives_are_remembered() {
        let folder = Folder::new("remembered");
        for life in 1..=20 {
            let before = (life - 1).min(KEPT as u64);
            let expected: Vec<_> = (life - before..life).map(Incarnation).collect();
            assert_eq!(folder.open("a", life).unwrap().former, expected);
        }
    }

    #[test]
    fn two_processes_never_have_one_directory() {
        let folder = Folder::new("locked");
        let first = folder.open("a", 1).unwrap();
        assert!(matches!(folder.open("a", 2), Err(StateError::InUse(_))));
        drop(first);
        assert_eq!(folder.open("a", 3).unwrap().former, [Incarnation(1)]);
    }

    #[test]
    fn the_directory_of_another_node_is_refused() {
        let folder = Folder::new("foreign");
        drop(folder.open("a", 1).unwrap());
        let refused = folder.open("b", 2).unwrap_err();
        assert!(refused.to_string().contains("node \"a\" of cluster \"c\""), "{refused}");
    }

    #[test]
    fn half_a_file_is_refused() {
        let folder = Folder::new("half");
        drop(folder.open("a", 1).unwrap());
        let path = folder.0.join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 3]).unwrap();
        assert!(matches!(folder.open("a", 2), Err(StateError::Bad(_))));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(words in prop::collection::vec("cluster |node |machine |life |[0-9a-f]{0,20}|\n|\nend\n|\\PC", 0..40)) {
            let _ = parse(&words.concat());
            let _ = parse(&format!("{FIRST_LINE}\n{}\nend\n", words.concat()));
        }
    }
}
