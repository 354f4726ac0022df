//! The file of a voter: what it must not forget, written whole.
//!
//! A header (magic, format, checksum), then the image in postcard. It is written beside the old
//! one, synced and moved into its place, so there is always one that is complete. The folder is
//! locked: two processes with one file would be one voter with two votes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task;
use xxhash_rust::xxh3::xxh3_64;

use super::image::{Flush, Image, Keeper};
use super::{StartError, sound};

const FILE: &str = "membership";
const DRAFT: &str = "membership.new";
const LOCK: &str = "lock";
const MAGIC: &[u8; 8] = b"sessiond";
const FORMAT: u32 = 1;
/// Magic, format, checksum of what follows.
const HEADER: usize = 8 + 4 + 8;
/// Thousands of times what a register needs; more is no file of ours.
const FILE_MAX: u64 = 64 << 20;

/// Whose file it is, and what a voter must not forget.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    cluster: Box<str>,
    name: Box<str>,
    image: Image,
}

/// The folder, locked as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    cluster: Box<str>,
    name: Box<str>,
    _lock: File,
}

impl Folder {
    /// Makes and locks the folder.
    pub(super) fn open(path: &Path, cluster: &str, name: &str) -> Result<Self, StartError> {
        let failed = |error| StartError::Folder(path.to_owned(), error);
        fs::create_dir_all(path).map_err(failed)?;
        let lock = File::create(path.join(LOCK)).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StartError::InUse(path.to_owned())),
            Err(error) => return Err(failed(error.into())),
        }
        let (cluster, name) = (cluster.into(), name.into());
        Ok(Self { path: path.to_owned(), cluster, name, _lock: lock })
    }

    /// What was written last; `None` when nothing ever was.
    pub(super) fn load(&self) -> Result<Option<Image>, StartError> {
        let path = self.path.join(FILE);
        let bad = |why: &str| StartError::BadFile(path.clone(), why.to_owned());
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StartError::Folder(path, error)),
            Ok(about) if about.len() > FILE_MAX => return Err(bad("it is too long")),
            Ok(_) => {}
        }
        let bytes = fs::read(&path).map_err(|error| StartError::Folder(path.clone(), error))?;
        let content = decode(&bytes).map_err(bad)?;
        if content.cluster != self.cluster {
            return Err(StartError::Foreign { path, found: content.cluster, what: "cluster" });
        }
        if content.name != self.name {
            return Err(StartError::Foreign { path, found: content.name, what: "node" });
        }
        // A checksum says that it is what was written, not that it can be true.
        sound::check(&content.image, &self.name).map_err(bad)?;
        Ok(Some(content.image))
    }

    /// Forgets everything.
    pub(super) fn clear(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync(),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let draft = self.path.join(DRAFT);
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(draft, self.path.join(FILE))?;
        self.sync()
    }

    /// A move within the folder is only done once the folder is on disk.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn encode(&self, image: &Image) -> io::Result<Vec<u8>> {
        let (cluster, name) = (self.cluster.clone(), self.name.clone());
        let content = Content { cluster, name, image: image.clone() };
        let body = postcard::to_stdvec(&content).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&xxh3_64(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }
}

fn decode(bytes: &[u8]) -> Result<Content, &'static str> {
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or("it is too short")?;
    let (format, rest) = rest.split_first_chunk::<4>().ok_or("it is too short")?;
    let (checksum, body) = rest.split_first_chunk::<8>().ok_or("it is too short")?;
    if magic != MAGIC {
        return Err("it is no file of sessiond");
    }
    if u32::from_le_bytes(*format) != FORMAT {
        return Err("it is of another version of sessiond");
    }
    if u64::from_le_bytes(*checksum) != xxh3_64(body) {
        return Err("its checksum is wrong");
    }
    match postcard::take_from_bytes(body) {
        Ok((content, [])) => Ok(content),
        _ => Err("it does not decode"),
    }
}

/// A keeper for this image, with a writer when there is a folder. The writer ends with the last
/// clone of the keeper.
pub(super) fn keep(folder: Option<&Arc<Folder>>, image: Image) -> (Keeper, Option<Writer>) {
    let image = Arc::new(watch::Sender::new(image));
    let Some(folder) = folder else { return (Keeper::new(image, None), None) };
    let (sender, receiver) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let task = write_all(Arc::clone(folder), Arc::clone(&image), receiver, stopped);
    let writer = Writer { stop, task: tokio::spawn(task) };
    (Keeper::new(image, Some(sender)), Some(writer))
}

/// The task that writes one image.
#[derive(Debug)]
pub(super) struct Writer {
    stop: watch::Sender<bool>,
    task: task::JoinHandle<()>,
}

impl Writer {
    /// Until it surely writes no more: another image may take the file.
    pub(super) async fn end(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

/// Writes the newest image whenever somebody waits for it; all that wait share one write.
async fn write_all(
    folder: Arc<Folder>,
    image: Arc<watch::Sender<Image>>,
    mut wanted: mpsc::UnboundedReceiver<Flush>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let mut waiting = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            next = wanted.recv() => match next {
                Some(flush) => vec![flush],
                None => return,
            },
        };
        while let Ok(flush) = wanted.try_recv() {
            waiting.push(flush);
        }
        let encoded = folder.encode(&image.borrow());
        let folder = Arc::clone(&folder);
        let write = move || encoded.and_then(|bytes| folder.write(&bytes));
        let written = match task::spawn_blocking(write).await {
            Ok(written) => written,
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = &written {
            tracing::error!(%error, "cannot write the membership file");
        }
        for flush in waiting {
            let _ = flush.send(written.as_ref().copied().map_err(again));
        }
    }
}

/// The same error for each that waits.
fn again(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::membership::types::{Binding, Founding, LogId};

    #[test]
    fn a_file_that_contradicts_itself_is_refused_whole() {
        let path = std::env::temp_dir().join(format!("sessiond-file-{}", std::process::id()));
        let folder = Folder::open(&path, "group", "a").unwrap();
        let founding = Founding { number: 1, random: 1 };
        let image = Image::new(Binding { founding, founder: "a".into(), id: 1 });
        folder.write(&folder.encode(&image).unwrap()).unwrap();
        assert_eq!(folder.load().unwrap(), Some(image.clone()));

        let wrong = Image { committed: Some(LogId::default()), ..image };
        folder.write(&folder.encode(&wrong).unwrap()).unwrap();
        let told = folder.load().unwrap_err().to_string();
        let mend = "move it away, and this node comes back as a new voter";
        let why = "more is agreed than its log holds";
        let file = path.join(FILE);
        assert_eq!(told, format!("{} cannot be used: {why}; {mend}", file.display()));
        fs::remove_dir_all(path).unwrap();
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&body);
            // Behind a checksum that is right, nothing else protects the decoder.
            let mut file = MAGIC.to_vec();
            file.extend_from_slice(&FORMAT.to_le_bytes());
            file.extend_from_slice(&xxh3_64(&body).to_le_bytes());
            file.extend_from_slice(&body);
            let _ = decode(&file);
        }
    }
}
