//! Stored bytes on the local disk: what was fetched once is not fetched again, across restarts too.
//!
//! A cache of versions, not of names: what it has of a version is right for ever, so it is never told of changes;
//! versions that nobody asks for any more go when room is needed. It never fails a read: whatever is wrong with the
//! disk, the store has the bytes.
//!
//! What it holds is counted as the disk counts it, in blocks, its directories and maps included: the smallest object
//! takes two of them.
//!
//! `identity` says whose bytes a file holds, `blocks` and `index` are the bookkeeping, `files` and `survey` the disk,
//! `cached` one version, `filler` the way in, `untouched` the way out, `audit` a look from outside.

mod audit;
mod blocks;
mod cached;
mod files;
mod filler;
mod identity;
mod index;
mod survey;
mod untouched;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use self::blocks::{BLOCK, RECORD};
use self::files::Paths;
use self::filler::Filler;
use self::identity::Name;
use self::index::Index;
use self::survey::{Survey, around, on_disk};
use crate::config::CacheConfig;
use crate::disk_file::Stamp;
use crate::error::{FsError, Result};
use crate::owned_dir::OwnedDir;

pub(crate) use self::audit::{Entry, Look};
pub(crate) use self::cached::{CachedFile, Whole};
pub(crate) use self::identity::Identity;
pub(crate) use self::untouched::{is_map, is_untouched, map_beside};

/// Disk blocks that a few bytes more may take beside their own: of the map, of the directory, and of what the disk
/// itself must note. What was not taken is given back once that is known.
const BESIDE: u64 = 3;

/// The cache of one daemon.
#[derive(Debug)]
pub(crate) struct DiskCache {
    objects: PathBuf,
    most: u64,
    /// Length of a block of the disk, in bytes.
    disk_block: u64,
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
    /// Bytes of the disk in use.
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
    /// background; until then nothing is taken in, or it could be too much. Blocks on the disk.
    ///
    /// # Errors
    /// As [`OwnedDir::open`] and [`CacheConfig::check`].
    pub(crate) fn open(config: &CacheConfig) -> Result<Arc<Self>> {
        config.check()?;
        let owned = OwnedDir::open("cache directory", &config.dir, &["objects"])?;
        let objects = config.dir.join("objects");
        let disk = rustix::fs::statvfs(&objects).map_err(|error| {
            FsError::local("cannot examine the disk of the cache directory", error.into())
        })?;
        let cache = Arc::new(Self {
            // Some say how much they like to write at once.
            disk_block: disk.f_frsize.clamp(512, 64 << 10),
            most: config.size,
            index: Mutex::new(Index::new(around(&config.dir))),
            filler: Filler::start()?,
            damaged: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            objects,
            _owned: owned,
        });
        cache.filler.survey(&cache);
        Ok(cache)
    }

    /// Takes in what earlier runs left, and makes it as little as it may be.
    fn found(&self, survey: Survey) {
        let victims = {
            let mut index = self.index.lock();
            index.found(survey);
            index.shrink(self.most)
        };
        self.evict(victims);
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
    /// removed. The disk is asked only if it may have something, then in a thread that may block.
    pub(crate) async fn obtain(self: &Arc<Self>, identity: Identity) -> Option<Arc<CachedFile>> {
        let records = identity.size.div_ceil(BLOCK) * RECORD as u64;
        let whole = self.room_for(&[0..identity.size, 0..records]);
        let name = identity.name();
        let (file, may_have) = {
            let mut index = self.index.lock();
            if index.around() + whole > self.most {
                return None;
            }
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

    /// Makes room for bytes of a file, and what they need beside.
    fn reserve(&self, name: Name, ranges: &[Range<u64>]) -> bool {
        let victims = self.index.lock().reserve(name, self.room_for(ranges), self.most);
        let has_room = victims.is_some();
        self.evict(victims.unwrap_or_default());
        has_room
    }

    /// What ranges of a file may take of the disk, at most.
    fn room_for(&self, ranges: &[Range<u64>]) -> u64 {
        let block = self.disk_block;
        let blocks = |range: &Range<u64>| range.end.div_ceil(block) - range.start / block;
        (ranges.iter().map(blocks).sum::<u64>() + BESIDE) * block
    }

    fn count(&self, name: Name, bytes: u64) {
        self.index.lock().count(name, bytes);
    }

    /// Counts the directory that a new file lies in.
    fn count_directory(&self, name: Name) {
        if let Ok(directory) = self.objects.join(name.directory()).metadata() {
            self.index.lock().count_directory(name.directory_number(), on_disk(&directory));
        }
    }

    fn trusted(&self, name: Name) -> Option<Stamp> {
        self.index.lock().trusted(name)
    }

    fn trust(&self, name: Name, stamp: Stamp) {
        self.index.lock().trust(name, stamp);
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

#[cfg(test)]
mod tests;
