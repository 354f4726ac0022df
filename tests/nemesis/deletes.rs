//! What was deleted stays deleted, above all where a process stood still meanwhile.
//!
//! Each node in turn is stopped, after half of the deletes and before the rest. Reads are waiting
//! in its sockets when it goes on: they are the first thing that it does, before it can learn that
//! the others have left it out.

use std::time::{Duration, Instant};

use super::connection::{Came, Connection};
use super::group::{Group, Links, NODES};
use super::history::wire::Form;
use super::history::{Command, Reply};

/// Keys deleted before each stop, and as many during it.
const KEYS: usize = 60;
/// Every node is asked again and again for so long after the stop.
const WATCHED: Duration = Duration::from_millis(500);
/// Whoever does not answer by then hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stops each node for so long; the error tells which key came back.
pub(crate) fn stops(length: Duration, seed: u64) -> Result<String, String> {
    let mut group = Group::start(Links::Proxied)?;
    let mut looks = 0;
    for turn in 0..NODES {
        let victim = (turn + seed as usize) % NODES;
        if let Err(why) = stop(&mut group, victim, length, &mut looks) {
            let (words, folder) = (group.processes.last_words(), group.processes.keep().display());
            return Err(format!("{why}\n{words}\nlogs are in {folder}"));
        }
    }
    Ok(format!("{NODES} stops of {length:?}, {looks} reads of deleted keys, none came back"))
}

fn stop(group: &mut Group, victim: usize, length: Duration, looks: &mut u64) -> Result<(), String> {
    let keys: Vec<String> = (0..2 * KEYS).map(|key| format!("gone{victim}.{key}")).collect();
    let (before, during) = keys.split_at(KEYS);
    let other = (victim + 1) % NODES;
    let mut writer = open(group, other)?;
    for key in &keys {
        done(&mut writer, key, &Command::Set("here".into()))?;
    }
    let mut readers =
        keys.iter().map(|_| open(group, victim)).collect::<Result<Vec<Connection>, _>>()?;
    for key in before {
        done(&mut writer, key, &Command::Delete)?;
    }
    group.processes.stop(victim);
    let stopped = Instant::now();
    for key in during {
        done(&mut writer, key, &Command::Delete)?;
    }
    for (reader, key) in readers.iter_mut().zip(&keys) {
        reader.send(&Command::Get, key, Form::Classic).map_err(|error| error.to_string())?;
    }
    std::thread::sleep(length.saturating_sub(stopped.elapsed()));
    group.processes.go_on(victim);
    for (mut reader, key) in readers.into_iter().zip(&keys) {
        // A node that was left out may end the connection instead of answering.
        if let Ok(came) = reader.receive(&Command::Get) {
            is_gone(victim, key, came)?;
            *looks += 1;
        }
    }
    let gone_on = Instant::now();
    while gone_on.elapsed() < WATCHED {
        look_everywhere(group, &keys, looks)?;
    }
    group.processes.wait_until_whole()?;
    look_everywhere(group, &keys, looks)
}

fn look_everywhere(group: &Group, keys: &[String], looks: &mut u64) -> Result<(), String> {
    for node in 0..NODES {
        let mut reader = open(group, node)?;
        for key in keys {
            let Ok(came) = reader.ask(&Command::Get, key, Form::Classic) else { break };
            is_gone(node, key, came)?;
            *looks += 1;
        }
    }
    Ok(())
}

fn is_gone(node: usize, key: &str, came: Came) -> Result<(), String> {
    match came {
        Came::Reply(Reply::Miss) | Came::Refusal(_) => Ok(()),
        Came::Reply(reply) => Err(format!("n{} says {reply} of {key}, a deleted key", node + 1)),
    }
}

fn open(group: &Group, node: usize) -> Result<Connection, String> {
    let opened = Connection::open(group.processes.addresses()[node], PATIENCE);
    opened.map_err(|error| format!("n{} does not answer: {error}", node + 1))
}

fn done(writer: &mut Connection, key: &str, command: &Command) -> Result<(), String> {
    match writer.ask(command, key, Form::Classic) {
        Ok(Came::Reply(Reply::Done { .. })) => Ok(()),
        Ok(Came::Reply(reply)) => Err(format!("{command:?} of {key} was answered {reply}")),
        Ok(Came::Refusal(text)) => Err(format!("{command:?} of {key} was answered {text}")),
        Err(error) => Err(format!("{command:?} of {key}: {error}")),
    }
}
