//! Servers for the scripts: started on free addresses, stopped whatever happens.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::script::Expecting;

/// What the scripts are replayed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    OneNode,
    Group,
    Stock,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OneNode => "one node",
            Self::Group => "a group of three",
            Self::Stock => "stock memcached",
        })
    }
}

/// A group has formed by then, even on a busy machine.
const START_WAIT: Duration = Duration::from_secs(30);

/// Running servers, of one kind and with the same flags.
pub(crate) struct Servers {
    pub(crate) first: SocketAddr,
    /// Node 2; where there is none, the first once more.
    pub(crate) other: SocketAddr,
    pub(crate) expecting: Expecting,
    /// Stopped when the servers are dropped.
    #[expect(dead_code, reason = "held only to be dropped")]
    processes: Vec<Process>,
}

impl Servers {
    /// Starts them, and waits until they answer.
    pub(crate) fn start(kind: Kind, flags: &[String]) -> Result<Self, String> {
        let addresses: Vec<SocketAddr> = match kind {
            Kind::OneNode | Kind::Stock => vec![free_address()],
            Kind::Group => (0..3).map(|_| free_address()).collect(),
        };
        let mut processes: Vec<Process> = match kind {
            Kind::OneNode => vec![Process::start(&mut one_node(addresses[0], flags))?],
            Kind::Stock => vec![Process::start(&mut stock(addresses[0], flags))?],
            Kind::Group => {
                group(&addresses, flags).iter_mut().map(Process::start).collect::<Result<_, _>>()?
            }
        };
        let deadline = Instant::now() + START_WAIT;
        for (process, &address) in processes.iter_mut().zip(&addresses) {
            process.wait_for_answer(address, deadline)?;
        }
        let expecting = match kind {
            Kind::OneNode | Kind::Group => Expecting::Sessiond,
            Kind::Stock => Expecting::Stock(release()?),
        };
        let (first, other) = (addresses[0], *addresses.get(1).unwrap_or(&addresses[0]));
        Ok(Self { first, other, expecting, processes })
    }
}

fn sessiond() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sessiond"))
}

fn memcached() -> String {
    std::env::var("MEMCACHED").unwrap_or_else(|_| "memcached".into())
}

/// What memcached calls itself: `memcached 1.6.18`.
pub(crate) fn release() -> Result<String, String> {
    let alone = FORKS.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(memcached()).arg("-V").output();
    drop(alone);
    let output = output.map_err(|error| format!("no {} here: {error}", memcached()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().nth(1).unwrap_or_default().into())
}

fn one_node(address: SocketAddr, flags: &[String]) -> Command {
    let mut command = sessiond();
    command.args(client_flags(address)).args(flags);
    command
}

fn stock(address: SocketAddr, flags: &[String]) -> Command {
    let mut command = Command::new(memcached());
    // As root it wants to be told whom to become; others may tell it, too.
    command.args(["-u", "nobody", "-U", "0"]).args(client_flags(address)).args(flags);
    command
}

fn group(addresses: &[SocketAddr], flags: &[String]) -> Vec<Command> {
    let links: Vec<SocketAddr> = addresses.iter().map(|_| free_address()).collect();
    let peers: Vec<String> =
        links.iter().enumerate().map(|(at, link)| format!("n{}={link}", at + 1)).collect();
    let node = |(at, address): (usize, &SocketAddr)| {
        let mut command = one_node(*address, flags);
        command.args(["--cluster", "wire", "--node-name", &format!("n{}", at + 1)]);
        command.args(["--peer-listen", &links[at].to_string(), "--peers", &peers.join(",")]);
        command
    };
    addresses.iter().enumerate().map(node).collect()
}

fn client_flags(address: SocketAddr) -> [String; 4] {
    ["-l".into(), address.ip().to_string(), "-p".into(), address.port().to_string()]
}

static STARTED: AtomicU32 = AtomicU32::new(0);

/// Between fork and exec a child has everything open that its parent had: a look for a free address in
/// that moment would keep it in use for longer than the look.
static FORKS: Mutex<()> = Mutex::new(());

/// A loopback address of its own for each server: connections that go out start from 127.0.0.1,
/// so none of them can take the port between the look and the server's start.
fn free_address() -> SocketAddr {
    let [_, high, middle, low] = std::process::id().wrapping_mul(0x9e37_79b1).to_be_bytes();
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let ip =
        Ipv4Addr::new(127, high | 1, middle ^ (number >> 8) as u8, low.wrapping_add(number as u8));
    let _alone = FORKS.lock().unwrap_or_else(PoisonError::into_inner);
    let listener = TcpListener::bind((IpAddr::V4(ip), 0)).expect("a free port on loopback");
    listener.local_addr().expect("a bound listener has an address")
}

/// A server that is killed when it is dropped.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(command: &mut Command) -> Result<Self, String> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("wire-{number}.log"));
        let file = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let _alone = FORKS.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        Ok(Self { child, log })
    }

    /// Waits until the server says anything.
    fn wait_for_answer(&mut self, address: SocketAddr, deadline: Instant) -> Result<(), String> {
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended with {status}: {}", self.said()));
            }
            match answers(address) {
                Ok(true) => return Ok(()),
                _ if Instant::now() > deadline => {
                    return Err(format!("{address} does not answer: {}", self.said()));
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default().trim().into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

fn answers(address: SocketAddr) -> std::io::Result<bool> {
    let wait = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, wait)?;
    stream.set_read_timeout(Some(wait))?;
    stream.write_all(b"version\r\n")?;
    let mut buffer = [0; 64];
    Ok(stream.read(&mut buffer)? > 0)
}
