//! Drives the entry `verifier`, which the tests drive as well.

#![no_main]

#[path = "../../tests/it/fuzzed/entries.rs"]
#[expect(dead_code, reason = "each target drives one of the entries")]
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entries::verifier(data));
