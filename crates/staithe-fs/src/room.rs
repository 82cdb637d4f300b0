//! The bound of what staging files may hold together, on the local disk.
//!
//! A file counts with the blocks that the disk has given it, so holes are free, and bytes that somebody else wrote to it
//! count from the next look on. What is over the bound is refused before it is written; it is waited for where that can be
//! done.
//!
//! The last of a disk is not theirs: the journal, which is beside them, needs it to say what becomes of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::reserve::{self, Reserve};
use crate::{FsError, FsErrorKind, Result};

/// What staging files hold.
#[derive(Debug)]
pub(crate) struct Room {
    limit: u64,
    used: AtomicU64,
    freed: Notify,
    dir: PathBuf,
    reserve: Arc<Reserve>,
    /// What may still be written before the disk is asked again.
    credit: AtomicU64,
}

/// What one staging file holds of it; returned when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    room: Arc<Room>,
    bytes: u64,
}

impl Room {
    pub(crate) fn new(limit: Option<u64>, dir: &Path, reserve: Arc<Reserve>) -> Arc<Self> {
        let (used, freed, credit) = (AtomicU64::new(0), Notify::new(), AtomicU64::new(0));
        Arc::new(Self { limit: limit.unwrap_or(u64::MAX), used, freed, dir: dir.to_owned(), reserve, credit })
    }

    /// Whether a kernel may write to staging files by itself: what that takes is neither counted nor refused in time, so
    /// only without a bound, and while the reserve is held otherwise.
    pub(crate) fn can_be_taken_untold(&self) -> bool {
        self.limit == u64::MAX && self.reserve.hold()
    }

    /// Fails if so many bytes more would take the last of the disk. One statvfs(2) for each part of the reserve that is
    /// written.
    ///
    /// # Errors
    /// `NoSpace`.
    pub(crate) fn refuse_the_last(&self, bytes: u64) -> Result<()> {
        let spend = |credit: u64| credit.checked_sub(bytes);
        if self.credit.fetch_update(Ordering::AcqRel, Ordering::Acquire, spend).is_ok() {
            return Ok(());
        }
        // A disk that cannot say is written to until it refuses.
        let Ok(disk) = rustix::fs::statvfs(&self.dir) else { return Ok(()) };
        let (reserve, free) = (reserve::size_on(&disk), reserve::free_on(&disk));
        let to_leave = if self.reserve.is_held() { 0 } else { reserve };
        if free < to_leave.saturating_add(bytes) {
            let text =
                format!("the disk of the state directory has {free} bytes left, which the journal may need");
            return Err(FsError::new(FsErrorKind::NoSpace, text));
        }
        self.credit.store(reserve / 4, Ordering::Release);
        Ok(())
    }

    /// Whether so many bytes more would fit. Of writers that ask at once each may be told so: the bound is passed by
    /// one write of each at most.
    pub(crate) fn fits(&self, bytes: u64) -> bool {
        self.limit == u64::MAX || self.used().saturating_add(bytes) <= self.limit
    }

    /// Waits until so many bytes more would fit.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn wait_for(&self, bytes: u64) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.fits(bytes) {
                return;
            }
            freed.await;
        }
    }

    /// In use, in bytes.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { room: Arc::clone(self), bytes: 0 }
    }
}

impl Share {
    /// The file holds so many bytes now.
    pub(crate) fn set(&mut self, bytes: u64) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes >= before {
            self.room.used.fetch_add(bytes - before, Ordering::AcqRel);
        } else {
            self.room.used.fetch_sub(before - bytes, Ordering::AcqRel);
            self.room.freed.notify_waiters();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn room(limit: Option<u64>) -> Arc<Room> {
        let dir = tempfile::tempdir().unwrap();
        Room::new(limit, dir.path(), Reserve::new(dir.path()))
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_a_share_is_returned() {
        let room = room(Some(100));
        let mut share = room.share();
        share.set(80);
        assert!(room.fits(20) && !room.fits(21));
        let mut waiting = Box::pin(room.wait_for(50));
        assert!(waiting.as_mut().now_or_never().is_none());
        share.set(60);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(share);
        waiting.now_or_never().unwrap();
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn without_a_limit_everything_fits() {
        let room = room(None);
        let mut share = room.share();
        share.set(1 << 60);
        assert!(room.fits(u64::MAX));
        assert_eq!(room.used(), 1 << 60);
    }
}
