//! Any damage to a journal on disk: nothing is made up of it, and what is missing is admitted.
#![no_main]

#[path = "../../crates/staithe-persist/tests/salvage/script.rs"]
mod script;

use std::path::PathBuf;
use std::sync::LazyLock;

/// Memory, where there is any to write to.
static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = PathBuf::from("/dev/shm");
    let dir = if dir.is_dir() { dir } else { std::env::temp_dir() };
    dir.join(format!("staithe-fuzz-journal-{}", std::process::id()))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| script::run_bytes(bytes, &DIR));
