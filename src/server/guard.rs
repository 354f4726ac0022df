//! What peers have to prove before a word of theirs is believed: read at the start, and again at
//! SIGHUP.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::certificates::{CertificateFiles, Identity};
use super::secret::Secrets;

/// Files of certificates and secrets are far shorter.
const FILE_MAX: u64 = 1 << 20;

/// How peers prove who they are.
#[derive(Clone, Debug)]
pub enum PeerSecurity {
    /// Not at all: nobody else is where they are.
    Open,
    /// By a secret that all know; what they say is neither encrypted nor signed.
    Secret(PathBuf),
    /// By certificates, and all is encrypted.
    Certificates(CertificateFiles),
}

/// Why a file can't be used.
#[derive(Debug)]
pub struct BadFile {
    flag: &'static str,
    path: PathBuf,
    why: String,
}

impl BadFile {
    pub(super) fn new(flag: &'static str, path: &Path, why: impl Display) -> Self {
        Self { flag, path: path.into(), why: why.to_string() }
    }
}

impl Display for BadFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.flag, self.path.display(), self.why)
    }
}

/// What is asked of peers, and shown to them, at present.
#[derive(Clone)]
pub(super) enum Means {
    Open,
    Secret(Arc<Secrets>),
    Certificates(Arc<Identity>),
}

/// See the module.
pub(super) struct Guard {
    security: PeerSecurity,
    name: Box<str>,
    means: watch::Sender<Means>,
}

impl Guard {
    /// Reads the files, or says what is wrong with them.
    pub(super) fn new(security: &PeerSecurity, name: &str) -> Result<Self, BadFile> {
        let means = watch::Sender::new(load(security, name)?);
        Ok(Self { security: security.clone(), name: name.into(), means })
    }

    pub(super) fn means(&self) -> Means {
        self.means.borrow().clone()
    }

    /// When this node's certificate ends, if it has one.
    pub(super) fn not_after_s(&self) -> Option<i64> {
        match &*self.means.borrow() {
            Means::Certificates(identity) => identity.not_after_s(),
            Means::Open | Means::Secret(_) => None,
        }
    }

    /// Reads the files again, for connections that are made from now on; those that there are go
    /// on. What can't be used changes nothing.
    pub(super) fn reload(&self) {
        if matches!(self.security, PeerSecurity::Open) {
            return;
        }
        match load(&self.security, &self.name) {
            Ok(means) => {
                self.means.send_replace(means);
                tracing::info!("what peers have to prove was read again");
            }
            Err(error) => tracing::error!(%error, "what peers have to prove stays as it was"),
        }
    }
}

fn load(security: &PeerSecurity, name: &str) -> Result<Means, BadFile> {
    Ok(match security {
        PeerSecurity::Open => Means::Open,
        PeerSecurity::Secret(path) => {
            let flag = "--peer-secret-file";
            let secrets = Secrets::parse(&read(flag, path)?);
            Means::Secret(Arc::new(secrets.map_err(|why| BadFile::new(flag, path, why))?))
        }
        PeerSecurity::Certificates(files) => {
            Means::Certificates(Arc::new(Identity::load(files, name)?))
        }
    })
}

/// The file's content.
pub(super) fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, BadFile> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut text))
        .map_err(|error| BadFile::new(flag, path, error))?;
    if text.len() as u64 > FILE_MAX {
        return Err(BadFile::new(flag, path, format!("longer than {FILE_MAX} bytes")));
    }
    Ok(text)
}
