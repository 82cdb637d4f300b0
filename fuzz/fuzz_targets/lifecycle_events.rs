//! Any sequence of observations on the lifecycle watcher's state machine, four bytes each, against the naive model of
//! the crate's own tests.
#![no_main]

#[path = "../../crates/staithe-lifecycle/tests/model/naive.rs"]
mod naive;
#[path = "../../crates/staithe-lifecycle/tests/model/script.rs"]
mod script;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| script::run_bytes(bytes));
