//! The cache against a naive model, with time and with local changes between question and answer.

#![cfg(not(loom))]
#![allow(clippy::expect_used)]

mod naive;
mod script;

use proptest::{collection::vec, prelude::*};
use script::{DIRS, Op, run, run_bytes};

fn op() -> impl Strategy<Value = Op> {
    let dir = || 0..DIRS;
    let byte = any::<u8>;
    prop_oneof![
        4 => dir().prop_map(Op::Begin),
        6 => (byte(), byte(), byte(), byte())
            .prop_map(|(token, name, thing, ttl)| Op::Insert { token, name, thing, ttl }),
        3 => (dir(), byte(), byte(), byte())
            .prop_map(|(dir, name, thing, ttl)| Op::Mutate { dir, name, thing, ttl }),
        1 => ((dir(), byte()), (dir(), byte()), byte(), byte())
            .prop_map(|(from, to, thing, ttl)| Op::Rename { from, to, thing, ttl }),
        1 => (dir(), byte()).prop_map(|(dir, name)| Op::Forget { dir, name }),
        1 => dir().prop_map(Op::ForgetDir),
        1 => dir().prop_map(Op::InvalidateTree),
        4 => (byte(), byte()).prop_map(|(token, ttl)| Op::Listing { token, ttl }),
        5 => (byte(), byte(), byte()).prop_map(|(listing, names, thing)| Op::Page { listing, names, thing }),
        4 => byte().prop_map(|listing| Op::Complete { listing }),
        2 => byte().prop_map(Op::Advance),
        1 => Just(Op::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// A cache with room knows exactly what the model knows, and reports exactly what changed.
    #[test]
    fn it_knows_what_the_model_knows(ops in vec(op(), 1..60)) {
        run(&ops, None);
    }

    /// A cache without room knows less, and nothing else.
    #[test]
    fn with_little_room_it_knows_less_and_nothing_else(ops in vec(op(), 1..60), room in 0_usize..8) {
        run(&ops, Some(room));
    }

    /// The fuzz target's body takes any bytes.
    #[test]
    fn any_bytes_are_a_script(bytes in vec(any::<u8>(), 0..300)) {
        run_bytes(&bytes);
    }
}
