//! A staged file that others write to without a word: what can be seen of it, and what all of it says.
//!
//! Length and time are seen at once, so that whoever looks at the file sees them; which bytes have changed, and what a
//! memory map has stored to a page that had been written to before, only checksums of the whole file tell.

use std::time::SystemTime;

use super::Staged;
use crate::Result;
use crate::disk_file::Stamp;
use crate::sums::Sums;

/// What is known of a file that others write to without a word.
#[derive(Debug)]
pub(super) struct Shared {
    /// What was in it when all of it was last looked at.
    sums: Sums,
    /// What it looked like after the last change that is known.
    stamp: Stamp,
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
    /// From now on others may write to the file too; `sums` are those of its blocks now.
    ///
    /// # Errors
    /// The local disk's.
    pub(crate) fn share(&mut self, sums: Sums) -> Result<()> {
        if self.shared.is_none() {
            let (stamp, is_changed) = (self.disk.stamp()?, false);
            self.shared = Some(Shared { sums, stamp, is_changed });
        }
        Ok(())
    }

    /// Whether others may write to the file too.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Takes in what was written to a shared file by whomever: blocks whose `sums` are others than the last time count
    /// as changed.
    pub(crate) fn take_in(&mut self, sums: Sums) -> TakenIn {
        let Some(shared) = &mut self.shared else { return TakenIn::Nothing };
        let mut differing = shared.sums.differing(&sums);
        let taken_in = if shared.is_changed { TakenIn::Seen } else { TakenIn::Unseen };
        shared.sums = sums;
        differing.retain(|block| block.start < self.size);
        for block in &differing {
            self.changed(block.start..block.end.min(self.size));
        }
        if let Some(shared) = &mut self.shared {
            shared.is_changed = false;
        }
        if differing.is_empty() { TakenIn::Nothing } else { taken_in }
    }

    /// Takes in how others have changed the look of a shared file: its length, and when. `None` if they have not, as
    /// far as can be seen: not every store through a memory map moves the time. Where bytes have changed only
    /// [`take_in`](Self::take_in) finds out. One fstat(2) of a shared file, else nothing.
    pub(crate) fn catch_up(&mut self) -> Option<SystemTime> {
        let shared = self.shared.as_mut()?;
        // A disk that cannot say has nothing to be taken in, and fails who reads it next.
        let now = self.disk.stamp().ok().filter(|now| *now != shared.stamp || now.len() > self.size)?;
        (shared.stamp, shared.is_changed) = (now, true);
        if now.len() > self.size {
            self.changed(self.size..now.len());
        } else {
            self.generation += 1;
        }
        Some(now.modified())
    }

    /// Knows the look that a shared file has after a change of ours.
    pub(super) fn changed_here(&mut self) {
        if let Some(shared) = &mut self.shared
            && let Ok(now) = self.disk.stamp()
        {
            (shared.stamp, shared.is_changed) = (now, true);
        }
    }
}
