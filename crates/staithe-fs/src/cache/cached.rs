//! One version of one object on the local disk, as far as it is there.
//!
//! Invariants:
//! 1. Bytes are handed on only from blocks whose checksum was computed from bytes that the store had sent and that
//!    were checked, and has just been seen to match: a damaged or cut file costs a request, never a wrong byte.
//! 2. What is handed to a kernel as a whole ([`CachedFile::whole`]) was read and checked in this process, and has not
//!    been changed since, as far as its length and modification time tell.
//! 3. One that was given up or removed is never written to or read again by the cache.

use std::fs::{File, rename};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use staithe_store::ETag;

use super::DiskCache;
use super::blocks::{Blocks, Standing, sum};
use super::files::{Files, Paths};
use super::identity::{Identity, Name};
use super::untouched::map_beside;
use crate::disk_file::Stamp;

/// How much is read at once to check it, in bytes.
const CHECKED_AT_ONCE: u64 = 4 << 20;

/// A version of an object on the local disk.
#[derive(Debug)]
pub(crate) struct CachedFile {
    identity: Identity,
    name: Name,
    paths: Paths,
    cache: Weak<DiskCache>,
    inner: Mutex<Inner>,
    /// Held by who writes to the files, or takes them away. Taken before `inner`, and both before the cache's index.
    writing: Mutex<()>,
    is_checking: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    blocks: Blocks,
    files: Option<Arc<Files>>,
    is_loaded: bool,
    /// What is on the disk could not be read, and is left alone.
    is_unreadable: bool,
    is_gone: bool,
    /// What the bytes looked like when they were last trusted.
    stamp: Option<Stamp>,
}

/// Whether a file can be handed on as a whole.
#[derive(Debug)]
pub(crate) enum Whole {
    /// Every byte is here and was checked.
    Yes(Arc<File>),
    /// Not every byte is here.
    No,
    /// Every byte seems to be here, and checking them takes too long to wait for.
    Unchecked,
}

impl Inner {
    /// What the files take of the disk, in bytes.
    fn held(&self) -> u64 {
        let written = self.blocks.bytes();
        // A file that cannot be examined has at least these.
        self.files.as_ref().map_or(0, |files| files.held(written).unwrap_or(written))
    }
}

impl CachedFile {
    pub(super) fn new(cache: &Arc<DiskCache>, identity: Identity, name: Name, paths: Paths) -> Arc<Self> {
        let blocks = Blocks::new(identity.size);
        let inner = Inner {
            blocks,
            files: None,
            is_loaded: false,
            is_unreadable: false,
            is_gone: false,
            stamp: None,
        };
        Arc::new(Self {
            identity,
            name,
            paths,
            cache: Arc::downgrade(cache),
            inner: Mutex::new(inner),
            writing: Mutex::default(),
            is_checking: AtomicBool::new(false),
        })
    }

    /// Its length in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.identity.size
    }

    /// Whether this is the version with this tag.
    pub(crate) fn is_of(&self, etag: &ETag, size: u64) -> bool {
        self.identity.etag == *etag && self.identity.size == size
    }

    /// Takes in what an earlier process left. Blocks on the disk the first time. What cannot be read is as good as
    /// absent.
    pub(super) fn load(&self) {
        let mut inner = self.inner.lock();
        if std::mem::replace(&mut inner.is_loaded, true) || inner.is_gone {
            return;
        }
        match Files::open(&self.paths, &self.identity, inner.blocks.count()) {
            Ok(Some((files, records))) => {
                for (index, record) in records.into_iter().enumerate() {
                    if let Some(sum) = record {
                        inner.blocks.set(index, sum, Standing::Claimed);
                    }
                }
                let trusted = self.cache.upgrade().and_then(|cache| cache.trusted(self.name));
                if trusted.is_some() && trusted == files.stamp().ok() {
                    inner.blocks.trust();
                    inner.stamp = trusted;
                }
                // What nothing vouches for takes no space.
                inner.blocks.absent_runs().iter().for_each(|run| files.punch(run));
                inner.files = Some(Arc::new(files));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(file = %self.paths.map.display(), %error, "not readable; not used");
                inner.is_unreadable = true;
            }
        }
        if let Some(cache) = self.cache.upgrade() {
            cache.count(self.name, inner.held());
        }
    }

    /// Bytes of `range` that are here, checked; `None` if not all are, or if the disk would have to be waited for and
    /// it may not.
    pub(crate) fn read(&self, range: &Range<u64>, may_wait: bool) -> Option<Bytes> {
        let (files, touched, sums, span) = {
            let inner = self.inner.lock();
            let files = inner.files.clone().filter(|_| !inner.is_gone)?;
            let (touched, sums) = inner.blocks.sums(range)?;
            let span = inner.blocks.range(touched.start).start..inner.blocks.range(touched.end - 1).end;
            (files, touched, sums, span)
        };
        let bytes = match files.read(&span, may_wait) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) if !may_wait => {
                tracing::trace!(%error, "asking again where it may wait");
                return None;
            }
            Err(error) => {
                touched.for_each(|index| self.lose(&files, index, &error.to_string()));
                return None;
            }
        };
        let mut is_right = true;
        for (index, expected) in touched.zip(sums) {
            let block = self.inner.lock().blocks.range(index);
            let block = (block.start - span.start) as usize..(block.end - span.start) as usize;
            if sum(&bytes[block]) != expected {
                is_right = false;
                self.lose(&files, index, "its checksum is wrong");
            }
        }
        let within = (range.start - span.start) as usize..(range.end - span.start) as usize;
        is_right.then(|| bytes.slice(within))
    }

    /// What begins at `at` and ends by `end`, alike throughout: its end, and whether it is here.
    pub(crate) fn run(&self, at: u64, end: u64) -> (u64, bool) {
        let inner = self.inner.lock();
        if inner.is_gone { (end, false) } else { inner.blocks.run(at, end) }
    }

    /// Whether every byte is here, checked or not.
    pub(crate) fn is_whole(&self) -> bool {
        let inner = self.inner.lock();
        !inner.is_gone && inner.blocks.is_whole()
    }

    /// The file, if every byte is here and right. Reads up to `most` bytes to find out. Blocks on the disk.
    pub(crate) fn whole(&self, most: u64) -> Whole {
        let (files, claimed) = {
            let mut inner = self.inner.lock();
            if inner.is_gone || !inner.blocks.is_whole() {
                return Whole::No;
            }
            let Some(files) = inner.files.clone() else { return Whole::No };
            if inner.stamp.is_none() || inner.stamp != files.stamp().ok() {
                inner.blocks.distrust();
            }
            (files, inner.blocks.claimed_bytes())
        };
        if claimed == 0 {
            return Whole::Yes(files.data.clone());
        }
        if claimed > most {
            return Whole::Unchecked;
        }
        if self.check(&files) { Whole::Yes(files.data.clone()) } else { Whole::No }
    }

    /// Whether it was given up or removed.
    pub(crate) fn is_gone(&self) -> bool {
        self.inner.lock().is_gone
    }

    /// Checks all of it, unless that is under way. Blocks on the disk.
    pub(crate) fn check_once(&self) {
        if !self.is_checking.swap(true, Ordering::AcqRel) {
            self.whole(u64::MAX);
            self.is_checking.store(false, Ordering::Release);
        }
    }

    /// Reads every block and looks whether it is right.
    fn check(&self, files: &Files) -> bool {
        let Ok(stamp) = files.stamp() else { return false };
        let mut at = 0;
        while at < self.size() {
            let end = (at + CHECKED_AT_ONCE).min(self.size());
            if self.read(&(at..end), true).is_none() {
                return false;
            }
            at = end;
        }
        let mut inner = self.inner.lock();
        inner.blocks.trust();
        inner.stamp = Some(stamp);
        let is_right = inner.blocks.is_trusted() && !inner.is_gone;
        drop(inner);
        if let (true, Some(cache)) = (is_right, self.cache.upgrade()) {
            cache.trust(self.name, stamp);
        }
        is_right
    }

    /// Takes in bytes at `at`, which were checked, where they are still missing. Only one thread at a time may do so.
    /// False if there is no room for them. Blocks on the disk.
    ///
    /// # Errors
    /// The disk's; what was taken in until then counts.
    pub(super) fn fill(&self, cache: &DiskCache, at: u64, bytes: &Bytes) -> io::Result<bool> {
        self.load();
        let _writing = self.writing.lock();
        let range = at..at + bytes.len() as u64;
        let wanted = {
            let inner = self.inner.lock();
            if inner.is_gone || inner.is_unreadable {
                return Ok(false);
            }
            inner.blocks.wanted(&range)
        };
        if wanted.is_empty() {
            return Ok(true);
        }
        if !cache.reserve(self.name, &wanted) {
            return Ok(false);
        }
        let written = self.write(cache, &wanted, at, bytes);
        // What was reserved and not taken must not count, whether or not all of it was written.
        cache.count(self.name, self.inner.lock().held());
        let files = written?;
        if self.is_whole() {
            let stamp = files.stamp()?;
            self.inner.lock().stamp = Some(stamp);
            cache.trust(self.name, stamp);
        }
        Ok(true)
    }

    fn write(
        &self,
        cache: &DiskCache,
        wanted: &[Range<u64>],
        at: u64,
        bytes: &Bytes,
    ) -> io::Result<Arc<Files>> {
        let files = self.files(cache)?;
        for gap in wanted.iter().cloned() {
            let piece = &bytes[(gap.start - at) as usize..(gap.end - at) as usize];
            std::os::unix::fs::FileExt::write_all_at(&*files.data, piece, gap.start)?;
            let complete = self.inner.lock().blocks.wrote(gap, sum(piece));
            if let Some((index, sum)) = complete {
                files.record(index, sum)?;
                self.inner.lock().blocks.set(index, sum, Standing::Trusted);
            }
        }
        Ok(files)
    }

    /// The files, made if there are none.
    fn files(&self, cache: &DiskCache) -> io::Result<Arc<Files>> {
        if let Some(files) = &self.inner.lock().files {
            return Ok(files.clone());
        }
        // Without the lock, which readers take: `writing` keeps others away.
        let files = Arc::new(Files::create(&self.paths, &self.identity)?);
        cache.count_directory(self.name);
        self.inner.lock().files = Some(files.clone());
        Ok(files)
    }

    /// A block turned out to be damaged: it is absent from now on.
    fn lose(&self, files: &Files, index: usize, why: &str) {
        tracing::warn!(file = %self.paths.data.display(), block = index, why, "damaged in the cache; fetched again");
        if let Err(error) = files.erase(index) {
            tracing::warn!(file = %self.paths.map.display(), %error, "not writable");
        }
        // Its bytes stay on the disk, and count, until they are written over: the file may be lent.
        self.inner.lock().blocks.set(index, 0, Standing::Absent);
        if let Some(cache) = self.cache.upgrade() {
            cache.lost_block();
        }
    }

    /// Moves the bytes out of the cache, to `target`, and [its map](map_beside) beside it. Who has the file open goes on
    /// using it; for the cache it is gone.
    ///
    /// # Errors
    /// The disk's (another file system, say); then it is gone all the same, and nothing is at `target`.
    pub(crate) fn give_up(&self, target: &Path) -> io::Result<()> {
        let _writing = self.writing.lock();
        self.inner.lock().is_gone = true;
        let cache = self.cache.upgrade();
        if let Some(cache) = &cache {
            // Until it has left, nobody makes a file of this name, which could be moved in its place.
            cache.index.lock().leave(self.name);
        }
        let moved = rename(&self.paths.data, target);
        let rest = match moved {
            Ok(()) => rename(&self.paths.map, map_beside(target)),
            Err(_) => self.paths.remove(),
        };
        if let Err(error) = rest {
            tracing::debug!(file = %self.paths.map.display(), %error, "left behind by a file that was given up");
        }
        if let Some(cache) = &cache {
            cache.index.lock().left(self.name);
        }
        moved
    }

    /// Removes it, as what it holds is wrong. Who has it open goes on using what they have of it; for the cache it is gone.
    ///
    /// # Errors
    /// The disk's; then it is gone all the same, and its files may be found by the next start.
    pub(super) fn discard(&self) -> io::Result<()> {
        let _writing = self.writing.lock();
        self.inner.lock().is_gone = true;
        let cache = self.cache.upgrade();
        if let Some(cache) = &cache {
            cache.index.lock().leave(self.name);
        }
        let removed = self.paths.remove();
        if let Some(cache) = &cache {
            cache.index.lock().left(self.name);
        }
        removed
    }
}

impl Drop for CachedFile {
    fn drop(&mut self) {
        let is_empty = !self.inner.get_mut().is_gone && self.inner.get_mut().files.is_none();
        if let (true, Some(cache)) = (is_empty, self.cache.upgrade()) {
            cache.forget_empty(self.name);
        }
    }
}
