//! See `e2e::fuzz::world`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e::fuzz::world(data));
