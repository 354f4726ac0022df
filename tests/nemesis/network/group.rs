//! A group of real processes on hosts of the test's own, with certificates or a secret, as off
//! loopback.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::super::group::WORKERS;
use super::super::processes::Processes;
use super::wires::{Wires, client_address, peer_address};
use crate::certs;

/// The certificates are of no use after a day.
const DAYS: i32 = 1;
const SECRET: &str = "known to the nodes of this group only\n";
/// No two clocks that count from a machine's start say the same.
const BOOTED_APART_S: usize = 100_000;
/// What the file of a node's log takes, many times over.
const STATE_KIB: usize = 512;

/// How nodes prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    Certificates,
    Secret,
}

/// What a group is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) nodes: usize,
    pub(crate) proof: Proof,
    /// For items, of each node.
    pub(crate) memory_mib: usize,
}

/// A running group. Its processes end before its hosts do.
pub(crate) struct Group {
    pub(crate) processes: Processes,
    pub(crate) wires: Wires,
    pub(crate) shape: Shape,
}

impl Group {
    /// Starts all nodes and waits until each is a member.
    pub(crate) fn start(shape: Shape) -> Result<Self, String> {
        let wires = Wires::lay(shape.nodes)?;
        let clients = (0..shape.nodes).map(client_address).collect();
        let processes = Processes::new("nemesis-net", clients)?;
        let mut group = Self { processes, wires, shape };
        group.write_proofs().map_err(|error| format!("certificates and secret: {error}"))?;
        for node in 0..shape.nodes {
            group.mount_state(node)?;
            group.spawn(node)?;
        }
        group.processes.wait_until_whole()?;
        Ok(group)
    }

    fn write_proofs(&self) -> Result<(), Box<dyn std::error::Error>> {
        let names: Vec<String> = (1..=self.shape.nodes).map(|node| format!("n{node}")).collect();
        certs::issue(self.processes.folder(), DAYS, &names)?;
        Ok(certs::write_private(&self.secret_file(), SECRET)?)
    }

    fn secret_file(&self) -> PathBuf {
        self.processes.folder().join("secret")
    }

    fn state_dir(&self, node: usize) -> PathBuf {
        self.processes.home(node).join("state")
    }

    /// A small disk for what the node must not forget.
    fn mount_state(&self, node: usize) -> Result<(), String> {
        let folder = self.state_dir(node);
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let folder = folder.display();
        let host = &self.wires.hosts[node];
        host.order(format!("mount -t tmpfs -o size={STATE_KIB}k tmpfs {folder}"))
    }

    /// Nothing more goes onto the disk of the node's state.
    pub(crate) fn fill_disk(&self, node: usize) -> Result<(), String> {
        let path = self.state_dir(node).join("filler");
        self.wires.hosts[node].run(move || {
            let failed = |error: std::io::Error| format!("{}: {error}", path.display());
            let mut file = File::create(&path).map_err(failed)?;
            loop {
                match file.write(&[b'x'; 1024]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                    Err(error) => return Err(failed(error)),
                }
            }
        })
    }

    pub(crate) fn empty_disk(&self, node: usize) -> Result<(), String> {
        let path = self.state_dir(node).join("filler");
        let removed =
            move || fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()));
        self.wires.hosts[node].run(removed)
    }

    /// Starts a node that does not run, on its host.
    pub(crate) fn spawn(&mut self, node: usize) -> Result<(), String> {
        let log = self.processes.open_log(node)?;
        let mut command = self.command(node, log);
        let child = self.wires.hosts[node].run(move || command.spawn());
        self.processes.put(node, child.map_err(|error| error.to_string())?);
        Ok(())
    }

    fn command(&self, node: usize, log: File) -> Command {
        let name = format!("n{}", node + 1);
        let peer = |to: usize| format!("n{}={}", to + 1, peer_address(to));
        let peers: Vec<String> = (0..self.shape.nodes).map(peer).collect();
        let address = client_address(node);
        let folder = self.processes.folder();
        let booted_s = (node * BOOTED_APART_S).to_string();
        // Neither makes a process of its own: whoever kills this one, kills the server.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--time"]);
        command.args(["--boottime", &booted_s, "--monotonic", &booted_s]);
        command.arg(env!("CARGO_BIN_EXE_sessiond"));
        command.args(["-l", &address.ip().to_string(), "-p", &address.port().to_string()]);
        command.args(["-m", &self.shape.memory_mib.to_string(), "-t", &WORKERS.to_string()]);
        command.args(["-v", "--cluster", "nemesis-net", "--drain-timeout", "2000"]);
        command.args(["--node-name", &name, "--peers", &peers.join(",")]);
        command.args(["--peer-listen", &peer_address(node).to_string(), "--state-dir", "state"]);
        match self.shape.proof {
            Proof::Certificates => {
                command.arg("--peer-ca").arg(folder.join("ca.pem"));
                command.arg("--peer-cert").arg(folder.join(format!("{name}.pem")));
                command.arg("--peer-key").arg(folder.join(format!("{name}.key")));
            }
            Proof::Secret => {
                command.arg("--peer-plain").arg("--peer-secret-file").arg(self.secret_file());
            }
        }
        command.current_dir(self.processes.home(node));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }
}
