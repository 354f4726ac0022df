//! What a group costs: a node of three beside a single node of the same program.

use crate::dataset::Dataset;
use crate::failure::Failure;
use crate::options::Pace;
use crate::rounds::{self, Comparison, Programs};
use crate::server::Setup;
use crate::workloads::GROUP_WORKLOADS;

pub(crate) const NODES: usize = 3;

/// A single node takes the place of memcached in each comparison. All nodes share a core, so what a
/// set costs in a group is that of the node that the clients talk to, and its latency has the work
/// of all three in it.
pub(crate) fn compare(programs: &Programs, pace: Pace) -> Result<Vec<Comparison>, Failure> {
    let mut comparisons = Vec::new();
    for workload in GROUP_WORKLOADS {
        let dataset = Dataset::new(workload.length_of);
        let setup = Setup::with_limit(workload.room.limit_mib());
        let single = programs.sessiond.start(&setup)?;
        let group = programs.sessiond.start_group(NODES, &setup)?;
        for server in [&single, &group[0]] {
            server.connect()?.preload(&dataset)?;
        }
        comparisons.push(rounds::compare_two(workload, &dataset, [&single, &group[0]], pace)?);
    }
    Ok(comparisons)
}
