//! One node's group, with the others played by the test.

use super::*;
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

fn at(ms: u64) -> Now {
    Now { local: Millis(ms), cluster: Millis(1_000_000 + ms), wall_s: 0 }
}

/// n1 and those it hears, all of whom hear each other.
struct Table {
    group: Group<()>,
    others: Vec<u64>,
    todo: Vec<Todo>,
}

impl Table {
    fn new(others: &[u64]) -> Self {
        let options = GroupOptions {
            me: node(1),
            succeeds: Vec::new(),
            peers: others.iter().map(|&n| node(n).name).collect(),
            timing: Timing::default(),
            first_epoch: Epoch(100),
            last_man_standing: true,
            isolated_reads: false,
            seed: 1,
            rules: Rules::default(),
        };
        let mut table = Self {
            group: Group::new(options, Arc::default()),
            others: others.to_vec(),
            todo: Vec::new(),
        };
        for &n in others {
            table.group.meet(&node(n), &[], at(1), &mut Unheard);
        }
        table
    }

    /// A view of all of them that works.
    fn at_work(others: &[u64]) -> Self {
        let mut table = Self::new(others);
        table.beats(10);
        let view = table.proposed().expect("all are here");
        table.enter(view, 20);
        table
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
    let mut table = Table::at_work(&[2]);
    table.others = vec![2, 3];
    table.group.meet(&node(3), &[], at(30), &mut Unheard);
    table.beats(40);
    let view = table.proposed().unwrap();
    assert_eq!((names(&view.learners), &*view.cause), ("n3".into(), "join"));
    let epoch = view.epoch;
    table.enter(view, 50);
    for lane in 0..LANES {
        table.group.lane_event(lane, Event::Counted(epoch, Incarnation(3)), at(60), &mut Unheard);
    }
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
    table.group.meet(&node(1), &[Incarnation(11)], at(20), &mut Unheard);
    table.group.meet(&node(2), &[Incarnation(12)], at(20), &mut Unheard);
    table.beats(25);
    assert!(table.proposed().is_none(), "n3 may be");
    table.todo = table.group.meet(&node(3), &[Incarnation(13)], at(30), &mut Unheard);
    let view = table.proposed().unwrap();
    assert!(view.is_founding() && view.epoch > Epoch(200), "{view:?}");
    assert_eq!(names(&view.members), "n1 n2 n3");
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
    assert_eq!(table.group.force_solo(at(150)), Err("n2 is alive and a member".into()));
    assert_eq!(table.group.force_solo(at(600)), Ok(800));
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
    assert_eq!(table.group.force_solo(at(10)), Ok(800));
    table.tick(810);
    let view = founded(&table.todo).expect("it is time");
    assert_eq!((names(&view.members), view.epoch), ("n1".into(), Epoch(1024)));
    assert!(view.is_founding() && view.line.number == 1);
}

#[test]
fn whoever_shows_up_in_time_keeps_a_node_from_going_on_alone() {
    let mut table = Table::at_work(&[2, 3]);
    assert_eq!(table.group.force_solo(at(600)), Ok(800));
    table.beats(1390);
    table.tick(1400);
    table.tick(3000);
    assert_eq!(founded(&table.todo), None);
}

#[test]
fn a_witness_is_in_no_view_and_nobody_waits_for_it() {
    let mut table = Table::new(&[2]);
    table.group.options.peers.push("w".into());
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
