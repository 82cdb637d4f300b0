//! Bytes on the local disk, lent: while a version is wholly in the disk cache, and nobody writes to the file, a kernel
//! may read the cached file in our place (FUSE: passthrough). New files are lent to their writers: see [`fresh`].
//!
//! Invariants:
//! 1. A file is lent to all of its handles or to none: a kernel does not mix the two.
//! 2. A cached file is lent first to a handle that only reads. One that writes, while it is lent, is lent it too. The writes of
//!    one that cannot read come to us all the same ([`Opened::direct`]). One that can read must read as the others do,
//!    in every way there is: a kernel that reads it through us keeps pages for sendfile(2) and splice(2), in which it
//!    does not show what a memory map stores. So its writes are the kernel's own, too.
//! 3. Who writes to a lent file writes to that very file, so that its readers see it: the cache gives it up, and it
//!    becomes the staging file, for as long as it is lent. Its map goes along: a start after a crash sees by it whether
//!    anything was written.
//! 4. What a kernel writes by itself is not told to us, and a memory map outlives every descriptor. So, once there may
//!    have been one, the staging file stays until the end of the mount. It is shared: whoever looks at the inode looks
//!    at the file's length and time, whatever asks for what is not stored looks at all of it, and in write-through no
//!    intent of the journal speaks of it while the kernel may write to it.

mod fresh;

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use staithe_store::{ETag, Key};

use crate::api::{HandleId, OpenMode, Opened};
use crate::cache::{CachedFile, Identity, Whole};
use crate::disk_file::DiskFile;
use crate::error::{FsError, FsErrorKind, Result as FsResult};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, State};
use crate::lookup::Dent;
use crate::staging::{Staged, TakenIn};
use crate::sums::Sums;

pub(crate) use fresh::Loan;

/// What an open waits for to be checked, in bytes; more is checked in the background, for the next open.
const CHECKED_BY_OPEN: u64 = 256 << 20;

/// A file on the local disk that holds all bytes of an open file, in their places.
#[derive(Debug, Clone)]
pub struct LocalFile(Place);

#[derive(Debug, Clone)]
enum Place {
    Cache(Arc<File>),
    Staging(DiskFile),
}

impl LocalFile {
    fn of_staging(file: &DiskFile) -> Self {
        Self(Place::Staging(file.clone()))
    }
}

impl AsFd for LocalFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Place::Cache(file) => file.as_fd(),
            Place::Staging(file) => file.as_fd(),
        }
    }
}

/// A lent file, and by how many handles it is held.
#[derive(Debug)]
pub(crate) struct Lent {
    pub(crate) file: LocalFile,
    /// What it is in the disk cache, or was; `None`: it was a staging file from the beginning.
    pub(crate) cached: Option<Arc<CachedFile>>,
    pub(crate) handles: u32,
    /// Of these, how many a kernel writes through to a watched file.
    pub(crate) untold: u32,
}

impl Filesystem {
    /// Whether files that are wholly in the disk cache, and new files, may be lent, or why not: whoever opens them is
    /// then given them in [`Opened::local`]. Off until this says otherwise.
    pub fn lend_local_files(&self, may: &Result<(), String>) {
        let may_if = |can: Result<(), &str>| can.map_err(str::to_owned).and_then(|()| may.clone());
        let (cached, new) = (may_if(self.can_lend_cached()), may_if(self.can_lend_new()));
        self.may_lend.store(cached.is_ok(), Ordering::Release);
        self.may_lend_new.store(new.is_ok(), Ordering::Release);
        (*self.lends_not.lock(), *self.lends_no_new.lock()) = (cached.err(), new.err());
    }

    /// Whether there can be files to lend.
    pub fn can_lend(&self) -> bool {
        self.can_lend_cached().is_ok() || self.can_lend_new().is_ok()
    }

    /// Whether there is a disk cache whose files could be lent, or why not. A file that is written to while it is lent
    /// moves from the cache to the staging directory, so on a mount that writes both must be on one file system.
    ///
    /// # Errors
    /// The reason, in a few words.
    fn can_lend_cached(&self) -> Result<(), &'static str> {
        let cache = self.cache.as_ref().ok_or("there is no cache directory")?;
        if self.config.read_only || self.state_dir.takes_files_from(cache.objects()) {
            return Ok(());
        }
        Err(
            "files cannot move from the cache directory to the state directory (different file systems or mounts)",
        )
    }

    /// Why files in the disk cache are not lent; `None` when they are.
    pub fn lends_not_because(&self) -> Option<String> {
        self.lends_not.lock().clone()
    }

    /// What the disk cache has of the inode's stored bytes; `None` without a cache, or without such bytes.
    pub(crate) async fn cached(&self, inode: &Inode) -> Option<Arc<CachedFile>> {
        let cache = self.cache.as_ref()?;
        let (content, remote) = {
            let state = inode.state();
            if let Some(cached) = state.cached_now() {
                return Some(cached);
            }
            (state.content, state.remote.clone().filter(|r| r.size > 0)?)
        };
        let identity = Identity {
            volume: self.volume.clone(),
            key: remote.key,
            etag: remote.version.etag,
            size: remote.size,
        };
        let cached = cache.obtain(identity).await?;
        let is_current = inode.state().content == content;
        is_current.then_some(cached)
    }

    /// Bytes of `range` from the disk cache, in a thread that may block; `None` if it does not have them all.
    pub(crate) async fn read_cached(&self, inode: &Inode, range: Range<u64>) -> Option<Bytes> {
        let cached = inode.state().cached_now()?;
        if cached.run(range.start, range.end) != (range.end, true) {
            return None;
        }
        let reading = tokio::task::spawn_blocking(move || cached.read(&range, true));
        let bytes = reading.await.ok().flatten();
        inode.state().was_read |= bytes.is_some();
        bytes
    }

    /// Puts the whole of a small object into the disk cache.
    pub(crate) async fn keep_on_disk(&self, cached: Option<Arc<CachedFile>>, body: Bytes) {
        if let (Some(cache), Some(cached)) = (&self.cache, cached)
            && !cached.is_whole()
        {
            cache.offer(&cached, 0, body).await;
        }
    }

    /// Whether the disk cache has something of a version, as far as memory knows.
    pub(crate) fn is_on_disk(&self, key: &Key, etag: &ETag, size: u64) -> bool {
        self.cache.as_ref().is_some_and(|cache| {
            let (volume, key, etag) = (self.volume.clone(), key.clone(), etag.clone());
            cache.has_some_of(&Identity { volume, key, etag, size })
        })
    }

    /// The same of a version that a listing shows.
    pub(crate) fn is_listed_on_disk(&self, path: &str, dent: &Dent) -> bool {
        let Dent::File { size, etag, .. } = dent else { return false };
        self.cache.is_some() && self.key(path).is_ok_and(|key| self.is_on_disk(&key, etag, *size))
    }

    /// Whether the disk cache has all of the inode's bytes, seen to be right: then the file to lend.
    pub(crate) async fn lendable(
        &self,
        inode: &Inode,
        cached: Option<&Arc<CachedFile>>,
    ) -> Option<(LocalFile, Arc<CachedFile>)> {
        let cached = cached.filter(|c| self.may_lend.load(Ordering::Acquire) && c.is_whole())?;
        if !inode.may_be_lent() {
            return None;
        }
        let mut whole = cached.whole(0);
        if matches!(whole, Whole::Unchecked) {
            let checking = cached.clone();
            let checked = tokio::task::spawn_blocking(move || checking.whole(CHECKED_BY_OPEN));
            whole = checked.await.unwrap_or(Whole::No);
        }
        match whole {
            Whole::Yes(file) => Some((LocalFile(Place::Cache(file)), cached.clone())),
            Whole::No => None,
            Whole::Unchecked => {
                let checking = cached.clone();
                self.runtime.spawn_blocking(move || checking.check_once());
                None
            }
        }
    }

    /// Makes a handle of an inode, lent or not, as its other handles are.
    ///
    /// # Errors
    /// The local disk's, if a lent file could not become the staging file.
    pub(crate) fn open_lent(
        &self,
        inode: &Arc<Inode>,
        mode: OpenMode,
        cached: Option<Arc<CachedFile>>,
        lendable: Option<(LocalFile, Arc<CachedFile>)>,
    ) -> FsResult<Opened> {
        let writes = mode.write || mode.truncate;
        let mut state = inode.state();
        if let Some(cached) = cached.filter(|cached| state.is_stored_as(cached)) {
            state.cached = Some((state.content, cached));
        }
        let is_free = inode.opens.load(Ordering::Acquire) == 0 && state.staged.is_none() && !writes;
        if let (true, None, Some((file, cached))) = (is_free, &state.lent, lendable)
            && state.cached_now().is_some_and(|now| Arc::ptr_eq(&now, &cached))
        {
            state.lent = Some(Lent { file, cached: Some(cached), handles: 0, untold: 0 });
        }
        self.lend_cut(inode, &mut state, mode)?;
        if state.lent.is_some() && writes {
            self.stage(inode, &mut state)?;
        }
        let loan = state.loan(mode).inspect_err(|_| {
            state.lent.take_if(|lent| lent.handles == 0);
        })?;
        // Counted while the state is locked: who comes next sees what this handle is.
        Ok(self.open_handle(inode, mode, mode.truncate, loan))
    }

    /// Before a kernel is told of an open handle that it writes through by itself, or maps for writing: see
    /// invariant 4.
    ///
    /// # Errors
    /// The local disk's.
    pub(crate) async fn prepare_for_writes(
        &self,
        inode: &Inode,
        mode: OpenMode,
        opened: &Opened,
    ) -> FsResult<()> {
        if opened.local.is_none() || !(mode.read && mode.write) {
            return Ok(());
        }
        self.unkeep(&mut inode.state());
        inode.share_staging().await
    }

    /// The adapter could not lend the file: the handle's reads are served here after all. Only for one whose file is
    /// not held by another handle that it was lent to.
    pub fn serve(&self, handle: HandleId) {
        let Ok(handle) = self.files.get(handle) else { return };
        if handle.lent.swap(false, Ordering::AcqRel) {
            handle.inode.state().return_lent(handle.is_untold);
        }
    }
}

impl Inode {
    /// Whether an open now could begin to lend it.
    fn may_be_lent(&self) -> bool {
        let state = self.state();
        state.lent.is_none() && state.staged.is_none() && !self.is_open()
    }

    /// The staging file, if others may write to it too.
    fn shared_file(&self) -> Option<DiskFile> {
        self.state()
            .staged
            .as_ref()
            .filter(|staged| staged.is_shared())
            .map(|staged| staged.disk_file().clone())
    }

    /// Whether others may write to the staging file, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.state().staged.as_ref().is_some_and(Staged::is_shared)
    }

    /// Takes in what was written to a shared staging file behind our back. Reads all of it.
    pub(crate) async fn take_in_untold_writes(&self) {
        let Some(file) = self.shared_file() else { return };
        let sums = tokio::task::spawn_blocking(move || Sums::of(&file)).await;
        let Ok(Ok(sums)) = sums else {
            tracing::warn!(ino = self.ino.0, "what the kernel has written by itself could not be read");
            return;
        };
        let mut state = self.state();
        match state.staged.as_mut().map(|staged| staged.take_in(sums)) {
            Some(TakenIn::Unseen) => state.touch_bytes(SystemTime::now()),
            // Its time is known, and may have been set to another one since.
            Some(TakenIn::Seen) => state.outdate_store(),
            Some(TakenIn::Nothing) | None => {}
        }
    }

    /// From now on the kernel may write to the staging file of a lent inode.
    async fn share_staging(&self) -> FsResult<()> {
        let Some(file) = self.state().staged.as_ref().map(|staged| staged.disk_file().clone()) else {
            return Ok(());
        };
        let sums = tokio::task::spawn_blocking(move || Sums::of(&file)).await;
        let sums = sums.map_err(|e| FsError::caused(FsErrorKind::Io, "reading the file panicked", e))??;
        if let Some(staged) = self.state().staged.as_mut() {
            staged.share(sums)?;
        }
        Ok(())
    }
}

/// Gives a lent file that was just closed a moment to come back: a kernel tells of it after close(2) has returned, and
/// to write to a lent file is dearer.
pub(crate) async fn wait_for_return(inode: &Inode) {
    for millis in [0, 1, 2, 4] {
        if inode.state().lent.is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

impl State {
    /// Whether a file of the disk cache is of the bytes as they are stored now.
    fn is_stored_as(&self, cached: &CachedFile) -> bool {
        self.remote.as_ref().is_some_and(|remote| cached.is_of(&remote.version.etag, remote.size))
    }

    /// The disk cache's file of the bytes as they are stored now.
    pub(crate) fn cached_now(&self) -> Option<Arc<CachedFile>> {
        let cached =
            self.cached.as_ref().filter(|(content, file)| *content == self.content && !file.is_gone());
        cached.map(|(_, file)| file.clone())
    }

    /// One handle less holds the lent file; `was_untold`: a kernel wrote through it.
    pub(crate) fn return_lent(&mut self, was_untold: bool) {
        let Some(lent) = self.lent.as_mut() else { return };
        lent.handles = lent.handles.saturating_sub(1);
        lent.untold = lent.untold.saturating_sub(u32::from(was_untold));
        if lent.untold == 0
            && let Some(staged) = self.staged.as_mut()
        {
            staged.end_watch();
        }
        if lent.handles == 0 {
            self.lent = None;
        }
    }
}
