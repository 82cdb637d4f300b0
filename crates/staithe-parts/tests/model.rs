//! Any calls in any order, versions mixed, failures anywhere: the queue against a naive model.

#[allow(unreachable_pub)]
mod drive;

use drive::Op;
use proptest::prelude::*;

fn op() -> impl Strategy<Value = Op> {
    prop::array::uniform5(any::<u8>()).prop_map(Op::from_bytes)
}

/// Reads that walk forward in overlapping steps, among everything else but the ends: long lives.
fn calm() -> impl Strategy<Value = Op> {
    (0u8..242, any::<[u8; 4]>()).prop_map(|(kind, [a, b, c, d])| Op::from_bytes([kind, a, b, c, d]))
}

proptest! {
    #[test]
    fn agrees_with_the_exact_model(ops in prop::collection::vec(op(), 0..80)) {
        drive::exact::run(&ops);
    }

    #[test]
    fn agrees_with_the_exact_model_over_long_lives(ops in prop::collection::vec(calm(), 0..160)) {
        drive::exact::run(&ops);
    }

    #[test]
    fn keeps_its_bounds_when_memory_is_short(ops in prop::collection::vec(op(), 0..80)) {
        drive::bounded::run(&ops);
    }

    #[test]
    fn keeps_its_bounds_over_long_lives(ops in prop::collection::vec(calm(), 0..200)) {
        drive::bounded::run(&ops);
    }
}
