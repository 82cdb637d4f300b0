use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use staithe_store::{ETag, Version, VersionId};

use super::*;
use crate::view::encode::{Encoder, Refused};

fn header(prefix: &str) -> ManifestHeader {
    ManifestHeader {
        volume: "s3://b at somewhere".into(),
        url: "s3://b".into(),
        prefix: prefix.into(),
        created: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        as_of: Some(UNIX_EPOCH + Duration::from_secs(7)),
    }
}

fn object(key: &str) -> ViewObject {
    let etag = ETag::new(format!("\"{:032x}\"", key.len()));
    ViewObject {
        key: Key::new(key).unwrap(),
        size: key.len() as u64,
        version: Version { etag, id: key.ends_with('v').then(|| VersionId::new(format!("id-{key}"))) },
        modified: UNIX_EPOCH + Duration::from_nanos(key.len() as u64 * 1_000_003),
    }
}

fn written(prefix: &str, objects: &[ViewObject]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), &header(prefix)).unwrap();
    for object in objects {
        encoder.push(object).unwrap();
    }
    assert_eq!(encoder.objects(), objects.len() as u64);
    encoder.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<(ManifestHeader, Vec<ViewObject>), Fault> {
    let mut decoder = Decoder::new(bytes)?;
    let mut objects = vec![];
    while let Some(decoded) = decoder.advance()? {
        objects.push(decoded.object);
    }
    assert!(decoder.advance().unwrap().is_none(), "the end stays the end");
    Ok((decoder.header().clone(), objects))
}

fn some(n: u32) -> Vec<ViewObject> {
    (0..n).map(|i| object(&format!("p/{}/{i:06}{}", i / 100, if i % 3 == 0 { "v" } else { "" }))).collect()
}

#[test]
fn objects_of_many_blocks_come_back_as_they_were() {
    // The directories' numbers are not in the order of their digits.
    let mut objects = some(20_000);
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    let bytes = written("p/", &objects);
    let (head, back) = read(&bytes).unwrap();
    assert_eq!((head, &back), (header("p/"), &objects));
    assert!(bytes.len() < 20_000 * 30, "{} bytes", bytes.len());
    let footer: &[u8; FOOTER] = bytes[bytes.len() - FOOTER..].try_into().unwrap();
    let (count, in_memory) = footer_counts(footer).unwrap();
    assert_eq!(count, 20_000);
    assert!(in_memory > objects.iter().map(|o| o.key.as_str().len() as u64 + 20).sum());
    assert_eq!(read(&written("", &[])).unwrap().1, []);
}

#[test]
fn whatever_is_cut_off_or_added_or_flipped_is_found() {
    let bytes = written("p/", &some(40));
    for cut in 0..bytes.len() {
        let fault = read(&bytes[..cut]).unwrap_err();
        let is_told =
            if cut == 0 { matches!(fault, Fault::Foreign) } else { matches!(fault, Fault::Truncated) };
        assert!(is_told, "cut at {cut}: {fault}");
    }
    assert!(matches!(read(&[&bytes[..], b"x"].concat()), Err(Fault::Damaged(_))));
    for at in 0..bytes.len() {
        for bit in [1, 0x80] {
            let mut flipped = bytes.clone();
            flipped[at] ^= bit;
            let fault = read(&flipped).unwrap_err();
            assert!(!matches!(fault, Fault::Io(_)), "byte {at}: {fault}");
        }
    }
}

#[test]
fn blocks_that_are_whole_but_not_all_there_or_in_another_order_are_found() {
    let bytes = written("", &(0..30_000).map(|i| object(&format!("{i:09}"))).collect::<Vec<_>>());
    let head = bytes.windows(1).position(|_| true).unwrap() + 24 + header("").to_json().len() + 4;
    let mut blocks = vec![];
    let mut at = head;
    while bytes[at] == BLOCK_TAG {
        let end = at + FRAME + number(&bytes[at + 1..at + 5]) as usize + 4;
        blocks.push(&bytes[at..end]);
        at = end;
    }
    assert!(blocks.len() > 2, "{}", blocks.len());
    let footer = &bytes[at..];
    let without_one = [&bytes[..head], &blocks[1..].concat(), footer].concat();
    assert!(matches!(read(&without_one), Err(Fault::Damaged(_))));
    blocks.swap(0, 1);
    assert!(matches!(read(&[&bytes[..head], &blocks.concat(), footer].concat()), Err(Fault::Damaged(_))));
}

#[test]
fn what_is_foreign_or_newer_is_told_so() {
    for foreign in [&b""[..], b"\x1f\x8b\x08\0", b"staithe cached object 1\n", &[0; 100]] {
        assert!(matches!(read(foreign), Err(Fault::Foreign)));
    }
    let mut newer = written("", &some(1));
    newer[16] += 1;
    let fault = read(&newer).unwrap_err();
    assert!(matches!(fault, Fault::Newer(2)) && fault.to_string().contains("version 2"), "{fault}");
}

#[test]
fn objects_out_of_order_or_place_are_not_written() {
    let mut encoder = Encoder::new(Vec::new(), &header("p/")).unwrap();
    encoder.push(&object("p/b")).unwrap();
    for (key, is_disorder) in [("p/a", true), ("p/b", true), ("q", false)] {
        let refused = encoder.push(&object(key)).unwrap_err();
        assert_eq!(matches!(refused, Refused::Disorder(_)), is_disorder, "{refused}");
    }
    let long =
        ViewObject { version: Version { etag: ETag::new("e".repeat(5000)), id: None }, ..object("p/c") };
    assert!(matches!(encoder.push(&long), Err(Refused::TooLong(_))));
    encoder.push(&object("p/c")).unwrap();
    assert_eq!(read(&encoder.finish().unwrap()).unwrap().1, [object("p/b"), object("p/c")]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_keys_come_back(keys in proptest::collection::btree_set("[a-c/é\u{10ffff}]{1,12}v?", 0..60)) {
        let objects: Vec<_> = keys.iter().map(|key| object(key)).collect();
        prop_assert_eq!(read(&written("", &objects)).unwrap().1, objects);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..500) {
        let mut begun = written("", &some(3));
        begun.truncate(cut);
        begun.extend(bytes);
        let _ = read(&begun);
    }
}
