//! The former lives of this node, kept in its state directory: whoever holds the lock of the
//! directory knows that they are over, and says so to the others.
//!
//! A life that was started beside another one can't have that lock. It writes itself into a file of its
//! own, with a lock of its own, so that whoever has both knows of it too.
//!
//! The log of views keeps its file there too; what is in that is none of our business.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::replication::Incarnation;

const FILE: &str = "lives";
/// The same, for those that were started beside others.
const FILE_BESIDE: &str = "lives.beside";
const LOCK_BESIDE: &str = "lock.beside";
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

/// The place beside another life of this node, which has the state directory.
#[derive(Debug)]
pub(super) struct Beside {
    path: PathBuf,
    me: Owner,
    life: Incarnation,
    _lock: File,
    /// That other life.
    pub(super) predecessor: Incarnation,
}

/// Whose directory it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    cluster: String,
    name: String,
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
    /// Nobody has ever used it.
    Unused(PathBuf),
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
            Self::Unused(path) => {
                write!(f, "--state-dir {}: there is no life to take the place of", path.display())
            }
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
        // First the one that is held for longer, or two could wait for each other.
        let lock = lock(path, path)?;
        let _beside = lock_beside(path)?;
        let me = Owner { cluster: cluster.into(), name: name.into() };
        enter(path, &me, life).map(|former| Self { _lock: lock, former })
    }
}

impl Beside {
    /// Takes the place beside the last life, and adds this one to those in the file for that.
    pub(super) fn open(
        path: &Path,
        cluster: &str,
        name: &str,
        life: Incarnation,
    ) -> Result<Self, StateError> {
        let me = Owner { cluster: cluster.into(), name: name.into() };
        let lock = lock_beside(path)?;
        let last = read_own(&path.join(FILE), &me)?.and_then(|known| known.lives.last().copied());
        let predecessor = last.ok_or_else(|| StateError::Unused(path.to_owned()))?;
        let mut lives = known_here(&path.join(FILE_BESIDE), &me)?;
        lives.push(life);
        write(path, FILE_BESIDE, &me, lives)?;
        Ok(Self { path: path.to_owned(), me, life, _lock: lock, predecessor })
    }

    /// The directory, if the other life is over.
    pub(super) fn take_over(&self) -> Result<StateDir, StateError> {
        let lock = lock(&self.path, &self.path)?;
        let former = enter(&self.path, &self.me, self.life)?;
        Ok(StateDir { _lock: lock, former })
    }
}

/// With both locks, or that of the directory and the place beside it: returns the lives that are
/// over, and adds this one.
fn enter(path: &Path, me: &Owner, life: Incarnation) -> Result<Vec<Incarnation>, StateError> {
    let mut former = known_here(&path.join(FILE), me)?;
    former.extend(known_here(&path.join(FILE_BESIDE), me)?);
    former.retain(|other| *other != life);
    let mut lives = former.clone();
    lives.push(life);
    write(path, FILE, me, lives)?;
    match fs::remove_file(path.join(FILE_BESIDE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StateError::Io(path.join(FILE_BESIDE), error))
        }
        _ => Ok(former),
    }
}

fn lock_beside(folder: &Path) -> Result<File, StateError> {
    let path = folder.join(LOCK_BESIDE);
    File::create(&path).map_err(|error| StateError::Io(path.clone(), error))?;
    lock(&path, folder)
}

/// The directory itself has to be locked, and a file in it: nothing else has to be there, and nobody
/// can move the directory's lock away.
fn lock(path: &Path, folder: &Path) -> Result<File, StateError> {
    let failed = |error: io::Error| StateError::Io(path.to_owned(), error);
    let lock = File::open(path).map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse(folder.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

/// The lives in that file, if they were processes of this machine.
fn known_here(file: &Path, me: &Owner) -> Result<Vec<Incarnation>, StateError> {
    Ok(match read_own(file, me)? {
        Some(known) if known.machine == machine() => known.lives,
        Some(_) => {
            tracing::warn!(
                path = %file.display(),
                "written on another machine: this node's former lives are not counted as over"
            );
            Vec::new()
        }
        None => Vec::new(),
    })
}

fn read_own(file: &Path, me: &Owner) -> Result<Option<Lives>, StateError> {
    let known = read(file)?;
    if let Some(Lives { owner, .. }) = known.as_ref().filter(|known| known.owner != *me) {
        let owner = format!("node {:?} of cluster {:?}", owner.name, owner.cluster);
        return Err(StateError::Foreign { path: file.to_owned(), owner });
    }
    Ok(known)
}

/// What is in the file.
struct Lives {
    owner: Owner,
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
    Some(Lives { owner: Owner { cluster, name }, machine, lives })
}

/// The last ones of these.
fn write(
    folder: &Path,
    file: &str,
    me: &Owner,
    mut lives: Vec<Incarnation>,
) -> Result<(), StateError> {
    lives.drain(..lives.len().saturating_sub(KEPT));
    let lives = Lives { owner: me.clone(), machine: machine(), lives };
    write_file(folder, file, &lives).map_err(|error| StateError::Io(folder.join(file), error))
}

/// Written beside the old one and moved into its place, so that there is always a whole one.
fn write_file(
    folder: &Path,
    name: &str,
    Lives { owner, machine, lives }: &Lives,
) -> io::Result<()> {
    let Owner { cluster, name: node } = owner;
    let mut text = format!("{FIRST_LINE}\ncluster {cluster}\nnode {node}\nmachine {machine}\n");
    text.extend(lives.iter().map(|life| format!("life {:016x}\n", life.0)));
    text.push_str("end\n");
    let draft = folder.join(format!("{name}.new"));
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(draft, folder.join(name))?;
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
    fn one_life_is_beside_another_and_has_all_when_that_is_over() {
        let folder = Folder::new("beside");
        let beside = |life| Beside::open(&folder.0, "c", "a", Incarnation(life));
        assert!(matches!(beside(1), Err(StateError::Io(..))), "there is no folder yet");
        let first = folder.open("a", 1).unwrap();
        let second = beside(2).unwrap();
        assert_eq!(second.predecessor, Incarnation(1));
        assert!(matches!(beside(3), Err(StateError::InUse(_))), "one at a time");
        assert!(matches!(second.take_over(), Err(StateError::InUse(_))));
        drop(first);
        assert!(matches!(folder.open("a", 4), Err(StateError::InUse(_))), "one lives still");
        let heir = second.take_over().unwrap();
        assert_eq!(heir.former, [Incarnation(1)]);
        drop(second);
        let third = beside(5).unwrap();
        assert_eq!(third.predecessor, Incarnation(2));
        drop((heir, third));
        let all = [1, 2, 5].map(Incarnation);
        assert_eq!(folder.open("a", 6).unwrap().former, all, "also of the one that never had it");
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
