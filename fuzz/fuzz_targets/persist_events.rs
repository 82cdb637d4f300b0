//! Any sequence of events on the persist queue's state machine, four bytes each, against the naive model of the
//! crate's own tests.
#![no_main]

#[path = "../../crates/staithe-persist/tests/model/ends.rs"]
mod ends;
#[path = "../../crates/staithe-persist/tests/model/naive.rs"]
mod naive;
#[path = "../../crates/staithe-persist/tests/model/script.rs"]
mod script;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| script::run_bytes(bytes));
