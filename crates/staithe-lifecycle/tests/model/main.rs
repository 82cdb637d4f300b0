//! Any observations in any order: the state machine against a naive model, step by step.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

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
    fn it_does_what_the_model_does(events in vec(any::<[u8; 4]>(), 0..200)) {
        script::run_bytes(events.as_flattened());
    }

    /// Verdicts and agreeing probes above all: lives that come to their end.
    #[test]
    fn it_does_what_the_model_does_when_most_agree(events in vec((60_u8..250, 0_u8..6, 0_u8..40, any::<u8>()), 0..200)) {
        let events: Vec<[u8; 4]> = events.into_iter().map(|(kind, a, b, c)| [kind, a, b, c]).collect();
        script::run_bytes(events.as_flattened());
    }
}
