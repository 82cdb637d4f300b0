//! Any sequence of calls on part queues, five bytes a call, against the models of the crate's own tests.
//! The first byte chooses the model: exact, or short of memory.
#![no_main]

#[path = "../../crates/staithe-parts/tests/drive/mod.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((model, calls)) = data.split_first() else { return };
    let ops: Vec<_> =
        calls.as_chunks::<5>().0.iter().take(200).map(|raw| drive::Op::from_bytes(*raw)).collect();
    if model % 2 == 0 { drive::exact::run(&ops) } else { drive::bounded::run(&ops) }
});
