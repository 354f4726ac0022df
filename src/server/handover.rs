//! Clients that stay connected while one process of a node ends and the next one begins: the first
//! sends their sockets into a pair of sockets that the supervisor keeps open, and ends; the second
//! takes them out. What the clients say meanwhile waits in their sockets.
//!
//! Only clients between two commands go over, so there is nothing to tell of them but whether they
//! have logged in.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// A client's connection, between two commands.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) socket: OwnedFd,
    pub(super) is_logged_in: bool,
}

/// What the supervisor keeps open for this process and others.
#[derive(Debug)]
pub(super) struct Handover {
    pub(super) to_successor: UnixStream,
    pub(super) from_predecessor: UnixStream,
    /// Where the supervisor waits to be told that this process serves.
    pub(super) supervisor: UnixStream,
}

/// Of each client one letter goes with its socket; the kernel takes 253 sockets at once.
pub(super) const AT_ONCE: usize = 128;
const LOGGED_IN: u8 = b'+';
const NOT_LOGGED_IN: u8 = b'-';

/// Sends clients to whoever comes next. What does not go over is closed.
pub(super) fn send(to: &UnixStream, clients: &[Passed]) -> io::Result<()> {
    let letter = |client: &Passed| if client.is_logged_in { LOGGED_IN } else { NOT_LOGGED_IN };
    let sockets: Vec<_> =
        clients.iter().map(|client| (client.socket.as_fd(), letter(client))).collect();
    send_sockets(to, &sockets)
}

/// Sends sockets, each with its letter.
pub(super) fn send_sockets(to: &UnixStream, sockets: &[(BorrowedFd<'_>, u8)]) -> io::Result<()> {
    for some in sockets.chunks(AT_ONCE) {
        let (sockets, letters): (Vec<_>, Vec<_>) = some.iter().copied().unzip();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&sockets)), "there is room");
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(to, &[IoSlice::new(&letters)], &mut control, flags)?;
    }
    Ok(())
}

/// A client that came with this letter.
pub(super) fn passed(socket: OwnedFd, letter: u8) -> Passed {
    Passed { socket, is_logged_in: letter == LOGGED_IN }
}

impl Handover {
    /// The same for another task.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            to_successor: self.to_successor.try_clone()?,
            from_predecessor: self.from_predecessor.try_clone()?,
            supervisor: self.supervisor.try_clone()?,
        })
    }

    /// All that a predecessor has sent.
    pub(super) fn receive(&self) -> io::Result<Vec<Passed>> {
        let mut clients = Vec::new();
        loop {
            let mut letters = [0; AT_ONCE];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let mut parts = [IoSliceMut::new(&mut letters)];
            let bytes = match recvmsg(&self.from_predecessor, &mut parts, &mut control, flags) {
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(clients),
                received => received?.bytes,
            };
            if bytes == 0 {
                return Ok(clients);
            }
            let sockets = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
                _ => None,
            });
            let letters = letters[..bytes].iter();
            clients
                .extend(sockets.flatten().zip(letters).map(|(one, letter)| passed(one, *letter)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn clients_go_over_with_what_they_have_said_and_what_is_known_of_them() {
        let (to_successor, from_predecessor) = UnixStream::pair().unwrap();
        let (supervisor, _) = UnixStream::pair().unwrap();
        let handover = Handover { to_successor, from_predecessor, supervisor };
        assert!(handover.receive().unwrap().is_empty());
        let pairs: Vec<_> = (0..300).map(|_| UnixStream::pair().unwrap()).collect();
        let (mut clients, served): (Vec<UnixStream>, Vec<UnixStream>) = pairs.into_iter().unzip();
        let passed = served.into_iter().enumerate().map(|(number, socket)| Passed {
            socket: socket.into(),
            is_logged_in: number % 3 == 0,
        });
        send(&handover.to_successor, &passed.collect::<Vec<_>>()).unwrap();
        for (number, client) in clients.iter_mut().enumerate() {
            client.write_all(&(number as u16).to_le_bytes()).unwrap();
        }
        let received = handover.receive().unwrap();
        assert_eq!(received.len(), 300);
        for (number, passed) in received.into_iter().enumerate() {
            assert_eq!(passed.is_logged_in, number % 3 == 0);
            let mut said = [0; 2];
            UnixStream::from(passed.socket).read_exact(&mut said).unwrap();
            assert_eq!(u16::from_le_bytes(said), number as u16);
        }
    }
}
