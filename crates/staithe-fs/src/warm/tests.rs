use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use staithe_store::decorators::{Operation, RequestLog};
use staithe_store::{Key, MemoryOptions, MemoryStore, NewObject, ObjectStore, Payload, PutCondition};

use super::*;
use crate::config::{AttributeSource, CacheConfig, FsConfig, Ttl};

const PAGE: u16 = 3;

struct World {
    bucket: Arc<MemoryStore>,
    log: Arc<RequestLog>,
    fs: Arc<Filesystem>,
    progress: watch::Sender<WarmReport>,
    _state: tempfile::TempDir,
}

impl World {
    async fn of(keys: &[&str]) -> Self {
        Self::with(keys, |_| {}).await
    }

    async fn with(keys: &[&str], change: impl FnOnce(&mut FsConfig)) -> Self {
        let bucket = Arc::new(MemoryStore::new(MemoryOptions { page_max: PAGE, ..MemoryOptions::default() }));
        for key in keys {
            put(&bucket, key, key).await;
        }
        let log = Arc::new(RequestLog::new(bucket.clone()));
        let state = tempfile::tempdir().unwrap();
        let mut config = FsConfig::new(state.path());
        change(&mut config);
        let fs = Filesystem::open(log.clone(), config).await.unwrap();
        Self { bucket, log, fs, progress: watch::Sender::default(), _state: state }
    }

    /// The paths of the files that are found, and the report.
    async fn found(&self, paths: &[&str]) -> (Vec<String>, WarmReport) {
        let seen = Mutex::new(Vec::new());
        let report = self
            .warm(paths, 4, &|file, meter| {
                let seen = &seen;
                Box::pin(async move {
                    seen.lock().push(self.fs.inodes.path(file.ino)?);
                    meter.fetched(file.state().size());
                    Ok(())
                })
            })
            .await;
        let mut seen = seen.into_inner();
        seen.sort();
        (seen, report)
    }

    async fn warm<'f>(&'f self, paths: &[&str], jobs: usize, one: &WarmOne<'f>) -> WarmReport {
        let paths = paths.iter().map(|&path| path.to_owned()).collect();
        self.progress.send_replace(WarmReport::default());
        self.fs.warm_each(&WarmRequest { paths, jobs }, Meter(&self.progress), one).await;
        // Nothing stays that nobody needs, once what was looked up ahead is let go.
        self.fs.end_walks();
        assert_eq!(self.fs.inodes.len(), 1);
        self.progress.borrow().clone()
    }
}

async fn put(bucket: &MemoryStore, key: &str, body: &str) {
    let key = Key::new(key).unwrap();
    let body = Payload::from(body.to_owned().into_bytes());
    bucket.put(&key, body, NewObject::default(), PutCondition::Always).await.unwrap();
}

#[tokio::test]
async fn every_file_is_found_once_whatever_the_pages() {
    let keys = [
        "a//hidden",
        "a/../hidden",
        "a/1",
        "a/2",
        "a/3",
        "a/4",
        "a/b/",
        "a/b/5",
        "a/c/d/e/6",
        "b",
        "c/",
        "x",
        "x!",
        "x-1",
        "x-2",
        "x-3",
        "x-4",
        "x.5",
        "x/7",
        "y",
    ];
    let world = World::of(&keys).await;
    let below_a = ["a/1", "a/2", "a/3", "a/4", "a/b/5", "a/c/d/e/6"];
    let others = ["b", "x!", "x-1", "x-2", "x-3", "x-4", "x.5", "x/7", "y"];
    let all = [&below_a[..], &others].concat();
    let bytes: usize = all.iter().map(|path| path.len()).sum();
    for paths in [&[""][..], &["", "a/1", "x"]] {
        let (seen, report) = world.found(paths).await;
        assert_eq!(seen, all);
        let wanted = WarmReport {
            files_found: all.len() as u64,
            files_done: all.len() as u64,
            bytes_wanted: bytes as u64,
            bytes_done: bytes as u64,
            bytes_fetched: bytes as u64,
            ..WarmReport::default()
        };
        assert_eq!(report, wanted);
    }
    assert_eq!(world.found(&["a", "a/b", "a/1"]).await.0, below_a);
    assert_eq!(world.found(&["a/c/", "b"]).await.0, ["a/c/d/e/6", "b"]);
    assert_eq!(world.found(&["c"]).await.0, [""; 0]);
    assert_eq!(world.found(&["x"]).await.0, ["x/7"]);
}

#[tokio::test]
async fn what_is_not_there_is_a_failure_and_the_rest_is_warmed() {
    let world = World::of(&["a/1", "b"]).await;
    let (seen, report) = world.found(&["a", "b", "c/d", "b/e", "a//1", "a/.."]).await;
    assert_eq!(seen, ["a/1", "b"]);
    let failed: BTreeSet<_> = report.failures.iter().map(|f| &*f.path).collect();
    // What lies below `a` is walked with it.
    assert_eq!(failed, BTreeSet::from(["c/d"]), "{report:?}");
    assert_eq!((report.failed, report.is_whole()), (1, false));
    let (_, report) = world.found(&["a/../b"]).await;
    assert_eq!(report.failed, 1, "{report:?}");
}

#[tokio::test]
async fn failures_are_counted_and_ten_are_told() {
    let keys: Vec<_> = (10..35).map(|n| format!("d/{n}")).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let world = World::of(&keys).await;
    let report =
        world.warm(&["d"], 3, &|_, _| Box::pin(async { Err(FsError::new(FsErrorKind::Io, "broken")) })).await;
    assert_eq!((report.failed, report.failures.len(), report.files_done), (25, 10, 0));
    assert!(report.failures[0].reason.contains("broken"));
}

#[tokio::test]
async fn as_many_at_once_as_asked_for_and_no_more() {
    let keys: Vec<_> = (10..35).map(|n| format!("d/{n}")).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let world = World::of(&keys).await;
    for (jobs, wanted) in [(0, 1), (1, 1), (7, 7), (1000, 25)] {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let report = world
            .warm(&["d"], jobs, &|_, _| {
                let (running, most) = (&running, &most);
                Box::pin(async move {
                    most.fetch_max(running.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
                    let all_wanted = async {
                        while most.load(Ordering::Acquire) < wanted {
                            tokio::task::yield_now().await;
                        }
                    };
                    // Too few in the end are told by the assertion below.
                    let _ = tokio::time::timeout(Duration::from_secs(20), all_wanted).await;
                    // One more than wanted would come now.
                    for _ in 0..1000 {
                        tokio::task::yield_now().await;
                    }
                    running.fetch_sub(1, Ordering::AcqRel);
                    Ok(())
                })
            })
            .await;
        assert_eq!((report.files_done, most.into_inner()), (25, wanted), "{jobs} jobs");
    }
}

#[tokio::test]
async fn what_changes_meanwhile_is_counted_as_it_is() {
    let world = World::with(&["d/a", "d/b", "d/c"], |config| config.live.metadata_ttl = Ttl::Zero).await;
    let bucket = &world.bucket;
    let report = world
        .warm(&["d"], 1, &|file, meter| {
            Box::pin(async move {
                bucket.delete(staithe_store::DeleteRequest::latest(Key::new("d/b").unwrap())).await.unwrap();
                put(bucket, "d/c", "longer than it was").await;
                meter.there(file.state().size());
                Ok(())
            })
        })
        .await;
    assert_eq!((report.files_found, report.files_done, report.failed), (2, 2, 0), "{report:?}");
    assert_eq!((report.bytes_wanted, report.bytes_done, report.bytes_fetched), (21, 21, 0), "{report:?}");
}

#[tokio::test]
async fn where_names_are_believed_a_page_is_all_that_is_asked() {
    let keys = ["d/1", "d/2", "d/3", "d/4", "d/5"];
    let change = |config: &mut FsConfig| {
        (config.live.metadata_ttl, config.attributes) = (Ttl::Forever, AttributeSource::Listing);
    };
    let world = World::with(&keys, change).await;
    world.log.take();
    assert_eq!(world.found(&["d"]).await.0, keys);
    let asked: Vec<_> = world.log.take().into_iter().map(|r| r.operation).collect();
    // One for the name of the directory, two for its pages.
    assert_eq!(asked, [Operation::List; 3]);
}

#[tokio::test]
async fn without_a_cache_nothing_is_asked() {
    let world = World::of(&["a"]).await;
    world.log.take();
    let request = WarmRequest { paths: vec![String::new()], jobs: 1 };
    let error = world.fs.warm(&request, &watch::Sender::default()).await.unwrap_err();
    assert_eq!(error.kind(), FsErrorKind::Unsupported);
    assert!(world.log.take().is_empty());
}

async fn with_cache(keys: &[&str], size: u64) -> (World, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = CacheConfig { dir: dir.path().join("cache"), size };
    (World::with(keys, |c| c.cache = Some(config)).await, dir)
}

async fn warm(world: &World, paths: &[&str]) -> WarmReport {
    let paths = paths.iter().map(|&path| path.to_owned()).collect();
    let progress = watch::Sender::default();
    world.fs.warm(&WarmRequest { paths, jobs: 4 }, &progress).await.unwrap()
}

fn bodies(world: &World) -> usize {
    world.log.take().iter().filter(|r| r.operation == Operation::Get).count()
}

#[tokio::test]
async fn what_was_warmed_is_there_and_is_fetched_once() {
    let (world, _dir) = with_cache(&["d/1", "d/2", "d/e/3", "d/empty", "other"], 1 << 30).await;
    let big = "x".repeat(20 << 20);
    put(&world.bucket, "d/big", &big).await;
    put(&world.bucket, "d/empty", "").await;
    world.log.take();
    let report = warm(&world, &["d"]).await;
    let bytes = big.len() as u64 + 3 + 3 + 5;
    let wanted = WarmReport {
        files_found: 5,
        files_done: 5,
        bytes_wanted: bytes,
        bytes_done: bytes,
        bytes_fetched: bytes,
        ..WarmReport::default()
    };
    assert_eq!(report, wanted);
    // The small ones came once, with their attributes or after them; the big one in pieces.
    let fetched = bodies(&world);
    assert!((3 + 3..=4 + 3).contains(&fetched), "{fetched}");
    let again = warm(&world, &["d"]).await;
    assert_eq!(again, WarmReport { bytes_fetched: 0, ..wanted });
}

#[tokio::test]
async fn a_cache_that_cannot_hold_all_of_it_is_no_success() {
    let (world, _dir) = with_cache(&[], 4 << 20).await;
    for n in 0..8 {
        put(&world.bucket, &format!("d/{n}"), &"x".repeat(1 << 20)).await;
    }
    put(&world.bucket, "e/large", &"x".repeat(5 << 20)).await;
    let report = warm(&world, &["d"]).await;
    assert_eq!(report.files_found, 8, "{report:?}");
    assert!(report.failed >= 4 && report.files_done + report.failed == 8, "{report:?}");
    assert!(report.failures[0].reason.contains("cache"), "{report:?}");
    let report = warm(&world, &["e"]).await;
    assert_eq!((report.failed, report.files_done), (1, 0), "{report:?}");
}

#[tokio::test]
async fn what_is_not_stored_yet_is_passed_over() {
    let (world, _dir) = with_cache(&["d/1"], 1 << 30).await;
    let fs = &world.fs;
    let mode = crate::OpenMode { read: true, write: true, ..crate::OpenMode::default() };
    let crate::Lookup::Found(dir) = fs.lookup(crate::Ino::ROOT, "d").await.unwrap() else { panic!("no d") };
    let crate::Lookup::Found(file) = fs.lookup(dir.attr.ino, "1").await.unwrap() else { panic!("no file") };
    let opened = fs.open_file(file.attr.ino, mode).await.unwrap();
    fs.write(opened.handle, 0, b"new").unwrap();
    let report = warm(&world, &["d", "d/1"]).await;
    assert_eq!(report, WarmReport::default());
    fs.flush(opened.handle).await.unwrap();
    fs.release(opened.handle);
    assert_eq!(warm(&world, &["d"]).await.files_done, 1);
}
