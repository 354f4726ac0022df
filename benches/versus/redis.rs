//! A Redis of one master and two replicas, to which a set is compared that two replicas have confirmed.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{Doing, Failure};
use crate::interrupt;
use crate::machine::SERVER_CORE;
use crate::server::{LOG_FOLDER, Server, free_address};

pub(crate) const NAME: &str = "redis";
const PROGRAM: &str = "redis-server";
const REPLICAS: usize = 2;
/// A replica asks its master once a second.
const START_MAX: Duration = Duration::from_secs(20);

/// One line that says which version this is; `None` where there is none.
pub(crate) fn version() -> Option<String> {
    let output = Command::new(PROGRAM).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let is_version = |word: &&str| word.starts_with("v=");
    Some(format!("redis {}", &text.split_whitespace().find(is_version)?[2..]))
}

/// The master comes first. All keep everything in memory and nothing on disk, as sessiond does.
pub(crate) fn start() -> Result<Vec<Server>, Failure> {
    let master = start_one(None)?;
    let mut servers = vec![master];
    for _ in 0..REPLICAS {
        servers.push(start_one(Some(servers[0].address))?);
    }
    wait_until("both replicas follow", || {
        let info = ask(servers[0].address, "INFO replication\r\n")?;
        Ok(info.matches("state=online").count() == REPLICAS)
    })?;
    Ok(servers)
}

fn start_one(master: Option<SocketAddr>) -> Result<Server, Failure> {
    let address = free_address()?;
    let log_path = format!("{LOG_FOLDER}/versus-redis-{}.log", address.port());
    let log = File::create(&log_path).doing(|| format!("creating {log_path}"))?;
    let mut command = Command::new("taskset");
    command.args(["-c", SERVER_CORE, PROGRAM, "--bind", "127.0.0.1"]);
    command.args(["--port", &address.port().to_string(), "--dir", LOG_FOLDER]);
    command.args(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]);
    // Clients come from other loopback addresses than 127.0.0.1, where it listens alone.
    command.args(["--protected-mode", "no"]);
    if let Some(master) = master {
        command.args(["--replicaof", &master.ip().to_string(), &master.port().to_string()]);
    }
    let process = command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).spawn();
    let process = process.doing(|| "starting taskset (util-linux)".to_owned())?;
    let server = Server::running(NAME, address, process, log_path);
    wait_until(
        "it answers",
        || Ok(ask(address, "PING\r\n").is_ok_and(|said| said == "+PONG\r\n")),
    )?;
    Ok(server)
}

fn wait_until(
    what: &str,
    mut condition: impl FnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let give_up_at = Instant::now() + START_MAX;
    while !condition()? {
        interrupt::check()?;
        if Instant::now() > give_up_at {
            let because = format!("not within {} s: {what}", START_MAX.as_secs());
            return Err(Failure::NotStarted { server: NAME.to_owned(), because });
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The reply, as far as it comes in one piece: these are short.
fn ask(address: SocketAddr, command: &str) -> Result<String, Failure> {
    let exchange = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(START_MAX))?;
        stream.write_all(command.as_bytes())?;
        let mut reply = vec![0; 4096];
        let length = stream.read(&mut reply)?;
        Ok(String::from_utf8_lossy(&reply[..length]).into_owned())
    };
    exchange().doing(|| format!("asking {NAME}"))
}
