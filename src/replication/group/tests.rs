//! One node's group, with the others played by the test.

use super::*;
use crate::replication::nodes::{NodesChange, Place};
use crate::replication::view::may_follow;
use crate::version::Version;

/// Nobody listens; the tests look at what is to be done.
struct Unheard;

impl Outside<()> for Unheard {
    fn send(&mut self, _: Incarnation, _: Message) {}

    fn answer(&mut self, (): (), _: Outcome) {}

    fn still_waits(&self, (): &()) -> bool {
        true
    }

    fn ask_log(&mut self, _: LogWish) {}

    fn local_time(&self) -> Millis {
        Millis(0)
    }
}

fn node(n: u64) -> Member {
    Member { name: format!("n{n}").into(), incarnation: Incarnation(n) }
}

fn place(n: u64) -> Place {
    let address = ([127, 0, 0, 1], n as u16).into();
    Place { address, votes: true, is_given: false }
}

fn at(ms: u64) -> Now {
    Now { local: Millis(ms), cluster: Millis(1_000_000 + ms), wall_s: 0 }
}

/// n1 and those it hears, all of whom hear each other.
struct Table {
    group: Group<()>,
    others: Vec<u64>,
    todo: Vec<Todo>,
    /// Those whom the log counts, where n1 knows.
    voters: Vec<Box<str>>,
}

impl Table {
    fn new(others: &[u64]) -> Self {
        let options = GroupOptions {
            me: node(1),
            succeeds: Vec::new(),
            beside: None,
            nodes: others.iter().chain(&[1]).map(|&n| (node(n).name, place(n))).collect(),
            timing: Timing::default(),
            first_epoch: Epoch(100),
            last_man_standing: true,
            isolated_reads: false,
            speaks: Dialect::default(),
            seed: 1,
            rules: Rules::default(),
        };
        let mut table = Self {
            group: Group::new(options, Arc::default()),
            others: others.to_vec(),
            todo: Vec::new(),
            voters: Vec::new(),
        };
        for &n in others {
            table.meets(&node(n), &[], None, 1);
        }
        table
    }

    fn meets(
        &mut self,
        life: &Member,
        succeeds: &[Incarnation],
        beside: Option<Incarnation>,
        ms: u64,
    ) -> Vec<Todo> {
        self.group.meet(life, succeeds, &Dialect::default(), beside, at(ms), &mut Unheard)
    }

    /// A view of all of them that works.
    fn at_work(others: &[u64]) -> Self {
        let mut table = Self::new(others);
        table.beats(10);
        let view = table.proposed().expect("all are here");
        table.enter(view, 20);
        table
    }

    /// n1 and n2 work, n3 was added and is being filled: n1 has done its part.
    fn with_learner() -> Self {
        let mut table = Self::at_work(&[2]);
        table.changes(&add(3), &[2], 25).unwrap();
        let view = table.proposed().expect("the nodes change");
        table.enter(view, 26);
        table.others = vec![2, 3];
        table.meets(&node(3), &[], None, 30);
        table.beats(40);
        let view = table.proposed().expect("n3 is here");
        assert_eq!((names(&view.learners), &*view.cause), ("n3".into(), "join"));
        table.enter(view, 50);
        table.fills(3, 60);
        table
    }

    /// This node has filled that life.
    fn fills(&mut self, life: u64, ms: u64) {
        let counted = Event::Counted(self.group.view.epoch, Incarnation(life));
        for lane in 0..LANES {
            let todo = self.group.lane_event(lane, counted, at(ms), &mut Unheard);
            self.todo.extend(todo);
        }
    }

    /// An operator asks n1, which reaches these.
    fn changes(&mut self, change: &NodesChange, up: &[u64], ms: u64) -> Result<(), String> {
        let is_up = |name: &str| up.iter().any(|&n| *node(n).name == *name);
        self.group.change_nodes(change, &self.voters, is_up, at(ms))?;
        self.tick(ms);
        Ok(())
    }

    fn enter(&mut self, view: View, ms: u64) {
        let epoch = view.epoch;
        self.todo = self.group.agreed(view, at(ms), &mut Unheard);
        for lane in 0..LANES {
            for event in [Event::Active(epoch), Event::Settled(epoch)] {
                self.group.lane_event(lane, event, at(ms), &mut Unheard);
            }
        }
        self.beats(ms);
    }

    fn beat(&self, from: u64, ms: u64) -> Beat {
        let view = self.group.view();
        let up = self.others.iter().copied().filter(|&n| n != from).chain([1]);
        Beat {
            sent: Millis(ms + 5000),
            echo: Some(Millis(ms)),
            echo_age_ms: 0,
            cluster: at(ms).cluster,
            view: (view.line, view.epoch),
            active: view.epoch,
            grants: true,
            up: up.map(Incarnation).collect(),
            filled: Vec::new(),
            flushes: Vec::new(),
            is_seated: true,
            leaving: false,
        }
    }

    fn says(&mut self, from: u64, beat: Beat, ms: u64) {
        let message = Message::Beat(beat);
        let todo = self.group.receive(Incarnation(from), message, at(ms), &mut Unheard);
        self.todo.extend(todo);
    }

    /// Everybody who is heard says that all is well.
    fn beats(&mut self, ms: u64) {
        for n in self.others.clone() {
            self.says(n, self.beat(n, ms), ms);
        }
    }

    fn tick(&mut self, ms: u64) {
        let todo = self.group.tick(at(ms), &mut Unheard);
        self.todo.extend(todo);
    }

    /// What was offered to the log last.
    fn proposed(&mut self) -> Option<View> {
        std::mem::take(&mut self.todo).into_iter().rev().find_map(|todo| match todo {
            Todo::Log(LogWish::Propose(view)) => Some(*view),
            _ => None,
        })
    }

    fn holds_lease(&self, ms: u64) -> bool {
        self.group.lease.holds(self.group.view.epoch, Millis(ms))
    }

    fn flushes_at(&mut self, ms: u64) -> bool {
        self.tick(ms);
        let epoch = self.group.view.epoch;
        std::mem::take(&mut self.todo).contains(&Todo::Flush(epoch))
    }
}

fn add(n: u64) -> NodesChange {
    NodesChange::Add(node(n).name, place(n).address)
}

fn remove(n: u64) -> NodesChange {
    NodesChange::Remove(node(n).name)
}

fn names(members: &[Member]) -> String {
    members.iter().map(|member| &*member.name).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_group_is_founded_when_all_are_here_or_after_a_while() {
    let mut all = Table::new(&[2, 3]);
    all.beats(10);
    assert_eq!(names(&all.proposed().unwrap().members), "n1 n2 n3");
    let mut late = Table::new(&[2, 3]);
    late.others = vec![2];
    late.beats(10);
    assert!(late.proposed().is_none());
    for ms in (0..2100).step_by(100) {
        late.beats(10 + ms);
    }
    assert_eq!(names(&late.proposed().unwrap().members), "n1 n2");
}

#[test]
fn a_lease_is_a_majority_of_promises() {
    let mut table = Table::at_work(&[2, 3]);
    assert!(table.holds_lease(20 + 783) && !table.holds_lease(20 + 785), "2 % are for the clocks");
    table.says(3, table.beat(3, 500), 510);
    assert!(table.holds_lease(500 + 783), "one other is enough");
    let refuses = Beat { grants: false, ..table.beat(2, 1400) };
    table.says(2, refuses, 1400);
    assert!(!table.holds_lease(1400), "a beat alone promises nothing");
}

#[test]
fn a_silent_member_is_left_out_and_waited_for() {
    let mut table = Table::at_work(&[2, 3]);
    table.tick(100);
    table.others = vec![2];
    table.beats(400);
    assert!(table.proposed().is_none());
    for ms in [450, 500, 700, 800] {
        table.beats(ms);
        table.tick(ms);
    }
    let view = table.proposed().unwrap();
    assert_eq!((names(&view.members), &*view.cause), ("n1 n2".into(), "silence"));
    assert_eq!(names(&view.absent), "n3");
    table.group.agreed(view, at(810), &mut Unheard);
    // The last promise to n3 was made when it was heard 400 ms ago at most.
    assert!(!table.flushes_at(820));
    assert!(table.flushes_at(100 + 400 + 800));
}

#[test]
fn nobody_waits_for_the_dead() {
    let mut table = Table::at_work(&[2, 3]);
    table.tick(100);
    let todo = table.group.refused("n3", true, at(110), &mut Unheard);
    assert!(todo.contains(&Todo::Log(LogWish::Dead("n3".into()))));
    table.todo = todo;
    let view = table.proposed().unwrap();
    assert_eq!((names(&view.members), &*view.cause), ("n1 n2".into(), "death"));
    assert_eq!(view.dead, [Incarnation(3)]);
    table.todo = table.group.agreed(view, at(115), &mut Unheard);
    assert!(table.flushes_at(115));
}

#[test]
fn a_refusal_without_an_end_proves_nothing() {
    let mut table = Table::at_work(&[2, 3]);
    table.tick(100);
    table.group.refused("n3", false, at(110), &mut Unheard);
    assert!(table.proposed().is_none());
}

#[test]
fn the_last_man_stands_when_all_others_died_before_its_eyes() {
    let mut table = Table::at_work(&[2, 3]);
    for ms in (100..1300).step_by(100) {
        for name in ["n2", "n3"] {
            let todo = table.group.refused(name, true, at(ms), &mut Unheard);
            table.todo.extend(todo);
        }
        let founds = |todo: &Todo| matches!(todo, Todo::Log(LogWish::FoundLine(_)));
        assert_eq!(table.todo.iter().any(founds), ms >= 1100, "at {ms}");
    }
}

#[test]
fn a_majority_is_never_left_out() {
    let mut table = Table::at_work(&[2, 3, 4, 5]);
    table.others = vec![2];
    for ms in (100..2000).step_by(50) {
        table.beats(ms);
        table.tick(ms);
    }
    assert!(table.proposed().is_none());
}

#[test]
fn of_two_that_can_not_meet_the_lower_name_stays() {
    let mut table = Table::at_work(&[2, 3]);
    for ms in (100..350).step_by(50) {
        for (from, other) in [(2, 3), (3, 2)] {
            let mut beat = table.beat(from, ms);
            beat.up.retain(|life| *life != Incarnation(other));
            table.says(from, beat, ms);
        }
        table.tick(ms);
        let left_out = table.proposed().map(|view| names(&view.members));
        assert_eq!(left_out, (ms == 300).then(|| "n1 n2".into()), "at {ms}");
    }
}

#[test]
fn a_learner_is_admitted_when_all_have_filled_it_in_this_very_view() {
    let mut table = Table::with_learner();
    let epoch = table.group.view.epoch;
    table.beats(70);
    assert!(table.proposed().is_none(), "n2 has not filled it");
    let filled = Beat { filled: vec![Incarnation(3)], ..table.beat(2, 80) };
    let former = Beat { view: (filled.view.0, Epoch(epoch.0 - 1)), ..filled.clone() };
    table.says(2, former, 80);
    assert!(table.proposed().is_none(), "that was for another view");
    table.says(2, filled, 90);
    assert_eq!(names(&table.proposed().unwrap().members), "n1 n2 n3");
}

#[test]
fn a_flush_is_carried_out_once() {
    let mut table = Table::at_work(&[2]);
    let flushes = vec![FlushAll { id: 1, at: None }];
    let wish = Beat { flushes, ..table.beat(2, 100) };
    table.says(2, wish.clone(), 100);
    let view = table.proposed().unwrap();
    assert_eq!(view.floor, Version::floor_of(view.epoch));
    table.enter(view.clone(), 110);
    let again = Beat { view: (view.line, view.epoch), active: view.epoch, ..wish };
    table.says(2, again, 400);
    assert!(table.proposed().is_none());
}

#[test]
fn a_group_whose_members_are_all_over_begins_anew() {
    let mut table = Table::new(&[2, 3]);
    let old = |n: u64| Member { incarnation: Incarnation(n + 10), ..node(n) };
    let members = vec![old(1), old(2), old(3)];
    let view = View { epoch: Epoch(200), generation: Epoch(150), members, ..View::default() };
    table.group.agreed(view, at(5), &mut Unheard);
    table.beats(10);
    assert!(table.proposed().is_none(), "they may be alive");
    table.meets(&node(1), &[Incarnation(11)], None, 20);
    table.meets(&node(2), &[Incarnation(12)], None, 20);
    table.beats(25);
    assert!(table.proposed().is_none(), "n3 may be");
    table.todo = table.meets(&node(3), &[Incarnation(13)], None, 30);
    let view = table.proposed().unwrap();
    assert!(view.is_founding() && view.epoch > Epoch(200), "{view:?}");
    assert_eq!(names(&view.members), "n1 n2 n3");
}

/// Another life of n2 or n3, beside that one.
fn beside(n: u64) -> Member {
    Member { incarnation: Incarnation(n + 10), ..node(n) }
}

/// n1, n2 and n3 work, and another life of n2 is being filled, which this node has done.
fn with_successor() -> Table {
    let mut table = Table::at_work(&[2, 3]);
    table.others = vec![2, 3, 12];
    table.meets(&beside(2), &[], Some(Incarnation(2)), 30);
    table.beats(40);
    let view = table.proposed().expect("it is here");
    assert_eq!((names(&view.members), names(&view.learners)), ("n1 n2 n3".into(), "n2".into()));
    table.enter(view, 50);
    table.fills(12, 60);
    table
}

#[test]
fn a_life_beside_a_member_takes_its_place_in_one_view() {
    let mut table = with_successor();
    for (n, is_last) in [(2, false), (3, true)] {
        assert!(table.proposed().is_none(), "all have to have filled it");
        let beat = Beat { filled: vec![Incarnation(12)], ..table.beat(n, 70) };
        table.says(n, beat, 70);
        assert!(is_last || table.proposed().is_none());
    }
    let view = table.proposed().expect("all have filled it");
    assert_eq!((names(&view.members), &*view.cause), ("n1 n2 n3".into(), "upgrade"));
    assert!(view.has_member(Incarnation(12)) && !view.has(Incarnation(2)));
    assert!(view.remembers(Incarnation(2)), "its clients go on");
    assert!(may_follow(Some(table.group.view()), &view));
    table.enter(view, 80);
    assert_eq!(table.group.decider(at(85)), Some(Incarnation(1)));
}

#[test]
fn a_life_beside_another_that_is_no_member_takes_nobodys_place() {
    let mut table = Table::at_work(&[2, 3]);
    table.others = vec![2, 3, 12];
    table.meets(&beside(2), &[], Some(Incarnation(99)), 30);
    table.beats(40);
    assert!(table.proposed().is_none(), "n2 is another life's");
}

#[test]
fn the_place_of_the_only_member_is_not_taken() {
    let mut table = Table::at_work(&[2]);
    table.todo = table.group.refused("n2", true, at(30), &mut Unheard);
    table.others.clear();
    let view = table.proposed().expect("n2 is dead");
    table.enter(view, 50);
    let heir = Member { incarnation: Incarnation(11), ..node(1) };
    table.others = vec![11];
    table.meets(&heir, &[], Some(Incarnation(1)), 60);
    table.beats(70);
    let view = table.proposed().expect("it is filled");
    table.enter(view, 80);
    table.fills(11, 90);
    table.beats(100);
    assert!(table.proposed().is_none(), "nobody would know what it had promised");
    // Nor does it stand in the way of anybody else.
    let again = Member { incarnation: Incarnation(22), ..node(2) };
    table.others = vec![11, 22];
    table.meets(&again, &[], None, 110);
    table.beats(120);
    let view = table.proposed().expect("n2 is back");
    assert_eq!(names(&view.learners), "n1 n2");
    table.enter(view, 130);
    table.fills(11, 140);
    table.fills(22, 140);
    table.beats(150);
    let view = table.proposed().expect("both are filled");
    assert_eq!((names(&view.members), names(&view.learners)), ("n1 n2".into(), "n1".into()));
    assert!(view.has_member(Incarnation(1)) && view.has_member(Incarnation(22)));
}

#[test]
fn the_end_of_one_life_says_nothing_of_the_other() {
    let mut table = with_successor();
    table.group.ended(Incarnation(12), at(65), &mut Unheard);
    assert!(table.group.peers.is_dead(Incarnation(12)));
    assert!(!table.group.peers.is_dead(Incarnation(2)));
    let mut table = with_successor();
    table.group.refused("n2", true, at(65), &mut Unheard);
    assert!(table.group.peers.is_dead(Incarnation(2)));
    assert!(!table.group.peers.is_dead(Incarnation(12)), "it listens elsewhere");
    table.meets(&beside(2), &[Incarnation(2)], None, 66);
    table.group.refused("n2", true, at(67), &mut Unheard);
    assert!(table.group.peers.is_dead(Incarnation(12)), "it had taken over");
}

#[test]
fn a_life_beside_another_has_no_say_in_the_log() {
    let mut table = Table::new(&[2, 3]);
    table.beats(10);
    let view = table.proposed().expect("all are here");
    table.group.options.beside = Some(Incarnation(99));
    table.group = Group::new(table.group.options.clone(), Arc::default());
    for n in [2, 3] {
        table.meets(&node(n), &[], None, 11);
    }
    table.beats(12);
    assert!(table.proposed().is_none(), "it founds nothing");
    table.enter(view, 20);
    assert_eq!(table.group.decider(at(25)), Some(Incarnation(2)), "though n1 is the lowest");
    table.group.take_over(&[Incarnation(99)], at(26), &mut Unheard);
    assert_eq!(table.group.decider(at(27)), Some(Incarnation(1)));
}

fn founded(todo: &[Todo]) -> Option<View> {
    todo.iter().find_map(|todo| match todo {
        Todo::Log(LogWish::FoundLine(view)) => Some((**view).clone()),
        _ => None,
    })
}

#[test]
fn an_operator_lets_a_node_go_on_alone_after_all_promises_have_run_out() {
    let mut table = Table::at_work(&[2, 3]);
    table.beats(100);
    assert_eq!(table.group.force_solo(false, at(150)), Err("n2 is alive and a member".into()));
    assert_eq!(table.group.force_solo(false, at(600)), Ok(800));
    table.tick(1399);
    assert_eq!(founded(&table.todo), None);
    table.tick(1400);
    let view = founded(&table.todo).expect("it is time");
    assert_eq!((names(&view.members), names(&view.absent)), ("n1".into(), "n2 n3".into()));
    assert!(!view.is_founding(), "it has all data");
    // Those who are not dead after all may rely on what they promised each other until then.
    table.todo = table.group.agreed(view, at(1410), &mut Unheard);
    assert!(!table.flushes_at(2209) && table.flushes_at(2210));
}

#[test]
fn an_operator_lets_a_group_begin_with_nothing() {
    let mut table = Table::new(&[2, 3]);
    assert_eq!(table.group.force_solo(false, at(10)), Ok(800));
    table.tick(810);
    let view = founded(&table.todo).expect("it is time");
    assert_eq!((names(&view.members), view.epoch), ("n1".into(), Epoch(1024)));
    assert!(view.is_founding() && view.line.number == 1);
}

#[test]
fn whoever_shows_up_in_time_keeps_a_node_from_going_on_alone() {
    let mut table = Table::at_work(&[2, 3]);
    assert_eq!(table.group.force_solo(false, at(600)), Ok(800));
    table.beats(1390);
    table.tick(1400);
    table.tick(3000);
    assert_eq!(founded(&table.todo), None);
}

#[test]
fn a_witness_is_in_no_view_and_nobody_waits_for_it() {
    let mut table = Table::new(&[2]);
    table.group.options.nodes.insert("w".into(), place(9));
    table.beats(10);
    assert!(table.proposed().is_none(), "w may be one that has data");
    let todo = table.group.meet_witness("w", &[], at(20), &mut Unheard);
    table.todo.extend(todo);
    let view = table.proposed().expect("all are here");
    assert_eq!(names(&view.members), "n1 n2");
    table.enter(view, 30);
    for ms in (100..1300).step_by(100) {
        let todo = table.group.refused("n2", true, at(ms), &mut Unheard);
        table.todo.extend(todo);
    }
    assert!(founded(&table.todo).is_some(), "the only other one that has data is dead");
}

#[test]
fn a_node_without_others_is_isolated_only_where_that_is_allowed() {
    for is_allowed in [false, true] {
        let mut table = Table::at_work(&[2, 3]);
        table.group.options.isolated_reads = is_allowed;
        table.todo.clear();
        table.tick(300);
        assert!(!table.group.lease.is_isolated(), "others are there");
        table.tick(2000);
        assert_eq!(table.group.lease.is_isolated(), is_allowed);
        assert_eq!(table.todo.contains(&Todo::Isolated(true)), is_allowed);
        table.beats(2010);
        assert!(!table.group.lease.is_isolated());
        assert_eq!(table.todo.contains(&Todo::Isolated(false)), is_allowed);
    }
}

#[test]
fn a_learner_without_a_vote_is_not_admitted_for_a_while() {
    let mut table = Table::with_learner();
    let votes = |is_seated: bool, table: &Table, ms: u64| Beat {
        filled: vec![Incarnation(3)],
        is_seated,
        ..table.beat(3, ms)
    };
    let says = |table: &mut Table, is_seated: bool, ms: u64| {
        let filled = Beat { filled: vec![Incarnation(3)], ..table.beat(2, ms) };
        let beat = votes(is_seated, table, ms);
        table.says(3, beat, ms);
        table.says(2, filled, ms);
        table.proposed().map(|view| names(&view.members))
    };
    for ms in (70..10_000).step_by(100) {
        assert_eq!(says(&mut table, false, ms), None, "at {ms}");
    }
    assert_eq!(says(&mut table, true, 10_000).as_deref(), Some("n1 n2 n3"));
    let mut table = Table::with_learner();
    for ms in (70..10_000).step_by(100) {
        assert_eq!(says(&mut table, false, ms), None, "at {ms}");
    }
    let late = says(&mut table, false, 10_100);
    assert_eq!(late.as_deref(), Some("n1 n2 n3"), "its data is worth more");
}

#[test]
fn a_learner_that_messages_were_lost_for_begins_anew() {
    let mut table = Table::with_learner();
    table.beats(100);
    table.tick(100);
    assert_eq!(table.proposed(), None, "it is being filled");
    table.group.lost_messages(Incarnation(3), at(110));
    table.tick(120);
    let view = table.proposed().expect("it would refuse whatever follows");
    assert_eq!((names(&view.learners), &*view.cause), (String::new(), "learner left"));
    table.enter(view, 130);
    let again = (200..3000).step_by(100).find_map(|ms| {
        table.beats(ms);
        table.tick(ms);
        table.proposed()
    });
    assert_eq!(names(&again.expect("it is here, and reached").learners), "n3");
}

#[test]
fn where_one_breaks_ties_nobody_waits_for_votes() {
    let mut table = Table::with_learner();
    table.group.view.nodes.insert("n3".into(), Place { votes: false, ..place(3) });
    for n in [2, 3] {
        let filled = vec![Incarnation(3)];
        let beat = Beat { filled, is_seated: false, ..table.beat(n, 70) };
        table.says(n, beat, 70);
    }
    assert_eq!(names(&table.proposed().unwrap().members), "n1 n2 n3");
}

#[test]
fn a_removed_node_goes_with_one_view_and_is_waited_for_until_it_knows() {
    let mut table = Table::at_work(&[2, 3]);
    table.tick(100);
    table.beats(100);
    table.changes(&remove(3), &[2, 3], 110).unwrap();
    let former = table.group.view().clone();
    let view = table.proposed().unwrap();
    assert_eq!((names(&view.members), names(&view.absent)), ("n1 n2".into(), "n3".into()));
    assert!(!view.has_node("n3") && crate::replication::may_follow(Some(&former), &view));
    table.group.agreed(view, at(120), &mut Unheard);
    assert!(!table.flushes_at(130), "n3 may answer reads");
    let knows = table.beat(3, 140);
    let not_yet = Beat { view: (former.line, former.epoch), ..knows.clone() };
    table.says(3, not_yet, 140);
    assert!(!table.flushes_at(140));
    table.says(3, knows, 150);
    assert!(table.flushes_at(150), "n3 has given up its lease");
    assert!(!table.group.is_changing_nodes());
    // It is heard for a while, and comes back to nothing.
    for ms in (200..3000).step_by(50) {
        table.beats(ms);
        table.tick(ms);
        assert_eq!(table.proposed().filter(|view| !view.learners.is_empty()), None);
    }
}

#[test]
fn who_is_left_out_has_no_lease_by_the_time_it_says_so() {
    let mut table = Table::at_work(&[2, 3]);
    assert!(table.holds_lease(30));
    let former = table.group.view().clone();
    let mut next = former.successor(true, "remove-node");
    next.nodes.remove("n1");
    next.members.retain(|member| *member.name != *"n1");
    table.todo = table.group.agreed(next, at(30), &mut Unheard);
    assert!(!table.group.lease.holds(former.epoch, Millis(31)) && !table.holds_lease(31));
    let told = |todo: &Todo| matches!(todo, Todo::Log(LogWish::Roster(_)));
    assert!(table.todo.iter().any(told) && table.group.is_removed());
    assert_eq!(
        table.group.force_solo(false, at(40)),
        Err("this node was removed from the group".into())
    );
}

#[test]
fn changes_that_would_leave_nothing_that_works_are_refused() {
    let mut table = Table::at_work(&[2, 3]);
    let why = |table: &mut Table, change: &NodesChange, up: &[u64]| {
        table.changes(change, up, 100).unwrap_err()
    };
    assert!(why(&mut table, &remove(3), &[]).contains("no majority"));
    assert!(why(&mut table, &remove(3), &[3]).contains("would be without a majority"));
    assert!(why(&mut table, &remove(9), &[2, 3]).contains("no node is called"));
    let moved = NodesChange::Replace("n3".into(), "n3".into(), place(9).address);
    assert!(why(&mut table, &moved, &[2, 3]).contains("n3 is alive"));
    table.changes(&moved, &[2], 100).unwrap();
    assert!(why(&mut table, &add(4), &[2, 3]).contains("under way"));
    assert_eq!(table.proposed().unwrap().nodes["n3"].address, place(9).address);
    // Nobody has agreed to it.
    table.beats(10_100);
    table.tick(10_100);
    assert!(!table.group.is_changing_nodes());
    let mut fresh = Table::new(&[2, 3]);
    assert!(why(&mut fresh, &add(4), &[2, 3]).contains("no member"));
}

#[test]
fn votes_are_those_that_the_log_counts() {
    let mut table = Table::at_work(&[2]);
    let replace = NodesChange::Replace("n2".into(), "n3".into(), place(3).address);
    // n2 has left, and votes: nothing can be agreed on, until the log begins anew without it.
    let why = table.changes(&replace, &[], 5000).unwrap_err();
    assert!(why.contains("(n1,n2)") && why.contains("force-solo"), "{why}");
    let why = table.changes(&replace, &[], 30).unwrap_err();
    assert!(!why.contains("force-solo"), "n2 is alive: {why}");
    table.voters = vec!["n1".into()];
    table.changes(&replace, &[], 5000).unwrap();
    assert!(table.group.is_changing_nodes());
    // One that has no vote yet is not missed.
    let mut table = Table::at_work(&[2, 3]);
    table.voters = vec!["n1".into(), "n2".into()];
    table.changes(&remove(3), &[2], 100).unwrap();
}

#[test]
fn a_node_that_is_alone_goes_on_without_the_votes_of_those_that_have_left() {
    let mut table = Table::at_work(&[2]);
    let alone = View { members: vec![node(1)], ..table.group.view().successor(true, "leave") };
    table.others.clear();
    table.enter(alone, 100);
    assert_eq!(table.group.force_solo(true, at(5000)), Err("this node is alone already".into()));
    assert_eq!(table.group.force_solo(false, at(5000)), Ok(800));
    table.tick(5800);
    let view = founded(&table.todo).expect("it is time");
    assert_eq!((names(&view.members), view.line.number), ("n1".into(), 1));
    assert!(!view.is_founding() && view.has_node("n2"), "it has all data, and n2 may come back");
}

#[test]
fn a_change_is_void_when_another_came_first() {
    let mut table = Table::at_work(&[2, 3]);
    table.changes(&add(4), &[2, 3], 100).unwrap();
    let mut other = table.group.view().successor(true, "add-node");
    other.nodes.insert("n5".into(), place(5));
    table.proposed();
    table.enter(other, 110);
    table.tick(120);
    assert!(!table.group.is_changing_nodes() && table.proposed().is_none());
}

#[test]
fn more_than_one_node_at_a_time_does_not_follow() {
    let table = Table::at_work(&[2, 3]);
    let present = table.group.view();
    let follows = |change: &dyn Fn(&mut View)| {
        let mut next = present.successor(true, "");
        change(&mut next);
        crate::replication::may_follow(Some(present), &next)
    };
    assert!(follows(&|next| next.nodes.extend([(node(4).name, place(4))])));
    assert!(!follows(&|next| next.nodes.extend([4, 5].map(|n| (node(n).name, place(n))))));
    assert!(!follows(&|next| next.nodes.clear()));
    assert!(!follows(&|next| next.nodes.retain(|name, _| **name != *"n3")), "n3 is a member");
    assert!(!follows(&|next| {
        // Without n2 and n3 in one step, however they are called afterwards.
        next.nodes.remove("n3");
        next.members.truncate(1);
    }));
}

#[test]
fn a_wait_that_the_dead_shorten_is_a_whole_one() {
    // n3 dies while n2 is silent: n2 may have a fresh promise of n3.
    let mut table = Table::at_work(&[2, 3, 4, 5]);
    let mut three = table.group.view().successor(true, "");
    three.members.truncate(3);
    table.enter(three, 30);
    let mut next = table.group.view().successor(true, "death");
    next.members.truncate(1);
    next.dead = vec![Incarnation(3)];
    table.group.agreed(next, at(1000), &mut Unheard);
    assert!(!table.flushes_at(1799));
    assert!(table.flushes_at(1800));
}

fn says_time(table: &mut Table, from: u64, ahead_ms: i64, ms: u64) {
    let cluster = Millis(at(ms).cluster.0.wrapping_add_signed(ahead_ms));
    let beat = Beat { cluster, ..table.beat(from, ms) };
    table.says(from, beat, ms);
}

fn times(table: &mut Table) -> Vec<Todo> {
    let is_time = |todo: &mut Todo| matches!(todo, Todo::SlewTime(_) | Todo::TakeTime(_));
    table.todo.extract_if(.., is_time).collect()
}

/// Some links are torn for this long, all of which both ends say.
fn tear(table: &mut Table, torn: &[(u64, u64)], ms: std::ops::Range<u64>) {
    for ms in ms.step_by(50) {
        for n in table.others.clone() {
            let mut beat = table.beat(n, ms);
            let is_torn = |other: &Incarnation| {
                torn.iter().any(|&(a, b)| (n, other.0) == (a, b) || (other.0, n) == (a, b))
            };
            beat.up.retain(|other| !is_torn(other));
            table.says(n, beat, ms);
        }
        table.tick(ms);
    }
}

#[test]
fn of_two_that_cannot_reach_each_other_the_one_with_the_higher_name_is_left_out() {
    let mut table = Table::at_work(&[2, 3, 4, 5]);
    tear(&mut table, &[(2, 4)], 100..250);
    assert_eq!(table.proposed(), None, "one of them may be dead, and the other notices first");
    tear(&mut table, &[(2, 4)], 250..400);
    assert_eq!(names(&table.proposed().unwrap().members), "n1 n2 n3 n5");
}

#[test]
fn whoever_reaches_one_other_only_is_left_out_and_nobody_else() {
    let mut table = Table::at_work(&[2, 3, 4, 5]);
    tear(&mut table, &[(2, 3), (2, 4), (2, 5)], 100..400);
    assert_eq!(names(&table.proposed().unwrap().members), "n1 n3 n4 n5");
}

#[test]
fn whoever_falls_silent_is_left_out_alone_although_others_notice_first() {
    let mut table = Table::at_work(&[2, 3, 4, 5]);
    table.beats(100);
    table.others = vec![3, 4, 5];
    for ms in (150..600).step_by(50) {
        // n4 and n5 have missed n2 for long, n3 has not.
        for n in [3, 4, 5] {
            let mut beat = table.beat(n, ms);
            beat.up.extend((n == 3).then_some(Incarnation(2)));
            table.says(n, beat, ms);
        }
        table.tick(ms);
        let left_out = table.proposed().map(|view| names(&view.members));
        assert_eq!(left_out, (ms == 500).then(|| "n1 n3 n4 n5".into()), "at {ms}");
    }
}

#[test]
fn one_clock_alone_moves_nobodys_time() {
    let mut table = Table::at_work(&[2, 3]);
    times(&mut table);
    says_time(&mut table, 2, 60_000, 100);
    assert_eq!(times(&mut table), []);
    // Most of them agree: then it is this node's that is wrong.
    says_time(&mut table, 3, 60_010, 110);
    assert_eq!(times(&mut table), [Todo::TakeTime(Millis(at(110).cluster.0 + 60_000))]);
}

#[test]
fn time_never_goes_back() {
    let mut table = Table::at_work(&[2, 3]);
    times(&mut table);
    for n in [2, 3] {
        says_time(&mut table, n, -60_000, 100);
    }
    says_time(&mut table, 2, -60_000, 150);
    assert_eq!(times(&mut table), [Todo::SlewTime(-1)], "it goes slower, with one other's beats");
}

#[test]
fn a_decider_leaves_its_time_alone_while_others_are_close() {
    let mut table = Table::at_work(&[2, 3]);
    times(&mut table);
    for ms in [100, 150] {
        says_time(&mut table, 2, -15, ms);
        says_time(&mut table, 3, -15, ms);
    }
    assert_eq!(times(&mut table), []);
}

#[test]
fn a_member_that_leaves_is_left_out_and_not_let_in_again() {
    let mut table = Table::at_work(&[2, 3]);
    let leaving = Beat { leaving: true, ..table.beat(3, 100) };
    table.says(3, leaving, 100);
    let view = table.proposed().expect("all others are here");
    assert_eq!((names(&view.members), &*view.cause), ("n1 n2".into(), "leave"));
    assert_eq!(names(&view.absent), "n3", "what its clients ask for is remembered");
    table.others = vec![2];
    table.enter(view, 110);
    let leaving = Beat { leaving: true, ..table.beat(3, 120) };
    table.says(3, leaving, 120);
    assert!(table.proposed().is_none());
}

#[test]
fn a_goodbye_ends_the_wait_for_what_was_promised() {
    let mut table = Table::at_work(&[2, 3]);
    let leaving = Beat { leaving: true, ..table.beat(3, 100) };
    table.says(3, leaving.clone(), 100);
    let view = table.proposed().unwrap();
    table.todo = table.group.agreed(view, at(110), &mut Unheard);
    assert!(!table.flushes_at(120), "it has been promised something");
    table.says(3, Beat { sent: Millis(5130), ..leaving }, 130);
    assert!(!table.flushes_at(130), "it does not know yet");
    let goodbye = Beat { leaving: true, ..table.beat(3, 140) };
    table.says(3, goodbye, 140);
    assert!(table.flushes_at(140));
}

#[test]
fn whoever_is_left_out_has_no_lease_from_that_moment_on() {
    let mut table = Table::at_work(&[2, 3]);
    table.beats(100);
    let former = table.group.view.epoch;
    assert!(table.group.lease.holds(former, Millis(101)));
    table.group.leave(at(100), &mut Unheard);
    assert!(table.group.lease.holds(former, Millis(101)), "nobody does without it yet");
    assert!(!table.group.has_left(at(100)));
    let members = vec![node(2), node(3)];
    let view = View { epoch: Epoch(former.0 + 1), members, ..table.group.view.clone() };
    table.group.agreed(view, at(101), &mut Unheard);
    assert!(table.group.has_left(at(101)));
    assert!(!table.group.lease.holds(former, Millis(102)));
}

#[test]
fn somebody_else_decides_while_a_node_leaves_and_the_last_one_stays() {
    let mut table = Table::at_work(&[2]);
    table.group.leave(at(100), &mut Unheard);
    table.beats(110);
    assert!(table.proposed().is_none(), "n2 proposes");
    let leaving = Beat { leaving: true, ..table.beat(2, 120) };
    table.says(2, leaving, 120);
    assert!(table.proposed().is_none(), "nobody would have the items");
    assert!(table.group.has_left(at(120)), "there is nobody to wait for");
}

#[test]
fn a_lease_that_runs_out_is_a_fence_and_counts_once() {
    let mut table = Table::at_work(&[2, 3]);
    let fences = |table: &mut Table, ms| {
        table.tick(ms);
        table.group.status(at(ms)).fences
    };
    assert_eq!(fences(&mut table, 100), 0);
    assert_eq!(fences(&mut table, 700), 0, "silence alone is none");
    assert_eq!([900, 1000].map(|ms| fences(&mut table, ms)), [1, 1]);
    table.beats(1100);
    assert_eq!(fences(&mut table, 1110), 1);
    let view = View { members: vec![node(2), node(3)], ..table.group.view.successor(true, "") };
    table.group.agreed(view, at(1200), &mut Unheard);
    assert_eq!(fences(&mut table, 1210), 2, "left out");
}

#[test]
fn a_view_without_a_pause_is_no_fence() {
    let mut table = Table::at_work(&[2, 3]);
    table.tick(100);
    table.beats(110);
    let view = table.group.view.successor(true, "flush_all");
    table.group.agreed(view.clone(), at(120), &mut Unheard);
    table.tick(130);
    table.enter(view, 140);
    table.tick(150);
    assert_eq!(table.group.status(at(150)).fences, 0);
}

/// n1, and the view in which n3 has been left out, as it wanted; n1 has promised it something.
fn about_to_lose_n3() -> (Table, View, Beat) {
    let mut table = Table::at_work(&[2, 3]);
    let leaving = Beat { leaving: true, ..table.beat(3, 100) };
    table.says(3, leaving.clone(), 100);
    let view = table.proposed().unwrap();
    (table, view, leaving)
}

#[test]
fn a_goodbye_that_comes_before_its_view_counts() {
    let (mut table, view, leaving) = about_to_lose_n3();
    let goodbye = Beat { view: (view.line, view.epoch), ..leaving };
    table.says(3, goodbye, 105);
    table.todo = table.group.agreed(view, at(110), &mut Unheard);
    assert!(table.flushes_at(111));
}

#[test]
fn the_death_of_whoever_is_left_out_ends_the_wait_for_it() {
    let (mut table, view, _) = about_to_lose_n3();
    table.todo = table.group.agreed(view, at(110), &mut Unheard);
    assert!(!table.flushes_at(120), "it has been promised something");
    table.group.refused("n3", true, at(130), &mut Unheard);
    assert!(table.flushes_at(131));
}

#[test]
fn a_view_has_the_features_that_all_in_it_know() {
    let mut table = Table::at_work(&[2]);
    assert_eq!(table.group.view.features, Features::ALL);
    table.changes(&add(3), &[2], 25).unwrap();
    let view = table.proposed().expect("the nodes change");
    table.enter(view, 26);
    table.others = vec![2, 3];
    let older = Dialect { features: Features::NONE, ..Dialect::default() };
    table.group.meet(&node(3), &[], &older, None, at(30), &mut Unheard);
    table.beats(40);
    let view = table.proposed().expect("n3 is here");
    assert_eq!((names(&view.learners), view.features), ("n3".into(), Features::NONE));
    table.enter(view, 50);
    // A newer program takes its place, which knows something that nobody else does.
    table.others = vec![2];
    table.todo = table.group.refused("n3", true, at(60), &mut Unheard);
    let view = table.proposed().expect("n3 is dead");
    assert_eq!(view.features, Features::ALL);
    table.enter(view, 70);
    let newer = Dialect { features: Features(u64::MAX), ..Dialect::default() };
    table.others = vec![2, 5];
    let again = Member { name: node(3).name, incarnation: Incarnation(5) };
    table.group.meet(&again, &[], &newer, None, at(80), &mut Unheard);
    table.beats(90);
    let view = table.proposed().expect("n3 is back");
    assert_eq!((names(&view.learners), view.features), ("n3".into(), Features::ALL));
}
