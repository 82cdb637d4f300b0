//! What the store does not have, and nobody is storing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{DifferenceKind, Repair, Run};
use crate::error::Result;
use crate::inode::Inode;
use crate::persist::{CANCELLED, JobPhase};

/// For how long something must stay as it is to be nobody's: whoever changes it makes a job of it meanwhile.
const STAYS_SO: Duration = Duration::from_secs(2);

impl Run<'_> {
    pub(super) async fn unstored(&self) {
        let dirty = self.fs.inodes.dirty();
        let suspects = dirty.into_iter().filter_map(|inode| {
            let path = self.fs.inodes.path(inode.ino).ok().filter(|path| self.covers(path))?;
            self.compared();
            let changes = inode.state().changes;
            self.is_left_alone(&inode).then_some((inode, path, changes))
        });
        let suspects: Vec<_> = suspects.collect();
        if suspects.is_empty() {
            return;
        }
        tokio::time::sleep(STAYS_SO).await;
        for (inode, path, changes) in suspects {
            // A commit that is under way ends first.
            drop(inode.commit.lock().await);
            let is_as_it_was = inode.state().changes == changes;
            if is_as_it_was && self.is_left_alone(&inode) {
                let failure = inode.state().failure.clone();
                let why = failure.clone().or_else(|| self.fs.phase(inode.ino).and_then(|(_, why)| why));
                let detail =
                    format!("not in the store: {}", why.as_deref().unwrap_or("nobody is storing it"));
                let mend = self.store(&inode, failure.as_deref() == Some(CANCELLED));
                self.differs(path, DifferenceKind::Unstored, detail, mend).await;
            }
        }
    }

    /// Whether nobody is storing an inode, or will once it is closed.
    fn is_left_alone(&self, inode: &Inode) -> bool {
        let has_failed = {
            let state = inode.state();
            if !state.is_dirty() || state.link.is_none() || state.lost {
                return false;
            }
            state.failure.is_some()
        };
        let is_open = inode.writers.load(Ordering::Acquire) > 0 || inode.settling.load(Ordering::Acquire);
        match self.fs.phase(inode.ino) {
            Some((phase, _)) => phase == JobPhase::Failed,
            None if self.fs.writes_back() => !is_open,
            // In write-through it is stored by its close.
            None => has_failed && !is_open,
        }
    }

    async fn store(&self, inode: &Arc<Inode>, is_cancelled: bool) -> Result<Repair> {
        if is_cancelled {
            return Ok(Repair::Left(String::from("`staithe jobs --retry` stores it all the same")));
        }
        if self.fs.writes_back() {
            let is_job = self.fs.persist_now(inode).is_some();
            let ending = || Repair::Left(String::from("the next mount stores it"));
            return Ok(if is_job { Repair::Done("tried again") } else { ending() });
        }
        self.fs.commit_to_its_end(inode).await?;
        Ok(Repair::Done("stored"))
    }
}
