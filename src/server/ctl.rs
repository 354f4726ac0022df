//! The word of an operator to a running node: a socket in its state directory, one line there, some
//! lines back. Both ends of it.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as PlainUnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::orders::Orders;
use super::takeover;

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
    orders: Arc<Orders>,
) {
    let obey = Rc::new(obey);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (obey, orders) = (Rc::clone(&obey), Arc::clone(&orders));
                spawn_local(async move {
                    if let Err(error) = talk(stream, &*obey, &orders).await {
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
    orders: &Orders,
) -> io::Result<()> {
    let mut line = String::new();
    timeout(TALK_MAX, (&mut stream).take(LINE_MAX).read_to_string(&mut line)).await??;
    line.truncate(line.trim_end().len());
    let is_take_over = line == takeover::ORDER;
    let mut obeyed = obey(line).await;
    if is_take_over && obeyed.is_ok() {
        // Whoever asks is not answered in words.
        match orders.give_way_to(stream.into_std()?) {
            Ok(()) => return Ok(()),
            Err((back, why)) => (stream, obeyed) = (UnixStream::from_std(back)?, Err(why)),
        }
    }
    let answer = obeyed.unwrap_or_else(|why| format!("{REFUSAL}{why}\n"));
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
    match refusal(&answer) {
        Some(why) => Err(why.trim_end().into()),
        None => Ok(answer),
    }
}

/// Why not, if that is what it says.
pub(super) fn refusal(answer: &str) -> Option<&str> {
    answer.strip_prefix(REFUSAL)
}

/// Says this line; the answer is read elsewhere.
pub(super) fn say(folder: &Path, line: &str) -> io::Result<PlainUnixStream> {
    said(&folder.join(SOCKET), line)
}

fn ask_socket(path: &Path, line: &str, limit: Duration) -> io::Result<String> {
    let mut stream = said(path, line)?;
    stream.set_read_timeout(Some(limit))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn said(path: &Path, line: &str) -> io::Result<PlainUnixStream> {
    let mut stream = PlainUnixStream::connect(path)?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    Ok(stream)
}
