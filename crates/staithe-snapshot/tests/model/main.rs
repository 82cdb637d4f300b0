//! Any calls in any order: the cell against a naive model, call by call, and against itself with real threads.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

mod linear;
mod naive;
mod script;

use proptest::collection::vec;
use proptest::prelude::*;

fn config() -> ProptestConfig {
    let cases = if cfg!(miri) { 3 } else { ProptestConfig::default().cases };
    // No file of failures: what has failed becomes a test with a name.
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn it_does_what_the_model_does(calls in vec(any::<[u8; 2]>(), 0..if cfg!(miri) { 40 } else { 200 })) {
        script::run(&calls);
    }

    #[test]
    fn what_threads_see_is_one_history(threads in vec(vec(any::<u8>(), 1..if cfg!(miri) { 6 } else { 40 }), 2..4)) {
        linear::run(&threads);
    }
}
