//! Stored bytes on the local disk: what was fetched once is not fetched again, across restarts too.
//!
//! A cache of versions, not of names: what it has of a version is right for ever, so it is never told of changes;
//! versions that nobody asks for any more go when room is needed. It never fails a read: whatever is wrong with the
//! disk, the store has the bytes.
//!
//! `identity` says whose bytes a file holds, `blocks` and `index` are the bookkeeping, `files` the disk, `cached` one
//! version, `filler` the way in.

mod blocks;
mod cached;
mod files;
mod filler;
mod identity;
mod index;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use self::files::Paths;
use self::filler::Filler;
use self::identity::Name;
use self::index::Index;
use crate::config::CacheConfig;
use crate::disk_file::Stamp;
use crate::error::Result;
use crate::owned_dir::OwnedDir;

pub(crate) use self::cached::{CachedFile, Whole};
pub(crate) use self::identity::Identity;

/// The cache of one daemon.
#[derive(Debug)]
pub(crate) struct DiskCache {
    objects: PathBuf,
    most: u64,
    index: Mutex<Index>,
    filler: Filler,
    damaged: AtomicU64,
    evicted: AtomicU64,
    _owned: OwnedDir,
}

/// What a cache holds, and what became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// The bound, in bytes.
    pub limit: u64,
    /// Bytes in use.
    pub used: u64,
    /// Versions of objects, whole or in part.
    pub files: u64,
    /// Blocks found damaged, and fetched again, in this run.
    pub damaged: u64,
    /// Versions removed for others, in this run.
    pub evicted: u64,
}

impl DiskCache {
    /// Opens a cache directory, makes it if it is missing, and locks it. What earlier runs left is counted in the
    /// background. Blocks on the disk.
    ///
    /// # Errors
    /// As [`OwnedDir::open`] and [`CacheConfig::check`].
    pub(crate) fn open(config: &CacheConfig) -> Result<Arc<Self>> {
        config.check()?;
        let owned = OwnedDir::open("cache directory", &config.dir, &["objects"])?;
        let cache = Arc::new(Self {
            objects: config.dir.join("objects"),
            most: config.size,
            index: Mutex::default(),
            filler: Filler::start()?,
            damaged: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            _owned: owned,
        });
        let counting = Arc::downgrade(&cache);
        let objects = cache.objects.clone();
        let count = move || {
            let found = survey(&objects);
            let Some(cache) = counting.upgrade() else { return };
            let victims = {
                let mut index = cache.index.lock();
                index.found(found);
                index.shrink(cache.most)
            };
            cache.evict(victims);
        };
        std::thread::Builder::new()
            .name("staithe-survey".to_owned())
            .spawn(count)
            .map_err(|e| crate::FsError::local("cannot start a thread", e))?;
        Ok(cache)
    }

    /// What it holds.
    pub(crate) fn stats(&self) -> CacheStats {
        let index = self.index.lock();
        CacheStats {
            limit: self.most,
            used: index.used(),
            files: index.len() as u64,
            damaged: self.damaged.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    /// Where its files lie.
    pub(crate) fn objects(&self) -> &Path {
        &self.objects
    }

    /// The place of a version in the cache; `None` for one that is larger than all of it, and while it is being
    /// removed. The disk is asked only if it may have
    /// something, then in a thread that may block.
    pub(crate) async fn obtain(self: &Arc<Self>, identity: Identity) -> Option<Arc<CachedFile>> {
        if identity.size > self.most {
            return None;
        }
        let name = identity.name();
        let (file, may_have) = {
            let mut index = self.index.lock();
            let may_have = index.may_have(name);
            let make = || CachedFile::new(self, identity, name, Paths::of(&self.objects, name));
            (index.open(name, make)?, may_have)
        };
        if may_have {
            let loading = file.clone();
            // A panic in there leaves it as empty as it was.
            let _ = tokio::task::spawn_blocking(move || loading.load()).await;
        }
        Some(file)
    }

    /// Whether it has something of a version, as far as memory knows.
    pub(crate) fn has_some_of(&self, identity: &Identity) -> bool {
        self.index.lock().has(identity.name())
    }

    /// Takes in bytes of a version, which were checked, in the background; waits a moment if much is under way, and
    /// leaves it at that if it stays so. Errors are logged: the cache has less then, that is all.
    pub(crate) async fn offer(self: &Arc<Self>, file: &Arc<CachedFile>, at: u64, bytes: Bytes) {
        self.filler.offer(self, file, at, bytes).await;
    }

    /// As [`offer`](Self::offer), however long it takes.
    pub(crate) async fn insist(self: &Arc<Self>, file: &Arc<CachedFile>, at: u64, bytes: Bytes) {
        self.filler.insist(self, file, at, bytes).await;
    }

    /// Waits until everything that was offered is on its way to the disk.
    pub(crate) async fn settle(&self) {
        self.filler.settle().await;
    }

    fn reserve(&self, name: Name, bytes: u64) -> bool {
        let victims = self.index.lock().reserve(name, bytes, self.most);
        let has_room = victims.is_some();
        self.evict(victims.unwrap_or_default());
        has_room
    }

    fn count(&self, name: Name, bytes: u64) {
        self.index.lock().count(name, bytes);
    }

    fn trusted(&self, name: Name) -> Option<Stamp> {
        self.index.lock().trusted(name)
    }

    fn trust(&self, name: Name, stamp: Stamp) {
        self.index.lock().trust(name, stamp);
    }

    fn forget(&self, name: Name) {
        self.index.lock().remove(name);
    }

    fn forget_empty(&self, name: Name) {
        self.index.lock().remove_if_empty(name);
    }

    fn lost_block(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }

    fn evict(&self, victims: Vec<Name>) {
        for name in victims {
            let paths = Paths::of(&self.objects, name);
            match paths.remove() {
                Ok(()) => tracing::debug!(file = %paths.data.display(), "evicted"),
                Err(error) => tracing::warn!(file = %paths.data.display(), %error, "not evicted"),
            }
            self.evicted.fetch_add(1, Ordering::Relaxed);
            self.index.lock().left(name);
        }
    }
}

/// What lies in the directory, least recently used first. Halves without the other half are removed.
fn survey(objects: &Path) -> Vec<(Name, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = Vec::new();
    let directories = std::fs::read_dir(objects).into_iter().flatten().flatten();
    for entry in directories.flat_map(|d| std::fs::read_dir(d.path()).into_iter().flatten().flatten()) {
        let file_name = entry.file_name();
        let Some((name, extension)) = file_name.to_str().and_then(|n| n.split_once('.')) else { continue };
        let Some(name) = Name::parse(name) else { continue };
        let paths = Paths::of(objects, name);
        match extension {
            "map" => {
                let Ok(map) = entry.metadata() else { continue };
                if let Ok(data) = paths.data.metadata() {
                    let bytes = data.len().min(data.blocks() * 512);
                    found.push(((map.mtime(), map.mtime_nsec()), name, bytes));
                }
            }
            // Made before its map; one without is of no use to anybody. A file that is being made in this moment
            // loses its name here, and is fetched again another time.
            "data" if !paths.map.exists() && is_old(&entry) => {
                let _ = std::fs::remove_file(&paths.data);
            }
            _ => {}
        }
    }
    found.sort_unstable_by_key(|(used, ..)| *used);
    found.into_iter().map(|(_, name, bytes)| (name, bytes)).collect()
}

/// Whether a file was made before this process could have made it.
fn is_old(entry: &std::fs::DirEntry) -> bool {
    let modified = entry.metadata().and_then(|meta| meta.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > std::time::Duration::from_mins(1)))
}

#[cfg(test)]
mod tests;
