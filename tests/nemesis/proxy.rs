//! The network between the nodes, and what may go wrong in it.
//!
//! Node a reaches node b through a proxy of their own. What is *cut* from a to b is held back, on
//! the connections that either has dialed, as a dropped packet is sent again until it comes
//! through; nobody is told, and while either direction is cut no connection comes about. Where a
//! process is dead, connections are refused, as by its host.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::group::{NODES, free_address};

/// How often a listener looks for a new connection, or whether it should listen at all.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes that are carried at a time.
const PIECE: usize = 16 << 10;
/// A stalled peer gets so few bytes at a time,
const TRICKLE: usize = 512;
/// so often.
const TRICKLE_EVERY: Duration = Duration::from_millis(20);

/// What happens to bytes on their way from one node to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    #[default]
    Open,
    /// Held back.
    Cut,
    /// Each piece is late by this.
    Late(Duration),
    /// The receiver takes a few bytes at a time.
    Trickle,
}

/// All pairs of nodes.
pub(crate) struct Network {
    targets: Vec<SocketAddr>,
    /// Proxies by who dials and whom; empty where links are direct.
    addresses: Vec<Vec<SocketAddr>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By sender and receiver.
    ways: [[Way; NODES]; NODES],
    /// Whose process is dead.
    is_dead: [bool; NODES],
    /// Both ends of every connection.
    joined: Vec<Joined>,
    joined_ever: u64,
    is_over: bool,
}

/// A connection between two nodes.
struct Joined {
    number: u64,
    from: usize,
    to: usize,
    ends: [TcpStream; 2],
}

impl Network {
    pub(crate) fn direct(targets: &[SocketAddr]) -> Self {
        Self { targets: targets.into(), addresses: Vec::new(), shared: Arc::default() }
    }

    pub(crate) fn proxied(targets: &[SocketAddr]) -> Result<Self, String> {
        let shared = Arc::<Shared>::default();
        let addresses: Vec<Vec<SocketAddr>> =
            (0..NODES).map(|_| (0..NODES).map(|_| free_address()).collect()).collect();
        for (from, addresses) in addresses.iter().enumerate() {
            for (to, &address) in addresses.iter().enumerate().filter(|&(to, _)| to != from) {
                let pair = Pair { from, to, target: targets[to], shared: Arc::clone(&shared) };
                thread::spawn(move || pair.listen(address));
            }
        }
        Ok(Self { targets: targets.into(), addresses, shared })
    }

    /// Where `from` dials `to`.
    pub(crate) fn address(&self, from: usize, to: usize) -> SocketAddr {
        self.addresses.get(from).map_or(self.targets[to], |addresses| addresses[to])
    }

    /// From now on this happens to what `from` sends to `to`.
    pub(crate) fn set(&self, from: usize, to: usize, way: Way) {
        self.shared.lock().ways[from][to] = way;
        self.shared.changed.notify_all();
    }

    pub(crate) fn heal(&self) {
        self.shared.lock().ways = Default::default();
        self.shared.changed.notify_all();
    }

    /// Ends all connections between two nodes.
    pub(crate) fn reset(&self, a: usize, b: usize) {
        for Joined { from, to, ends, .. } in &self.shared.lock().joined {
            if (*from, *to) == (a, b) || (*from, *to) == (b, a) {
                for end in ends {
                    // It may have ended by itself.
                    let _ = socket2::SockRef::from(end).set_linger(Some(Duration::ZERO));
                    let _ = end.shutdown(Shutdown::Both);
                }
            }
        }
    }

    /// The node's process is dead.
    pub(crate) fn refuse(&self, node: usize) {
        self.shared.lock().is_dead[node] = true;
    }

    /// The node's process is there.
    pub(crate) fn listen(&self, node: usize) {
        self.shared.lock().is_dead[node] = false;
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        for end in state.joined.iter().flat_map(|joined| &joined.ends) {
            let _ = end.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }

    /// Waits while what `from` sends to `to` is cut; `None` when all is over.
    fn wait_while_cut(&self, from: usize, to: usize) -> Option<Way> {
        let is_cut = |state: &mut State| state.ways[from][to] == Way::Cut && !state.is_over;
        let state = self.changed.wait_while(self.lock(), is_cut);
        let state = state.expect("no thread panics with the lock");
        (!state.is_over).then_some(state.ways[from][to])
    }
}

/// What one node dials to reach another.
#[derive(Clone)]
struct Pair {
    from: usize,
    to: usize,
    target: SocketAddr,
    shared: Arc<Shared>,
}

impl Pair {
    /// Listens whenever the target's process is there, or a cut hides that it is not.
    fn listen(self, address: SocketAddr) {
        let mut listener = None;
        loop {
            let state = self.shared.lock();
            let ways = (state.ways[self.from][self.to], state.ways[self.to][self.from]);
            let is_hidden = ways.0 == Way::Cut || ways.1 == Way::Cut;
            let is_wanted = !state.is_dead[self.to] || is_hidden;
            if state.is_over {
                return;
            }
            drop(state);
            if !is_wanted {
                listener = None;
            } else if listener.is_none() {
                // The address is nobody else's; what lingers on it delays this a little.
                listener = TcpListener::bind(address).ok();
                if let Some(listener) = &listener {
                    listener.set_nonblocking(true).expect("a listener need not block");
                }
            }
            match listener.as_ref().map(TcpListener::accept) {
                Some(Ok((near, _))) => {
                    let pair = self.clone();
                    thread::spawn(move || pair.join(near));
                }
                Some(Err(error)) if error.kind() != ErrorKind::WouldBlock => listener = None,
                _ => thread::sleep(LOOK),
            }
        }
    }

    /// Dials on and carries bytes both ways until either side ends.
    fn join(self, near: TcpStream) {
        let Self { from, to, .. } = self;
        let both = self.shared.wait_while_cut(from, to).and(self.shared.wait_while_cut(to, from));
        if both.is_none() || near.set_nonblocking(false).is_err() {
            return;
        }
        // Refused: the other side sees its connection end.
        let Ok(far) = TcpStream::connect(self.target) else { return };
        let copies = (near.try_clone(), near.try_clone(), far.try_clone(), far.try_clone());
        let (Ok(near_read), Ok(near_end), Ok(far_read), Ok(far_end)) = copies else { return };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let mut state = self.shared.lock();
        state.joined_ever += 1;
        let number = state.joined_ever;
        state.joined.push(Joined { number, from, to, ends: [near_end, far_end] });
        drop(state);
        let back = self.clone();
        let answers = thread::spawn(move || back.carry(to, from, far_read, near));
        self.carry(from, to, near_read, far);
        let _ = answers.join();
        self.shared.lock().joined.retain(|joined| joined.number != number);
    }

    /// Carries what `sender` sends, under the conditions of the day, and the end of it.
    fn carry(&self, sender: usize, receiver: usize, mut input: TcpStream, mut output: TcpStream) {
        let mut buffer = vec![0; PIECE];
        while let Ok(read) = input.read(&mut buffer) {
            let is_there = self.pass_on(sender, receiver, &buffer[..read], &mut output);
            if read == 0 || is_there.is_none() {
                break;
            }
        }
        // The process at one end is gone, and so is the connection.
        let _ = input.shutdown(Shutdown::Both);
        let _ = output.shutdown(Shutdown::Both);
    }

    /// `None`: nobody takes it any more.
    fn pass_on(
        &self,
        sender: usize,
        receiver: usize,
        mut rest: &[u8],
        output: &mut TcpStream,
    ) -> Option<()> {
        let mut way = self.shared.wait_while_cut(sender, receiver)?;
        if let Way::Late(delay) = way {
            thread::sleep(delay);
        }
        while !rest.is_empty() {
            let is_trickle = way == Way::Trickle;
            let (piece, later) =
                rest.split_at(if is_trickle { rest.len().min(TRICKLE) } else { rest.len() });
            output.write_all(piece).ok()?;
            rest = later;
            if is_trickle {
                thread::sleep(TRICKLE_EVERY);
                way = self.shared.wait_while_cut(sender, receiver)?;
            }
        }
        Some(())
    }
}
