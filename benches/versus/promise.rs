//! The memory that sessiond states to need above `-m`. The bench shows whether it holds.

/// The process itself, its threads and their buffers.
const FIXED_MIB: f64 = 8.0;
/// The index and the headers of items are within `-m`: this is for what grows beside them.
const PER_MILLION_ITEMS_MIB: f64 = 1.0;
/// Half as much again as was measured, for allocators and kernels that differ.
const PER_THOUSAND_CONNECTIONS_MIB: f64 = 3.0;

pub(crate) fn overhead_mib(items: u64, connections: usize) -> f64 {
    FIXED_MIB
        + items as f64 / 1e6 * PER_MILLION_ITEMS_MIB
        + connections as f64 / 1e3 * PER_THOUSAND_CONNECTIONS_MIB
}

pub(crate) fn in_words() -> String {
    format!(
        "{FIXED_MIB} MiB, {PER_MILLION_ITEMS_MIB} MiB per million items and \
         {PER_THOUSAND_CONNECTIONS_MIB} MiB per 1,000 connections"
    )
}
