//! Any sequence of calls on the dentry cache, against the naive model of the crate's own tests.
#![no_main]

#[path = "../../crates/staithe-dentry/tests/model/naive.rs"]
mod naive;
#[path = "../../crates/staithe-dentry/tests/model/script.rs"]
mod script;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| script::run_bytes(bytes));
