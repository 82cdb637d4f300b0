//! A staged file that others write to without a word: what can be seen of it, and what all of it says.
//!
//! Length and time are seen at once, so that whoever looks at the file sees them. Which bytes have changed, and what a
//! memory map has stored to a page that had been written to before, only checksums of the whole file tell: such a file is
//! *shared*.
//!
//! Who can only write cannot map it for writing. As long as only such writers have it, and nothing of a base shows in it,
//! the file is *watched*: its length and time tell whether anything was written, and all of it counts as changed then.
//! Before it is stored it is given a time that no write leaves (its *mark*), under the lock that a write holds to its
//! end. So a write that the commit may have met shows, however coarse the clock of the disk is; without a mark it is
//! believed that there was one.

use std::time::SystemTime;

use super::{Staged, insert};
use crate::Result;
use crate::disk_file::{DiskFile, Mark, Stamp};
use crate::sums::Sums;

/// What is known of a file that others write to without a word.
#[derive(Debug)]
pub(super) struct Shared {
    /// What was in it when all of it was last looked at; `None`: it is only watched.
    sums: Option<Sums>,
    /// What it looked like after the last change that is known.
    stamp: Stamp,
    /// The time that it was last given, or will be next.
    mark: Option<Mark>,
    /// Whether a change is known since all of it was last looked at.
    is_changed: bool,
}

/// What others have written to a shared file since it was last taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakenIn {
    /// Nothing.
    Nothing,
    /// Something, of which the time was known already.
    Seen,
    /// Something that nobody has heard of.
    Unseen,
}

impl Staged {
    /// From now on others may write to the file too, and map it for that; `sums` are those of its blocks now.
    ///
    /// # Errors
    /// The local disk's.
    pub(crate) fn share(&mut self, sums: Sums) -> Result<()> {
        if self.is_shared() {
            return Ok(());
        }
        if let Some(watched) = &mut self.shared {
            // What was written to it until now may be in the sums already. Its look stays as it was known.
            (watched.sums, watched.mark) = (Some(sums), None);
            self.all_is_dirty();
            return Ok(());
        }
        self.disk.set_lent(true)?;
        let stamp = self.disk.stamp()?;
        self.shared = Some(Shared { sums: Some(sums), stamp, mark: None, is_changed: false });
        Ok(())
    }

    /// Whether others may write to the file too, also through a memory map.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.sums.is_some())
    }

    /// From now on others may write to the file too, with calls. To be called while nothing of a base shows in it, and
    /// its bytes are dirty.
    ///
    /// # Errors
    /// The local disk's.
    pub(crate) fn watch(&mut self) -> Result<()> {
        if self.shared.is_none() {
            self.disk.set_lent(true)?;
            let stamp = self.disk.stamp()?;
            self.shared = Some(Shared { sums: None, stamp, mark: None, is_changed: false });
        }
        Ok(())
    }

    /// Whether others may write to the file too, with calls only.
    pub(crate) fn is_watched(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.sums.is_none())
    }

    /// Nobody else writes to a watched file any more, and what was written is [taken in](Self::catch_up).
    pub(crate) fn end_watch(&mut self) {
        if self.is_watched() {
            self.shared = None;
            // Left as it is, it costs a start after a crash a copy.
            if let Err(error) = self.disk.set_lent(false) {
                tracing::debug!(%error, "a staging file goes on as one that a kernel may write to");
            }
        }
    }

    /// The time to [give](DiskFile::set_mark) to a watched file, dirty as it is, before all of it is read; `None` if that
    /// is not needed.
    pub(crate) fn next_mark(&mut self) -> Option<(DiskFile, Mark)> {
        if self.shows_writes() {
            return None;
        }
        let shared = self.shared.as_mut()?;
        let mark = shared.stamp.mark();
        shared.mark = Some(mark);
        Some((self.disk.clone(), mark))
    }

    /// Whether a write from now on will show: nobody else writes to the file, or it has its mark.
    pub(crate) fn shows_writes(&self) -> bool {
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.sums.is_none()) else { return true };
        shared.mark.is_some_and(|mark| shared.stamp.is_marked(mark))
    }

    /// Takes in what was written to a shared file by whomever: blocks whose `sums` are others than the last time count
    /// as changed.
    pub(crate) fn take_in(&mut self, sums: Sums) -> TakenIn {
        let Some(shared) = &mut self.shared else { return TakenIn::Nothing };
        let Some(before) = &mut shared.sums else { return TakenIn::Nothing };
        let mut differing = before.differing(&sums);
        let taken_in = if shared.is_changed { TakenIn::Seen } else { TakenIn::Unseen };
        *before = sums;
        differing.retain(|block| block.start < self.size);
        for block in &differing {
            self.changed(block.start..block.end.min(self.size));
        }
        if let Some(shared) = &mut self.shared {
            shared.is_changed = false;
        }
        if differing.is_empty() { TakenIn::Nothing } else { taken_in }
    }

    /// Takes in how others have changed the look of a file: its length, and when. `None` if they have not, as far as can
    /// be seen: not every store through a memory map moves the time. Where bytes of a shared file have changed only
    /// [`take_in`](Self::take_in) finds out. One fstat(2) of a file that others write to, else nothing.
    pub(crate) fn catch_up(&mut self) -> Option<SystemTime> {
        let shared = self.shared.as_mut()?;
        // A disk that cannot say has nothing to be taken in, and fails who reads it next.
        let now = self.disk.stamp().ok()?;
        let is_known = now == shared.stamp || shared.mark.is_some_and(|mark| now.is_marked(mark));
        (shared.stamp, shared.is_changed) = (now, shared.is_changed || !is_known);
        if is_known && now.len() <= self.size {
            return None;
        }
        if now.len() > self.size || self.is_watched() {
            self.changed(self.size..now.len().max(self.size));
        } else {
            self.generation += 1;
        }
        if let Some(shared) = &mut self.shared {
            // What has come meanwhile is to be seen the next time.
            (shared.stamp, shared.is_changed) = (now, true);
        }
        Some(now.modified())
    }

    /// Takes all of a watched file for changed.
    pub(crate) fn believe_changed(&mut self) {
        self.changed(0..self.size);
    }

    /// Nothing of it is what the store has, as far as is known.
    pub(super) fn all_is_dirty(&mut self) {
        insert(&mut self.dirty, 0..self.size);
        if let Some(since) = &mut self.since {
            insert(&mut since.dirty, 0..self.size);
        }
    }

    /// Knows the look that a file has after a change of ours. What others have written to a watched one in the same tick
    /// of the disk's clock must not be missed for that.
    pub(super) fn changed_here(&mut self) {
        if self.is_watched() {
            self.all_is_dirty();
        }
        if let Some(shared) = &mut self.shared
            && let Ok(now) = self.disk.stamp()
        {
            (shared.stamp, shared.is_changed) = (now, true);
        }
    }
}
