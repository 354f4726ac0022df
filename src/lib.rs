//! A memcached-protocol server that keeps web sessions alive when machines die.
//!
//! The map of the modules, and which may use which, is in `docs/architecture.md`.

pub mod chunk;
pub mod exposition;
pub mod key;
pub mod membership;
pub mod node;
pub mod protocol;
pub mod record;
pub mod replication;
pub mod server;
pub mod settings;
pub mod stats;
pub mod store;
pub mod time;
pub mod version;

// What unit tests share with those in `tests/` names the crate as these do.
#[cfg(test)]
extern crate self as sessiond;
