//! The parts that measure no speed, as text for terminal and file alike: memory, connections, instructions.

use crate::crowd::{Activity, Crowd, Stage};
use crate::histogram::Histogram;
use crate::instructions::Counted;
use crate::members::Members;
use crate::memory::{Filled, LIMIT_MIB};
use crate::promise;
use crate::redis;
use crate::rejoin::{Rejoin, Rejoins};
use crate::replicated::Replicated;
use crate::report::mebibytes;
use crate::rounds::{Comparison, Ratio, Sample};
use crate::table::Table;

/// How many items both hold, and in what memory.
pub(crate) fn memory(filled: &[Filled]) -> String {
    let mut table = Table::new([
        "values",
        "items memcached",
        "items sessiond",
        "ratio",
        "RSS memcached",
        "RSS sessiond",
        "ratio",
    ]);
    for Filled { name, memcached, sessiond } in filled {
        table.push([
            (*name).to_owned(),
            memcached.items.to_string(),
            sessiond.items.to_string(),
            format!("{:.3}", sessiond.items as f64 / memcached.items as f64),
            format!("{:.1} MiB", mebibytes(memcached.resident_bytes)),
            format!("{:.1} MiB", mebibytes(sessiond.resident_bytes)),
            format!("{:.3}", sessiond.resident_bytes as f64 / memcached.resident_bytes as f64),
        ]);
    }
    format!(
        "## Memory with -m {LIMIT_MIB}\n\n\
         Filled until the number of items stops growing.\n\n{table}"
    )
}

/// What open connections add.
pub(crate) fn crowd(crowd: &Crowd) -> String {
    let mut table = Table::new([
        "connections",
        "they have",
        "RSS memcached",
        "RSS sessiond",
        "each memcached",
        "each sessiond",
    ]);
    for (memcached, sessiond) in crowd.memcached.iter().zip(&crowd.sessiond) {
        table.push([
            memcached.connections.to_string(),
            has_done(memcached).to_owned(),
            format!("{:.1} MiB", mebibytes(memcached.resident_bytes)),
            format!("{:.1} MiB", mebibytes(sessiond.resident_bytes)),
            bytes_each(memcached, &crowd.memcached),
            bytes_each(sessiond, &crowd.sessiond),
        ]);
    }
    let shortage = crowd.shortage.as_ref().map(|shortage| format!("\nThere are {shortage}.\n"));
    format!(
        "## Memory of connections\n\n\
         To servers of -m {LIMIT_MIB} that are full of values of 1 KiB.\n\n{table}{}",
        shortage.unwrap_or_default()
    )
}

fn has_done(stage: &Stage) -> &'static str {
    match (stage.connections, stage.activity) {
        (0, _) => "",
        (_, Activity::Connected) => "connected",
        (_, Activity::AskedOnce) => "done a get",
    }
}

fn bytes_each(stage: &Stage, stages: &[Stage]) -> String {
    if stage.connections == 0 {
        return String::new();
    }
    let added = stage.resident_bytes as f64 - stages[0].resident_bytes as f64;
    format!("{:.0} B", added / stage.connections as f64)
}

/// Whether sessiond keeps within the memory that its documentation states.
pub(crate) fn kept_promises(filled: &[Filled], crowd: &Crowd) -> String {
    let mut table =
        Table::new(["sessiond with", "items", "connections", "RSS above -m", "stated", "kept"]);
    let mut push = |name: &str, items: u64, connections: usize, resident_bytes: u64| {
        let above = mebibytes(resident_bytes) - LIMIT_MIB as f64;
        let stated = promise::overhead_mib(items, connections);
        table.push([
            name.to_owned(),
            items.to_string(),
            connections.to_string(),
            format!("{above:.1} MiB"),
            format!("{stated:.1} MiB"),
            if above <= stated { "yes" } else { "NO" }.to_owned(),
        ]);
    };
    for Filled { name, sessiond, .. } in filled {
        push(&format!("values of {name}"), sessiond.items, 0, sessiond.resident_bytes);
    }
    for stage in crowd.sessiond.iter().filter(|stage| stage.connections > 0) {
        push(has_done(stage), stage.items, stage.connections, stage.resident_bytes);
    }
    format!("## RSS above -m\n\nStated is {}.\n\n{table}", promise::in_words())
}

/// What a node of a group costs beside a single node.
pub(crate) fn group(comparisons: &[Comparison]) -> String {
    let mut table =
        Table::new(["workload", "", "units/s", "p50 us", "p99 us", "CPU us", "CPU ratio"]);
    for comparison in comparisons {
        let names = ["single node", "node of three"];
        for (name, sample) in names.into_iter().zip(comparison.samples()) {
            let ratio = spread(comparison.cpu);
            table.push([
                comparison.workload.name.to_owned(),
                name.to_owned(),
                format!("{:.0}", sample.units_per_s),
                format!("{:.0}", sample.p50_us),
                format!("{:.0}", sample.p99_us),
                format!("{:.2}", sample.cpu_us_per_unit),
                if name == "single node" { String::new() } else { ratio },
            ]);
        }
    }
    format!(
        "## A group of three\n\n\
         One node of a group beside a single node, both sessiond. All three nodes run on one core, the \
         generator on the other: the latency of a set has the work of three in it. CPU is that of the node \
         that is asked. \"alone\" is one connection instead of fifty.\n\n{table}"
    )
}

/// What the way of a set costs, and a member that is slow.
pub(crate) fn members(measured: &Members) -> String {
    let mut ways = Table::new(["one connection, set 1 KiB", "p50 us", "p99 us"]);
    let each = [("at the key's owner", &measured.own), ("forwarded", &measured.forwarded)];
    for (name, latencies) in each {
        let quantile = |share| format!("{:.0}", latencies.quantile_us(share));
        ways.push([name.to_owned(), quantile(0.5), quantile(0.99)]);
    }
    let mut slow = Table::new(["48 connections, set 1 KiB", "sets/s", "p50 us", "p99 us"]);
    let each = [("all members", &measured.all_fast), ("one is slow", &measured.one_slow)];
    for (name, sample) in each {
        slow.push([
            name.to_owned(),
            format!("{:.0}", sample.units_per_s),
            format!("{:.0}", sample.p50_us),
            format!("{:.0}", sample.p99_us),
        ]);
    }
    format!(
        "## Owners, and slow members\n\n\
         The same group of three. A set of a key that another node owns goes there first. The slow member, which \
         no client asks, stands still for 10 ms of each 20: no set is confirmed without it.\n\n{ways}\n{slow}"
    )
}

/// What a set costs that is on three nodes before it is confirmed.
pub(crate) fn replicated(all: &[Replicated]) -> String {
    let mut table = Table::new([
        "set 1 KiB",
        "connections",
        "sets/s",
        "p50 us",
        "p99 us",
        "CPU us, all processes",
        "sets/s, beside Redis",
        "CPU, beside Redis",
    ]);
    let mut push = |name: &str, connections: usize, sample: &Sample, ratios: [String; 2]| {
        let [throughput, cpu] = ratios;
        table.push([
            name.to_owned(),
            connections.to_string(),
            format!("{:.0}", sample.units_per_s),
            format!("{:.0}", sample.p50_us),
            format!("{:.0}", sample.p99_us),
            format!("{:.1}", sample.cpu_us_per_unit),
            throughput,
            cpu,
        ]);
    };
    for Replicated { workload, single, group, redis } in all {
        let connections = workload.connections;
        push("single node", connections, single, Default::default());
        let ratios = redis.as_ref().map(|beside| [spread(beside.throughput), spread(beside.cpu)]);
        push("group of three", connections, group, ratios.unwrap_or_default());
        if let Some(beside) = redis {
            push("Redis, WAIT 2", connections, &beside.redis, Default::default());
        }
    }
    let redis = redis::version().unwrap_or_else(|| {
        "redis-server was not found (Debian: apt-get install redis-server)".into()
    });
    format!(
        "## Sets that are on three nodes\n\n\
         One worker thread for each node, all processes on one core, the generator on the other; all hold all items before. Redis: a \
         master and two replicas, nothing on disk, SET and WAIT 2 0 in one write ({redis}). Clients of the \
         group are spread over its nodes.\n\n{table}"
    )
}

fn spread(ratio: Ratio) -> String {
    format!("{:.2} ({:.2}..{:.2})", ratio.median, ratio.lowest, ratio.highest)
}

/// How a node comes back.
pub(crate) fn rejoin(seen: &Rejoins) -> String {
    let mut table = Table::new([
        "it comes back",
        "s",
        "items sent",
        "MiB sent",
        "p50 us",
        "p99 us",
        "p99.9 us",
    ]);
    let mut push = |name: &str, [took, items, bytes]: [String; 3], latencies: &Histogram| {
        let quantile = |share| format!("{:.0}", latencies.quantile_us(share));
        let (p50, p99, p999) = (quantile(0.5), quantile(0.99), quantile(0.999));
        table.push([name.to_owned(), took, items, bytes, p50, p99, p999]);
    };
    push("(nobody does)", Default::default(), &seen.calm);
    for Rejoin { name, took, items, bytes, latencies } in &seen.rejoins {
        let took = format!("{:.2}", took.as_secs_f64());
        let sent = [took, items.to_string(), format!("{:.0}", mebibytes(*bytes))];
        push(name, sent, latencies);
    }
    format!(
        "## A node that comes back\n\n\
         Into a group of three that holds {} sessions of 2 KiB, all nodes and clients on the same two cores. \
         From its start, or from SIGCONT, until the others have it as a member; the latencies are those of \
         some 1600 commands a second, a fifth of them sets, to the two others.\n\n{table}",
        seen.items
    )
}

/// What callgrind counted.
pub(crate) fn instructions(counted: &[Counted]) -> String {
    let mut table = Table::new([
        "workload",
        "unit",
        "memcached",
        "sessiond",
        "ratio",
        "memcached, all threads",
        "sessiond, all threads",
    ]);
    for Counted { workload, memcached, sessiond } in counted {
        table.push([
            workload.name.to_owned(),
            workload.unit.to_owned(),
            format!("{:.0}", memcached.worker),
            format!("{:.0}", sessiond.worker),
            format!("{:.2}", sessiond.worker / memcached.worker),
            format!("{:.0}", memcached.process),
            format!("{:.0}", sessiond.process),
        ]);
    }
    format!(
        "## User instructions per unit\n\n\
         Of the worker, counted by callgrind, without what the kernel does. get-1k is gets alone here. \
         With all threads the figures waver: the others go by the clock, and under valgrind a second has \
         50 times fewer requests.\n\n{table}"
    )
}
