//! Any bytes as a snapshot file, and any damage to a good one: refused, or exactly what was written.
#![no_main]

#[path = "../../crates/staithe-snapshot/tests/loader/script.rs"]
mod script;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| script::run_bytes(bytes));
