//! Open files: open, flush, fsync, release.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::api::{HandleId, Ino, Kind, OpenMode, Opened};
use crate::commit::with_causes;
use crate::door::Door;
use crate::error::{FsError, FsErrorKind, Result};
use crate::fetch::Reading;
use crate::filesystem::Filesystem;
use crate::handles::FileHandle;
use crate::inode::{Inode, State};
use crate::lend::{Loan, wait_for_return};
use crate::staging::Staged;
use crate::upload::blocking;

/// How much of an object an open asks for before it answers, in bytes: what a first read takes.
const FIRST_LOOK: u64 = 128 << 10;

impl Filesystem {
    /// Opens a file. A first open for reading fetches the beginning of the object and so learns whether it still
    /// is the version that the name meant: no request is spent on asking.
    ///
    /// # Errors
    /// `Stale` when the object was replaced or removed (the kernel then looks the name up again);
    /// `IsDirectory`; `ReadOnly`; the store's errors.
    pub async fn open_file(&self, ino: Ino, mode: OpenMode) -> Result<Opened> {
        let inode = self.inodes.get(ino)?;
        match inode.kind {
            Kind::File => {}
            Kind::Directory => return Err(FsError::new(FsErrorKind::IsDirectory, "this is a directory")),
            Kind::Symlink => return Err(FsError::new(FsErrorKind::Invalid, "this is a symbolic link")),
        }
        if inode.state().link.is_none() && !inode.is_open() {
            return Err(FsError::new(FsErrorKind::Stale, "the name of this file is gone"));
        }
        if mode.write || mode.truncate {
            self.writable()?;
            self.know_meta(&inode).await?;
            if !mode.truncate {
                self.revalidate(&inode).await?;
            }
        }
        let opened = self.open_with_cache(&inode, mode).await?;
        if !mode.write && !mode.truncate {
            self.opened_in_order(&inode).await;
        }
        let abandoned = Abandoned { fs: self, handle: opened.handle };
        if mode.truncate {
            self.truncate(&inode, 0)?;
        } else {
            self.first_look(&inode, &opened).await?;
        }
        std::mem::forget(abandoned);
        Ok(opened)
    }

    /// Makes a handle, with what the disk cache has of the file.
    async fn open_with_cache(&self, inode: &Arc<Inode>, mode: OpenMode) -> Result<Opened> {
        let cached = if mode.truncate { None } else { self.cached(inode).await };
        let lendable = if mode.write { None } else { self.lendable(inode, cached.as_ref()).await };
        if mode.write || mode.truncate {
            wait_for_return(inode).await;
        }
        let opened = self.open_lent(inode, mode, cached, lendable)?;
        if let Err(error) = self.prepare_for_writes(inode, mode, &opened).await {
            self.close_handle(opened.handle);
            return Err(error);
        }
        Ok(opened)
    }

    /// Makes a handle; nothing is asked. `changes` says that to open the file is to change it: also a handle that
    /// only reads then has something to store.
    pub(crate) fn open_handle(
        &self,
        inode: &Arc<Inode>,
        mode: OpenMode,
        changes: bool,
        loan: Option<Loan>,
    ) -> Opened {
        inode.opens.fetch_add(1, Ordering::AcqRel);
        if mode.write {
            inode.writers.fetch_add(1, Ordering::AcqRel);
        }
        let flushes = mode.write || changes;
        let is_untold = loan.as_ref().is_some_and(|loan| loan.is_untold);
        let local = loan.map(|loan| loan.file);
        let handle = FileHandle {
            inode: inode.clone(),
            read: mode.read || !mode.write,
            write: mode.write,
            flushes,
            lent: AtomicBool::new(local.is_some()),
            is_untold,
            queue: Mutex::new(None),
        };
        // Pages never outlive their version: another version is another inode.
        Opened {
            handle: self.files.insert(handle),
            keep_cache: local.is_none(),
            no_flush: !flushes,
            direct: local.is_some() && mode.write && !mode.read && !is_untold,
            local,
        }
    }

    async fn first_look(&self, inode: &Arc<Inode>, opened: &Opened) -> Result<()> {
        let now = Instant::now();
        let (size, body, cached, parent, is_settled) = {
            let state = inode.state();
            let fresh = self.is_fresh(state.validated, now);
            // A body that came ahead of this open is what the name means only as long as it is believed to be.
            let here = state.staged.is_some() || (state.body.is_some() && fresh);
            let is_settled = here || (state.was_read && fresh) || state.size() == 0;
            let parent = state.link.as_ref().map(|l| l.parent);
            (state.size(), state.body.clone(), state.cached_now(), parent, is_settled)
        };
        if is_settled {
            if let Some(body) = body {
                self.reward(parent);
                self.keep_on_disk(cached, body).await;
            }
            return Ok(());
        }
        let beginning = size.min(FIRST_LOOK);
        if cached.is_some_and(|cached| cached.run(0, beginning) == (beginning, true)) {
            return self.revalidate(inode).await;
        }
        let handle = self.files.get(opened.handle)?;
        if !handle.read {
            return Ok(());
        }
        self.read_stored(&handle, 0, beginning).await.map(drop)
    }

    /// A body that came along with its attributes was wanted: go on doing so in this directory.
    pub(crate) fn reward(&self, directory: Option<Ino>) {
        let Some(directory) = directory.and_then(|d| self.inodes.get(d).ok()) else { return };
        let more = directory.eagerness.load(Ordering::Acquire).saturating_add(2).min(8);
        directory.eagerness.store(more, Ordering::Release);
    }

    /// close(2) of one descriptor. Write-through: returns when the store has what was written through any of them;
    /// write-back: when the journal knows of it, so that it is stored also if this process ends first.
    ///
    /// # Errors
    /// `Stale` for a lost race (see [`OnConflict`](crate::OnConflict)); the store's errors (write-through). The bytes
    /// then stay staged, and are tried again by the next flush, fsync or [`drain`](Self::drain). `NoSpace` and `Io`
    /// from the journal, `TooLarge` for what the store would not take (write-back).
    pub async fn flush(&self, handle: HandleId) -> Result<()> {
        let handle = self.files.get(handle)?;
        handle.inode.take_in_untold_writes().await;
        if handle.flushes { self.persist(&handle.inode).await } else { Ok(()) }
    }

    /// As [`flush`](Self::flush): what the store has is durable. Write-back: what is written is durable on the local
    /// disk, with the intent to store it.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn fsync(&self, handle: HandleId) -> Result<()> {
        let handle = self.files.get(handle)?;
        handle.inode.take_in_untold_writes().await;
        if !self.writes_back() {
            return self.commit_to_its_end(&handle.inode).await;
        }
        self.refuse_unstorable(&handle.inode.state())?;
        if self.keep(&handle.inode).await?.is_some() {
            self.persist_later(&handle.inode);
        }
        Ok(())
    }

    /// What changed of names and attributes is durable here when this returns.
    ///
    /// # Errors
    /// `NoSpace`, `Io` from the journal.
    pub async fn fsync_dir(&self) -> Result<()> {
        if !self.writes_back() {
            // It is in the store.
            return Ok(());
        }
        let journal = self.journal.clone();
        blocking(move || journal.sync()).await
    }

    /// After a change of an inode: stores it, or sees to it that it will be, as the mount's write mode says.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub(crate) async fn persist(&self, inode: &Arc<Inode>) -> Result<()> {
        if !self.writes_back() {
            return self.commit_to_its_end(inode).await;
        }
        let (is_dirty, is_said, is_being_written) = {
            let state = inode.state();
            self.refuse_unstorable(&state)?;
            (state.is_dirty(), state.is_said(), state.is_written_untold())
        };
        // What a kernel is still writing to is stored when it is closed.
        if is_dirty && (is_said || self.say(inode)?.is_some()) && !is_being_written {
            self.persist_later(inode);
        }
        Ok(())
    }

    /// What will not be stored as it is; a kernel that writes by itself has not asked how large a file may become.
    fn refuse_unstorable(&self, state: &State) -> Result<()> {
        state.refuse_unstorable()?;
        self.refuse_too_large(state.size())
    }

    /// Commits in a task of its own: a caller who gives up waiting leaves no commit cut off in the middle, of which
    /// nobody would know what it had done.
    pub(crate) async fn commit_to_its_end(&self, inode: &Arc<Inode>) -> Result<()> {
        let is_settled = {
            let state = inode.state();
            state.refuse_lost()?;
            // What is stored, and still in the journal, is struck out there in this moment.
            !state.is_dirty() && state.kept.is_none()
        };
        if is_settled {
            return Ok(());
        }
        let (Some(fs), inode) = (self.me.upgrade(), inode.clone()) else { return Ok(()) };
        let commit =
            self.tasks.spawn_on(async move { fs.commit(&inode, &Door::open()).await }, &self.runtime);
        commit.await.map_err(|e| FsError::caused(FsErrorKind::Io, "the commit did not finish", e))?
    }

    /// The last descriptor of a handle is gone. Returns at once; what is still dirty once nobody writes any more (a
    /// memory map written after close) is stored in the background.
    pub fn release(&self, handle: HandleId) {
        if let Some(inode) = self.close_handle(handle) {
            if inode.state().is_local() || inode.is_shared() {
                if inode.writers.load(Ordering::Acquire) == 0 {
                    self.settle_closed(&inode);
                }
            } else {
                inode.settle_staging();
            }
            self.inodes.let_go(&inode);
        }
    }

    fn close_handle(&self, handle: HandleId) -> Option<Arc<Inode>> {
        let handle = self.files.remove(handle)?;
        if let Some(Reading { queue, .. }) = handle.queue.lock().take() {
            queue.close();
        }
        let inode = &handle.inode;
        if handle.write {
            inode.writers.fetch_sub(1, Ordering::AcqRel);
        }
        let mut state = inode.state();
        if handle.lent.load(Ordering::Acquire) {
            state.return_lent(handle.is_untold);
        }
        // While the state is locked: an open in between would lose what it has just been given.
        if inode.opens.fetch_sub(1, Ordering::AcqRel) == 1 && inode.kind == Kind::File {
            (state.body, state.cached) = (None, None);
        }
        drop(state);
        Some(inode.clone())
    }

    /// After the last close for writing: stores what no flush has seen.
    fn settle_closed(&self, inode: &Arc<Inode>) {
        if !self.writes_back() {
            return self.settle_later(inode);
        }
        if !inode.state().is_said()
            && let Err(error) = self.say(inode)
        {
            let error = with_causes(&error);
            tracing::error!(ino = inode.ino.0, error, "the journal does not know of the last writes");
        }
        self.persist_later(inode);
    }

    /// Commits in the background.
    fn settle_later(&self, inode: &Arc<Inode>) {
        let (Some(fs), inode) = (self.me.upgrade(), inode.clone()) else { return };
        if inode.settling.swap(true, Ordering::AcqRel) {
            return;
        }
        self.tasks.spawn_on(
            async move {
                inode.settling.store(false, Ordering::Release);
                if let Err(error) = fs.commit(&inode, &Door::open()).await {
                    tracing::warn!(ino = inode.ino.0, %error, "not stored after the last close; kept in staging");
                }
                inode.settle_staging();
                fs.inodes.let_go(&inode);
            },
            &self.runtime,
        );
    }
}

/// Closes a handle that nobody will ever get: its open failed, or its caller has given up waiting.
struct Abandoned<'a> {
    fs: &'a Filesystem,
    handle: HandleId,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        self.fs.release(self.handle);
    }
}

impl Inode {
    /// Lets the staging file go once nobody writes and the store has everything; without a name, once nobody
    /// has the inode open.
    pub(crate) fn settle_staging(&self) {
        self.drop_staged_if(|state| {
            if state.link.is_none() {
                return !self.is_open();
            }
            let is_stored = !state.is_dirty() && state.remote.is_some();
            let is_shared = state.staged.as_ref().is_some_and(Staged::is_shared);
            is_stored
                && state.keepers == 0
                && state.lent.is_none()
                && !is_shared
                && self.writers.load(Ordering::Acquire) == 0
        });
    }

    /// Lets a shared staging file go that has nothing which is not stored: no memory map writes to it any more.
    pub(crate) fn end_sharing(&self) {
        self.drop_staged_if(|state| {
            !state.is_dirty() && state.staged.as_ref().is_some_and(Staged::is_shared)
        });
    }

    /// Removes the staging file, and with it whatever is not stored.
    pub(crate) fn drop_staged(&self) {
        self.drop_staged_if(|_| true);
    }

    /// Asks and removes in one step: a write is before it, and stays, or after it, and stages anew.
    fn drop_staged_if(&self, agrees: impl FnOnce(&State) -> bool) {
        let staged = {
            let mut state = self.state();
            if !agrees(&state) {
                return;
            }
            (state.meta_dirty, state.bytes_dirty) = (false, false);
            state.staged.take()
        };
        if let Some(Err(error)) = staged.map(|s| s.remove()) {
            tracing::warn!(ino = self.ino.0, %error, "a staging file was left behind");
        }
    }
}
