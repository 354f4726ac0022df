//! The commands of operators: stats, lru_crawler, watch, slabs, lru, cache_memlimit.
//!
//! Words behind the command may be shortened, as memcached compares only what was sent.

use super::text::{BAD_FORMAT, BadLine, Fields, Line, Parsing, signed, unsigned};
use super::{Request, reply};

/// What `stats` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The general list.
    General,
    /// Set the counters to zero.
    Reset,
    /// Counts by prefix of the key.
    Detail(Detail),
    /// Some keys of one class.
    Cachedump {
        /// Which class.
        class: u32,
        /// At most so many; 0 is all.
        limit: u32,
    },
    /// `cachedump` without its numbers, which may be forbidden before it is wrong.
    BadCachedump(&'static [u8]),
    /// Open connections.
    Connections,
    /// Items by class.
    Items,
    /// Memory by class.
    Slabs,
    /// Items by size.
    Sizes,
    /// What the server was started with.
    Settings,
    /// The group; no memcached has it.
    Replication,
}

/// What to do with the counts by prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Start counting.
    On,
    /// Stop counting.
    Off,
    /// Show them.
    Dump,
}

/// What `lru_crawler` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crawl {
    /// Sweep in the background.
    Enable,
    /// Stop that.
    Disable,
    /// Sweep now.
    Sweep(Classes),
    /// Show every item, one line each.
    Metadump(Classes),
    /// Show every key as an `mg` command.
    Mgdump(Classes),
}

/// Which classes a crawl visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classes {
    /// All of them.
    All,
    /// All of them, in the order of the index.
    Hash,
    /// Bit n stands for class n.
    Some(u64),
    /// Something that names no class.
    Bad,
}

impl Classes {
    /// Whether a class is among them.
    pub fn has(self, class: u32) -> bool {
        match self {
            Self::All | Self::Hash => true,
            Self::Some(bits) => bits >> class & 1 == 1,
            Self::Bad => false,
        }
    }
}

/// Commands that steer what we may not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tune {
    /// It makes sense, and changes nothing here.
    Accepted,
    /// Move a page between classes.
    Reassign {
        /// From this class; -1 is any.
        source: i32,
        /// To this one.
        target: i32,
    },
    /// Change how the LRU is divided, which takes the thread that does it.
    Lru,
}

/// Kinds of events that can be watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(pub u32);

impl Events {
    /// Commands as they came; never logged here.
    pub const RAW_COMMANDS: Self = Self(1);
    /// Live items dropped for lack of memory.
    pub const EVICTIONS: Self = Self(1 << 1);
    /// Reads.
    pub const FETCHERS: Self = Self(1 << 2);
    /// Stores.
    pub const MUTATIONS: Self = Self(1 << 3);
    /// What the server does by itself; never logged here.
    pub const SYSTEM: Self = Self(1 << 4);
    /// Connections that open and close.
    pub const CONNECTIONS: Self = Self(1 << 5);
    /// Deletes that found their key.
    pub const DELETIONS: Self = Self(1 << 6);
    /// Of memcached's proxy, which is not here.
    pub const PROXY: Self = Self(1 << 7);
    /// Not for watchers: whether anybody counts by prefix.
    pub const DETAIL: Self = Self(1 << 31);

    /// Both kinds.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether they have a kind in common.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// memcached has 63 classes and counts from 1.
const CLASS_MAX: u64 = 63;

/// Reads what follows `stats`.
pub(super) fn stats(arguments: &[u8]) -> Parsing<'_> {
    const TOPICS: &[(&str, Topic)] = &[
        ("reset", Topic::Reset),
        ("detail", Topic::Detail(Detail::Dump)),
        ("cachedump", Topic::Cachedump { class: 0, limit: 0 }),
        ("conns", Topic::Connections),
        ("items", Topic::Items),
        ("slabs", Topic::Slabs),
        ("sizes", Topic::Sizes),
        ("settings", Topic::Settings),
        ("replication", Topic::Replication),
    ];
    let mut fields = Fields(arguments);
    let Some(word) = fields.next() else {
        return stats_of(Topic::General);
    };
    let found = TOPICS.iter().find(|(name, _)| is_short_for(word, name));
    match found.map(|(_, topic)| *topic) {
        Some(Topic::Detail(_)) => detail(fields.next()),
        Some(Topic::Cachedump { .. }) => cachedump(&mut fields),
        Some(topic) => stats_of(topic),
        None => Err(BadLine::new(reply::ERROR)),
    }
}

fn stats_of<'a>(topic: Topic) -> Parsing<'a> {
    Ok(Line::Request(Request::Stats { topic }))
}

fn detail(word: Option<&[u8]>) -> Parsing<'_> {
    let detail = match word {
        Some(b"on") => Detail::On,
        Some(b"off") => Detail::Off,
        Some(b"dump") => Detail::Dump,
        _ => return Err(BadLine::new(reply::DETAIL_USAGE)),
    };
    stats_of(Topic::Detail(detail))
}

fn cachedump<'a>(fields: &mut Fields<'a>) -> Parsing<'a> {
    let (Some(class), Some(limit)) = (fields.next(), fields.next()) else {
        return stats_of(Topic::BadCachedump(reply::BAD_LINE));
    };
    let topic = match (number(class), number(limit)) {
        (Some(class), Some(_)) if u64::from(class) > CLASS_MAX => {
            Topic::BadCachedump(reply::ILLEGAL_CLASS)
        }
        (Some(class), Some(limit)) => Topic::Cachedump { class, limit },
        _ => Topic::BadCachedump(reply::BAD_FORMAT),
    };
    stats_of(topic)
}

/// Reads what follows `lru_crawler`.
pub(super) fn lru_crawler(arguments: &[u8]) -> Parsing<'_> {
    let mut fields = Fields(arguments);
    let (word, argument) = (fields.next(), fields.next());
    let is_over = fields.next().is_none();
    let is = |name| word.is_some_and(|word| is_short_for(word, name));
    let crawl = match argument {
        Some(argument) if is_over && is("crawl") => Crawl::Sweep(classes(argument)),
        Some(argument) if is_over && is("metadump") => Crawl::Metadump(classes(argument)),
        Some(argument) if is_over && is("mgdump") => Crawl::Mgdump(classes(argument)),
        Some(argument) if is_over && is("tocrawl") => {
            number(argument).ok_or(BAD_FORMAT)?;
            return tune(Tune::Accepted);
        }
        Some(argument) if is_over && is("sleep") => return sleep(argument),
        None if is("enable") => Crawl::Enable,
        None if is("disable") => Crawl::Disable,
        _ => return Err(BadLine::new(reply::ERROR)),
    };
    Ok(Line::Request(Request::Crawl(crawl)))
}

fn sleep(argument: &[u8]) -> Parsing<'_> {
    /// Microseconds between two items of a crawl.
    const SLEEP_MAX_US: u32 = 1_000_000;
    if number(argument).ok_or(BAD_FORMAT)? > SLEEP_MAX_US {
        return Err(BadLine::new(reply::CRAWLER_SLEEP));
    }
    tune(Tune::Accepted)
}

fn classes(list: &[u8]) -> Classes {
    match list {
        b"all" => return Classes::All,
        b"hash" => return Classes::Hash,
        _ => {}
    }
    let mut bits = 0;
    for class in list.split(|&byte| byte == b',').filter(|class| !class.is_empty()) {
        match unsigned(class) {
            Some(class @ 1..=CLASS_MAX) => bits |= 1 << class,
            _ => return Classes::Bad,
        }
    }
    Classes::Some(bits)
}

/// Reads what follows `slabs`.
pub(super) fn slabs(arguments: &[u8]) -> Parsing<'_> {
    let mut fields = Fields(arguments);
    let (word, first, second) = (fields.next(), fields.next(), fields.next());
    let is = |name| word.is_some_and(|word| is_short_for(word, name));
    match (first, second) {
        (Some(source), Some(target)) if is("reassign") && fields.next().is_none() => {
            let source = signed(source).ok_or(BAD_FORMAT)?;
            let target = signed(target).ok_or(BAD_FORMAT)?;
            tune(Tune::Reassign { source, target })
        }
        (Some(what), value) if is("automove") => automove(what, value),
        _ => Err(BadLine::new(reply::ERROR)),
    }
}

fn automove<'a>(what: &[u8], value: Option<&[u8]>) -> Parsing<'a> {
    /// Seconds that memcached 1.6.45 lets a window last.
    const WINDOW_S: std::ops::RangeInclusive<u32> = 3..=1800;
    if is_short_for(what, "ratio") || is_short_for(what, "freeratio") {
        value.and_then(fraction).ok_or(BadLine::new(reply::ERROR))?;
    } else if is_short_for(what, "window") {
        let window_s = value.and_then(number).ok_or(BAD_FORMAT)?;
        if !WINDOW_S.contains(&window_s) {
            return Err(BadLine::new(reply::AUTOMOVE_WINDOW));
        }
    } else if number(what).ok_or(BAD_FORMAT)? > 2 {
        return Err(BadLine::new(reply::ERROR));
    }
    tune(Tune::Accepted)
}

/// Reads what follows `lru`.
pub(super) fn lru(arguments: &[u8]) -> Parsing<'_> {
    let mut fields = Fields(arguments);
    let word = fields.next().unwrap_or_default();
    let makes_sense = if is_short_for(word, "tune") {
        return lru_tune(&mut fields);
    } else if is_short_for(word, "mode") {
        fields.next().is_some_and(|mode| mode == b"flat" || mode == b"segmented")
    } else {
        is_short_for(word, "temp_ttl") && fields.next().and_then(signed).is_some()
    };
    if makes_sense { tune(Tune::Lru) } else { Err(BadLine::new(reply::ERROR)) }
}

fn lru_tune<'a>(fields: &mut Fields<'a>) -> Parsing<'a> {
    /// What memcached leaves at least for cold items, in percent.
    const COLD_MIN: u64 = 20;
    let error = BadLine::new(reply::ERROR);
    let mut percent = || fields.next().and_then(number).ok_or(error);
    let (hot, warm) = (percent()?, percent()?);
    let mut factor = || fields.next().and_then(fraction).ok_or(error);
    let (hot_factor, warm_factor) = (factor()?, factor()?);
    if u64::from(hot) + u64::from(warm) > 100 - COLD_MIN {
        return Err(BadLine::new(reply::LRU_PERCENT));
    }
    if hot_factor <= 0.0 || warm_factor <= 0.0 {
        return Err(BadLine::new(reply::LRU_FACTOR));
    }
    tune(Tune::Accepted)
}

/// Reads what follows `cache_memlimit`.
pub(super) fn cache_memlimit(arguments: &[u8]) -> Parsing<'_> {
    /// More is taken for a number of bytes.
    const MEGABYTES_MAX: u32 = 1_000_000_000;
    const MEGABYTES_MIN: u32 = 8;
    let mut fields = Fields(arguments);
    let error = match fields.next().and_then(number).ok_or(BadLine::new(reply::ERROR))? {
        ..MEGABYTES_MIN => reply::MEMLIMIT_SMALL,
        megabytes @ ..=MEGABYTES_MAX => {
            let noreply = super::text::is_noreply(arguments);
            return Ok(Line::Request(Request::MemoryLimit { megabytes, noreply }));
        }
        _ => reply::MEMLIMIT_BYTES,
    };
    Err(BadLine::new(error))
}

/// Reads what follows `watch`.
pub(super) fn watch(arguments: &[u8]) -> Parsing<'_> {
    const KINDS: &[(&str, Events)] = &[
        ("rawcmds", Events::RAW_COMMANDS),
        ("evictions", Events::EVICTIONS),
        ("fetchers", Events::FETCHERS),
        ("mutations", Events::MUTATIONS),
        ("sysevents", Events::SYSTEM),
        ("connevents", Events::CONNECTIONS),
        ("deletions", Events::DELETIONS),
        ("proxyreqs", Events::PROXY),
        ("proxyevents", Events::PROXY),
        ("proxyuser", Events::PROXY),
    ];
    let mut events = Events::default();
    for word in Fields(arguments) {
        let kind = KINDS.iter().find(|(name, _)| is_short_for(word, name));
        match kind {
            Some((_, kind)) => events = events.and(*kind),
            None => return Ok(Line::Request(Request::Watch { events: None })),
        }
    }
    let events = if events == Events::default() { Events::FETCHERS } else { events };
    Ok(Line::Request(Request::Watch { events: Some(events) }))
}

fn tune<'a>(tune: Tune) -> Parsing<'a> {
    Ok(Line::Request(Request::Tune { tune, noreply: false }))
}

/// memcached compares as many letters as the client has sent.
fn is_short_for(word: &[u8], name: &str) -> bool {
    !word.is_empty() && name.as_bytes().starts_with(word)
}

fn number(field: &[u8]) -> Option<u32> {
    unsigned(field)?.try_into().ok()
}

fn fraction(field: &[u8]) -> Option<f64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::text::line;
    use super::*;
    use crate::key::KEY_MAX;

    fn request(text: &str) -> Request<'_> {
        match line(text.as_bytes(), Box::leak(Box::new([0; KEY_MAX]))) {
            Ok(Line::Request(request)) => request,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn error(text: &str) -> &'static str {
        match line(text.as_bytes(), Box::leak(Box::new([0; KEY_MAX]))) {
            Err(bad) => std::str::from_utf8(bad.error).unwrap().trim_end(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn sub_commands_may_be_shortened() {
        let topic = |text| match request(text) {
            Request::Stats { topic } => topic,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(topic("stats"), Topic::General);
        assert_eq!(topic("stats  "), Topic::General);
        assert_eq!(topic("stats ite"), Topic::Items);
        assert_eq!(topic("stats res "), Topic::Reset);
        assert_eq!(topic("stats rep"), Topic::Replication);
        assert_eq!(error("stats itemsx"), "ERROR");
        assert_eq!(request("lru_crawler meta all"), request("lru_crawler metadump all"));
    }

    #[test]
    fn classes_are_a_list_or_a_word() {
        fn classes(text: &str) -> Classes {
            match request(text) {
                Request::Crawl(Crawl::Metadump(classes)) => classes,
                other => panic!("{text}: {other:?}"),
            }
        }
        assert_eq!(classes("lru_crawler metadump hash"), Classes::Hash);
        assert_eq!(classes("lru_crawler metadump 1,63"), Classes::Some(1 << 1 | 1 << 63));
        assert!(classes("lru_crawler metadump 2,1").has(1));
        for list in ["0", "64", "x", "1,x", "-1"] {
            assert_eq!(classes(&format!("lru_crawler metadump {list}")), Classes::Bad, "{list}");
        }
    }

    #[test]
    fn each_mistake_has_memcacheds_line() {
        for (text, says) in [
            ("stats detail", "CLIENT_ERROR usage: stats detail on|off|dump"),
            ("lru_crawler", "ERROR"),
            ("lru_crawler metadump", "ERROR"),
            ("lru_crawler metadump all all", "ERROR"),
            ("lru_crawler enable now", "ERROR"),
            ("lru_crawler sleep x", "CLIENT_ERROR bad command line format"),
            ("lru_crawler sleep 1000001", "CLIENT_ERROR sleep must be one second or less"),
            ("lru_crawler tocrawl x", "CLIENT_ERROR bad command line format"),
            ("slabs", "ERROR"),
            ("slabs reassign 1", "ERROR"),
            ("slabs reassign a b", "CLIENT_ERROR bad command line format"),
            ("slabs automove", "ERROR"),
            ("slabs automove 3", "ERROR"),
            ("slabs automove x", "CLIENT_ERROR bad command line format"),
            ("slabs automove ratio", "ERROR"),
            ("slabs automove window", "CLIENT_ERROR bad command line format"),
            ("slabs automove window 2", "CLIENT_ERROR automove window too low or too high"),
            ("lru", "ERROR"),
            ("lru tune 1 2 3", "ERROR"),
            ("lru tune 50 50 1 1", "ERROR hot and warm pcts must not exceed 80"),
            ("lru tune 1 1 0 1", "ERROR hot/warm age factors must be greater than 0"),
            ("lru mode x", "ERROR"),
            ("lru temp_ttl x", "ERROR"),
            ("cache_memlimit", "ERROR"),
            ("cache_memlimit 7", "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m"),
            (
                "cache_memlimit 1000000001",
                "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes",
            ),
        ] {
            assert_eq!(error(text), says, "{text}");
        }
    }

    fn tuned(text: &str) -> Tune {
        match request(text) {
            Request::Tune { tune, .. } => tune,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn tuning_that_makes_sense_is_accepted() {
        for text in [
            "slabs automove 1",
            "slabs automove ratio 0.8",
            "slabs automove freeratio 0.01",
            "slabs automove window 30",
            "lru tune 20 40 0.2 2.0",
            "lru_crawler sleep 100",
            "lru_crawler tocrawl 0",
        ] {
            assert_eq!(tuned(text), Tune::Accepted, "{text}");
        }
        assert_eq!(tuned("lru mode flat"), Tune::Lru);
        assert_eq!(tuned("lru temp_ttl -1"), Tune::Lru);
    }

    #[test]
    fn watch_takes_any_number_of_kinds() {
        let events = |text| match request(text) {
            Request::Watch { events } => events,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(events("watch"), Some(Events::FETCHERS));
        let both = Events::EVICTIONS.and(Events::MUTATIONS);
        assert_eq!(events("watch mutations evictions"), Some(both));
        assert_eq!(events("watch birds"), None);
    }
}
