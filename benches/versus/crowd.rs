//! What open connections cost in memory: a full server, then 1,000 clients and 10,000, at first silent,
//! then after one request of each.

use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, SILENCE_MAX};
use crate::dataset::Dataset;
use crate::failure::Failure;
use crate::interrupt;
use crate::machine;
use crate::memory::{LIMIT_MIB, fill};
use crate::rounds::Programs;
use crate::server::{Program, Server, Setup};

/// How many connections are open when the memory is read.
const SIZES: [usize; 2] = [1_000, 10_000];
/// For this program's own questions.
const CLIENTS_BESIDE: usize = 100;
/// What this program, or a server, has open besides the connections.
const FILES_BESIDE: u64 = 500;

/// A full server with so many connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub(crate) connections: usize,
    pub(crate) activity: Activity,
    pub(crate) items: u64,
    pub(crate) resident_bytes: u64,
}

/// What the connections have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    Connected,
    AskedOnce,
}

/// The same stages of both servers; the first is without connections.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) memcached: Vec<Stage>,
    pub(crate) sessiond: Vec<Stage>,
    /// Why there are fewer connections than there should be.
    pub(crate) shortage: Option<String>,
}

/// How many files a process must be allowed to open.
pub(crate) fn files_wanted() -> u64 {
    SIZES[SIZES.len() - 1] as u64 + FILES_BESIDE
}

/// Opens the connections to both servers, one server after the other.
pub(crate) fn compare(programs: &Programs) -> Result<Crowd, Failure> {
    let allowed = machine::files_allowed();
    let is_possible = |size: &usize| *size as u64 + FILES_BESIDE <= allowed;
    let sizes: Vec<usize> = SIZES.into_iter().filter(is_possible).collect();
    let shortage = (sizes.len() < SIZES.len()).then(|| {
        let wanted = files_wanted();
        format!(
            "fewer connections than wanted: {allowed} open files are allowed, {wanted} are needed"
        )
    });
    Ok(Crowd {
        memcached: stages(&programs.memcached, &sizes)?,
        sessiond: stages(&programs.sessiond, &sizes)?,
        shortage,
    })
}

fn stages(program: &Program, sizes: &[usize]) -> Result<Vec<Stage>, Failure> {
    let most = sizes.last().copied().unwrap_or(0);
    let server = program
        .start(&Setup { clients_max: most + CLIENTS_BESIDE, ..Setup::with_limit(LIMIT_MIB) })?;
    let dataset = Dataset::new(|_| 1024);
    // The newest item is still there.
    let item = fill(&server, &dataset)? - 1;
    let mut clients = Vec::with_capacity(most);
    let mut stages = vec![stage(&server, 0, Activity::Connected)?];
    for &size in sizes {
        let first = clients.len();
        while clients.len() < size {
            interrupt::check()?;
            clients.push(server.connect()?);
        }
        wait_until_accepted(&server, size)?;
        stages.push(stage(&server, size, Activity::Connected)?);
        for client in &mut clients[first..] {
            interrupt::check()?;
            client.get(&dataset, item)?;
        }
        stages.push(stage(&server, size, Activity::AskedOnce)?);
    }
    Ok(stages)
}

/// The kernel completes a connection before the server has seen it.
fn wait_until_accepted(server: &Server, connections: usize) -> Result<(), Failure> {
    let mut client: Client = server.connect()?;
    let give_up_at = Instant::now() + SILENCE_MAX;
    while client.statistic("curr_connections")? < connections as u64 {
        interrupt::check()?;
        if Instant::now() > give_up_at {
            return Err(Failure::Silent { server: server.name.to_owned(), after: SILENCE_MAX });
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn stage(server: &Server, connections: usize, activity: Activity) -> Result<Stage, Failure> {
    let items = server.connect()?.statistic("curr_items")?;
    Ok(Stage { connections, activity, items, resident_bytes: server.resident_bytes()? })
}
