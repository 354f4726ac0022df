//! The meta commands: from flags to terms, and from what was found to a reply that repeats the
//! flags in the order they were written.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::commands::{Context, Executed, Form, Pending, Shown, Verb, count};
use super::observe::{Read, Wording};
use super::{Host, decide};
use crate::key::Key;
use crate::protocol::{Flags, MetaMode, MetaOptions, MetaRequest, MetaVerb, item_size, reply};
use crate::record::{Direction, Mutation, Outcome, Sight, StoreMode, Terms};
use crate::time::{Deadline, Now};

/// How the outcome of a command is shown.
#[derive(Clone, Copy)]
struct MetaForm<'a> {
    verb: MetaVerb,
    key: Key<'a>,
    flags: Flags<'a>,
    options: MetaOptions,
    /// Bytes that the client has sent.
    size: usize,
    now: Now,
}

/// The same, kept until the outcome is there.
#[derive(Debug)]
pub(super) struct KeptMeta {
    verb: MetaVerb,
    key: Box<[u8]>,
    flags: Box<[u8]>,
    options: MetaOptions,
    size: usize,
    now: Now,
}

impl<W, H: Host<W>> Context<'_, W, H> {
    pub(super) fn meta(&mut self, meta: MetaRequest<'_>) -> Executed<'static> {
        self.counters.cmd_meta.add(1);
        match meta.verb {
            MetaVerb::Get => self.meta_get(meta),
            MetaVerb::Delete => {
                let terms = terms(&meta.options, self.now);
                let empty = meta.options.empties.then_some(meta.options.flags);
                self.meta_mutate(Verb::Delete, meta, 0, &Mutation::Delete { terms, empty })
            }
            MetaVerb::Count => self.meta_count(meta),
            MetaVerb::Debug => self.meta_debug(meta),
            MetaVerb::Set => unreachable!("ms comes with its value"),
        }
    }

    pub(super) fn meta_store(&mut self, meta: MetaRequest<'_>, value: &[u8]) -> Executed<'static> {
        self.counters.cmd_meta.add(1);
        let options = meta.options;
        let mode = match options.mode {
            MetaMode::Default | MetaMode::Letter(b'S') => StoreMode::Set,
            MetaMode::Letter(b'E') => StoreMode::Add,
            MetaMode::Letter(b'A') => StoreMode::Append,
            MetaMode::Letter(b'P') => StoreMode::Prepend,
            MetaMode::Letter(b'R') => StoreMode::Replace,
            MetaMode::Letter(_) => return self.write(reply::BAD_STORE_MODE),
        };
        let deadline = Deadline::from_exptime(options.touch.unwrap_or(0), self.now);
        let terms = terms(&options, self.now);
        let verb = if terms.compare.is_some() { Verb::Cas } else { Verb::Store };
        let mutation = Mutation::Store { mode, flags: options.flags, deadline, terms, value };
        self.meta_mutate(verb, meta, value.len(), &mutation)
    }

    /// Mostly a read; where it changes something, the key's owner has to decide.
    fn meta_get(&mut self, meta: MetaRequest<'_>) -> Executed<'static> {
        let MetaRequest { key, flags, options, .. } = meta;
        let recache = options
            .recache
            .map_or(Deadline::NEVER, |recache| Deadline::from_exptime(recache, self.now));
        let mut shard = self.node.shards[key.hash().lane()].lock();
        if !shard.may_read(key) {
            drop(shard);
            return self.meta_fetch(meta, recache);
        }
        let item =
            if options.keeps_rank { shard.peek(key, self.now) } else { shard.get(key, self.now) };
        let changes = match &item {
            Some(item) => options.touch.is_some() || decide::wins(&item.sight(), recache),
            None => options.vivify.is_some(),
        };
        if changes {
            drop(shard);
            return self.meta_fetch(meta, recache);
        }
        let start = self.out.len();
        let found = item.as_ref().map(|item| item.value.len());
        match item {
            Some(item) => {
                hit(
                    self.out,
                    key,
                    flags,
                    &options,
                    &item.sight(),
                    Shown::Stored(item.value),
                    self.now,
                );
            }
            None => miss(self.out, key, flags, &options),
        }
        if !shard.proves_read(|| self.host.local_time()) {
            drop(shard);
            self.out.truncate(start);
            return self.meta_fetch(meta, recache);
        }
        drop(shard);
        self.counters.cmd_get.add(1);
        let counter =
            if found.is_some() { &self.counters.get_hits } else { &self.counters.get_misses };
        counter.add(1);
        if self.is_seen() {
            let read = Read { key, found, descriptor: self.descriptor };
            self.node.observers.read(read, self.now);
        }
        Executed::Done
    }

    /// The owner looks, and changes what the flags ask for.
    fn meta_fetch(&mut self, meta: MetaRequest<'_>, recache: Deadline) -> Executed<'static> {
        let terms = terms(&meta.options, self.now);
        let verb = if terms.touch.is_some() { Verb::MetaTouch } else { Verb::MetaFetch };
        self.meta_mutate(verb, meta, 0, &Mutation::Fetch { terms, recache })
    }

    fn meta_count(&mut self, meta: MetaRequest<'_>) -> Executed<'static> {
        let (verb, direction) = match meta.options.mode {
            MetaMode::Default | MetaMode::Letter(b'I' | b'+') => (Verb::Incr, Direction::Up),
            MetaMode::Letter(b'D' | b'-') => (Verb::Decr, Direction::Down),
            MetaMode::Letter(_) => return self.write(reply::BAD_COUNT_MODE),
        };
        let MetaOptions { delta, initial, .. } = meta.options;
        let terms = terms(&meta.options, self.now);
        let mutation = Mutation::Count { direction, delta, initial, terms };
        self.meta_mutate(verb, meta, 0, &mutation)
    }

    fn meta_debug(&mut self, meta: MetaRequest<'_>) -> Executed<'static> {
        let key = meta.key;
        // What it shows is about this node's copy.
        let mut shard = self.node.shards[key.hash().lane()].lock();
        match shard.peek(key, self.now) {
            None => self.out.extend_from_slice(b"EN\r\n"),
            Some(item) => {
                let sight = item.sight();
                self.out.extend_from_slice(b"ME ");
                write_key(self.out, key, sight.marks.has_binary_key);
                let ends = sight.deadline.remaining_s(self.now);
                let ends = ends.map_or("-1".to_owned(), |seconds| seconds.to_string());
                let fetched = if sight.was_fetched { "yes" } else { "no" };
                let line = format!(
                    " exp={ends} la={} cas={} fetch={fetched} cls={} size={}\r\n",
                    sight.idle_s,
                    sight.cas,
                    self.node.class_of(key, item.value.len()),
                    item_size(key, item.value.len()),
                );
                self.out.extend_from_slice(line.as_bytes());
            }
        }
        Executed::Done
    }

    fn meta_mutate(
        &mut self,
        verb: Verb,
        meta: MetaRequest<'_>,
        size: usize,
        mutation: &Mutation<&[u8]>,
    ) -> Executed<'static> {
        let MetaRequest { key, flags, options, .. } = meta;
        let form = MetaForm { verb: meta.verb, key, flags, options, size, now: self.now };
        let trace = self.trace(key, mutation, Wording::Meta);
        match self.node.mutate(key, mutation, self.now, self.host) {
            Some(outcome) => {
                count(verb, &outcome, self.counters);
                if let Some(trace) = trace {
                    trace.finish(&self.node.observers, &outcome);
                }
                form.write(&outcome, self.out);
                Executed::Done
            }
            None => {
                let form = Form::Meta(Box::new(form.kept()));
                Executed::Pending(Pending { verb, form, trace })
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> Executed<'static> {
        self.out.extend_from_slice(line);
        Executed::Done
    }
}

fn terms(options: &MetaOptions, now: Now) -> Terms {
    let deadline = |exptime: i32| Deadline::from_exptime(exptime, now);
    Terms {
        compare: options.compare,
        cas: options.cas,
        vivify: options.vivify.map(deadline),
        touch: options.touch.map(deadline),
        is_stale: options.is_stale,
        has_binary_key: options.has_binary_key,
    }
}

impl KeptMeta {
    /// Writes the reply to an outcome.
    pub(super) fn write(&self, outcome: &Outcome, out: &mut Vec<u8>) {
        let Self { verb, options, size, now, .. } = *self;
        if let Some(key) = Key::new(&self.key) {
            let flags = Flags::new(&self.flags);
            MetaForm { verb, key, flags, options, size, now }.write(outcome, out);
        }
    }
}

impl MetaForm<'_> {
    fn kept(self) -> KeptMeta {
        let Self { verb, key, flags, options, size, now } = self;
        let (key, flags) = (key.bytes().into(), flags.bytes().into());
        KeptMeta { verb, key, flags, options, size, now }
    }

    fn write(self, outcome: &Outcome, out: &mut Vec<u8>) {
        let Self { key, flags, options, .. } = self;
        match outcome {
            Outcome::Item(fetched) => {
                hit(
                    out,
                    key,
                    flags,
                    &options,
                    &fetched.sight,
                    Shown::Fetched(&fetched.value),
                    self.now,
                );
            }
            Outcome::NotFound if self.verb == MetaVerb::Get => miss(out, key, flags, &options),
            Outcome::Number { value, cas, deadline } => {
                self.number(out, *value, *cas, *deadline);
            }
            Outcome::Stored { cas, size } => {
                if !options.is_quiet {
                    self.status(out, b"HD", *cas, *size as usize);
                }
            }
            Outcome::Deleted => {
                if !options.is_quiet {
                    self.status(out, b"HD", 0, 0);
                }
            }
            Outcome::NotStored => self.status(out, b"NS", 0, self.size),
            Outcome::Exists => self.status(out, b"EX", 0, self.size),
            Outcome::NotFound => self.status(out, b"NF", 0, self.size),
            Outcome::NotNumeric => out.extend_from_slice(reply::NOT_NUMERIC),
            Outcome::NoMemory => out.extend_from_slice(reply::NO_MEMORY),
            Outcome::Touched | Outcome::Flushed => {}
        }
    }

    /// A reply without an item: two letters, and the flags that make sense for the command.
    fn status(&self, out: &mut Vec<u8>, code: &[u8], cas: u64, size: usize) {
        out.extend_from_slice(code);
        for (letter, flag) in self.flags {
            match letter {
                b'O' => echo(out, flag),
                b'k' => write_key_flag(out, self.key, self.options.has_binary_key),
                b'c' if self.verb == MetaVerb::Set => flag_number(out, b'c', cas),
                b's' if self.verb == MetaVerb::Set => flag_number(out, b's', size as u64),
                _ => {}
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    fn number(&self, out: &mut Vec<u8>, value: u64, cas: u64, deadline: Deadline) {
        if self.options.is_quiet {
            return;
        }
        let mut digits = itoa::Buffer::new();
        let text = digits.format(value).as_bytes();
        head(out, self.options.shows_value, text.len());
        for (letter, flag) in self.flags {
            match letter {
                b'O' => echo(out, flag),
                b'k' => write_key_flag(out, self.key, self.options.has_binary_key),
                b'c' => flag_number(out, b'c', cas),
                b't' => flag_ttl(out, deadline, self.now),
                _ => {}
            }
        }
        out.extend_from_slice(b"\r\n");
        if self.options.shows_value {
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// `VA` with the value's length, or `HD`.
fn head(out: &mut Vec<u8>, shows_value: bool, length: usize) {
    if shows_value {
        out.extend_from_slice(b"VA ");
        out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    } else {
        out.extend_from_slice(b"HD");
    }
}

fn hit(
    out: &mut Vec<u8>,
    key: Key<'_>,
    flags: Flags<'_>,
    options: &MetaOptions,
    sight: &Sight,
    value: Shown<'_>,
    now: Now,
) {
    // A client that has this very value already need not get it again.
    let shows_value = options.shows_value && options.compare != Some(sight.cas);
    head(out, shows_value, value.len());
    for (letter, flag) in flags {
        match letter {
            b'O' => echo(out, flag),
            b'k' => write_key_flag(out, key, sight.marks.has_binary_key),
            b's' => flag_number(out, b's', value.len() as u64),
            b'c' => flag_number(out, b'c', sight.cas),
            b'f' => flag_number(out, b'f', u64::from(sight.flags)),
            b't' => flag_ttl(out, sight.deadline, now),
            b'h' => flag_number(out, b'h', u64::from(sight.was_fetched)),
            b'l' => flag_number(out, b'l', u64::from(sight.idle_s)),
            _ => {}
        }
    }
    if sight.marks.is_won {
        out.extend_from_slice(b" Z");
    }
    if sight.marks.is_stale {
        out.extend_from_slice(b" X");
    }
    if sight.wins {
        out.extend_from_slice(b" W");
    }
    out.extend_from_slice(b"\r\n");
    if shows_value {
        value.append_to(out);
        out.extend_from_slice(b"\r\n");
    }
}

fn miss(out: &mut Vec<u8>, key: Key<'_>, flags: Flags<'_>, options: &MetaOptions) {
    if options.is_quiet {
        return;
    }
    out.extend_from_slice(b"EN");
    for (letter, flag) in flags {
        match letter {
            b'O' => echo(out, flag),
            b'k' => write_key_flag(out, key, options.has_binary_key),
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn echo(out: &mut Vec<u8>, flag: &[u8]) {
    out.push(b' ');
    out.extend_from_slice(flag);
}

fn flag_number(out: &mut Vec<u8>, letter: u8, number: u64) {
    out.extend_from_slice(&[b' ', letter]);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn flag_ttl(out: &mut Vec<u8>, deadline: Deadline, now: Now) {
    match deadline.remaining_s(now) {
        Some(seconds) => flag_number(out, b't', seconds),
        None => out.extend_from_slice(b" t-1"),
    }
}

fn write_key_flag(out: &mut Vec<u8>, key: Key<'_>, is_binary: bool) {
    out.extend_from_slice(b" k");
    write_key(out, key, is_binary);
    if is_binary {
        out.extend_from_slice(b" b");
    }
}

/// Four bytes of base64 for each three of the longest key.
const ENCODED_MAX: usize = 336;

pub(super) fn write_key(out: &mut Vec<u8>, key: Key<'_>, is_binary: bool) {
    if !is_binary {
        return out.extend_from_slice(key.bytes());
    }
    let mut encoded = [0; ENCODED_MAX];
    if let Ok(length) = BASE64.encode_slice(key.bytes(), &mut encoded) {
        out.extend_from_slice(&encoded[..length]);
    }
}
