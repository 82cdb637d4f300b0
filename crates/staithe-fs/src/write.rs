//! Writes: all on the local staging file; none of them waits for the store.

use std::sync::Arc;
use std::time::SystemTime;

use crate::api::{Allocate, HandleId};
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::handles::FileHandle;
use crate::inode::{Inode, State};
use crate::revalidate::replaced;
use crate::staging::Staged;
use crate::state_dir::StateDir;

impl Filesystem {
    /// Writes `data` at `offset` if there is room for it among the staging files; `None`: ask
    /// [`write_in_turn`](Self::write_in_turn). Never waits.
    pub fn try_write(&self, handle: HandleId, offset: u64, data: &[u8]) -> Option<Result<u32>> {
        let has_room = self.room.fits(data.len() as u64);
        has_room.then(|| self.write(handle, offset, data))
    }

    /// Writes `data` at `offset`. Waits for the store only as long as staging files hold all that they may
    /// ([`FsConfig::staging_size`](crate::FsConfig::staging_size)): until some of them are stored.
    ///
    /// # Errors
    /// `NoSpace` when none was until the deadline; those of [`write`](Self::write).
    ///
    /// # Cancel safety
    /// Dropping the future writes nothing.
    pub async fn write_in_turn(&self, handle: HandleId, offset: u64, data: &[u8]) -> Result<u32> {
        self.await_room(data.len() as u64).await?;
        self.write(handle, offset, data)
    }

    /// Waits until staging files may hold so many bytes more.
    async fn await_room(&self, bytes: u64) -> Result<()> {
        if self.room.fits(bytes) {
            return Ok(());
        }
        let waited = tokio::time::timeout(self.op_deadline(), self.room.wait_for(bytes)).await;
        waited.map_err(|_| {
            let used = self.room.used();
            let text =
                format!("staging files hold {used} bytes, all that they may, and none was stored in time");
            FsError::new(FsErrorKind::NoSpace, text)
        })
    }

    /// Writes `data` at `offset`, whatever staging files hold. Never waits for the store.
    ///
    /// # Errors
    /// `BadHandle` when the handle is not open for writing; `Stale` when another client has replaced the object, so
    /// that nothing written here could be stored; `NoSpace` when the staging disk is full; `TooLarge`
    /// beyond the store's largest object.
    pub fn write(&self, handle: HandleId, offset: u64, data: &[u8]) -> Result<u32> {
        let handle = self.writer(handle)?;
        let end = offset.saturating_add(data.len() as u64);
        self.refuse_too_large(end)?;
        self.room.refuse_the_last(data.len() as u64)?;
        let inode = &handle.inode;
        let mut state = inode.state();
        refuse_replaced(&state)?;
        self.stage(inode, &mut state)?;
        self.unkeep(&mut state);
        let Some(staged) = state.staged.as_mut() else {
            return Err(FsError::new(FsErrorKind::Io, "no staging file"));
        };
        let written = staged.write(offset, data)?;
        self.changed(inode, &mut state, offset..offset + written as u64);
        Ok(written as u32)
    }

    /// Makes a range of a file allocated, or zero.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn fallocate(&self, handle: HandleId, offset: u64, len: u64, how: Allocate) -> Result<()> {
        let handle = self.writer(handle)?;
        let end = offset.saturating_add(len);
        self.refuse_too_large(end)?;
        if matches!(how, Allocate::Extend | Allocate::KeepSize) {
            self.await_room(len).await?;
            self.room.refuse_the_last(len)?;
        }
        let inode = &handle.inode;
        let mut state = inode.state();
        refuse_replaced(&state)?;
        self.stage(inode, &mut state)?;
        self.unkeep(&mut state);
        let Some(staged) = state.staged.as_mut() else {
            return Err(FsError::new(FsErrorKind::Io, "no staging file"));
        };
        match how {
            Allocate::Extend => staged.allocate(offset, len, false)?,
            Allocate::KeepSize => staged.allocate(offset, len, true)?,
            Allocate::PunchHole => staged.punch(offset, len)?,
            Allocate::ZeroRange { keep_size } => staged.zero(offset, len, keep_size)?,
        }
        self.changed(inode, &mut state, offset..end);
        Ok(())
    }

    /// Sets the size of a file, in the staging file.
    pub(crate) fn truncate(&self, inode: &Arc<Inode>, size: u64) -> Result<()> {
        let mut state = inode.state();
        refuse_replaced(&state)?;
        if size == 0 && state.staged.is_none() && state.lent.is_none() {
            // Nothing of the stored object will show: no need to know it.
            let (dir, name) = (self.state_dir.staging(), StateDir::new_staging_name());
            state.staged = Some(Staged::create(&dir, &name)?.counted(&self.room));
        } else {
            self.stage(inode, &mut state)?;
        }
        self.unkeep(&mut state);
        let before = state.size();
        if let Some(staged) = state.staged.as_mut() {
            staged.truncate(size)?;
        }
        state.meta_dirty |= state.link.is_some();
        self.changed(inode, &mut state, size.min(before)..size.max(before));
        let is_kept = state.kept.is_some();
        drop(state);
        // What was cut must not come back by what the journal says.
        if is_kept { self.say(inode).map(drop) } else { Ok(()) }
    }

    fn writer(&self, handle: HandleId) -> Result<Arc<FileHandle>> {
        let handle = self.files.get(handle)?;
        if handle.write {
            return Ok(handle);
        }
        Err(FsError::new(FsErrorKind::BadHandle, "the file is not open for writing"))
    }

    /// # Errors
    /// `TooLarge` beyond the store's largest object.
    pub(crate) fn refuse_too_large(&self, end: u64) -> Result<()> {
        if end > self.store.capabilities().object_size_max {
            return Err(FsError::new(FsErrorKind::TooLarge, "the store takes no object of that size"));
        }
        Ok(())
    }

    /// After a change of bytes: times, and the upload that may be running.
    fn changed(&self, inode: &Arc<Inode>, state: &mut State, range: std::ops::Range<u64>) {
        state.touch_bytes(SystemTime::now());
        self.stream(inode, state, range);
    }
}

/// A file that lost its name to another client takes no more bytes: nobody would ever see them.
fn refuse_replaced(state: &State) -> Result<()> {
    if state.replaced { Err(replaced()) } else { Ok(()) }
}
