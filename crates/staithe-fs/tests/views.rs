//! Pinned views: what a listing, a look-up and an open file are of, while the view is swapped under them.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod world;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use staithe_fs::{
    AttributeSource, Filesystem, FsConfig, FsErrorKind, HandleId, Ino, LiveConfig, Lookup, PinnedStore, Ttl,
    take_manifest,
};
use staithe_store::decorators::{Operation, RequestLog};
use staithe_store::{DeleteRequest, MemoryOptions, ObjectStore};
use world::{READ, World, k};

/// More than a page of a listing.
const MANY: usize = 1500;

/// A filesystem of a view, and the bucket behind it.
struct Viewed {
    /// Its own filesystem is of the bucket as it is; only the bucket is of use here.
    bucket: World,
    world: World,
    pinned: Arc<PinnedStore>,
    dir: tempfile::TempDir,
}

impl Viewed {
    /// Shows what `fill` has stored, as the view `first`.
    async fn new(fill: impl AsyncFnOnce(&World)) -> Self {
        let options = MemoryOptions { versioned: true, ..MemoryOptions::default() };
        let bucket = World::with(options, |_| {}).await;
        fill(&bucket).await;
        let dir = tempfile::tempdir().unwrap();
        take_manifest(&*bucket.bucket, "", None, &dir.path().join("first"), |_| {}).await.unwrap();
        let log = Arc::new(RequestLog::new(bucket.bucket.clone()));
        let inner: Arc<dyn ObjectStore> = log.clone();
        let file = dir.path().join("first");
        let pinned = Arc::new(PinnedStore::open(inner, "", AttributeSource::Listing, &file).unwrap());
        let state = tempfile::tempdir().unwrap();
        let config = FsConfig {
            read_only: true,
            attributes: AttributeSource::Listing,
            live: LiveConfig {
                metadata_ttl: Ttl::Forever,
                negative_ttl: Ttl::Forever,
                ..LiveConfig::default()
            },
            ..FsConfig::new(state.path())
        };
        let fs = Filesystem::open(Arc::clone(&pinned) as Arc<dyn ObjectStore>, config).await.unwrap();
        log.take();
        let (memory, faults) = (bucket.bucket.clone(), bucket.faults.clone());
        Self { bucket, world: World { bucket: memory, log, faults, fs, state }, pinned, dir }
    }

    async fn delete(&self, key: &str) {
        self.bucket.bucket.delete(DeleteRequest::latest(k(key))).await.unwrap();
    }

    async fn take(&self, name: &str) -> PathBuf {
        let file = self.dir.path().join(name);
        take_manifest(&*self.bucket.bucket, "", None, &file, |_| {}).await.unwrap();
        file
    }

    async fn swap(&self, file: PathBuf) {
        self.world.fs.swap_view(&self.pinned, file).await.unwrap();
    }
}

/// Goes on with a directory stream, to its end or for so many entries.
async fn go_on(fs: &Filesystem, dir: HandleId, offset: &mut u64, most: usize) -> Vec<String> {
    let mut names = vec![];
    while names.len() < most {
        let items = fs.readdir(dir, *offset, 50.min(most - names.len())).await.unwrap();
        let Some(last) = items.last() else { break };
        *offset = last.next;
        names.extend(items.into_iter().map(|item| item.name).filter(|name| !name.starts_with('.')));
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_in_its_view_also_when_all_of_the_new_one_is_known_and_the_directory_is_gone() {
    let old = |dir: &'static str| (0..MANY).map(move |n| format!("{dir}/old{n:05}"));
    let viewed = Viewed::new(async |bucket| {
        for key in old("both").chain(old("gone")) {
            bucket.put(&key, "old").await;
        }
    })
    .await;
    for key in old("both").chain(old("gone")) {
        viewed.delete(&key).await;
    }
    viewed.bucket.put("both/new", "new").await;
    viewed.bucket.put("both/old00700", "another").await;
    let new = viewed.take("new").await;
    let fs = &viewed.world.fs;
    let mut streams = vec![];
    for (dir, begin) in [("both", 120), ("gone", 1), ("both", 1400)] {
        let handle = fs.opendir(viewed.world.ino(dir).await).await.unwrap();
        let mut offset = 0;
        let names = go_on(fs, handle, &mut offset, begin).await;
        streams.push((handle, offset, names));
    }
    viewed.swap(new).await;
    // All that is there and all that is not is known of the new view.
    assert_eq!(viewed.world.list("both").await, ["new", "old00700"]);
    assert_eq!(viewed.world.try_ino("gone").await, None);
    for (handle, mut offset, mut names) in streams {
        names.extend(go_on(fs, handle, &mut offset, usize::MAX).await);
        assert_eq!(names, (0..MANY).map(|n| format!("old{n:05}")).collect::<Vec<_>>());
        fs.releasedir(handle);
    }
    // And what the old one showed is believed by nobody.
    assert_eq!(viewed.world.list("both").await, ["new", "old00700"]);
    assert_eq!(viewed.world.try_ino("both/old00001").await, None);
    assert_eq!(viewed.world.cat("both/old00700").await.unwrap(), b"another");
    assert!(
        viewed.world.spent().iter().all(|(operation, _)| *operation == Operation::Get),
        "only bytes are asked for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_view_is_not_kept_any_more_ends_with_an_error_and_never_in_another_view() {
    let viewed = Viewed::new(async |bucket| {
        for n in 0..MANY {
            bucket.put(&format!("d/{n:05}"), "x").await;
        }
    })
    .await;
    let fs = &viewed.world.fs;
    let mut first = None;
    for _ in 0..20 {
        let mut offset = 0;
        let dir = fs.opendir(viewed.world.ino("d").await).await.unwrap();
        let names = go_on(fs, dir, &mut offset, 10).await;
        assert_eq!(names.len(), 10);
        first.get_or_insert((dir, offset));
        viewed.bucket.put("d/00000", "again").await;
        let next = viewed.take("next").await;
        viewed.swap(next).await;
    }
    let (dir, mut offset) = first.unwrap();
    let error = loop {
        match fs.readdir(dir, offset, 50).await {
            Ok(items) => offset = items.last().unwrap_or_else(|| panic!("it ended well")).next,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), FsErrorKind::Stale);
    assert_eq!(fs.readdir(dir, offset, 50).await.unwrap_err().kind(), FsErrorKind::Stale, "and stays so");
    // From the beginning it is of the present view.
    assert_eq!(go_on(fs, dir, &mut 0, usize::MAX).await.len(), MANY);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_stored_again_with_the_same_bytes_keeps_its_inode_and_has_its_new_time() {
    let viewed = Viewed::new(async |bucket| {
        bucket.put("d/same", "same").await;
        bucket.put("d/other", "other").await;
    })
    .await;
    let (fs, world) = (&viewed.world.fs, &viewed.world);
    let before = fs.getattr(world.ino("d/same").await, None).await.unwrap().attr;
    let unread = world.open("d/other", READ).await;
    viewed.bucket.put("d/same", "same").await;
    viewed.bucket.put("d/other", "another").await;
    let (stored, next) = (viewed.bucket.meta("d/same").await.unwrap(), viewed.take("next").await);
    viewed.swap(next).await;
    let after = fs.getattr(world.ino("d/same").await, None).await.unwrap().attr;
    assert_eq!((after.ino, after.mtime), (before.ino, stored.last_modified));
    assert_ne!(after.mtime, before.mtime);
    assert_eq!(world.read(unread, 0, 100).await.unwrap(), b"other", "an open file is of its view");
    assert_eq!(world.cat("d/other").await.unwrap(), b"another");
    let names: BTreeSet<_> = world.list("d").await.into_iter().collect();
    assert_eq!(names, BTreeSet::from(["same".to_owned(), "other".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn views_that_are_swapped_while_they_are_looked_at_are_each_seen_whole() {
    let viewed = Viewed::new(async |bucket| {
        for n in 0..300 {
            bucket.put(&format!("d/old{n}"), "x").await;
        }
    })
    .await;
    for n in 0..300 {
        viewed.delete(&format!("d/old{n}")).await;
        viewed.bucket.put(&format!("d/new{n}"), "x").await;
    }
    let files = [viewed.take("new").await, viewed.dir.path().join("first")];
    let is_over = Arc::new(AtomicBool::new(false));
    let looking: Vec<_> = (0..4)
        .map(|n| {
            let (fs, is_over) = (viewed.world.fs.clone(), is_over.clone());
            tokio::spawn(async move {
                let mut rounds = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let Lookup::Found(d) = fs.lookup(Ino::ROOT, "d").await.unwrap() else {
                        panic!("d is in both views");
                    };
                    let handle = fs.opendir(d.attr.ino).await.unwrap();
                    let names = go_on(&fs, handle, &mut 0, usize::MAX).await;
                    fs.releasedir(handle);
                    let olds = names.iter().filter(|name| name.starts_with("old")).count();
                    assert!(names.len() == 300 && (olds == 0 || olds == 300), "{olds} of {}", names.len());
                    // A name that a look-up learns of must not get into what is listed of another view.
                    for name in [format!("old{n}"), format!("new{n}"), format!("none{n}")] {
                        fs.lookup(d.attr.ino, &name).await.unwrap();
                    }
                    fs.forget(d.attr.ino, 1);
                    rounds += 1;
                }
                rounds
            })
        })
        .collect();
    for swap in 0..200 {
        viewed.swap(files[swap % 2].clone()).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for looking in looking {
        assert!(looking.await.unwrap() > 0);
    }
    assert_eq!(viewed.pinned.status().epoch, 201);
}
