//! The two programs under test: started on a free loopback port, stopped when dropped.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::failure::{Doing, Failure};
use crate::interrupt;
use crate::machine::{self, SERVER_CORE};

/// A binary is slow to start when its pages come from a cold disk, not slower than this.
const START_MAX: Duration = Duration::from_secs(5);

/// What the servers log goes here: between the lines of the table nobody wants it.
pub(crate) const LOG_FOLDER: &str = env!("CARGO_TARGET_TMPDIR");

/// A server binary.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    path: String,
    advice: &'static str,
}

impl Program {
    pub(crate) fn memcached() -> Self {
        Self {
            name: "memcached",
            path: "memcached".to_owned(),
            advice: "install it (Debian: apt-get install memcached)",
        }
    }

    /// The binary of this build, or another that SESSIOND names.
    pub(crate) fn sessiond() -> Self {
        Self {
            name: "sessiond",
            path: env::var("SESSIOND")
                .unwrap_or_else(|_| env!("CARGO_BIN_EXE_sessiond").to_owned()),
            advice: "SESSIOND must name a binary",
        }
    }

    /// One line that says which version this is. Also finds out whether it can be run at all.
    pub(crate) fn version(&self) -> Result<String, Failure> {
        let output =
            Command::new(&self.path).arg("-V").output().map_err(|error| self.not_run(error))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // sessiond names memcached's version first, for tools that look there, and its own below.
        let line = text.lines().nth(1).or_else(|| text.lines().next());
        Ok(line.unwrap_or("unknown version").trim().to_owned())
    }

    /// Starts it with one worker thread, pinned, and waits until it answers.
    pub(crate) fn start(&self, limit_mib: usize) -> Result<Server, Failure> {
        let address = free_address()?;
        let log =
            File::create(self.log_path()).doing(|| format!("creating {}", self.log_path()))?;
        let process = Command::new("taskset")
            .args(["-c", SERVER_CORE, &self.path, "-l", "127.0.0.1"])
            .args(["-p", &address.port().to_string()])
            .args(["-m", &limit_mib.to_string()])
            .args(["-t", "1", "-c", "4096"])
            .args(self.user_options())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .doing(|| "starting taskset (util-linux)".to_owned())?;
        let mut server = Server { name: self.name, address, process, log_path: self.log_path() };
        server.wait_until_it_answers()?;
        Ok(server)
    }

    /// Holds the log of its last start.
    fn log_path(&self) -> String {
        format!("{LOG_FOLDER}/versus-{}.log", self.name)
    }

    /// memcached refuses to run as root unless told as whom to run.
    fn user_options(&self) -> &'static [&'static str] {
        let is_memcached =
            Path::new(&self.path).file_name().is_some_and(|name| name == "memcached");
        if is_memcached && rustix::process::geteuid().is_root() { &["-u", "nobody"] } else { &[] }
    }

    fn not_run(&self, error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::NotFound {
            return Failure::Missing { program: self.path.clone(), advice: self.advice };
        }
        Failure::Io { doing: format!("running {} -V", self.path), source: error }
    }
}

/// Somebody else could take the port before the server does; then the server says so and the run ends.
fn free_address() -> Result<SocketAddr, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .doing(|| "looking for a free port".to_owned())
}

/// A running server, killed when dropped: it holds nothing that anybody will miss.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    process: Child,
    log_path: String,
}

impl Server {
    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        Client::connect(self.name, self.address)
    }

    pub(crate) fn cpu_time(&self) -> Result<Duration, Failure> {
        machine::cpu_time(&self.process.id().to_string())
    }

    pub(crate) fn resident_bytes(&self) -> Result<u64, Failure> {
        machine::resident_bytes(&self.process.id().to_string())
    }

    fn wait_until_it_answers(&mut self) -> Result<(), Failure> {
        let give_up_at = Instant::now() + START_MAX;
        loop {
            interrupt::check()?;
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(self.not_started(format!("it ended with {status}")));
            }
            if let Ok(mut client) = self.connect() {
                return client.command("version").map(drop);
            }
            if Instant::now() > give_up_at {
                let waited = START_MAX.as_secs();
                return Err(self.not_started(format!("no connection after {waited} s")));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn not_started(&self, because: String) -> Failure {
        let log = fs::read_to_string(&self.log_path).unwrap_or_default();
        let because = format!("{because}; {}", log.lines().last().unwrap_or("it logged nothing"));
        Failure::NotStarted { server: self.name.to_owned(), because }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
