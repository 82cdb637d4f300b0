//! The cache on a real disk, without a filesystem above it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use staithe_store::{ETag, Key};

use super::blocks::BLOCK;
use super::*;

/// What the disk may hold for a moment that was not foreseen.
const SLACK: u64 = 16 << 10;

fn identity(key: &str, size: u64) -> Identity {
    Identity { volume: "memory://".into(), key: Key::new(key).unwrap(), etag: ETag::new("\"e\""), size }
}

fn bytes(len: usize, seed: u8) -> Bytes {
    (0..len).map(|n| (n / 7) as u8 ^ seed).collect()
}

async fn put(cache: &Arc<DiskCache>, key: &str, content: &Bytes) -> Arc<CachedFile> {
    let file = cache.obtain(identity(key, content.len() as u64)).await.unwrap();
    cache.insist(&file, 0, content.clone()).await;
    cache.settle().await;
    file
}

fn open(dir: &tempfile::TempDir, size: u64) -> Arc<DiskCache> {
    DiskCache::open(&CacheConfig { dir: dir.path().to_owned(), size }).unwrap()
}

/// What a directory takes of the disk, with all that is in it, in bytes.
fn du(path: &Path) -> u64 {
    let below = std::fs::read_dir(path).into_iter().flatten().map(|entry| du(&entry.unwrap().path()));
    on_disk(&path.symlink_metadata().unwrap()) + below.sum::<u64>()
}

/// Gives the directory free: its survey holds it too, for as long as it takes.
fn close(cache: Arc<DiskCache>) {
    let end = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while !cache.index.lock().is_complete || Arc::strong_count(&cache) > 1 {
        assert!(std::time::Instant::now() < end, "the cache is never let go");
        std::thread::yield_now();
    }
    drop(cache);
}

#[tokio::test]
async fn a_version_comes_in_by_pieces_and_goes_out_whole() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(&dir, 1 << 30);
    let content = bytes(3 * BLOCK as usize + 100, 1);
    let file = cache.obtain(identity("k", content.len() as u64)).await.unwrap();
    assert!(!file.is_whole() && file.read(&(0..10), true).is_none());
    // Out of order, overlapping, not along the blocks.
    for range in [250_000..content.len(), 0..100_000, 90_000..260_000] {
        cache.insist(&file, range.start as u64, content.slice(range)).await;
    }
    cache.settle().await;
    assert!(file.is_whole());
    assert_eq!(file.read(&(5..content.len() as u64 - 5), true).unwrap(), content.slice(5..content.len() - 5));
    assert!(matches!(file.whole(0), Whole::Yes(_)), "written by us, so known to be right");
    assert_eq!(cache.stats().used, du(dir.path()));
    let same = cache.obtain(identity("k", content.len() as u64)).await.unwrap();
    assert!(Arc::ptr_eq(&file, &same));
    drop((file, same));
    close(cache);

    let cache = open(&dir, 1 << 30);
    let file = cache.obtain(identity("k", content.len() as u64)).await.unwrap();
    assert!(file.is_whole());
    assert!(matches!(file.whole(0), Whole::Unchecked), "another process wrote it");
    assert!(matches!(file.whole(u64::MAX), Whole::Yes(_)));
    assert!(matches!(file.whole(0), Whole::Yes(_)));
}

#[tokio::test]
async fn a_file_changed_behind_our_back_is_not_handed_on() {
    use std::os::unix::fs::FileExt as _;
    let dir = tempfile::tempdir().unwrap();
    let cache = open(&dir, 1 << 30);
    let content = bytes(2 * BLOCK as usize, 2);
    let file = put(&cache, "k", &content).await;
    let Whole::Yes(lent) = file.whole(0) else { panic!("not whole") };
    lent.write_all_at(b"damage", BLOCK + 9).unwrap();
    lent.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert!(matches!(file.whole(0), Whole::Unchecked));
    assert!(matches!(file.whole(u64::MAX), Whole::No));
    assert_eq!(file.run(0, 2 * BLOCK), (BLOCK, true));
    assert_eq!(cache.stats().damaged, 1);
    assert_eq!(file.read(&(0..BLOCK), true).unwrap(), content.slice(..BLOCK as usize));
    cache.insist(&file, 0, content.clone()).await;
    cache.settle().await;
    assert!(matches!(file.whole(u64::MAX), Whole::Yes(_)), "it heals");
}

#[tokio::test]
async fn what_is_open_is_not_evicted_and_what_does_not_fit_is_not_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    // Three, and what they need beside: maps and directories.
    let cache = open(&dir, 4 * BLOCK);
    let content = bytes(BLOCK as usize, 3);
    let held = put(&cache, "held", &content).await;
    for n in 0..10 {
        drop(put(&cache, &format!("f{n}"), &content).await);
    }
    assert!(held.is_whole() && cache.stats().used <= 4 * BLOCK);
    assert_eq!(cache.stats().evicted, 8);
    // One that could never be whole must not push the others out.
    assert!(cache.obtain(identity("large", 5 * BLOCK)).await.is_none());
    let other = put(&cache, "other", &bytes(3 * BLOCK as usize, 4)).await;
    assert!(!other.is_whole() && cache.stats().used <= 4 * BLOCK && held.is_whole());
    drop((held, other));
    assert!(cache.obtain(identity("f9", BLOCK)).await.is_some());
}

#[tokio::test]
async fn one_that_is_given_up_moves_and_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(&dir, 1 << 30);
    let content = bytes(BLOCK as usize + 1, 5);
    let file = put(&cache, "k", &content).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("file");
    file.give_up(&target).unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), content);
    assert!(!file.is_whole() && file.read(&(0..1), true).is_none());
    assert_eq!(cache.stats().used, du(dir.path()));
    // Later bytes for it go nowhere, and not into the file that is somebody else's now.
    cache.insist(&file, 0, bytes(BLOCK as usize + 1, 6)).await;
    cache.settle().await;
    assert_eq!(std::fs::read(&target).unwrap(), content);
    let again = cache.obtain(identity("k", BLOCK + 1)).await.unwrap();
    assert!(!again.is_whole());
}

#[tokio::test]
async fn one_that_is_given_up_is_known_by_its_map_until_it_changes() {
    use std::os::unix::fs::FileExt as _;
    let dir = tempfile::tempdir().unwrap();
    let cache = open(&dir, 1 << 30);
    for cut in [None, Some(3 * BLOCK + 6), Some(3 * BLOCK), Some(0)] {
        let file = put(&cache, "k", &bytes(3 * BLOCK as usize + 5, 7)).await;
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("file");
        file.give_up(&target).unwrap();
        assert!(is_untouched(&target) && is_map(&map_beside(&target)));
        let file = std::fs::File::options().write(true).open(&target).unwrap();
        match cut {
            Some(len) => file.set_len(len).unwrap(),
            None => file.write_all_at(&[0], BLOCK + 1000).unwrap(),
        }
        assert!(!is_untouched(&target), "{cut:?}");
    }
}

#[tokio::test]
async fn small_objects_take_no_more_of_the_disk_than_they_may() {
    let dir = tempfile::tempdir().unwrap();
    for most in [4 << 20, 2 << 20] {
        let cache = open(&dir, most);
        for n in 0..1200 {
            put(&cache, &format!("{most}/{n}"), &bytes(if n % 2 == 0 { 1 } else { 4096 }, n as u8)).await;
            if n % 100 == 99 {
                let (held, used) = (du(dir.path()), cache.stats().used);
                assert!(held <= most + SLACK && used == held, "{held} held, {used} counted of {most}");
            }
        }
        assert!(cache.stats().evicted > 600 && cache.stats().used > most / 2, "{:?}", cache.stats());
        close(cache);
    }
}

#[tokio::test]
async fn what_somebody_else_could_have_written_is_not_believed() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let content = bytes(BLOCK as usize, 8);
    for ending in ["data", "map"] {
        let cache = open(&dir, 1 << 30);
        drop(put(&cache, "k", &content).await);
        close(cache);
        let cache = open(&dir, 1 << 30);
        let paths = Paths::of(&cache.objects, identity("k", BLOCK).name());
        let path = if ending == "data" { &paths.data } else { &paths.map };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o620)).unwrap();
        let file = cache.obtain(identity("k", BLOCK)).await.unwrap();
        assert!(!file.is_whole() && !path.exists(), "{ending}");
        drop(file);
        close(cache);
    }
}

#[tokio::test]
async fn what_lies_about_is_cleared_and_what_is_not_ours_stays() {
    let dir = tempfile::tempdir().unwrap();
    close(open(&dir, 1 << 30));
    let sub = dir.path().join("objects/ab");
    std::fs::create_dir_all(&sub).unwrap();
    let half = |n: u128, ending| sub.join(format!("{:032x}.{ending}", (0xab_u128 << 120) + n));
    let (orphan, map, foreign) = (half(0, "data"), half(1, "map"), sub.join("notes.txt"));
    std::fs::write(&orphan, "half").unwrap();
    std::fs::write(&map, "half").unwrap();
    std::fs::write(&foreign, "mine").unwrap();
    assert!(Survey::of(&dir.path().join("objects")).files.is_empty());
    assert!(!orphan.exists() && !map.exists() && foreign.exists());
}

#[derive(Debug, Clone)]
enum Step {
    Fill { file: usize, at: u64, len: u64 },
    Read { file: usize, at: u64, len: u64 },
    Damage { file: usize, at: u64 },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || (0..3_usize, 0..5 * BLOCK, 1..3 * BLOCK);
    let step = prop_oneof![
        4 => place().prop_map(|(file, at, len)| Step::Fill { file, at, len }),
        4 => place().prop_map(|(file, at, len)| Step::Read { file, at, len }),
        1 => place().prop_map(|(file, at, _)| Step::Damage { file, at }),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    // `PROPTEST_CASES` asks for more.
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24),
        ..ProptestConfig::default()
    })]

    /// Whatever happens to the files, a read gives the right bytes or none; and as long as nothing is damaged or
    /// evicted, those that were completed.
    #[test]
    fn never_a_wrong_byte(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let contents: Vec<_> = (0..3).map(|n| bytes(4 * BLOCK as usize + 1000 * n, n as u8)).collect();
            let mut cache = open(&dir, 9 * BLOCK);
            let mut files: BTreeMap<usize, Arc<CachedFile>> = BTreeMap::new();
            for step in steps {
                let (Step::Fill { file, .. } | Step::Read { file, .. } | Step::Damage { file, .. }) = step else {
                    files.clear();
                    cache.settle().await;
                    close(cache);
                    cache = open(&dir, 9 * BLOCK);
                    continue;
                };
                let content = &contents[file];
                let size = content.len() as u64;
                if !files.contains_key(&file)
                    && let Some(opened) = cache.obtain(identity(&format!("k{file}"), size)).await
                {
                    files.insert(file, opened);
                }
                let Some(cached) = files.get(&file) else { continue };
                match step {
                    Step::Fill { at, len, .. } => {
                        let (at, end) = (at.min(size), (at + len).min(size));
                        cache.insist(cached, at, content.slice(at as usize..end as usize)).await;
                        cache.settle().await;
                    }
                    Step::Read { at, len, .. } => {
                        let (at, end) = (at.min(size - 1), (at + len).min(size));
                        if let Some(read) = cached.read(&(at..end), true).filter(|_| at < end) {
                            prop_assert_eq!(read, content.slice(at as usize..end as usize));
                        }
                    }
                    Step::Damage { at, .. } => {
                        use std::os::unix::fs::FileExt as _;
                        let path = Paths::of(&cache.objects, identity(&format!("k{file}"), size).name()).data;
                        if let Ok(file) = std::fs::File::options().write(true).open(path) {
                            file.write_all_at(b"damage", at.min(size - 6)).unwrap();
                        }
                    }
                    Step::Reopen => {}
                }
                prop_assert!(cache.stats().used <= 9 * BLOCK && du(dir.path()) <= 9 * BLOCK + SLACK);
            }
            Ok(())
        })?;
    }
}
