//! Random operations, ours and another client's, against a tree in memory; everything is compared after each step.
//!
//! The model knows paths, nodes and handles. It knows no versions: where another client replaces what is open here,
//! a handle may serve the old bytes or be stale, and never anything else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod checks;
mod steps;
mod tree;
#[path = "../world/mod.rs"]
mod world;

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use staithe_fs::{
    CacheConfig, FsConfig, FsErrorKind as K, HandleId, Ino, LocalFile, OpenMode, Opened, RenameMode, SetAttr,
    Ttl, WriteMode,
};
use staithe_store::{DeleteRequest, MemoryOptions, MemoryStore, ObjectStore};
use steps::{Step, WRITE_ONLY, back_step, step, text};
use tokio::sync::watch;
use tree::{Model, Node, Open};
use world::{READ, REPLACE, ROOT, WRITE, World, k};

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

struct Run {
    w: World,
    m: Model,
    sees_remote: bool,
    lent: Cell<u64>,
}

impl Run {
    async fn ino(&self, path: &str) -> Option<Ino> {
        self.w.try_ino(path).await
    }

    /// The parent of a path, if that is a directory.
    async fn parent(&self, path: &str) -> Option<Ino> {
        let (parent, name) = split(path);
        if !self.m.is_dir(parent) {
            return None;
        }
        let parent = self.ino(parent).await.expect("a directory of the model");
        // A kernel looks a name up before it does anything with it.
        self.w.fs.lookup(parent, name).await.unwrap();
        Some(parent)
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Create(p, read) => self.create(&text(p), *read).await,
            Step::Empty(file) => self.empty(*file).await,
            Step::Open(file, write) => self.open(*file, *write).await,
            Step::Write(h, at, len, byte) => self.write(*h, *at, *len, *byte).await,
            Step::Cut(h, size) => self.cut(*h, *size).await,
            Step::CutPath(p, size) => self.cut_path(&text(p), *size).await,
            Step::Sync(h) => self.store(*h, false).await,
            Step::Close(h) => self.store(*h, true).await,
            Step::Unlink(p) => self.unlink(&text(p)).await,
            Step::Mkdir(p) => self.mkdir(&text(p)).await,
            Step::Rmdir(p) => self.rmdir(&text(p)).await,
            Step::Rename(a, b) => self.rename(&text(a), &text(b)).await,
            Step::Chmod(p, mode) => self.chmod(&text(p), *mode).await,
            Step::Forget(p) => self.forget(&text(p)).await,
            Step::RemotePut(p, len, byte) => self.remote_put(&text(p), *len, *byte).await,
            Step::RemoteDelete(p) => self.remote_delete(&text(p)).await,
            Step::StoreAll => self.store_all().await,
            Step::Crash => {}
        }
    }

    async fn store_all(&mut self) {
        assert_eq!(self.w.fs.sync(&watch::Sender::default()).await.failures, []);
        self.m.nodes.iter_mut().for_each(|node| node.dirty = false);
        self.check(true).await;
    }

    /// After a crash: what was not closed or synced since it was changed may be anything that there is.
    async fn adopt_loose(&mut self) {
        self.m.open.clear();
        let all: Vec<String> = self.m.tree.keys().cloned().collect();
        for path in all {
            let id = self.m.tree[&path];
            if !self.m.nodes[id].dirty {
                continue;
            }
            let Some(ino) = self.ino(&path).await else {
                self.m.tree.remove(&path);
                continue;
            };
            let attr = self.w.fs.getattr(ino, None).await.unwrap().attr;
            let bytes = self.w.cat(&path).await.unwrap();
            self.m.nodes[id] = Node { bytes: Some(bytes), mode: attr.mode, dirty: false, lost: false };
        }
    }

    async fn create(&mut self, path: &str, read: bool) {
        let Some(parent) = self.parent(path).await else { return };
        if self.m.tree.contains_key(path) {
            return;
        }
        let mode = OpenMode { read, ..WRITE };
        let (entry, opened) = self.w.fs.create(parent, split(path).1, 0o644, mode, ROOT).await.unwrap();
        assert_eq!((entry.attr.size, entry.attr.mode), (0, 0o644));
        let id = self.m.add(path, Some(Vec::new()), 0o644, true);
        self.opened(opened, id, mode);
    }

    fn opened(&mut self, opened: Opened, node: usize, mode: OpenMode) {
        let (read, write) = (mode.read, mode.write);
        assert!(!opened.direct || (!read && opened.local.is_some()));
        let local = opened.local.filter(|_| !opened.direct);
        self.m.open.push(Open { handle: opened.handle, node, read, write, local });
    }

    /// One of the files that there are, unless enough are open.
    async fn some_file(&self, file: usize) -> Option<(Ino, usize)> {
        let files: Vec<_> = self.m.tree.iter().filter(|(path, _)| !self.m.is_dir(path)).collect();
        if files.is_empty() || self.m.open.len() >= 4 {
            return None;
        }
        let (path, id) = files[file % files.len()];
        Some((self.ino(path).await.unwrap(), *id))
    }

    async fn open(&mut self, file: usize, write: bool) {
        let Some((ino, id)) = self.some_file(file).await else { return };
        let read = !write || file < WRITE_ONLY;
        let mode = OpenMode { read, write, ..READ };
        let opened = self.w.fs.open_file(ino, mode).await.unwrap();
        self.opened(opened, id, mode);
    }

    async fn empty(&mut self, file: usize) {
        let Some((ino, id)) = self.some_file(file).await else { return };
        let opened = self.w.fs.open_file(ino, REPLACE).await.unwrap();
        let node = &mut self.m.nodes[id];
        (node.bytes, node.dirty) = (Some(Vec::new()), true);
        self.opened(opened, id, REPLACE);
    }

    /// A handle that can write.
    fn writer(&self, handle: usize) -> Option<(HandleId, usize)> {
        let open = self.m.open.get(handle % self.m.open.len().max(1))?;
        open.write.then_some((open.handle, open.node))
    }

    async fn write(&mut self, handle: usize, at: u64, len: usize, byte: u8) {
        let Some((handle, id)) = self.writer(handle) else { return };
        let opened = self.m.open.iter().find(|open| open.handle == handle);
        let (by_kernel, written) = match opened.and_then(|open| open.local.as_ref()) {
            Some(local) => (true, Ok(write_as_a_kernel(local, at, &vec![byte; len]))),
            None => (false, self.w.fs.write(handle, at, &vec![byte; len])),
        };
        let node = &mut self.m.nodes[id];
        if !node.lost || by_kernel {
            assert_eq!(*written.as_ref().unwrap() as usize, len);
            let bytes = node.bytes.as_mut().unwrap();
            let end = at as usize + len;
            bytes.resize(bytes.len().max(end), 0);
            bytes[at as usize..end].fill(byte);
            node.dirty = !node.lost;
        }
        if node.lost {
            self.was_lost(handle, written.map(drop)).await;
        }
    }

    async fn cut(&mut self, handle: usize, size: u64) {
        let Some((handle, id)) = self.writer(handle) else { return };
        let Some(path) = self.m.tree.iter().find(|(_, n)| **n == id).map(|(p, _)| p.clone()) else { return };
        let Some(ino) = self.ino(&path).await else { return };
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        self.w.fs.setattr(ino, Some(handle), set).await.unwrap();
        let node = &mut self.m.nodes[id];
        node.bytes.as_mut().unwrap().resize(size as usize, 0);
        node.dirty = true;
    }

    async fn cut_path(&mut self, path: &str, size: u64) {
        if self.m.is_dir(path) || !self.m.tree.contains_key(path) {
            return;
        }
        let ino = self.ino(path).await.unwrap();
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        self.w.fs.setattr(ino, None, set).await.unwrap();
        let node = self.m.node(path).unwrap();
        node.bytes.as_mut().unwrap().resize(size as usize, 0);
        node.dirty = false;
    }

    /// A write to what another client has replaced: refused at once, or kept beside by the next sync.
    async fn was_lost(&self, handle: HandleId, written: staithe_fs::Result<()>) {
        let told = match written {
            Err(error) => error,
            Ok(()) => self.w.fs.fsync(handle).await.expect_err("another client's object is replaced"),
        };
        assert_eq!(told.kind(), K::Stale);
        for dir in self.m.tree.keys().chain([&String::new()]).filter(|p| self.m.is_dir(p)) {
            let parent = self.ino(dir).await.unwrap();
            for name in self.w.list(dir).await.iter().filter(|n| n.contains(".conflict-")) {
                self.w.fs.unlink(parent, name).await.unwrap();
            }
        }
    }

    async fn store(&mut self, handle: usize, close: bool) {
        if self.m.open.is_empty() {
            return;
        }
        let at = handle % self.m.open.len();
        let Open { handle, node: id, write, .. } = self.m.open[at];
        match self.w.fs.flush(handle).await {
            Ok(()) => {}
            // A kernel was not refused the write: who closes it hears that it is stored nowhere.
            Err(error) => assert!(write && self.m.nodes[id].lost && error.kind() == K::Stale, "{error:?}"),
        }
        self.m.nodes[id].dirty &= !write;
        if close {
            self.w.fs.release(handle);
            self.m.open.remove(at);
        }
    }

    async fn unlink(&mut self, path: &str) {
        let Some(parent) = self.parent(path).await else { return };
        let done = self.w.fs.unlink(parent, split(path).1).await;
        let expected = self.m.tree.contains_key(path) && !self.m.is_dir(path);
        assert_eq!(done.is_ok(), expected, "{done:?}");
        if expected {
            self.m.tree.remove(path);
        }
    }

    async fn mkdir(&mut self, path: &str) {
        let Some(parent) = self.parent(path).await else { return };
        // A kernel that has just found the name does not ask for it to be made.
        if !self.m.tree.contains_key(path) {
            self.w.fs.mkdir(parent, split(path).1, 0o755, ROOT).await.unwrap();
            self.m.add(path, None, 0o755, false);
        }
    }

    async fn rmdir(&mut self, path: &str) {
        let Some(parent) = self.parent(path).await else { return };
        let done = self.w.fs.rmdir(parent, split(path).1).await;
        let expected = self.m.tree.contains_key(path) && self.m.is_dir(path) && !self.m.has_children(path);
        assert_eq!(done.is_ok(), expected, "{done:?}");
        if expected {
            self.m.tree.remove(path);
        }
    }

    async fn rename(&mut self, from: &str, to: &str) {
        let (Some(a), Some(b)) = (self.parent(from).await, self.parent(to).await) else { return };
        if to == split(from).0 || split(from).0.starts_with(&format!("{to}/")) {
            // A kernel refuses to replace a directory by something in it.
            return;
        }
        let done = self.w.fs.rename(a, split(from).1, b, split(to).1, RenameMode::Replace).await;
        assert_eq!(done.is_ok(), self.m.rename(from, to), "{done:?}");
    }

    async fn chmod(&mut self, path: &str, mode: u16) {
        if !self.m.tree.contains_key(path) {
            return;
        }
        let ino = self.ino(path).await.unwrap();
        self.m.node(path).unwrap().mode = mode;
        let set = SetAttr { mode: Some(u32::from(mode)), ..SetAttr::default() };
        self.w.fs.setattr(ino, None, set).await.unwrap();
    }

    async fn forget(&mut self, path: &str) {
        let Some(id) = self.m.tree.get(path) else { return };
        if self.m.is_dir(path) || self.m.is_open(*id) {
            return;
        }
        let ino = self.ino(path).await.unwrap();
        self.w.fs.forget(ino, u64::MAX);
    }

    async fn remote_put(&mut self, path: &str, len: usize, byte: u8) {
        let dirty = self.m.node(path).is_some_and(|n| n.dirty);
        if !self.sees_remote || dirty || !self.m.is_dir(split(path).0) || self.m.is_dir(path) {
            return;
        }
        // Told from any other content by its first bytes, as a tag tells it.
        let mut body = vec![byte; len + 8];
        body[..8].copy_from_slice(&(self.m.nodes.len() as u64).to_be_bytes());
        self.w.put(path, body.clone()).await;
        if let Some(node) = self.m.node(path) {
            node.lost = true;
        }
        self.m.add(path, Some(body), 0o644, false);
    }

    async fn remote_delete(&mut self, path: &str) {
        let dirty = self.m.node(path).is_some_and(|n| n.dirty);
        if !self.sees_remote || dirty || self.m.is_dir(path) || !self.m.tree.contains_key(path) {
            return;
        }
        self.w.bucket.delete(DeleteRequest::latest(k(path))).await.unwrap();
        let id = self.m.tree.remove(path).unwrap();
        self.m.nodes[id].lost = true;
    }
}

fn write_as_a_kernel(local: &LocalFile, at: u64, bytes: &[u8]) -> u32 {
    let path = format!("/proc/self/fd/{}", local.as_fd().as_raw_fd());
    File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
    bytes.len() as u32
}

/// Any sequence of write-back, in which processes end in between: one runtime for each. How often a handle used a local
/// file in place of the filesystem.
fn run_back(steps: &[Step], versioned: bool, delay: Duration, lends: bool) -> u64 {
    let bucket = Arc::new(MemoryStore::new(MemoryOptions { versioned, ..MemoryOptions::default() }));
    let state = tempfile::tempdir().unwrap();
    let (mut model, mut lent) = (Model::default(), 0);
    let lives: Vec<_> = steps.split(|step| matches!(step, Step::Crash)).collect();
    for (life, steps) in lives.iter().enumerate() {
        let is_last = life + 1 == lives.len();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let m = std::mem::take(&mut model);
        let (after, lent_in_it) = runtime.block_on(async {
            let mut config = FsConfig::new(state.path());
            (config.write_mode, config.write_back_delay) = (WriteMode::Back, delay);
            let (log, faults, fs) = world::open(&bucket, config).await.unwrap();
            if lends {
                fs.lend_local_files(&Ok(()));
            }
            let w = World { bucket: bucket.clone(), log, faults, fs, state: tempfile::tempdir().unwrap() };
            let mut run = Run { w, m, sees_remote: false, lent: Cell::new(0) };
            run.adopt_loose().await;
            run.check(false).await;
            for (i, step) in steps.iter().enumerate() {
                eprintln!("{life}.{i}: {step:?}");
                let both = async {
                    run.step(step).await;
                    run.check(false).await;
                };
                tokio::time::timeout(Duration::from_secs(10), both).await.expect("nothing waits for long");
            }
            if is_last {
                run.end(state.path()).await;
            }
            (run.m, run.lent.get())
        });
        (model, lent) = (after, lent + lent_in_it);
        // Tasks end wherever they are.
        runtime.shutdown_timeout(Duration::from_secs(10));
    }
    lent
}

/// How often a handle read a local file in place of the filesystem's.
async fn run(steps: &[Step], versioned: bool, sees_remote: bool, cache: Option<&std::path::Path>) -> u64 {
    let options = MemoryOptions { versioned, ..MemoryOptions::default() };
    let w = World::with(options, |c| {
        if sees_remote {
            (c.live.metadata_ttl, c.live.negative_ttl) = (Ttl::Zero, Ttl::Zero);
        }
        c.cache = cache.map(|dir| CacheConfig { dir: dir.to_owned(), size: 1 << 20 });
    })
    .await;
    w.fs.lend_local_files(&Ok(()));
    let mut run = Run { w, m: Model::default(), sees_remote, lent: Cell::new(0) };
    for (i, step) in steps.iter().enumerate() {
        eprintln!("{i}: {step:?}");
        let both = async {
            run.step(step).await;
            run.check(true).await;
        };
        tokio::time::timeout(Duration::from_secs(10), both).await.expect("nothing waits for long");
    }
    let state = run.w.state.path().to_owned();
    run.end(&state).await;
    run.lent.get()
}

proptest! {
    // `PROPTEST_CASES` asks for more.
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(40),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_sequence_leaves_what_the_model_says(
        steps in prop::collection::vec(step(), 1..120),
        versioned: bool,
        sees_remote: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(&steps, versioned, sees_remote, None));
    }

    #[test]
    fn so_does_one_with_a_disk_cache_whose_files_are_lent(
        steps in prop::collection::vec(step(), 1..120),
        versioned: bool,
        sees_remote: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let cache = tempfile::tempdir().unwrap();
        runtime.block_on(run(&steps, versioned, sees_remote, Some(cache.path())));
    }

    #[test]
    fn so_does_one_of_write_back_whose_process_ends_at_any_time(
        steps in prop::collection::vec(back_step(), 1..120),
        versioned: bool,
        delay in prop_oneof![Just(0), Just(5), Just(10_000)],
        lends: bool,
    ) {
        run_back(&steps, versioned, Duration::from_millis(delay), lends);
    }
}

/// The model says nothing of when a file is lent: so that it is at all, is tested here.
#[tokio::test]
async fn files_are_lent_in_the_model() {
    let cache = tempfile::tempdir().unwrap();
    let mut steps = vec![Step::Create(vec![0], true), Step::Write(0, 0, 10, 1), Step::Close(0)];
    for _ in 0..20 {
        steps.extend([Step::Open(0, false), Step::Open(0, true), Step::Write(1, 3, 9, 2), Step::Sync(1)]);
        steps.extend([Step::Open(WRITE_ONLY, true), Step::Write(2, 1, 30, 3), Step::Close(2)]);
        steps.extend([Step::Close(1), Step::Open(0, false), Step::Close(0), Step::Close(0)]);
    }
    assert!(run(&steps, false, true, Some(cache.path())).await > 0);
}

#[test]
fn new_files_are_lent_in_the_model() {
    let mut steps = vec![Step::Mkdir(vec![2])];
    for _ in 0..10 {
        steps.extend([Step::Create(vec![0], false), Step::Write(0, 0, 10, 1), Step::Open(0, false)]);
        steps.extend([Step::Sync(0), Step::Write(0, 4, 3, 2), Step::StoreAll, Step::Write(0, 2, 30, 3)]);
        steps.extend([
            Step::Rename(vec![0], vec![2, 1]),
            Step::Empty(0),
            Step::Write(2, 5, 9, 4),
            Step::Close(0),
        ]);
        steps.extend([
            Step::Open(WRITE_ONLY, true),
            Step::Open(0, true),
            Step::Write(3, 1, 9, 5),
            Step::Crash,
        ]);
    }
    assert!(run_back(&steps, false, Duration::ZERO, true) > 0);
}
