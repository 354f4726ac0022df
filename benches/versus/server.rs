//! The two programs under test: started on a free loopback port, stopped when dropped.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::failure::{Doing, Failure};
use crate::interrupt;
use crate::machine::{self, SERVER_CORE};

/// A binary is slow to start when its pages come from a cold disk, not slower than this.
const START_MAX: Duration = Duration::from_secs(5);
/// Nodes that find each other on a loaded machine.
const START_MAX_GROUP: Duration = Duration::from_secs(20);
/// Under valgrind everything takes 50 times longer. The same goes for the end.
const START_MAX_COUNTED: Duration = Duration::from_secs(60);
/// More than any workload of speed opens.
const USUAL_CLIENTS_MAX: usize = 4096;

/// What the servers log goes here: between the lines of the table nobody wants it.
pub(crate) const LOG_FOLDER: &str = env!("CARGO_TARGET_TMPDIR");

/// How a server is started.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) limit_mib: usize,
    pub(crate) clients_max: usize,
    /// Where it runs.
    pub(crate) cores: &'static str,
    /// Where callgrind is to write what it counted; without it the server runs by itself.
    pub(crate) counts: Option<PathBuf>,
}

impl Setup {
    pub(crate) fn with_limit(limit_mib: usize) -> Self {
        Self { limit_mib, clients_max: USUAL_CLIENTS_MAX, cores: SERVER_CORE, counts: None }
    }
}

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
    pub(crate) fn start(&self, setup: &Setup) -> Result<Server, Failure> {
        self.start_with(setup, &[])
    }

    /// Starts so many nodes that hold the same, and waits until all are members.
    pub(crate) fn start_group(&self, nodes: usize, setup: &Setup) -> Result<Vec<Server>, Failure> {
        let flags = flags_of_group(nodes)?;
        let start = |flags: &Vec<String>| self.start_with(setup, flags);
        let servers = flags.iter().map(start).collect::<Result<Vec<_>, _>>()?;
        for server in &servers {
            server.wait_until_it_is_a_member()?;
        }
        Ok(servers)
    }

    /// The same with more flags.
    pub(crate) fn start_with(&self, setup: &Setup, flags: &[String]) -> Result<Server, Failure> {
        let address = free_address()?;
        let log =
            File::create(self.log_path()).doing(|| format!("creating {}", self.log_path()))?;
        let process = Command::new("taskset")
            .args(["-c", setup.cores])
            .args(callgrind(setup))
            .args([&self.path, "-l", "127.0.0.1"])
            .args(["-p", &address.port().to_string()])
            .args(["-m", &setup.limit_mib.to_string()])
            .args(["-c", &setup.clients_max.to_string()])
            .args(["-t", "1"])
            .args(self.user_options(setup))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .doing(|| "starting taskset (util-linux)".to_owned())?;
        let mut server = Server::running(self.name, address, process, self.log_path());
        let start_max = if setup.counts.is_some() { START_MAX_COUNTED } else { START_MAX };
        server.wait_until_it_answers(start_max)?;
        Ok(server)
    }

    /// Holds the log of its last start.
    fn log_path(&self) -> String {
        format!("{LOG_FOLDER}/versus-{}.log", self.name)
    }

    /// memcached refuses to run as root unless told as whom to run.
    fn user_options(&self, setup: &Setup) -> &'static [&'static str] {
        let is_memcached =
            Path::new(&self.path).file_name().is_some_and(|name| name == "memcached");
        if !is_memcached || !rustix::process::geteuid().is_root() {
            return &[];
        }
        // callgrind writes at the end, as whoever the server has become.
        if setup.counts.is_some() { &["-u", "root"] } else { &["-u", "nobody"] }
    }

    fn not_run(&self, error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::NotFound {
            return Failure::Missing { program: self.path.clone(), advice: self.advice };
        }
        Failure::Io { doing: format!("running {} -V", self.path), source: error }
    }
}

/// What stands before the server's own command line.
fn callgrind(setup: &Setup) -> Vec<String> {
    let Some(path) = &setup.counts else {
        return Vec::new();
    };
    // memcached sets the limit to -c and insists; valgrind lets it only where that changes nothing.
    let open_files = format!("--nofile={}:", setup.clients_max);
    let output = format!("--callgrind-out-file={}", path.display());
    let callgrind = ["valgrind", "--tool=callgrind", "--separate-threads=yes", &output];
    ["prlimit", &open_files].into_iter().chain(callgrind).map(str::to_owned).collect()
}

/// What makes each of so many nodes one of a group; their names are n0, n1 and so on.
pub(crate) fn flags_of_group(nodes: usize) -> Result<Vec<Vec<String>>, Failure> {
    let addresses = (0..nodes).map(|_| free_address()).collect::<Result<Vec<_>, _>>()?;
    let named = addresses.iter().enumerate().map(|(n, address)| format!("n{n}={address}"));
    let peers = named.collect::<Vec<_>>().join(",");
    let flags_of = |(n, address): (usize, &SocketAddr)| {
        let (name, listen) = (format!("n{n}"), address.to_string());
        let flags = ["--cluster", "versus", "--node-name", &name, "--peer-listen", &listen];
        [&flags[..], &["--peers", &peers]].concat().into_iter().map(str::to_owned).collect()
    };
    Ok(addresses.iter().enumerate().map(flags_of).collect())
}

/// Somebody else could take the port before the server does; then the server says so and the run ends.
pub(crate) fn free_address() -> Result<SocketAddr, Failure> {
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
    /// Answers for this process from now on; whether it works is for the caller to see.
    pub(crate) fn running(
        name: &'static str,
        address: SocketAddr,
        process: Child,
        log_path: String,
    ) -> Self {
        Self { name, address, process, log_path }
    }

    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        Client::connect(self.name, self.address)
    }

    pub(crate) fn cpu_time(&self) -> Result<Duration, Failure> {
        machine::cpu_time(&self.process.id().to_string())
    }

    pub(crate) fn resident_bytes(&self) -> Result<u64, Failure> {
        machine::resident_bytes(&self.process.id().to_string())
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) -> Result<(), Failure> {
        let pid = rustix::process::Pid::from_child(&self.process);
        let sent = rustix::process::kill_process(pid, signal);
        sent.map_err(io::Error::from).doing(|| format!("sending a signal to {}", self.name))
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        let doing = || format!("stopping {}", self.name);
        self.signal(rustix::process::Signal::TERM)?;
        let give_up_at = Instant::now() + START_MAX_COUNTED;
        while self.process.try_wait().doing(doing)?.is_none() {
            interrupt::check()?;
            if Instant::now() > give_up_at {
                return Err(Failure::Silent {
                    server: self.name.to_owned(),
                    after: START_MAX_COUNTED,
                });
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn wait_until_it_answers(&mut self, start_max: Duration) -> Result<(), Failure> {
        let give_up_at = Instant::now() + start_max;
        loop {
            interrupt::check()?;
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(self.not_started(format!("it ended with {status}")));
            }
            if let Ok(mut client) = self.connect() {
                return client.command("version").map(drop);
            }
            if Instant::now() > give_up_at {
                let waited = start_max.as_secs();
                return Err(self.not_started(format!("no connection after {waited} s")));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn wait_until_it_is_a_member(&self) -> Result<(), Failure> {
        let give_up_at = Instant::now() + START_MAX_GROUP;
        while self.connect()?.fact("stats replication", "state")? != "member" {
            interrupt::check()?;
            if Instant::now() > give_up_at {
                let waited = START_MAX_GROUP.as_secs();
                return Err(self.not_started(format!("it is no member after {waited} s")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
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
