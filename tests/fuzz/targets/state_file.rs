//! See `state_file`.

#![no_main]

#[path = "../state_file.rs"]
#[allow(dead_code)]
mod state_file;

libfuzzer_sys::fuzz_target!(|data: &[u8]| state_file::state_file(data));
