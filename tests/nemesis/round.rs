//! One group, from its start to its rest: clients work while it is shaken, and all they have seen is
//! judged.

use std::fmt::Debug;
use std::thread;
use std::time::Duration;

use super::client::{Client, Habit, Notes, Playground, Work, read_all};
use super::episode::Episode;
use super::history::{History, Operation, Reads};
use super::judge::Report;
use super::processes::{Processes, wait_until};

/// Clients that do everything, besides those that only read; as many as there are nodes are each
/// pinned to one.
const CLIENTS: usize = 6;
/// Copies are equal by then, with what was still on its way.
const REST_WAIT: Duration = Duration::from_secs(15);

/// A group that can be shaken.
pub(crate) trait Shaken {
    /// The faults that it knows.
    type Kind: Debug;

    fn processes(&mut self) -> &mut Processes;

    /// Brings faults about and notes them; the group is whole afterwards.
    fn shake(
        &mut self,
        playground: &Playground,
        episodes: &mut Vec<Episode<Self::Kind>>,
    ) -> Result<(), String>;

    /// What the clients cannot know, before they are judged.
    fn amend(&self, history: &mut History);
}

/// What all rounds have in common.
pub(crate) struct Rules {
    pub(crate) reads: Reads,
    /// What one client each does on every node, besides those that do everything.
    pub(crate) beside: &'static [Work],
    /// Logs and histories stay, whatever they show.
    pub(crate) is_kept: bool,
}

/// What was seen in one round.
pub(crate) struct Seen<K> {
    pub(crate) episodes: Vec<Episode<K>>,
    pub(crate) notes: Vec<Notes>,
}

/// Shakes the group and judges what the clients saw. What they saw is handed to `note` even if it
/// is wrong.
#[allow(clippy::print_stdout, reason = "says where logs are that were asked for")]
pub(crate) fn run<G: Shaken>(
    group: &mut G,
    seed: u64,
    rules: &Rules,
    report: &mut Report,
    note: impl FnOnce(&Seen<G::Kind>),
) -> Result<(), String> {
    let playground = Playground::new(group.processes().addresses());
    let mut episodes = Vec::new();
    let (shaken, notes) = thread::scope(|scope| {
        let open = playground.open();
        let clients: Vec<_> = habits(playground.addresses.len(), rules.beside)
            .map(|habit| Client::new(&playground, habit, seed))
            .map(|client| scope.spawn(move || client.run()))
            .collect();
        let shaken = group.shake(&playground, &mut episodes);
        drop(open);
        let notes = clients.into_iter().map(|client| client.join().expect("a client ends well"));
        (shaken, notes.collect::<Vec<Notes>>())
    });
    report.note(&notes);
    let seen = Seen { episodes, notes };
    note(&seen);
    let Seen { episodes, notes } = seen;
    let mut history = History::default();
    for (from, to) in episodes.iter().filter_map(|episode| episode.lost_us) {
        history.lost(from, to);
    }
    for operation in notes.into_iter().flat_map(|notes| notes.operations) {
        history.push(operation);
    }
    let rested = match shaken {
        Ok(()) => rest(&playground, &mut history),
        Err(why) => Err(why),
    };
    group.amend(&mut history);
    // Even if the group is not whole: what clients have seen may tell why.
    let judged = report.judge(&history, rules.reads, &episodes);
    let bad: Vec<String> = [judged.err(), rested.err()].into_iter().flatten().collect();
    if bad.is_empty() && !rules.is_kept {
        return Ok(());
    }
    let folder = group.processes().keep();
    let kept = format!("logs and history are in {}", folder.display());
    // Without it there is still the reason.
    let _ = std::fs::write(folder.join("history.txt"), told(&history, &episodes));
    if bad.is_empty() {
        println!("{kept}");
        return Ok(());
    }
    Err(format!("{}\n{kept}", bad.join("\n")))
}

/// Some with and some without a node of their own, and on each node some that only read: so a
/// stall of writes is not one of reads.
fn habits(nodes: usize, beside: &[Work]) -> impl Iterator<Item = Habit> {
    let all = (0..CLIENTS).map(move |number| (Work::All, (number < nodes).then_some(number)));
    let beside =
        beside.iter().flat_map(move |&work| (0..nodes).map(move |node| (work, Some(node))));
    let numbered = all.chain(beside).zip(0..);
    numbered.map(|((work, pinned), number)| Habit { number, pinned, work })
}

/// At rest all nodes hold the same, and that is read into the history.
fn rest(playground: &Playground, history: &mut History) -> Result<(), String> {
    let keys: Vec<String> = history.by_key().keys().map(|&key| key.into()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut last = Vec::new();
    let rested = wait_until("all nodes hold the same", REST_WAIT, || {
        let nodes = 0..playground.addresses.len();
        let copies: Vec<Vec<Operation>> =
            nodes.map(|node| read_all(playground, &keys, node)).collect::<Result<_, _>>()?;
        let differ = (0..keys.len())
            .find(|&key| copies.iter().any(|copy| copy[key].reply() != copies[0][key].reply()));
        let told = differ.map(|key| {
            let lines: Vec<String> = copies.iter().map(|copy| copy[key].to_string()).collect();
            format!("they differ:\n  {}", lines.join("\n  "))
        });
        last = copies;
        told.map_or(Ok(()), Err)
    });
    for operation in last.into_iter().flatten() {
        history.push(operation);
    }
    rested
}

/// The whole history, for a file.
fn told<K: Debug>(history: &History, episodes: &[Episode<K>]) -> String {
    let mut lines: Vec<(u64, String)> = episodes
        .iter()
        .map(|episode| (episode.from_us, format!("--- {episode:?}")))
        .chain(
            history.operations.iter().map(|operation| (operation.invoked, operation.to_string())),
        )
        .collect();
    lines.sort();
    lines.into_iter().map(|(_, line)| line + "\n").collect()
}
