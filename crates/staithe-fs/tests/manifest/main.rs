//! Manifests from anywhere: any bytes, with right checksums and wrong ones.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod script;

use proptest::collection::vec;
use proptest::prelude::*;
use script::{HEADER, build, read};

fn config() -> ProptestConfig {
    let cases = ProptestConfig::default().cases.max(1_000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Two objects as a block has them, the second with a version id.
fn block() -> Vec<u8> {
    let one = [&[0, 3][..], b"a/b", &[5, 7, 0, 0, 3], b"tag", &[0]].concat();
    let two = [&[2, 1][..], b"c", &[6, 8, 1, 1], &[9; 16], &[3], b"id"].concat();
    [one, two].concat()
}

/// What two such objects take in memory.
const ROOM: u64 = 255 << 4;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_refused_or_read_the_same_in_both_ways(bytes in vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        script::run_bytes(&bytes, &dir.path().join("m"));
    }

    #[test]
    fn a_block_with_any_byte_changed_is_refused_or_read_the_same_in_both_ways(
        at in 0..block().len(), byte in any::<u8>(), objects in 1..4_u32, room in prop_oneof![Just(ROOM), 0..ROOM],
    ) {
        let mut block = block();
        block[at] = byte;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m");
        std::fs::write(&file, build(HEADER, &[(objects, &block)], objects.into(), room)).unwrap();
        read(&file);
    }
}

#[test]
fn what_is_built_here_is_a_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m");
    std::fs::write(&file, build(HEADER, &[(2, &block())], 2, ROOM)).unwrap();
    let objects = read(&file).unwrap();
    let keys: Vec<_> = objects.iter().map(|object| (object.key.as_str(), object.size)).collect();
    assert_eq!(keys, [("a/b", 5), ("a/c", 6)]);
    assert_eq!(objects[1].version.id.as_ref().unwrap().as_str(), "id");
    assert_eq!(objects[0].version.etag.as_str(), "tag");
}
