//! A filesystem over a memory store, with everything that is asked of the store recorded.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says so by failing")]

use std::sync::Arc;
use std::time::Duration;

use staithe_fs::{Caller, Filesystem, FsConfig, HandleId, Ino, Kind, Lookup, OpenMode, Result};
use staithe_store::decorators::{FaultHandle, Faulty, Operation, RequestLog};
use staithe_store::{
    GetRequest, HeadRequest, Key, MemoryOptions, MemoryStore, NewObject, ObjectMeta, ObjectStore, Payload,
    PutCondition,
};

pub const ROOT: Caller = Caller { uid: 0, gid: 0 };
const NONE: OpenMode =
    OpenMode { read: false, write: false, truncate: false, direct: false, append: false, sync: false };
pub const READ: OpenMode = OpenMode { read: true, ..NONE };
pub const WRITE: OpenMode = OpenMode { read: true, write: true, ..NONE };
pub const REPLACE: OpenMode = OpenMode { write: true, truncate: true, ..NONE };

pub struct World {
    /// The bucket, as another client has it.
    pub bucket: Arc<MemoryStore>,
    /// What the filesystem asked.
    pub log: Arc<RequestLog>,
    pub faults: FaultHandle,
    pub fs: Arc<Filesystem>,
    pub state: tempfile::TempDir,
}

impl World {
    pub async fn new() -> Self {
        Self::with(MemoryOptions::default(), |_| {}).await
    }

    pub async fn with(options: MemoryOptions, change: impl FnOnce(&mut FsConfig)) -> Self {
        let bucket = Arc::new(MemoryStore::new(options));
        let state = tempfile::tempdir().unwrap();
        let mut config = FsConfig::new(state.path());
        change(&mut config);
        let (log, faults, fs) = open(&bucket, config).await.unwrap();
        Self { bucket, log, faults, fs, state }
    }

    /// Stores an object as another client does.
    pub async fn put(&self, key: &str, body: impl Into<Payload>) {
        self.bucket.put(&k(key), body.into(), NewObject::default(), PutCondition::Always).await.unwrap();
    }

    pub async fn stored(&self, key: &str) -> Option<Vec<u8>> {
        use futures::TryStreamExt;
        let got = self.bucket.get(GetRequest { key: k(key), range: None, version: None }).await.ok()?;
        Some(got.body.try_collect::<Vec<_>>().await.unwrap().concat())
    }

    pub async fn meta(&self, key: &str) -> Option<ObjectMeta> {
        self.bucket.head(HeadRequest::latest(k(key))).await.ok()
    }

    /// Walks a path, as a kernel without caches does.
    pub async fn ino(&self, path: &str) -> Ino {
        self.try_ino(path).await.unwrap_or_else(|| panic!("{path} is not there"))
    }

    pub async fn try_ino(&self, path: &str) -> Option<Ino> {
        let mut at = Ino::ROOT;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            match self.fs.lookup(at, name).await.unwrap() {
                Lookup::Found(entry) => at = entry.attr.ino,
                Lookup::Absent { .. } => return None,
            }
        }
        Some(at)
    }

    /// Names in a directory, without the dots.
    pub async fn list(&self, path: &str) -> Vec<String> {
        let dir = self.fs.opendir(self.ino(path).await).await.unwrap();
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let items = self.fs.readdir(dir, offset, 100).await.unwrap();
            let Some(last) = items.last() else { break };
            offset = last.next;
            names.extend(items.into_iter().map(|i| i.name).filter(|n| n != "." && n != ".."));
        }
        self.fs.releasedir(dir);
        names
    }

    /// Names in a directory as a walker sees them: those of directories end in a slash.
    pub async fn entries(&self, dir: Ino) -> Vec<String> {
        let handle = self.fs.opendir(dir).await.unwrap();
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let items = self.fs.readdir(handle, offset, 100).await.unwrap();
            let Some(last) = items.last() else { break };
            offset = last.next;
            for item in items.into_iter().filter(|item| item.name != "." && item.name != "..") {
                let is_dir = item.kind == Some(Kind::Directory);
                names.push(if is_dir { format!("{}/", item.name) } else { item.name });
            }
        }
        self.fs.releasedir(handle);
        names
    }

    /// The inode of a name in a directory.
    pub async fn child(&self, dir: Ino, name: &str) -> Ino {
        match self.fs.lookup(dir, name).await.unwrap() {
            Lookup::Found(entry) => entry.attr.ino,
            Lookup::Absent { .. } => panic!("{name} is not there"),
        }
    }

    /// Creates a file, writes and closes it.
    pub async fn create(&self, dir: &str, name: &str, body: &[u8]) -> Result<Ino> {
        let parent = self.ino(dir).await;
        self.fs.lookup(parent, name).await?;
        let (entry, opened) = self.fs.create(parent, name, 0o644, WRITE, ROOT).await?;
        self.fs.write(opened.handle, 0, body)?;
        self.close(opened.handle).await?;
        Ok(entry.attr.ino)
    }

    pub async fn close(&self, handle: HandleId) -> Result<()> {
        let flushed = self.fs.flush(handle).await;
        self.fs.release(handle);
        flushed
    }

    pub async fn open(&self, path: &str, mode: OpenMode) -> HandleId {
        let ino = self.ino(path).await;
        self.fs.open_file(ino, mode).await.unwrap().handle
    }

    pub async fn read(&self, handle: HandleId, offset: u64, len: u32) -> Result<Vec<u8>> {
        Ok(self.fs.read(handle, offset, len).await?.0.concat())
    }

    /// What a file holds, read to its end in pieces, as `cat` does.
    pub async fn cat(&self, path: &str) -> Result<Vec<u8>> {
        let handle = self.open(path, READ).await;
        let mut all = Vec::new();
        loop {
            let piece = self.read(handle, all.len() as u64, 128 << 10).await?;
            if piece.is_empty() {
                self.fs.release(handle);
                return Ok(all);
            }
            all.extend(piece);
        }
    }

    /// The requests since the last call, as `verb` counts.
    pub fn spent(&self) -> Vec<(Operation, usize)> {
        let mut counts = std::collections::BTreeMap::new();
        for record in self.log.take() {
            *counts.entry(record.operation).or_insert(0) += 1;
        }
        counts.into_iter().collect()
    }
}

pub async fn open(
    bucket: &Arc<MemoryStore>,
    config: FsConfig,
) -> Result<(Arc<RequestLog>, FaultHandle, Arc<Filesystem>)> {
    let faulty = Faulty::new(bucket.clone(), 1);
    let faults = faulty.handle();
    let log = Arc::new(RequestLog::new(Arc::new(faulty)));
    let fs = Filesystem::open(log.clone(), config).await?;
    log.take();
    Ok((log, faults, fs))
}

/// Ends a filesystem once what it has under way lets go of it: a drain waits for that only as long as it is told.
pub async fn end(fs: Arc<Filesystem>) {
    until("nobody else holds it", || Arc::strong_count(&fs) == 1).await;
}

pub fn k(key: &str) -> Key {
    Key::new(key).unwrap()
}

/// Runs what is under way until this holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Bytes that differ from place to place.
pub fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[i & 3]).collect()
}
