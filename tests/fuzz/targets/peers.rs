//! See `peers`.

#![no_main]

#[path = "../peers.rs"]
#[allow(dead_code)]
mod peers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| peers::peers(data));
