use proptest::prelude::*;
use staithe_store::{ETag, Key, Version};

use super::*;

const DEFAULTS: Defaults = Defaults { uid: 7, gid: 8, file_mode: 0o640, dir_mode: 0o750 };

fn stored() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn object(key: &str, content_type: Option<&str>, entries: &[(&str, &str)]) -> ObjectMeta {
    ObjectMeta {
        key: Key::new(key).unwrap(),
        size: 0,
        version: Version { etag: ETag::new("\"e\""), id: None },
        last_modified: stored(),
        metadata: entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        content_type: content_type.map(str::to_owned),
    }
}

fn decode(key: &str, content_type: Option<&str>, entries: &[(&str, &str)]) -> FileMeta {
    FileMeta::decode(&object(key, content_type, entries), &DEFAULTS)
}

#[test]
fn what_s3fs_wrote_is_read_and_written_back_as_it_was() {
    let entries = [
        ("atime", "1700000001.000000042"),
        ("ctime", "1700000002"),
        ("gid", "1001"),
        ("mode", "33188"),
        ("mtime", "-1.500000000"),
        ("uid", "1000"),
        ("xattr", "%7B%22user.color%22%3A%22Ymx1ZQ%3D%3D%22%2C%22user.raw%22%3A%22//79%22%7D"),
        ("owner-team", "harbour"),
    ];
    let meta = decode("a", Some("text/plain"), &entries);
    assert_eq!((meta.kind, meta.mode, meta.uid, meta.gid), (Kind::File, 0o644, 1000, 1001));
    assert_eq!(meta.mtime, UNIX_EPOCH - Duration::from_millis(500));
    assert_eq!(meta.atime, stored() + Duration::new(1, 42));
    assert_eq!(meta.ctime, stored() + Duration::from_secs(2));
    assert_eq!(&meta.xattrs["user.color"][..], b"blue");
    assert_eq!(&meta.xattrs["user.raw"][..], [0xFF, 0xFE, 0xFD]);
    assert_eq!(meta.extra.len(), 1);

    let again = meta.encode(2048).unwrap();
    assert_eq!(again.metadata, object("a", None, &entries).metadata);
    assert_eq!(again.content_type.as_deref(), Some("text/plain"));
}

#[test]
fn kinds_are_told_by_key_then_bits_then_media_type() {
    let kind = |key, content_type, mode| decode(key, content_type, &[("mode", mode)]).kind;
    assert_eq!(kind("d/", None, "33188"), Kind::Directory);
    assert_eq!(kind("d", None, "16877"), Kind::Directory);
    assert_eq!(kind("l", None, "41471"), Kind::Symlink);
    assert_eq!(kind("f", Some(DIRECTORY_TYPE), "33188"), Kind::File);
    assert_eq!(kind("d", Some(DIRECTORY_TYPE), "493"), Kind::Directory);
    assert_eq!(kind("d", Some("httpd/unix-directory; charset=utf-8"), ""), Kind::Directory);
    assert_eq!(kind("f", Some("text/plain"), "420"), Kind::File);
    let fifo = decode("p", None, &[("mode", "4516")]);
    assert_eq!((fifo.kind, fifo.mode), (Kind::File, 0o644));
}

#[test]
fn what_makes_no_sense_counts_as_missing() {
    let entries = [
        ("mode", "rwxr-xr-x"),
        ("uid", "-1"),
        ("gid", "4294967296"),
        ("atime", "2023-11-14T22:13:20Z"),
        ("mtime", "1.5e9"),
        ("ctime", "9223372036854775807.999999999"),
        ("xattr", "%7B%22user.a%22%3A1%7D"),
    ];
    let meta = decode("a", None, &entries);
    let plain = FileMeta::new(Kind::File, 0o640, 7, 8, stored());
    assert_eq!(meta.extra.keys().collect::<Vec<_>>(), ["xattr"]);
    assert_eq!(FileMeta { ctime: stored(), extra: Metadata::new(), ..meta.clone() }, plain);
    assert_eq!(meta.encode(2048).unwrap().metadata["xattr"], entries[6].1, "kept as it was");

    let mut set = meta;
    set.xattrs.insert("user.b".to_owned(), Bytes::from_static(b"x"));
    assert!(set.encode(2048).unwrap().metadata["xattr"].contains("user.b"));
    assert_eq!(decode("d/", None, &[("mode", "100644")]).mode, 0o750);
}

#[test]
fn too_many_attributes_are_refused() {
    let mut meta = FileMeta::new(Kind::File, 0o644, 0, 0, stored());
    let bytes: usize = meta.encode(2048).unwrap().metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    assert!(meta.encode(bytes).is_ok());
    assert_eq!(meta.encode(bytes - 1).unwrap_err().kind(), FsErrorKind::AttributeTooLarge);
    meta.xattrs.insert("user.a".to_owned(), vec![0; 2048].into());
    assert_eq!(meta.encode(2048).unwrap_err().kind(), FsErrorKind::AttributeTooLarge);
}

fn time() -> impl Strategy<Value = SystemTime> {
    (-100_000_000_000..100_000_000_000_i64, prop_oneof![Just(0), 0..1_000_000_000_u32]).prop_map(
        |(secs, nanos)| {
            let whole = Duration::from_secs(secs.unsigned_abs());
            let second = if secs < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
            second + Duration::new(0, nanos)
        },
    )
}

prop_compose! {
    fn file_meta()(
        kind in prop_oneof![Just(Kind::File), Just(Kind::Directory), Just(Kind::Symlink)],
        mode in 0..=0o7777_u16,
        (uid, gid) in any::<(u32, u32)>(),
        times in (time(), time(), time()),
        xattrs in prop::collection::btree_map(".{0,12}", prop::collection::vec(any::<u8>(), 0..24), 0..4),
        write_id in prop::option::of("[0-9a-f]{32}"),
        extra in prop::collection::btree_map("x-[a-z-]{1,8}", "[ -~]{0,12}", 0..4),
        content_type in prop::option::of("[a-z]{1,5}/[a-z]{1,5}"),
    ) -> FileMeta {
        FileMeta {
            kind, mode, uid, gid,
            atime: times.0, mtime: times.1, ctime: times.2,
            xattrs: xattrs.into_iter().map(|(name, value)| (name, value.into())).collect(),
            write_id, extra, content_type,
        }
    }
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(meta in file_meta()) {
        let NewObject { metadata, content_type } = meta.encode(usize::MAX).unwrap();
        prop_assert!(metadata.values().all(|value| value.bytes().all(|b| (0x20..0x7F).contains(&b))));
        let object = ObjectMeta { metadata, content_type, ..object("k", None, &[]) };
        prop_assert_eq!(FileMeta::decode(&object, &DEFAULTS), meta);
    }

    #[test]
    fn any_metadata_is_read_and_then_stays_the_same(
        marker: bool,
        content_type in prop::option::of(".{0,30}"),
        values in prop::collection::vec(prop_oneof![".{0,20}", "-?[0-9]{1,22}(\\.[0-9]{0,12})?"], OURS.len()),
    ) {
        let entries: Vec<(&str, &str)> = OURS.into_iter().zip(values.iter().map(String::as_str)).collect();
        let object = object(if marker { "k/" } else { "k" }, content_type.as_deref(), &entries);
        let once = FileMeta::decode(&object, &DEFAULTS);
        let NewObject { metadata, content_type } = once.encode(usize::MAX).unwrap();
        let again = ObjectMeta { metadata, content_type, ..object };
        prop_assert_eq!(FileMeta::decode(&again, &DEFAULTS), once);
    }

    #[test]
    fn fractions_of_any_length(nanos in 0..1_000_000_000_u32, digits in 0..12_usize) {
        let text = format!("5.{}", &format!("{nanos:09}000")[..digits]);
        let scale = 10_u32.pow(9_u32.saturating_sub(digits as u32));
        let expected = UNIX_EPOCH + Duration::new(5, nanos / scale * scale);
        prop_assert_eq!(parse_time(&text), Some(expected));
    }
}
