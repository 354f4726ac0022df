//! See `parser` in the oracle.

#![no_main]

#[path = "../oracle.rs"]
#[allow(dead_code)]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracle::parser(data));
