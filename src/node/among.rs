//! The node among the others: what it hears of them goes to the group, and what the group wants
//! done is done to the lanes.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::Node;
use super::shard::Shard;
use crate::replication::{
    Dialect, Event, GroupStatus, Incarnation, Member, Nodes, NodesChange, Outside, Todo, View,
};
use crate::time::Now;

impl<W> Node<W> {
    /// The newest view that this node knows.
    pub fn view(&self) -> View {
        self.group.lock().view().clone()
    }

    /// For `stats replication`.
    pub fn group_status(&self, now: Now) -> GroupStatus {
        self.group.lock().status(now)
    }

    /// A connection shows that this life of a peer exists, and that these former ones are over;
    /// `beside`: that it was started to take the place of that one, which is not.
    pub fn meet<O: Outside<W>>(
        &self,
        peer: &Member,
        succeeds: &[Incarnation],
        speaks: &Dialect,
        beside: Option<Incarnation>,
        now: Now,
        out: &mut O,
    ) {
        let todo = self.group.lock().meet(peer, succeeds, speaks, beside, now, out);
        self.work_off(todo, now, out);
    }

    /// The peer of that name only votes; these former lives of it are over.
    pub fn meet_witness<O: Outside<W>>(
        &self,
        name: &str,
        succeeds: &[Incarnation],
        now: Now,
        out: &mut O,
    ) {
        let todo = self.group.lock().meet_witness(name, succeeds, now, out);
        self.work_off(todo, now, out);
    }

    /// Nobody listens at a peer's address; `has_ended`: after its process had closed its
    /// connection.
    pub fn refused<O: Outside<W>>(&self, name: &str, has_ended: bool, now: Now, out: &mut O) {
        let todo = self.group.lock().refused(name, has_ended, now, out);
        self.work_off(todo, now, out);
    }

    /// That life of a peer is over, which was beside another.
    pub fn ended<O: Outside<W>>(&self, life: Incarnation, now: Now, out: &mut O) {
        let todo = self.group.lock().ended(life, now, out);
        self.work_off(todo, now, out);
    }

    /// The life beside which this one was started is over, as are these.
    pub fn take_over<O: Outside<W>>(&self, succeeds: &[Incarnation], now: Now, out: &mut O) {
        let todo = self.group.lock().take_over(succeeds, now, out);
        self.work_off(todo, now, out);
    }

    /// Messages about lanes that were for that life of a peer are lost.
    pub fn lost_messages(&self, life: Incarnation, now: Now) {
        self.group.lock().lost_messages(life, now);
    }

    /// This node is about to end: the others are to do without it.
    pub fn leave<O: Outside<W>>(&self, now: Now, out: &mut O) {
        let todo = self.group.lock().leave(now, out);
        self.work_off(todo, now, out);
    }

    /// Whether they do, or nobody is there who could.
    pub fn has_left(&self, now: Now) -> bool {
        self.group.lock().has_left(now)
    }

    /// Whether this node has everything, and no other one could go on with it.
    pub fn is_last(&self, now: Now) -> bool {
        self.is_serving() && self.has_left(now)
    }

    /// An operator says that all others are dead; `is_led` tells whether views can be agreed on.
    /// Returns after how many milliseconds this node goes on alone; or why not.
    pub fn force_solo(&self, is_led: bool, now: Now) -> Result<u64, String> {
        self.group.lock().force_solo(is_led, now)
    }

    /// An operator wants other nodes; `voters` are those whom the log counts, none where that is
    /// not known here, and `is_up` tells which nodes can be reached. Returns those that there will
    /// be once a view says so; or why not.
    pub fn change_nodes(
        &self,
        change: &NodesChange,
        voters: &[Box<str>],
        is_up: impl Fn(&str) -> bool,
        now: Now,
    ) -> Result<Nodes, String> {
        self.group.lock().change_nodes(change, voters, is_up, now)
    }

    /// Whether a change of the nodes that was asked for here is neither agreed on nor given up.
    pub fn is_changing_nodes(&self) -> bool {
        self.group.lock().is_changing_nodes()
    }

    /// The log counts this life among its voters from now on, or no more.
    pub fn set_seated<O: Outside<W>>(&self, is_seated: bool, now: Now, out: &mut O) {
        self.group.lock().set_seated(is_seated, now, out);
    }

    /// The log has agreed on a view.
    pub fn agreed<O: Outside<W>>(&self, view: View, now: Now, out: &mut O) {
        let todo = self.group.lock().agreed(view, now, out);
        self.work_off(todo, now, out);
    }

    /// Does what the group wants done, and tells it what came of it, until it is content.
    pub(super) fn work_off<O: Outside<W>>(&self, todo: Vec<Todo>, now: Now, out: &mut O) {
        let mut todo = VecDeque::from(todo);
        while let Some(next) = todo.pop_front() {
            match next {
                Todo::TakeTime(cluster) => {
                    let offset = cluster.0.wrapping_sub(now.local.0);
                    self.offset_ms.store(offset, Ordering::Relaxed);
                }
                Todo::SlewTime(ms) => {
                    self.offset_ms.fetch_add(ms.cast_unsigned(), Ordering::Relaxed);
                }
                Todo::Isolated(true) => {
                    tracing::warn!(
                        "no other node is reached: reads show this one's copy, which may be old"
                    );
                }
                Todo::Isolated(false) => tracing::warn!("reads show nothing old any more"),
                Todo::Log(wish) => out.ask_log(wish),
                Todo::Install(view) => {
                    self.announce(&view);
                    self.note_joining(&view, now);
                    let install =
                        |shard: &mut Shard<W>, out: &mut O| shard.install(&view, now, out);
                    todo.extend(self.each_lane(now, out, install));
                }
                Todo::Flush(epoch) => {
                    let flush = |shard: &mut Shard<W>, out: &mut O| shard.flush(epoch, now, out);
                    todo.extend(self.each_lane(now, out, flush));
                }
            }
        }
        self.serving.store(self.group.lock().is_serving(), Ordering::Release);
    }

    fn announce(&self, view: &View) {
        let names =
            |list: &[Member]| list.iter().map(|member| &*member.name).collect::<Vec<_>>().join(",");
        let (members, learners) = (names(&view.members), names(&view.learners));
        let (epoch, cause) = (view.epoch.0, &view.cause);
        tracing::info!(epoch, members, learners, %cause, "view");
    }

    pub(super) fn each_lane<O: Outside<W>>(
        &self,
        now: Now,
        out: &mut O,
        act: impl Fn(&mut Shard<W>, &mut O),
    ) -> Vec<Todo> {
        let mut todo = Vec::new();
        for (lane, shard) in self.shards.iter().enumerate() {
            let events = {
                let mut shard = shard.lock();
                act(&mut shard, out);
                shard.take_events()
            };
            todo.extend(self.lane_events(lane, events, now, out));
        }
        todo
    }

    pub(super) fn tell_group<O: Outside<W>>(
        &self,
        lane: usize,
        events: Vec<Event>,
        now: Now,
        out: &mut O,
    ) {
        if !events.is_empty() {
            let todo = self.lane_events(lane, events, now, out);
            self.work_off(todo, now, out);
        }
    }

    fn lane_events<O: Outside<W>>(
        &self,
        lane: usize,
        events: Vec<Event>,
        now: Now,
        out: &mut O,
    ) -> Vec<Todo> {
        let mut group = self.group.lock();
        events.into_iter().flat_map(|event| group.lane_event(lane, event, now, out)).collect()
    }
}
