//! The verbs: from a request to a read or a mutation, and from an outcome to a reply.

use super::ahead::Ahead;
use super::dump::Dump;
use super::meta::KeptMeta;
use super::observe::{Read, Trace, WatcherId, Wording};
use super::{Host, Node};
use crate::key::Key;
use crate::protocol::reply;
use crate::protocol::{Events, Keys, Request, Stop, StoreVerb, ValueForm};
use crate::record::{Direction, Mutation, Outcome, StoreMode, Terms};
use crate::stats::Counters;
use crate::store::Value;
use crate::time::{Deadline, Now};

/// What a command needs to be executed.
pub(super) struct Context<'a, W, H> {
    pub(super) node: &'a Node<W>,
    pub(super) counters: &'a Counters,
    pub(super) now: Now,
    /// Of the client, for those who watch.
    pub(super) descriptor: i32,
    pub(super) out: &'a mut Vec<u8>,
    pub(super) host: &'a mut H,
}

/// Replies are handed over at the latest when this many bytes have come together.
pub(super) const OUTPUT_MAX: usize = 64 << 10;

/// What became of a command.
pub(super) enum Executed<'a> {
    /// Its reply is written.
    Done,
    /// Its outcome comes later.
    Pending(Pending),
    /// A key in a get line was too long; what is left of the line is void.
    BadKey,
    /// A key's owner has to say what its value is; these keys are left.
    Asked(Pending, Keys<'a>, ValueForm),
    /// Enough has been found for one write; these keys are left.
    Paused(Keys<'a>, ValueForm),
    /// The connection becomes a walk over all items.
    Dump(Dump),
    /// The connection becomes a stream of events, and takes no more commands.
    Watch(WatcherId),
    /// The client is done.
    Quit,
    /// The client is done, and wants the server to be.
    Stop(Stop),
}

/// A command that has been given to the key's owner.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) verb: Verb,
    pub(super) form: Form,
    /// Only when somebody looks.
    pub(super) trace: Option<Box<Trace>>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Store,
    Cas,
    Oversize,
    Delete,
    Incr,
    Decr,
    Touch,
    Get,
    MetaFetch,
    MetaTouch,
    FlushAll,
}

/// How the outcome is shown.
#[derive(Debug)]
pub(super) enum Form {
    Silent,
    Line,
    /// An item or nothing, then END if the line is over.
    Value {
        key: Box<[u8]>,
        form: ValueForm,
        last: bool,
    },
    /// As the flags of a meta command ask.
    Meta(Box<KeptMeta>),
}

impl<W, H: Host<W>> Context<'_, W, H> {
    pub(super) fn execute<'a>(&mut self, request: Request<'a>) -> Executed<'a> {
        match request {
            Request::Get { keys, form, last } => self.get(keys, form, last),
            Request::GetAndTouch { key, exptime, form, last } => {
                self.get_and_touch(key, exptime, form, last)
            }
            Request::Store { verb, key, flags, exptime, value, noreply } => {
                self.store(verb, key, flags, exptime, value, noreply)
            }
            Request::Oversize { key, noreply } => self.oversize(key.as_deref(), noreply),
            Request::Delete { key, noreply } => {
                self.mutate(Verb::Delete, key, &DELETE, line_unless(noreply))
            }
            Request::Count { up, key, delta, noreply } => self.count(up, key, delta, noreply),
            Request::Touch { key, exptime, noreply } => {
                let deadline = Deadline::from_exptime(exptime, self.now);
                self.mutate(Verb::Touch, key, &Mutation::Touch { deadline }, line_unless(noreply))
            }
            Request::Meta(meta) => self.meta(meta),
            Request::MetaStore(meta, value) => self.meta_store(meta, value),
            Request::MetaNoop => self.say(|out| out.extend_from_slice(reply::NOOP)),
            Request::FlushAll { delay, noreply } => self.flush_all(delay, noreply),
            Request::Version => self.say(reply::version),
            Request::Verbosity { noreply } => self.say(|out| {
                if !noreply {
                    out.extend_from_slice(reply::OK);
                }
            }),
            Request::Stats { topic } => self.stats(topic),
            Request::Crawl(crawl) => self.crawl(crawl),
            Request::Tune { tune, noreply } => self.tune(tune, noreply),
            Request::MemoryLimit { megabytes, noreply } => {
                self.set_memory_limit(megabytes, noreply)
            }
            Request::Watch { events } => self.watch(events),
            Request::Quit => Executed::Quit,
            Request::Shutdown(stop) => self.shutdown(stop),
        }
    }

    fn get<'a>(&mut self, keys: Keys<'a>, form: ValueForm, last: bool) -> Executed<'a> {
        let (mut asked, mut hits) = (0, 0);
        let is_seen = self.is_seen();
        let mut executed = Executed::Done;
        let mut ahead = Ahead::of(keys);
        while let Some(sought) = ahead.next(self.node) {
            let Ok(sought) = sought else {
                executed = Executed::BadKey;
                break;
            };
            let key = sought.key;
            let mut shard = self.node.shards[sought.lane].lock();
            if !shard.may_read(key) {
                drop(shard);
                executed = self.ask(key, sought.behind(), form);
                break;
            }
            let start = self.out.len();
            let mut found = None;
            if let Some(item) = shard.read(sought, self.now) {
                found = Some(item.value.len());
                let value = Shown::Stored(item.value);
                show_value(self.out, form, key, item.flags, item.cas, value);
            }
            // Looked at after the value: a pause in between would make the proof too old.
            if !shard.proves_read(|| self.host.local_time()) {
                drop(shard);
                self.out.truncate(start);
                executed = self.ask(key, sought.behind(), form);
                break;
            }
            asked += 1;
            hits += u64::from(found.is_some());
            drop(shard);
            if is_seen {
                let read = Read { key, found, descriptor: self.descriptor };
                self.node.observers.read(read, self.now);
            }
            // With no key left, END goes out with the last value.
            if found.is_some() && self.out.len() >= OUTPUT_MAX {
                let behind = sought.behind();
                if { behind }.next().is_some() {
                    executed = Executed::Paused(behind, form);
                    break;
                }
            }
        }
        self.counters.cmd_get.add(asked);
        self.counters.get_hits.add(hits);
        self.counters.get_misses.add(asked - hits);
        match executed {
            Executed::BadKey => self.out.extend_from_slice(reply::BAD_FORMAT),
            // What is left may be nothing but the end of the line: it is answered all the same.
            Executed::Done if last => self.out.extend_from_slice(reply::END),
            _ => {}
        }
        executed
    }

    /// This node's copy proves nothing at the moment: the key's owner is asked.
    fn ask<'a>(&mut self, key: Key<'_>, rest: Keys<'a>, form: ValueForm) -> Executed<'a> {
        let kept = Form::Value { key: key.bytes().into(), form, last: false };
        let trace = self.trace(key, &Mutation::Read, Wording::Classic);
        let pending = Pending { verb: Verb::Get, form: kept, trace };
        match self.node.mutate(key, &Mutation::Read, self.now, self.host) {
            None => Executed::Asked(pending, rest, form),
            // It has become the only one in the meantime, and may answer for itself.
            Some(outcome) => {
                pending.answer(&outcome, self.node, self.counters, self.out);
                Executed::Paused(rest, form)
            }
        }
    }

    fn get_and_touch(
        &mut self,
        key: Option<Key<'_>>,
        exptime: i32,
        form: ValueForm,
        last: bool,
    ) -> Executed<'static> {
        let Some(key) = key else {
            return self.say(|out| out.extend_from_slice(reply::END));
        };
        let deadline = Deadline::from_exptime(exptime, self.now);
        let terms = Terms { touch: Some(deadline), ..Terms::default() };
        let mutation = Mutation::Fetch { terms, recache: Deadline::NEVER };
        let trace = self.trace(key, &mutation, Wording::Classic);
        match self.node.mutate(key, &mutation, self.now, self.host) {
            Some(outcome) => {
                count(Verb::Touch, &outcome, self.counters);
                if let Some(trace) = trace {
                    trace.finish(&self.node.observers, &outcome);
                }
                write_value(key, form, last, &outcome, self.out);
                Executed::Done
            }
            None => Executed::Pending(Pending {
                verb: Verb::Touch,
                form: Form::Value { key: key.bytes().into(), form, last },
                trace,
            }),
        }
    }

    fn store(
        &mut self,
        verb: StoreVerb,
        key: Key<'_>,
        flags: u32,
        exptime: i32,
        value: &[u8],
        noreply: bool,
    ) -> Executed<'static> {
        let mode = match verb {
            StoreVerb::Set | StoreVerb::Cas(_) => StoreMode::Set,
            StoreVerb::Add => StoreMode::Add,
            StoreVerb::Replace => StoreMode::Replace,
            StoreVerb::Append => StoreMode::Append,
            StoreVerb::Prepend => StoreMode::Prepend,
        };
        let (counted, compare) = match verb {
            StoreVerb::Cas(unique) => (Verb::Cas, Some(unique)),
            _ => (Verb::Store, None),
        };
        let terms = Terms { compare, ..Terms::default() };
        let deadline = Deadline::from_exptime(exptime, self.now);
        let mutation = Mutation::Store { mode, flags, deadline, terms, value };
        self.mutate(counted, key, &mutation, line_unless(noreply))
    }

    /// Where the new value was to replace the old one, the old one must not be taken for it.
    fn oversize(&mut self, key: Option<&[u8]>, noreply: bool) -> Executed<'static> {
        let form = line_unless(noreply);
        match key.and_then(Key::new) {
            Some(key) => self.mutate(Verb::Oversize, key, &DELETE, form),
            None => {
                let pending = Pending { verb: Verb::Oversize, form, trace: None };
                pending.answer(&Outcome::NotStored, self.node, self.counters, self.out);
                Executed::Done
            }
        }
    }

    fn count(&mut self, up: bool, key: Key<'_>, delta: u64, noreply: bool) -> Executed<'static> {
        let (verb, direction) =
            if up { (Verb::Incr, Direction::Up) } else { (Verb::Decr, Direction::Down) };
        let mutation = Mutation::Count { direction, delta, initial: 0, terms: Terms::default() };
        self.mutate(verb, key, &mutation, line_unless(noreply))
    }

    fn shutdown(&mut self, stop: Option<Stop>) -> Executed<'static> {
        if !self.node.options.settings.shutdown_enabled {
            return self.say(|out| out.extend_from_slice(reply::SHUTDOWN_NOT_ENABLED));
        }
        match stop {
            Some(stop) => Executed::Stop(stop),
            None => self.say(|out| out.extend_from_slice(reply::SHUTDOWN_MODE)),
        }
    }

    fn flush_all(&mut self, delay: i32, noreply: bool) -> Executed<'static> {
        if !self.node.options.settings.flush_enabled {
            self.counters.cmd_flush.add(1);
            return self.say(|out| {
                if !noreply {
                    out.extend_from_slice(reply::FLUSH_NOT_ALLOWED);
                }
            });
        }
        let at = Deadline::from_exptime(delay, self.now).end().filter(|&at| at > self.now.cluster);
        self.node.flush_all(at, self.now, self.host);
        Executed::Pending(Pending { verb: Verb::FlushAll, form: line_unless(noreply), trace: None })
    }

    fn mutate(
        &mut self,
        verb: Verb,
        key: Key<'_>,
        mutation: &Mutation<&[u8]>,
        form: Form,
    ) -> Executed<'static> {
        let wording = if verb == Verb::Oversize { Wording::Oversize } else { Wording::Classic };
        let trace = self.trace(key, mutation, wording);
        let pending = Pending { verb, form, trace };
        match self.node.mutate(key, mutation, self.now, self.host) {
            Some(outcome) => {
                pending.answer(&outcome, self.node, self.counters, self.out);
                Executed::Done
            }
            None => Executed::Pending(pending),
        }
    }

    /// Whether anybody wants to know what is read.
    pub(super) fn is_seen(&self) -> bool {
        self.node.observers.wants(Events::FETCHERS.and(Events::DETAIL))
    }

    /// What is to be shown once the outcome of a mutation is known; `None` when nobody looks.
    #[inline]
    pub(super) fn trace(
        &self,
        key: Key<'_>,
        mutation: &Mutation<&[u8]>,
        wording: Wording,
    ) -> Option<Box<Trace>> {
        let observers = &self.node.observers;
        if !observers.wants(Trace::EVENTS) {
            return None;
        }
        if observers.wants(Events::FETCHERS) {
            self.show_lookup(key, mutation);
        }
        let before = || self.size_before(key);
        Trace::of(observers, key, mutation, wording, before, self.descriptor, self.now)
    }

    /// A memcached looks an item up before it changes it, and its watchers see that as a read.
    fn show_lookup(&self, key: Key<'_>, mutation: &Mutation<&[u8]>) {
        if matches!(mutation, Mutation::Fetch { .. } | Mutation::Read) {
            return; // It is shown as the read that it is, once its outcome is known.
        }
        let read = Read { key, found: self.size_before(key), descriptor: self.descriptor };
        self.node.observers.log_read(read, self.now);
    }

    /// Of the value that is here before a change: the copy of this node, not the owner's.
    fn size_before(&self, key: Key<'_>) -> Option<usize> {
        let mut shard = self.node.shards[key.hash().lane()].lock();
        shard.peek(key, self.now).map(|item| item.value.len())
    }

    fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Executed<'static> {
        write(self.out);
        Executed::Done
    }
}

/// delete: no terms, and nothing stays.
const DELETE: Mutation<&[u8]> = Mutation::Delete { terms: NO_TERMS, empty: None };
const NO_TERMS: Terms = Terms {
    compare: None,
    cas: None,
    vivify: None,
    touch: None,
    is_stale: false,
    has_binary_key: false,
};

fn line_unless(noreply: bool) -> Form {
    if noreply { Form::Silent } else { Form::Line }
}

impl Pending {
    /// Counts the outcome and writes the reply.
    #[inline]
    pub(super) fn answer<W>(
        self,
        outcome: &Outcome,
        node: &Node<W>,
        counters: &Counters,
        out: &mut Vec<u8>,
    ) {
        count(self.verb, outcome, counters);
        if let Some(trace) = self.trace {
            trace.finish(&node.observers, outcome);
        }
        match self.form {
            Form::Silent => {}
            Form::Line if self.verb == Verb::Oversize => out.extend_from_slice(reply::TOO_LARGE),
            Form::Line => write_line(outcome, out),
            Form::Meta(kept) => kept.write(outcome, out),
            Form::Value { key, form, last } => {
                if let Some(key) = Key::new(&key) {
                    write_value(key, form, last, outcome, out);
                }
            }
        }
    }
}

/// An item or nothing, then END if the line is over.
fn write_value(key: Key<'_>, form: ValueForm, last: bool, outcome: &Outcome, out: &mut Vec<u8>) {
    if let Outcome::Item(item) = outcome {
        let value = Shown::Fetched(&item.value);
        show_value(out, form, key, item.sight.flags, item.sight.cas, value);
    }
    if last {
        out.extend_from_slice(reply::END);
    }
}

/// Built into its callers: a get of many keys does little else.
#[inline(always)]
fn show_value(
    out: &mut Vec<u8>,
    form: ValueForm,
    key: Key<'_>,
    flags: u32,
    cas: u64,
    value: Shown<'_>,
) {
    reply::value_head(out, form, key, flags, cas, value.len());
    value.append_to(out);
    out.extend_from_slice(b"\r\n");
}

/// A value on its way to a client.
#[derive(Clone, Copy)]
pub(super) enum Shown<'a> {
    /// From the store, in pieces.
    Stored(Value<'a>),
    /// From an outcome.
    Fetched(&'a [u8]),
}

impl Shown<'_> {
    #[inline(always)]
    pub(super) fn len(self) -> usize {
        match self {
            Self::Stored(value) => value.len(),
            Self::Fetched(value) => value.len(),
        }
    }

    #[inline(always)]
    pub(super) fn append_to(self, out: &mut Vec<u8>) {
        match self {
            Self::Stored(value) => value.append_to(out),
            Self::Fetched(value) => out.extend_from_slice(value),
        }
    }
}

fn write_line(outcome: &Outcome, out: &mut Vec<u8>) {
    let line = match outcome {
        Outcome::Stored { .. } => reply::STORED,
        Outcome::NotStored => reply::NOT_STORED,
        Outcome::Exists => reply::EXISTS,
        Outcome::NotFound => reply::NOT_FOUND,
        Outcome::Deleted => reply::DELETED,
        Outcome::Touched => reply::TOUCHED,
        Outcome::Flushed => reply::OK,
        Outcome::NotNumeric => reply::NOT_NUMERIC,
        Outcome::NoMemory => reply::NO_MEMORY,
        Outcome::Number { value, .. } => return reply::number(out, *value),
        // Only gat and gats bring values, and they show them as such.
        Outcome::Item(_) => return,
    };
    out.extend_from_slice(line);
}

#[inline]
pub(super) fn count(verb: Verb, outcome: &Outcome, counters: &Counters) {
    let missed = matches!(outcome, Outcome::NotFound);
    let pick = |hit, miss| if missed { miss } else { hit };
    let counter = match verb {
        Verb::Store => &counters.cmd_set,
        Verb::Cas => {
            counters.cmd_set.add(1);
            match outcome {
                Outcome::Exists => &counters.cas_badval,
                _ => pick(&counters.cas_hits, &counters.cas_misses),
            }
        }
        Verb::Oversize => &counters.store_too_large,
        Verb::Delete => pick(&counters.delete_hits, &counters.delete_misses),
        Verb::Incr => pick(&counters.incr_hits, &counters.incr_misses),
        Verb::Decr => pick(&counters.decr_hits, &counters.decr_misses),
        // A read that touches counts as a touch alone; one with mg that finds nothing is a read.
        Verb::MetaTouch if !missed => {
            counters.cmd_touch.add(1);
            &counters.touch_hits
        }
        Verb::Get | Verb::MetaFetch | Verb::MetaTouch => {
            counters.cmd_get.add(1);
            pick(&counters.get_hits, &counters.get_misses)
        }
        Verb::Touch => {
            counters.cmd_touch.add(1);
            pick(&counters.touch_hits, &counters.touch_misses)
        }
        Verb::FlushAll => &counters.cmd_flush,
    };
    counter.add(1);
    if *outcome == Outcome::NoMemory {
        counters.store_no_memory.add(1);
    }
}
