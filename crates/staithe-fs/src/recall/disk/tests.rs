use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use staithe_store::{ETag, Metadata};

use super::*;

const SMALL: Limits = Limits { records: 8, bytes: 1 << 20 };

fn key(n: u64) -> Key {
    Key::new(format!("k{n}")).unwrap()
}

fn record(etag: u64, bytes: usize) -> Record {
    let metadata: Metadata = [("mode".to_owned(), "m".repeat(bytes))].into_iter().collect();
    let stored = SystemTime::UNIX_EPOCH + Duration::from_secs(etag);
    Record {
        etag: ETag::new(etag.to_string()),
        size: etag,
        stored,
        metadata,
        content_type: None,
        target: None,
    }
}

async fn keep(disk: &Disk, n: u64, etag: u64) {
    disk.keep(key(n), record(etag, 10));
    disk.settle().await;
}

fn recalled(disk: &Disk, n: u64) -> Option<Record> {
    disk.recall(&key(n), |_| true)
}

fn open(dir: &Path, limits: Limits) -> Disk {
    Disk::open(dir, "v", limits).unwrap()
}

#[tokio::test]
async fn what_was_kept_is_there_in_the_next_run_and_only_the_wanted_state_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("attributes");
    let disk = open(&path, Limits::DEFAULT);
    keep(&disk, 1, 1).await;
    keep(&disk, 1, 2).await;
    keep(&disk, 2, 3).await;
    assert_eq!(disk.len(), 2);
    drop(disk);
    let disk = open(&path, Limits::DEFAULT);
    disk.settle().await;
    assert_eq!(disk.len(), 2);
    assert_eq!(recalled(&disk, 1), Some(record(2, 10)));
    assert_eq!(disk.recall(&key(1), |record| record.etag == ETag::new("1")), None);
    assert_eq!(recalled(&disk, 3), None);
}

#[tokio::test]
async fn what_is_used_stays_and_what_is_not_goes() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(&dir.path().join("attributes"), SMALL);
    for n in 0..100 {
        keep(&disk, n, n).await;
        assert_eq!(recalled(&disk, 0), Some(record(0, 10)), "after {n}");
        disk.settle().await;
        assert!(disk.len() <= SMALL.records, "{}", disk.len());
    }
    assert_eq!(recalled(&disk, 1), None);
    assert_eq!(recalled(&disk, 99), Some(record(99, 10)));
    let generations = disk.shared.database.list_keyspace_names();
    assert_eq!(generations.iter().filter(|name| name.starts_with(GENERATION)).count(), 2);
}

#[tokio::test]
async fn bytes_are_bounded_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("attributes");
    let limits = Limits { records: 1000, bytes: 10_000 };
    let disk = open(&path, limits);
    for n in 0..50 {
        disk.keep(key(n), record(n, 1000));
        disk.settle().await;
    }
    assert!(disk.len() <= 11, "{}", disk.len());
    drop(disk);
    let disk = open(&path, limits);
    disk.settle().await;
    assert!((1..=11).contains(&disk.len()), "{}", disk.len());
    assert_eq!(recalled(&disk, 49), Some(record(49, 1000)));
}

#[tokio::test]
async fn damaged_records_are_set_aside_and_those_of_another_volume_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("attributes");
    let aside = dir.path().join("attributes.damaged");
    let disk = open(&path, SMALL);
    keep(&disk, 1, 1).await;
    drop(disk);
    let other = Disk::open(&path, "w", SMALL).unwrap();
    assert_eq!(recalled(&other, 1), None);
    assert!(!aside.exists(), "another volume's are of no use to anybody");
    keep(&other, 1, 2).await;
    drop(other);
    fs::create_dir(&aside).unwrap();
    fs::write(aside.join("old"), "").unwrap();
    for damage in ["garbage", ""] {
        for entry in fs::read_dir(&path).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::write(entry.path(), damage).unwrap();
            }
        }
        let disk = Disk::open(&path, "w", SMALL).unwrap();
        keep(&disk, 7, 7).await;
        assert_eq!(recalled(&disk, 7), Some(record(7, 10)), "{damage:?}");
    }
    assert!(!aside.join("old").exists(), "one is set aside, in place of an earlier one");
}

#[tokio::test]
async fn what_fails_otherwise_leaves_the_records_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("attributes");
    let disk = open(&path, SMALL);
    keep(&disk, 1, 1).await;
    assert!(Disk::open(&path, "v", SMALL).is_none(), "it is open");
    drop(disk);
    let full = std::io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
    assert!(!is_damage(&fjall::Error::Io(full)));
    assert_eq!(recalled(&open(&path, SMALL), 1), Some(record(1, 10)));
    assert!(!dir.path().join("attributes.damaged").exists());
}

#[tokio::test]
async fn what_is_forgotten_is_in_no_generation_and_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(&dir.path().join("attributes"), SMALL);
    for n in 0..6 {
        keep(&disk, n, n).await;
    }
    // The first four are old by now; one of them is on its way back.
    assert!(recalled(&disk, 1).is_some());
    for n in [0, 1, 5] {
        disk.forget(key(n));
    }
    disk.settle().await;
    assert_eq!((0..6).filter(|n| recalled(&disk, *n).is_some()).collect::<Vec<_>>(), [2, 3, 4]);
    disk.settle().await;
    keep(&disk, 1, 7).await;
    assert_eq!(recalled(&disk, 1), Some(record(7, 10)), "what is kept afterwards is there");
}

#[tokio::test]
async fn a_value_that_is_no_record_is_as_good_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(&dir.path().join("attributes"), SMALL);
    let young = disk.shared.generations.read().young.clone();
    young.insert("k1", "garbage").unwrap();
    assert_eq!(recalled(&disk, 1), None);
    keep(&disk, 1, 1).await;
    assert_eq!(recalled(&disk, 1), Some(record(1, 10)));
}

proptest! {
    // `PROPTEST_CASES` asks for more.
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(16),
        ..ProptestConfig::default()
    })]

    /// Whatever is kept, recalled and opened again in whatever order: what is there is what was kept last, and not more
    /// than may be.
    #[test]
    fn what_is_there_is_what_was_kept_last(steps in prop::collection::vec((0..5_u8, 0..12_u64, any::<u16>()), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attributes");
        let mut disk = open(&path, SMALL);
        let mut kept = BTreeMap::new();
        for (what, n, etag) in steps {
            let etag = u64::from(etag);
            match what {
                0 | 1 => {
                    runtime.block_on(keep(&disk, n, etag));
                    kept.insert(n, etag);
                    prop_assert_eq!(recalled(&disk, n).map(|r| r.etag), Some(ETag::new(etag.to_string())));
                }
                2 => {
                    if let Some(found) = recalled(&disk, n) {
                        prop_assert_eq!(Some(found), kept.get(&n).map(|etag| record(*etag, 10)));
                    }
                }
                3 => {
                    disk.forget(key(n));
                    kept.remove(&n);
                    prop_assert_eq!(recalled(&disk, n), None, "at once");
                    runtime.block_on(disk.settle());
                    prop_assert_eq!(recalled(&disk, n), None, "and afterwards");
                }
                _ => {
                    drop(disk);
                    disk = open(&path, SMALL);
                }
            }
            runtime.block_on(disk.settle());
            prop_assert!(disk.len() <= SMALL.records);
        }
    }
}
