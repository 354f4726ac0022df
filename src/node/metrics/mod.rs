//! The figures of `stats` for Prometheus: those that memcached has under the names of memcached's
//! exporter, so that its dashboards and alerts go on; those of replication as `sessiond_*`.
//!
//! Every family is written whether it has a sample or not. What each means for an operator is in
//! `docs/monitoring.md`.

mod classes;
mod general;
mod replication;

use std::collections::BTreeMap;

use super::Node;
use super::report::{Standing, refused, spoken};
use crate::exposition::Exposition;
use crate::replication::Dialect;
use crate::time::Now;

impl<W> Node<W> {
    /// All figures of this node.
    pub fn metrics(&self, now: Now, out: &mut Exposition) {
        general::write(self, now, out);
        classes::write(self, now, out);
        replication::write(&Standing::of(self, now), now, out);
    }

    /// The little that there is to say of a node that only votes, whose peers speak so.
    pub fn metrics_of_witness(&self, dialects: &BTreeMap<Box<str>, Dialect>, out: &mut Exposition) {
        let not_after_s = self.certificates.lock().own;
        replication::write_witness(&self.options.me.name, &refused(self), not_after_s, out);
        replication::spoken(&spoken(self, dialects), out);
    }

    /// Whether clients should be sent here; or in one line why not.
    pub fn readiness(&self, now: Now) -> Result<(), String> {
        Standing::of(self, now).readiness()
    }
}

#[cfg(test)]
mod tests;
