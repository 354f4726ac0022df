//! The word of an operator to a running node: a socket in its state directory, one line there, some
//! lines back. Both ends of it.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as PlainUnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

const SOCKET: &str = "ctl.sock";
/// Made under this name, so that nobody connects before it is closed to others.
const DRAFT: &str = "ctl.sock.new";
/// Nobody else but the user of the process.
const MODE: u32 = 0o600;
/// A line is a few words.
const LINE_MAX: u64 = 1024;
/// Whoever connects has said its line by then.
const TALK_MAX: Duration = Duration::from_secs(2);
/// What changes something waits for others, but not for ever; longer than this, the node hangs.
const ANSWER_MAX: Duration = Duration::from_secs(25);
/// After an error that may last.
const PAUSE: Duration = Duration::from_millis(100);
/// What an answer starts with that is a refusal.
const REFUSAL: &str = "error: ";

/// Opens the socket in the state directory; one that is left of a former process goes.
pub(super) fn open(folder: &Path) -> io::Result<UnixListener> {
    let draft = folder.join(DRAFT);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, Permissions::from_mode(MODE))?;
    fs::rename(draft, folder.join(SOCKET))?;
    Ok(listener)
}

/// Answers, for ever; whoever wants something that takes time keeps nobody else waiting.
pub(super) async fn serve(
    listener: UnixListener,
    obey: impl AsyncFn(String) -> Result<String, String> + 'static,
) {
    let obey = Rc::new(obey);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let obey = Rc::clone(&obey);
                spawn_local(async move {
                    if let Err(error) = talk(stream, &*obey).await {
                        tracing::debug!(%error, "an operator was not answered");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an operator");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn talk(
    mut stream: UnixStream,
    obey: &impl AsyncFn(String) -> Result<String, String>,
) -> io::Result<()> {
    let mut line = String::new();
    timeout(TALK_MAX, (&mut stream).take(LINE_MAX).read_to_string(&mut line)).await??;
    line.truncate(line.trim_end().len());
    let answer = obey(line).await.unwrap_or_else(|why| format!("{REFUSAL}{why}\n"));
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Says this line to the node with that state directory; returns what it answers, or why it does
/// not do it.
pub fn ask(folder: &Path, line: &str) -> Result<String, String> {
    ask_within(folder, line, ANSWER_MAX)
}

/// Does not wait for longer than that for a word of the answer.
pub(super) fn ask_within(folder: &Path, line: &str, limit: Duration) -> Result<String, String> {
    let answer = ask_socket(&folder.join(SOCKET), line, limit);
    let answer = answer.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("--state-dir {}: no sessiond runs there", folder.display())
        }
        _ => format!("--state-dir {}: {error}", folder.display()),
    })?;
    match answer.strip_prefix(REFUSAL) {
        Some(why) => Err(why.trim_end().into()),
        None => Ok(answer),
    }
}

fn ask_socket(path: &Path, line: &str, limit: Duration) -> io::Result<String> {
    let mut stream = PlainUnixStream::connect(path)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
