//! One server process on a free port of its own, and a connection to it.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Memcached,
    Sessiond,
}

pub(crate) const PROGRAMS: [Program; 2] = [Program::Memcached, Program::Sessiond];

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memcached => "memcached",
            Self::Sessiond => "sessiond",
        }
    }

    /// The binary of this build, or another that SESSIOND or MEMCACHED names.
    fn path(self) -> String {
        match self {
            Self::Memcached => env::var("MEMCACHED").unwrap_or_else(|_| "memcached".to_owned()),
            Self::Sessiond => {
                env::var("SESSIOND").unwrap_or_else(|_| env!("CARGO_BIN_EXE_sessiond").to_owned())
            }
        }
    }

    /// Starts it with one worker and so much memory, and connects.
    pub(crate) fn start(self, limit_mib: usize, options: &[&str]) -> Server {
        let path = self.path();
        // memcached does not run as root unless told as whom to run.
        let is_memcached = Path::new(&path).file_name().is_some_and(|name| name == "memcached");
        let is_root = rustix::process::geteuid().is_root();
        let user: &[&str] = if is_memcached && is_root { &["-u", "nobody"] } else { &[] };
        let port = free_port();
        let process = Command::new(&path)
            .args(["-l", "127.0.0.1", "-t", "1", "-p", &port.to_string()])
            .args(["-m", &limit_mib.to_string()])
            .args(options)
            .args(user)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {path}: {error}"));
        // Killed by its drop, should it never answer.
        let mut server = Server { process, stream: None };
        server.stream = Some(BufReader::new(connect(port)));
        server
    }
}

impl Program {
    /// What it says goes to a file: between the lines of the table nobody wants it.
    fn log(self) -> File {
        let path = format!("{}/hitratio-{}.log", env!("CARGO_TARGET_TMPDIR"), self.name());
        File::create(&path).unwrap_or_else(|error| panic!("creating {path}: {error}"))
    }
}

/// Somebody else could take the port before the server does; then the server ends.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

fn connect(port: u16) -> TcpStream {
    const TRIES: u32 = 500;
    for _ in 0..TRIES {
        if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            stream.set_nodelay(true).expect("an open socket");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an open socket");
            return stream;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("no server on port {port}");
}

/// A running server, killed when dropped.
pub(crate) struct Server {
    process: Child,
    stream: Option<BufReader<TcpStream>>,
}

impl Server {
    /// Sends commands that are answered with one line each, and hands each line to `take`.
    pub(crate) fn exchange(&mut self, commands: &[u8], count: usize, mut take: impl FnMut(&str)) {
        let stream = self.stream.as_mut().expect("it is connected from its start");
        stream.get_mut().write_all(commands).expect("a server that reads");
        let mut line = String::new();
        for _ in 0..count {
            line.clear();
            let len = stream.read_line(&mut line).expect("a server that answers");
            assert!(len > 0, "the server has hung up");
            take(line.trim_end());
        }
    }

    /// One number of `stats`.
    pub(crate) fn statistic(&mut self, name: &str) -> u64 {
        let (mut found, mut is_end) = (None, false);
        self.exchange(b"stats\r\n", 0, |_| ());
        while !is_end {
            self.exchange(b"", 1, |line| {
                is_end = line == "END";
                if let Some((found_name, value)) =
                    line.strip_prefix("STAT ").and_then(|rest| rest.split_once(' '))
                    && found_name == name
                {
                    found = value.parse().ok();
                }
            });
        }
        found.unwrap_or_else(|| panic!("no {name} in stats"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
