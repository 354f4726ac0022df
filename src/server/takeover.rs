//! One process of a node after the other, where nobody holds the client sockets for them: the second
//! asks the first, through the socket for operators, and is given the listening sockets themselves.
//! The first then ends as at a restart, and its clients go the same way.
//!
//! Two sockets that share a port (`SO_REUSEPORT`) would not do: whoever waits in the queue of the
//! first one is reset when that closes, and a connection that is just being made cannot be moved.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread::sleep;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::handover::{self, AT_ONCE, Passed};
use super::inherit::{self, Held};
use super::listener::{Bound, Listener};
use super::{Options, StartError, clock, ctl};
use crate::time::Millis;

/// What the second process says.
pub(super) const ORDER: &str = "take-over";
/// Goes with each listening socket; clients have letters of their own.
const LISTENER: u8 = b'l';
/// The first process ends within its --drain-timeout, which is taken to be as long as here, and then
/// some.
const END_MAX: Duration = Duration::from_secs(10);
/// What a process that is over held is free some milliseconds later.
const FREE_MAX_MS: u64 = 5000;
const LOOK: Duration = Duration::from_millis(5);
/// A refusal is a line.
const REFUSAL_MAX: usize = 1024;

/// What the process before this one has given.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) bound: Vec<Bound>,
    pub(super) clients: Vec<Passed>,
}

/// Takes everything from the process that has the state directory, and returns when that ends;
/// `None` when there is none.
pub(super) fn take(options: &Options) -> Result<Option<Taken>, StartError> {
    let folder = options.peers.as_ref().and_then(|peers| peers.state_dir.as_deref());
    let Some(stream) = folder.and_then(begin) else {
        return Ok(None);
    };
    let failed = |error: io::Error| StartError::TakeOver(error.to_string());
    let stream = stream.map_err(failed)?;
    tracing::info!("taking over from the process that runs");
    let patience = Duration::from_millis(options.drain_timeout_ms) + END_MAX;
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    let (mut sockets, mut clients) = (Vec::new(), Vec::new());
    while let Some(some) = receive(&stream).map_err(failed)? {
        for (socket, letter) in some {
            match letter {
                LISTENER => sockets.push(Held::of(socket).map_err(failed)?),
                letter => clients.push(handover::passed(socket, letter)),
            }
        }
    }
    if sockets.is_empty() {
        return Err(StartError::TakeOver("it has ended, and gave no sockets".into()));
    }
    tracing::info!(sockets = sockets.len(), clients = clients.len(), "taken over");
    let held = inherit::by_address(sockets).map_err(failed)?;
    Ok(Some(Taken { bound: held.into_iter().map(Bound::Held).collect(), clients }))
}

/// Whether there is somebody to ask: nobody is usual at the first start.
fn begin(folder: &Path) -> Option<io::Result<UnixStream>> {
    match ctl::say(folder, ORDER) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            None
        }
        said => Some(said),
    }
}

/// The next sockets with their letters; `None` at the end of the process before. What comes without
/// sockets says why there are none.
fn receive(stream: &UnixStream) -> io::Result<Option<Vec<(OwnedFd, u8)>>> {
    let mut letters = [0; REFUSAL_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [io::IoSliceMut::new(&mut letters)];
    let bytes = match recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(io::Error::other("it does not end; stop it, and start this one again"));
        }
        // Its end, with something unread on the way.
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        received => received?.bytes,
    };
    if bytes == 0 {
        return Ok(None);
    }
    let sockets = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let sockets: Vec<(OwnedFd, u8)> = sockets.flatten().zip(letters[..bytes].to_vec()).collect();
    if sockets.is_empty() {
        let text = String::from_utf8_lossy(&letters[..bytes]).trim_end().to_owned();
        return Err(io::Error::other(ctl::refusal(&text).unwrap_or(&text).to_owned()));
    }
    Ok(Some(sockets))
}

/// Gives copies of the listening sockets away: from now on whoever waits in their queues is not lost
/// when this process closes them.
pub(super) fn give(listeners: &[Weak<Listener>], heir: &UnixStream) -> io::Result<()> {
    let listeners: Vec<_> = listeners.iter().filter_map(Weak::upgrade).collect();
    let copies =
        listeners.iter().map(|listener| listener.copy()).collect::<io::Result<Vec<_>>>()?;
    if copies.is_empty() {
        return Err(io::Error::other("nobody listens here any more"));
    }
    let lettered: Vec<(BorrowedFd<'_>, u8)> =
        copies.iter().map(|copy| (copy.as_fd(), LISTENER)).collect();
    handover::send_sockets(heir, &lettered)?;
    note_held(&listeners, true);
    Ok(())
}

/// They are not held after all.
pub(super) fn keep(listeners: &[Weak<Listener>]) {
    note_held(&listeners.iter().filter_map(Weak::upgrade).collect::<Vec<_>>(), false);
}

fn note_held(listeners: &[Arc<Listener>], is_held: bool) {
    listeners.iter().for_each(|listener| listener.note_held(is_held));
}

/// Tries again for a while what a process that has just ended may still hold.
pub(super) fn when_free<T>(
    is_taken_over: bool,
    mut attempt: impl FnMut() -> Result<T, StartError>,
) -> Result<T, StartError> {
    let since: Millis = clock::local();
    loop {
        match attempt() {
            Err(error)
                if is_taken_over
                    && error.is_in_use()
                    && clock::local().since(since) < FREE_MAX_MS =>
            {
                sleep(LOOK);
            }
            done => return done,
        }
    }
}
