//! Journals from a disk that loses and spoils bytes.
#![cfg(all(not(loom), feature = "disk"))]
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod script;

use proptest::collection::vec;
use proptest::prelude::*;

fn config() -> ProptestConfig {
    let cases = ProptestConfig::default().cases.max(300);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn of_a_damaged_journal_nothing_is_made_up_and_what_is_missing_is_admitted(
        bytes in vec(any::<u8>(), 0..120),
    ) {
        let dir = tempfile::tempdir().unwrap();
        script::run_bytes(&bytes, &dir.path().join("journal"));
    }
}
