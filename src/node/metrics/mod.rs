//! The figures of `stats` for Prometheus: those that memcached has under the names of memcached's
//! exporter, so that its dashboards and alerts go on; those of replication as `sessiond_*`.
//!
//! Every family is written whether it has a sample or not. What each means for an operator is in
//! `docs/monitoring.md`.

mod classes;
mod general;
mod replication;

use super::Node;
use super::report::Standing;
use crate::exposition::Exposition;
use crate::time::Now;

impl<W> Node<W> {
    /// All figures of this node.
    pub fn metrics(&self, now: Now, out: &mut Exposition) {
        general::write(self, now, out);
        classes::write(self, now, out);
        replication::write(&Standing::of(self, now), now, out);
    }

    /// Whether clients should be sent here; or in one line why not.
    pub fn readiness(&self, now: Now) -> Result<(), String> {
        match Standing::of(self, now).state {
            "member" => Ok(()),
            "isolated" => Err("isolated: reaches no other node, and its copy may be old".into()),
            "fenced" => Err("fenced: cannot prove that it is current".into()),
            "joining" => Err("joining: is being filled by the others".into()),
            _ => Err("waiting: is in no view of its group".into()),
        }
    }
}

#[cfg(test)]
mod tests;
