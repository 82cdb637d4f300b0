//! Any events in any order: the state machine against a naive model, move by move.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod ends;
mod naive;
mod script;

use proptest::{collection::vec, prelude::*};

fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(1_000), ..default }
}

proptest! {
    #![proptest_config(config())]


    #[test]
    fn it_does_what_the_model_does(events in vec(any::<[u8; 4]>(), 0..100)) {
        script::run_bytes(events.as_flattened());
    }

    /// Few keys, few ends: jobs that meet again and again.
    #[test]
    fn it_does_what_the_model_does_over_long_lives(events in vec((0_u8..230, 0_u8..3, any::<[u8; 2]>()), 0..150)) {
        let events: Vec<[u8; 4]> = events.into_iter().map(|(kind, a, [b, c])| [kind, a, b, c]).collect();
        script::run_bytes(events.as_flattened());
    }
}
