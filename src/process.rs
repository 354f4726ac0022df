//! The life of the process: its limits, its user, its place in the background, its pid file.
//!
//! Everything here happens before the first thread starts; none of it knows what is served.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{self, User};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How the process is to live.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// `-d`.
    pub(crate) daemon: bool,
    /// Whether a daemon goes on writing to the stderr it was started with.
    pub(crate) keep_stderr: bool,
    /// Whether a daemon stays in the directory it was started in.
    pub(crate) keep_directory: bool,
    /// `-P`.
    pub(crate) pid_file: Option<PathBuf>,
    /// `-u`.
    pub(crate) user: Option<String>,
    /// `-r`.
    pub(crate) core_dumps: bool,
    /// `-k`.
    pub(crate) lock_memory: bool,
    /// It was started by its supervisor, with the right user and in the background.
    pub(crate) is_child: bool,
    /// `-c`, for the limit of open files.
    pub(crate) connections_max: usize,
}

impl Options {
    /// What is left to do for one whose parent has done the rest.
    pub(crate) fn of_child(self) -> Self {
        Self { daemon: false, pid_file: None, user: None, is_child: true, ..self }
    }
}

/// Why the process can't live as it should.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no such user.
    NoUser(String),
    /// The system refuses.
    System(&'static str, io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoUser(name) => write!(f, "-u {name}: there is no such user"),
            Self::System(what, error) => write!(f, "cannot {what}: {error}"),
        }
    }
}

/// Files that a server needs besides its clients' connections.
const FILES_BESIDE: u64 = 256;

/// Raises limits as far as it may; best done while still root.
pub(crate) fn raise_limits(options: &Options) {
    let files = options.connections_max as u64 + FILES_BESIDE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < files) {
        // Only root may go above the maximum; any other takes what there is.
        let above = limit.maximum.map(|maximum| maximum.max(files));
        let allowed = raise(Resource::Nofile, Some(files), above, limit.maximum);
        if allowed.is_some_and(|allowed| allowed < files) {
            tracing::warn!(wanted = files, allowed, "the limit of open files is below -c");
        }
    }
    if options.core_dumps {
        let limit = getrlimit(Resource::Core);
        if raise(Resource::Core, None, None, limit.maximum) == Some(0) {
            tracing::warn!("-r: core files are not allowed here");
        }
    }
}

/// Sets a limit to `wanted` of `above`, or to what the present `maximum` allows.
fn raise(
    resource: Resource,
    wanted: Option<u64>,
    above: Option<u64>,
    maximum: Option<u64>,
) -> Option<u64> {
    if setrlimit(resource, Rlimit { current: wanted, maximum: above }).is_err() {
        let reachable = match (wanted, maximum) {
            (Some(wanted), Some(maximum)) => Some(wanted.min(maximum)),
            (wanted, maximum) => wanted.or(maximum),
        };
        // Should this fail too, the caller sees it in what the limit is then.
        let _ = setrlimit(resource, Rlimit { current: reachable, maximum });
    }
    getrlimit(resource).current
}

/// Becomes the user of `-u`, if this is root.
pub(crate) fn assume_user(options: &Options) -> Result<(), Failure> {
    if options.is_child || !unistd::geteuid().is_root() {
        return Ok(());
    }
    let Some(name) = &options.user else {
        tracing::warn!("running as root; -u USER gives that up");
        return Ok(());
    };
    let no_user = || Failure::NoUser(name.clone());
    let system = |what| move |error: Errno| Failure::System(what, error.into());
    let user = User::from_name(name).map_err(system("look up the user of -u"))?;
    let user = user.ok_or_else(no_user)?;
    let c_name = CString::new(name.as_str()).map_err(|_| no_user())?;
    match unistd::initgroups(&c_name, user.gid) {
        // A container may have taken this right away, and the groups with it.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(error) => return Err(system("set the groups of the user of -u")(error)),
    }
    unistd::setgid(user.gid).map_err(system("become the group of the user of -u"))?;
    unistd::setuid(user.uid).map_err(system("become the user of -u"))
}

/// Goes to the background, if it should.
pub(crate) fn detach(options: &Options) -> Result<(), Failure> {
    if !options.daemon {
        return Ok(());
    }
    unistd::daemon(options.keep_directory, options.keep_stderr)
        .map_err(|error| Failure::System("go to the background", error.into()))
}

/// Keeps memory out of swap, if it should. A lock does not pass to a child: detach first.
pub(crate) fn lock_memory(options: &Options) {
    if !options.lock_memory {
        return;
    }
    if let Err(error) = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE) {
        tracing::warn!(%error, "-k: memory cannot be locked");
    }
}

/// The file of `-P`; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Writes it, if there should be one. As with memcached, failing to is no reason not to serve.
    pub(crate) fn write(options: &Options) -> Option<Self> {
        let path = options.pid_file.as_ref()?;
        warn_of_another(path);
        let mut draft = path.clone().into_os_string();
        draft.push(".tmp");
        // Moved into place, so that nobody finds it empty.
        let written = fs::write(&draft, format!("{}\n", std::process::id()))
            .and_then(|()| fs::rename(&draft, path));
        match written {
            Ok(()) => Some(Self(path.clone())),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "-P: cannot write the pid file");
                None
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A successor may have put its own number there.
        if pid_in(&self.0) == Some(std::process::id()) {
            let _ = fs::remove_file(&self.0);
        }
    }
}

fn warn_of_another(path: &Path) {
    if let Some(pid) = pid_in(path).filter(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
        tracing::warn!(path = %path.display(), pid, "the pid file names a running process");
    }
}

fn pid_in(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
