//! Waiting until the store has everything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use staithe_persist::{Outcome, Ticket};
use tokio::sync::watch;
use tokio::time::interval;

use crate::api::Ino;
use crate::commit::with_causes;
use crate::filesystem::Filesystem;
use crate::inode::Inode;
use crate::persist::{CANCELLED, JOBS_AT_ONCE};

/// Files stored at once in write-through.
const STORED_AT_ONCE: usize = 8;
/// How often it is looked how much of large files has been sent.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How much of what a sync waits for is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncProgress {
    /// Files and directories of which something was not in the store when it began.
    pub files: u64,
    /// Those that are not done with yet.
    pub files_left: u64,
    /// The bytes of all of them.
    pub bytes: u64,
    /// The bytes that are not done with yet.
    pub bytes_left: u64,
}

/// What became of everything that was not stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Files and directories that the store has now, of those that it lacked when it began.
    pub stored: u64,
    /// The paths of those that it does not have, and why.
    pub failures: Vec<(String, String)>,
}

impl Filesystem {
    /// Stores everything that is not stored; `progress` shows how far it has come. Returns when that is done:
    /// write-back, however long the store is out of reach; write-through, after one try, as close(2) makes it. What
    /// fails for good, or is cancelled meanwhile, is in the report, and holds up nothing else. O(inodes).
    ///
    /// # Cancel safety
    /// Dropping the future waits no longer; what it began goes on.
    pub async fn sync(&self, progress: &watch::Sender<SyncProgress>) -> SyncReport {
        for inode in self.inodes.shared() {
            inode.take_in_untold_writes().await;
        }
        let dirty = self.inodes.dirty();
        let mut left: HashMap<Ino, u64> = dirty.iter().map(|inode| (inode.ino, unstored(inode))).collect();
        let (files, bytes) = (left.len() as u64, left.values().sum());
        let at_once = if self.writes_back() { dirty.len().max(1) } else { STORED_AT_ONCE };
        // All are asked for before one is waited for.
        let tickets: Vec<_> = dirty.into_iter().map(|inode| (self.ticket(&inode), inode)).collect();
        let ends = tickets
            .into_iter()
            .map(|(ticket, inode)| async move { (inode.ino, self.stored_or_why(&inode, ticket).await) });
        let mut ends = stream::iter(ends).buffer_unordered(at_once);
        let (mut report, mut look) = (SyncReport::default(), interval(LOOK_EVERY));
        loop {
            tokio::select! {
                end = ends.next() => match end {
                    Some((ino, None)) => {
                        left.remove(&ino);
                        report.stored += 1;
                    }
                    Some((ino, Some(why))) => {
                        left.remove(&ino);
                        report.failures.push((self.name_of(ino), why));
                    }
                    None => break,
                },
                _ = look.tick() => {
                    let (files_left, bytes_left) = (left.len() as u64, self.bytes_left(&left));
                    progress.send_replace(SyncProgress { files, files_left, bytes, bytes_left });
                }
            }
        }
        progress.send_replace(SyncProgress { files, files_left: 0, bytes, bytes_left: 0 });
        self.save_numbers().await;
        report.failures.sort();
        report
    }

    fn ticket(&self, inode: &Arc<Inode>) -> Option<Ticket<Ino>> {
        if self.writes_back() { self.persist_now(inode) } else { None }
    }

    /// Waits until the store has an inode; why it will not.
    async fn stored_or_why(&self, inode: &Arc<Inode>, ticket: Option<Ticket<Ino>>) -> Option<String> {
        if !self.writes_back() {
            return self.commit_to_its_end(inode).await.err().map(|error| with_causes(&error));
        }
        let outcome = match ticket {
            Some(ticket) => ticket.await,
            None => Outcome::Abandoned,
        };
        match outcome {
            Outcome::Done(_) => None,
            Outcome::Failed(failure) => Some(with_causes(&failure)),
            Outcome::Abandoned => Some(String::from("kept here; no more is stored before the next mount")),
            Outcome::Cancelled => {
                let state = inode.state();
                // Without a name there is nothing to store.
                let is_kept = state.link.is_some() && state.is_dirty();
                is_kept.then(|| String::from(CANCELLED))
            }
        }
    }

    /// Of the last ones, also what is on its way counts.
    fn bytes_left(&self, left: &HashMap<Ino, u64>) -> u64 {
        let all: u64 = left.values().sum();
        if left.len() > JOBS_AT_ONCE {
            return all;
        }
        let sent = left.iter().map(|(ino, size)| {
            let progress = self.jobs.job(ino).and_then(|job| job.progress);
            progress.map_or(0, |(done, _)| done.min(*size))
        });
        all - sent.sum::<u64>()
    }
}

/// The bytes that are sent when an inode is stored.
fn unstored(inode: &Inode) -> u64 {
    let state = inode.state();
    if state.bytes_dirty { state.size() } else { 0 }
}
