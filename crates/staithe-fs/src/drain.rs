//! The end of a mount: what is dirty goes to the store, or stays here for the next start.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use crate::api::DrainReport;
use crate::commit::with_causes;
use crate::door::Door;
use crate::filesystem::Filesystem;
use crate::intent::Intent;
use crate::recovery::describe;
use crate::upload::blocking;

/// How long what is under way may take to end once there is nothing to ask any more.
const GIVING_UP: Duration = Duration::from_secs(2);
/// Files stored at once by a drain.
const DRAINS_AT_ONCE: usize = 8;

impl Filesystem {
    /// Stores what is dirty, for up to `deadline`. What remains is made durable in the state directory, with an
    /// entry in the journal, and stored by the next mount. So is what earlier runs left and could not be finished.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        let until = Instant::now() + deadline;
        let shared = self.inodes.shared();
        for inode in &shared {
            inode.take_in_untold_writes().await;
        }
        if !self.store_all(until).await {
            tracing::warn!("not everything could be stored before the deadline");
        }
        self.end_walks();
        self.end_runs();
        self.tasks.close();
        if tokio::time::timeout_at(until, self.tasks.wait()).await.is_err() {
            tracing::warn!("background work was still under way at the deadline");
        }
        if let Some(cache) = &self.cache
            && tokio::time::timeout_at(until, cache.settle()).await.is_err()
        {
            tracing::info!("the disk cache lacks the last bytes that were fetched");
        }
        if tokio::time::timeout_at(until, self.recall.settle()).await.is_err() {
            tracing::info!("the last attributes that were told are not kept for the next run");
        }
        if tokio::time::timeout_at(until, self.save_numbers()).await.is_err() {
            tracing::info!("inode numbers may not be kept for the next run");
        }
        for inode in &shared {
            inode.end_sharing();
        }
        let mut report = DrainReport::default();
        for inode in self.inodes.dirty() {
            match self.keep(&inode).await {
                Ok(Some(path)) => report.kept.push(path),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(
                        ino = inode.ino.0,
                        error = with_causes(&error),
                        "unstored bytes could not be kept"
                    );
                    report.kept.push(format!("inode {}", inode.ino.0));
                }
            }
        }
        for what in self.unfinished().await {
            if !report.kept.contains(&what) {
                report.kept.push(what);
            }
        }
        report
    }

    /// After it was confirmed that the volume is of no use any more: ends what reads and stores, forgets what is believed,
    /// here and in the kernel, and makes what was never stored durable here. The mount may go on, with nothing but errors.
    ///
    /// # Cancel safety
    /// Call it again to go on.
    pub async fn give_up(&self) -> DrainReport {
        for handle in self.files.all() {
            if let Some(reading) = handle.queue.lock().take() {
                reading.queue.close();
            }
        }
        let report = self.drain(GIVING_UP).await;
        let forgotten = self.refresh(&[String::new()]).await;
        tracing::debug!(names = forgotten.names, inodes = forgotten.inodes, "forgotten");
        report
    }

    /// Stores what is dirty until then. Whether everything was tried.
    async fn store_all(&self, until: Instant) -> bool {
        if self.fate.verdict().is_some() {
            drop(self.jobs.drain(std::time::Instant::now()).await);
            return true;
        }
        let dirty = self.inodes.dirty();
        if self.writes_back() {
            for inode in &dirty {
                drop(self.persist_now(inode));
            }
            let left = self.jobs.drain(until.into_std()).await;
            return left.iter().all(|job| job.state == staithe_persist::State::Failed);
        }
        let all = futures::stream::iter(
            dirty.into_iter().map(|inode| async move { self.commit(&inode, &Door::open()).await }),
        );
        let stored = all.buffer_unordered(DRAINS_AT_ONCE).collect::<Vec<_>>();
        tokio::time::timeout_at(until, stored).await.is_ok()
    }

    /// What the journal still has to finish, from this run or an earlier one: paths of files, or what else it is.
    async fn unfinished(&self) -> Vec<String> {
        let journal = self.journal.clone();
        let pending = match blocking(move || journal.pending()).await {
            Ok(pending) => pending,
            Err(error) => {
                tracing::error!(error = with_causes(&error), "the journal cannot be read");
                return vec![String::from("the journal")];
            }
        };
        let mut unfinished = Vec::new();
        for (id, intent) in pending {
            if self.is_moot(&intent) {
                self.forget_intent(id).await;
                continue;
            }
            let key = match &intent {
                Intent::Store(store) => Some(&store.key),
                Intent::Attributes(attributes) => Some(&attributes.key),
                Intent::Marker(marker) => Some(&marker.key),
                Intent::RenameTree { .. } | Intent::Upload { .. } | Intent::OldName(_) => None,
            };
            unfinished.push(match key.map(staithe_store::Key::as_str) {
                Some(key) => {
                    let path = key.strip_prefix(&self.config.prefix).unwrap_or(key);
                    path.strip_suffix('/').unwrap_or(path).to_owned()
                }
                None => describe(&intent),
            });
        }
        unfinished
    }

    /// Whether an intent is about a staging file that is gone, which goes only when the store has the bytes, or
    /// nobody wants them, or a person took it.
    fn is_moot(&self, intent: &Intent) -> bool {
        let Intent::Store(store) = intent else { return false };
        !self.state_dir.staging().join(&store.staging_name).try_exists().unwrap_or(true)
    }
}
