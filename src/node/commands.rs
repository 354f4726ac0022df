//! The verbs: from a request to a read or a mutation, and from an outcome to a reply.

use super::dump::Dump;
use super::observe::{Read, Trace, WatcherId};
use super::{Host, Node};
use crate::key::Key;
use crate::protocol::reply;
use crate::protocol::{Events, Keys, Request, StoreVerb, ValueForm};
use crate::record::{Direction, Mutation, Outcome, StoreMode};
use crate::stats::Counters;
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

/// What became of a command.
pub(super) enum Executed {
    /// Its reply is written.
    Done,
    /// Its outcome comes later.
    Pending(Pending),
    /// A key in a get line was too long; what is left of the line is void.
    BadKey,
    /// The connection becomes a walk over all items.
    Dump(Dump),
    /// The connection becomes a stream of events, and takes no more commands.
    Watch(WatcherId),
    /// The client is done.
    Quit,
}

/// A command that has been given to the key's owner.
#[derive(Debug)]
pub(super) struct Pending {
    verb: Verb,
    form: Form,
    /// Only when somebody looks.
    trace: Option<Box<Trace>>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Store,
    Cas,
    Oversize,
    Delete,
    Incr,
    Decr,
    Touch,
    GetAndTouch,
    FlushAll,
}

/// How the outcome is shown.
#[derive(Debug)]
enum Form {
    Silent,
    Line,
    /// An item or nothing, then END if the line is over.
    Value {
        key: Box<[u8]>,
        form: ValueForm,
        last: bool,
    },
}

impl<W, H: Host<W>> Context<'_, W, H> {
    pub(super) fn execute(&mut self, request: Request<'_>) -> Executed {
        match request {
            Request::Get { keys, form, last } => self.get(keys, form, last),
            Request::GetAndTouch { key, exptime, form, last } => {
                self.get_and_touch(key, exptime, form, last)
            }
            Request::Store { verb, key, flags, exptime, value, noreply } => {
                self.store(verb, key, flags, exptime, value, noreply)
            }
            Request::Oversize { key, noreply } => self.oversize(&key, noreply),
            Request::Delete { key, noreply } => {
                self.mutate(Verb::Delete, key, &Mutation::Delete, line_unless(noreply))
            }
            Request::Count { up, key, delta, noreply } => self.count(up, key, delta, noreply),
            Request::Touch { key, exptime, noreply } => {
                let deadline = Deadline::from_exptime(exptime, self.now);
                self.mutate(Verb::Touch, key, &Mutation::Touch { deadline }, line_unless(noreply))
            }
            Request::FlushAll { delay, noreply } => self.flush_all(delay, noreply),
            Request::Version => self.say(reply::version),
            Request::Verbosity { noreply } => self.say(|out| {
                if !noreply {
                    out.extend_from_slice(reply::OK);
                }
            }),
            Request::Stats { topic } => self.stats(topic),
            Request::Crawl(crawl) => self.crawl(crawl),
            Request::Tune(tune) => self.tune(tune),
            Request::MemoryLimit { megabytes, noreply } => {
                self.set_memory_limit(megabytes, noreply)
            }
            Request::Watch { events } => self.watch(events),
            Request::Quit => Executed::Quit,
        }
    }

    fn get(&mut self, keys: Keys<'_>, form: ValueForm, last: bool) -> Executed {
        let (mut asked, mut hits) = (0, 0);
        let mut bad_key = false;
        let is_seen = self.node.observers.wants(Events::FETCHERS.and(Events::DETAIL));
        for key in keys {
            let Ok(key) = key else {
                bad_key = true;
                break;
            };
            asked += 1;
            let mut found = None;
            let mut shard = self.node.shards[key.hash().lane()].lock();
            if let Some(item) = shard.get(key, self.now) {
                hits += 1;
                found = Some(item.value.len());
                reply::value(self.out, form, key, item.flags, item.cas, item.value);
            }
            drop(shard);
            if is_seen {
                let read = Read { key, found, descriptor: self.descriptor };
                self.node.observers.read(read, self.now);
            }
        }
        self.counters.cmd_get.add(asked);
        self.counters.get_hits.add(hits);
        self.counters.get_misses.add(asked - hits);
        if bad_key {
            self.out.extend_from_slice(reply::BAD_FORMAT);
            return Executed::BadKey;
        }
        if last {
            self.out.extend_from_slice(reply::END);
        }
        Executed::Done
    }

    fn get_and_touch(
        &mut self,
        key: Option<Key<'_>>,
        exptime: i32,
        form: ValueForm,
        last: bool,
    ) -> Executed {
        let Some(key) = key else {
            return self.say(|out| out.extend_from_slice(reply::END));
        };
        let deadline = Deadline::from_exptime(exptime, self.now);
        let shown = Form::Value { key: key.bytes().into(), form, last };
        self.mutate(Verb::GetAndTouch, key, &Mutation::GetAndTouch { deadline }, shown)
    }

    fn store(
        &mut self,
        verb: StoreVerb,
        key: Key<'_>,
        flags: u32,
        exptime: i32,
        value: &[u8],
        noreply: bool,
    ) -> Executed {
        let mode = match verb {
            StoreVerb::Set => StoreMode::Set,
            StoreVerb::Add => StoreMode::Add,
            StoreVerb::Replace => StoreMode::Replace,
            StoreVerb::Append => StoreMode::Append,
            StoreVerb::Prepend => StoreMode::Prepend,
            StoreVerb::Cas(unique) => StoreMode::Cas(unique),
        };
        let counted = if matches!(verb, StoreVerb::Cas(_)) { Verb::Cas } else { Verb::Store };
        let deadline = Deadline::from_exptime(exptime, self.now);
        let mutation = Mutation::Store { mode, flags, deadline, value };
        self.mutate(counted, key, &mutation, line_unless(noreply))
    }

    /// The new value can't be kept, and the old one must not be taken for it.
    fn oversize(&mut self, key: &[u8], noreply: bool) -> Executed {
        match Key::new(key) {
            Some(key) => self.mutate(Verb::Oversize, key, &Mutation::Delete, line_unless(noreply)),
            None => Executed::Done,
        }
    }

    fn count(&mut self, up: bool, key: Key<'_>, delta: u64, noreply: bool) -> Executed {
        let (verb, direction) =
            if up { (Verb::Incr, Direction::Up) } else { (Verb::Decr, Direction::Down) };
        self.mutate(verb, key, &Mutation::Count { direction, delta }, line_unless(noreply))
    }

    fn flush_all(&mut self, delay: i32, noreply: bool) -> Executed {
        self.node.flush_all(delay, self.now, self.host);
        let form = line_unless(noreply);
        Executed::Pending(Pending { verb: Verb::FlushAll, form, trace: None })
    }

    fn mutate(
        &mut self,
        verb: Verb,
        key: Key<'_>,
        mutation: &Mutation<&[u8]>,
        form: Form,
    ) -> Executed {
        let observers = &self.node.observers;
        if observers.wants(Events::FETCHERS) {
            self.show_lookup(key, mutation);
        }
        let trace = Trace::of(observers, key, mutation, self.descriptor, self.now);
        let pending = Pending { verb, form, trace };
        match self.node.mutate(key, mutation, self.now, self.host) {
            Some(outcome) => {
                pending.answer(&outcome, self.node, self.counters, self.out);
                Executed::Done
            }
            None => Executed::Pending(pending),
        }
    }

    /// A memcached looks an item up before it changes it, and its watchers see that as a read.
    fn show_lookup(&self, key: Key<'_>, mutation: &Mutation<&[u8]>) {
        if matches!(mutation, Mutation::GetAndTouch { .. }) {
            return; // It is shown as the read that it is, once its outcome is known.
        }
        let mut shard = self.node.shards[key.hash().lane()].lock();
        let found = shard.store().peek(key, self.now).map(|item| item.value.len());
        drop(shard);
        let read = Read { key, found, descriptor: self.descriptor };
        self.node.observers.log_read(read, self.now);
    }

    fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Executed {
        write(self.out);
        Executed::Done
    }
}

fn line_unless(noreply: bool) -> Form {
    if noreply { Form::Silent } else { Form::Line }
}

impl Pending {
    /// Counts the outcome and writes the reply.
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
            Form::Value { key, form, last } => {
                if let (Outcome::Value { flags, cas, value }, Some(key)) = (outcome, Key::new(&key))
                {
                    reply::value(out, form, key, *flags, *cas, value);
                }
                if last {
                    out.extend_from_slice(reply::END);
                }
            }
        }
    }
}

fn write_line(outcome: &Outcome, out: &mut Vec<u8>) {
    let line = match outcome {
        Outcome::Stored => reply::STORED,
        Outcome::NotStored => reply::NOT_STORED,
        Outcome::Exists => reply::EXISTS,
        Outcome::NotFound => reply::NOT_FOUND,
        Outcome::Deleted => reply::DELETED,
        Outcome::Touched => reply::TOUCHED,
        Outcome::Flushed => reply::OK,
        Outcome::NotNumeric => reply::NOT_NUMERIC,
        Outcome::TooLarge => reply::TOO_LARGE,
        Outcome::NoMemory => reply::NO_MEMORY,
        Outcome::Number(number) => return reply::number(out, *number),
        // Only gat and gats bring values, and they show them as such.
        Outcome::Value { .. } => return,
    };
    out.extend_from_slice(line);
}

fn count(verb: Verb, outcome: &Outcome, counters: &Counters) {
    let missed = *outcome == Outcome::NotFound;
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
        Verb::Touch | Verb::GetAndTouch => {
            counters.cmd_touch.add(1);
            if verb == Verb::GetAndTouch {
                counters.cmd_get.add(1);
                pick(&counters.get_hits, &counters.get_misses).add(1);
            }
            pick(&counters.touch_hits, &counters.touch_misses)
        }
        Verb::FlushAll => &counters.cmd_flush,
    };
    counter.add(1);
    if *outcome == Outcome::NoMemory {
        counters.store_no_memory.add(1);
    }
}
