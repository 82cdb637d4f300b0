//! Any bytes as a manifest, with right checksums and wrong ones: refused, or read the same in both ways.
#![no_main]

#[path = "../../crates/staithe-fs/tests/manifest/script.rs"]
mod script;

use std::path::PathBuf;
use std::sync::LazyLock;

/// Memory, where there is any to write to.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = PathBuf::from("/dev/shm");
    let dir = if dir.is_dir() { dir } else { std::env::temp_dir() };
    dir.join(format!("staithe-fuzz-manifest-{}", std::process::id()))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| script::run_bytes(bytes, &FILE));
