//! Reads: from the staging file, from a small body, or through the handle's part queue.

use std::ops::Range;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use staithe_store::{ErrorKind, StoreError};

use crate::api::{HandleId, ReadData};
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Remote, State};
use crate::lend::Lent;
use crate::patience::Backoff;
use crate::revalidate::replaced;
use crate::staging::Staged;
use crate::state_dir::StateDir;

/// What is missing of an object being written is fetched in blocks of this size.
const BLOCK: u64 = 1 << 20;
/// The most that is fetched in one request on its way into the staging file.
const BRING_IN_AT_ONCE: u64 = 8 << 20;
/// Requests at once on that way.
const BRING_IN_PARALLEL: usize = 4;

impl Filesystem {
    /// Reads from memory or from the local disk; `None`: ask [`read`](Self::read).
    pub fn try_read(&self, handle: HandleId, offset: u64, len: u32) -> Option<Result<ReadData>> {
        // A write-only handle reads too: a kernel fills the page around a small write through it.
        let handle = match self.files.get(handle) {
            Ok(handle) => handle,
            Err(error) => return Some(Err(error)),
        };
        let mut state = handle.inode.state();
        let end = state.size().min(offset.saturating_add(u64::from(len)));
        if offset >= end {
            return Some(Ok(ReadData::default()));
        }
        if let Some(staged) = &state.staged {
            let here = staged.missing(offset..end).is_empty();
            return here.then(|| staged.read(offset, (end - offset) as usize).map(ReadData::from));
        }
        let bytes = if let Some(body) = state.body.clone() {
            body.slice(offset as usize..end as usize)
        } else {
            let cached = state.cached_now()?;
            drop(state);
            let bytes = cached.read(&(offset..end), false)?;
            state = handle.inode.state();
            bytes
        };
        state.was_read = true;
        Some(Ok(ReadData::from(bytes)))
    }

    /// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// `Stale` when the version that was opened cannot be had any more; `TimedOut`, `Throttled`, and the other
    /// errors of the store.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn read(&self, handle: HandleId, offset: u64, len: u32) -> Result<ReadData> {
        loop {
            if let Some(data) = self.try_read(handle, offset, len) {
                return data;
            }
            let open = self.files.get(handle)?;
            let (is_staged, size) = {
                let state = open.inode.state();
                (state.staged.is_some(), state.size())
            };
            let end = size.min(offset.saturating_add(u64::from(len)));
            if offset >= end {
                return Ok(ReadData::default());
            }
            if is_staged {
                let block = offset / BLOCK * BLOCK..end.next_multiple_of(BLOCK).min(size);
                self.bring_in(&open.inode, block).await?;
            } else if let Some(bytes) = self.read_cached(&open.inode, offset..end).await {
                return Ok(ReadData::from(bytes));
            } else if let Some(data) = self.read_stored(&open, offset, end - offset).await? {
                return Ok(data);
            }
        }
    }

    /// Gives the inode a staging file over its object, unless it has one.
    ///
    /// That a file is made, or moved, on the local disk while the state is locked is what makes it one step: a reader who
    /// came in between would be lent a file that is no longer the cache's, and of two writers one would move what the
    /// other one writes to. Only who uses this very inode waits for it.
    pub(crate) fn stage(&self, inode: &Inode, state: &mut State) -> Result<()> {
        if state.staged.is_some() {
            return Ok(());
        }
        tracing::trace!(ino = inode.ino.0, "staging");
        let (dir, name) = (self.state_dir.staging(), StateDir::new_staging_name());
        let staged = match (&state.remote, &state.lent) {
            // Given up to another client, with the bytes that its handles write to.
            (_, Some(Lent { cached: None, .. })) => return Err(replaced()),
            // Found to be damaged: what is written to it would be stored with that.
            (_, Some(Lent { cached: Some(cached), .. })) if cached.is_gone() => {
                return Err(FsError::new(
                    FsErrorKind::Io,
                    "its cached bytes are damaged, and a program reads them",
                ));
            }
            (Some(remote), Some(Lent { cached: Some(cached), .. })) => {
                // Its readers must see what is written: they read this very file.
                let moved = cached.give_up(&dir.join(&name));
                moved.map_err(|e| FsError::local("taking a file out of the cache failed", e))?;
                Staged::adopt(&dir, &name, remote.size)?
            }
            (Some(remote), None) => Staged::over(&dir, &name, remote.size)?,
            (None, _) => Staged::create(&dir, &name)?,
        };
        state.staged = Some(staged.counted(&self.room));
        Ok(())
    }

    /// Brings what is missing of `range` from the stored object into the staging file.
    ///
    /// # Errors
    /// `Stale` when the object is no longer what the file was opened as; `NoSpace`; the store's errors.
    pub(crate) async fn bring_in(&self, inode: &Arc<Inode>, range: Range<u64>) -> Result<()> {
        loop {
            let missing: Vec<Range<u64>> = {
                let state = inode.state();
                state.staged.as_ref().map(|s| s.missing(range.clone())).unwrap_or_default()
            };
            if missing.is_empty() {
                return Ok(());
            }
            let fetches = missing.into_iter().flat_map(|r| pieces(r, BRING_IN_AT_ONCE));
            let fetches: Vec<_> = fetches.map(|piece| self.bring_in_piece(inode, piece).boxed()).collect();
            let mut fetches = futures::stream::iter(fetches).buffer_unordered(BRING_IN_PARALLEL);
            while let Some(done) = fetches.next().await {
                done?;
            }
        }
    }

    async fn bring_in_piece(&self, inode: &Arc<Inode>, piece: Range<u64>) -> Result<()> {
        let mut backoff = Backoff::new(self.op_deadline());
        let mut at = piece.start;
        while at < piece.end {
            let Some(remote) = inode.state().remote.clone() else {
                return Err(FsError::new(FsErrorKind::Stale, "the object behind this file is gone"));
            };
            let cached = inode.state().cached_now();
            let (end, is_cached) = cached.map_or((piece.end, false), |c| c.run(at, piece.end));
            if is_cached {
                // If it turns out to be damaged, it is not cached any more.
                if let Some(bytes) = self.read_cached(inode, at..end).await {
                    fill(inode, &remote, at, &bytes)?;
                    at = end;
                }
                continue;
            }
            match self.pour(inode, &remote, at..end).await {
                Ok(end) => at = end,
                Err((end, error)) => {
                    at = end;
                    self.after_failure(inode, &remote, error, &mut backoff).await?;
                }
            }
        }
        Ok(())
    }

    /// Streams a range into the staging file; says how far it came.
    async fn pour(
        &self,
        inode: &Inode,
        remote: &Remote,
        range: Range<u64>,
    ) -> std::result::Result<u64, (u64, FsError)> {
        let mut at = range.start;
        let mut body = self.get_checked(remote, range.clone()).await.map_err(|e| (at, e.into()))?.body;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| (at, FsError::from(e)))?;
            fill(inode, remote, at, &chunk).map_err(|e| (at, e))?;
            at += chunk.len() as u64;
        }
        if at < range.end {
            let text = format!("the body ended {} bytes early", range.end - at);
            let short = StoreError::new(ErrorKind::Corrupt, "get", text).with_key(&remote.key);
            return Err((at, short.into()));
        }
        Ok(range.end)
    }

    /// After a failed fetch: waits before another try, or says that there is none.
    ///
    /// # Errors
    /// `error`, or `Stale` when the version is gone; then the name is forgotten too.
    pub(crate) async fn after_failure(
        &self,
        inode: &Arc<Inode>,
        tried: &Remote,
        error: FsError,
        backoff: &mut Backoff,
    ) -> Result<()> {
        let store_error =
            std::error::Error::source(&error).and_then(|s| s.downcast_ref::<staithe_store::StoreError>());
        if matches!(error.kind(), FsErrorKind::Stale | FsErrorKind::NotFound) {
            drop(inode.landing.lock().await);
            if inode.state().remote.as_ref() != Some(tried) {
                // Renamed or stored anew meanwhile: the same content has another place.
                return Ok(());
            }
            self.supersede(inode, &tried.version);
            return Err(FsError::caused(
                FsErrorKind::Stale,
                format!("{}: the version that was opened is gone", tried.key),
                error,
            ));
        }
        match store_error.and_then(|e| backoff.next(e)) {
            Some(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None => Err(error),
        }
    }
}

/// Takes bytes of the object that is still the base into the staging file.
fn fill(inode: &Inode, base: &Remote, at: u64, bytes: &[u8]) -> Result<()> {
    let mut state = inode.state();
    let still_base = state.remote.as_ref().is_some_and(|r| r.version == base.version);
    match state.staged.as_mut() {
        Some(staged) if still_base => staged.fill(at, bytes),
        _ => Ok(()),
    }
}

/// Cuts a range into pieces of at most `most` bytes.
pub(crate) fn pieces(range: Range<u64>, most: u64) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = range;
    (start..end).step_by(most as usize).map(move |at| at..end.min(at + most))
}
