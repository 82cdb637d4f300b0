//! Fetching files ahead of their readers, so that they are wholly in the cache.
//!
//! One walk finds the files (`walk`), a bounded number of workers takes them from it, and one function, `warm_file`,
//! does the rest. The walk runs ahead of the workers by [`AHEAD`] files at most, so memory does not grow with the
//! number of files.

mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};

use crate::api::Kind;
use crate::commit::with_causes;
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::Inode;
use walk::Target;

/// Files found and not begun.
const AHEAD: usize = 1000;
/// The most files at once.
const JOBS_MAX: usize = 64;
/// Failures that are kept with their reasons.
const FAILURES_KEPT: usize = 10;

/// What is to be warmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmRequest {
    /// Files, and directories with all that is below them: paths from the root, without links; that of the root
    /// is empty.
    pub paths: Vec<String>,
    /// How many files at once, 1 to 64.
    pub jobs: usize,
}

/// How far warming has come, and at its end what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WarmReport {
    /// Files found until now. Grows while they are looked for, and falls by one that is gone when its turn comes.
    pub files_found: u64,
    /// Files that are wholly in the cache.
    pub files_done: u64,
    /// Bytes of the files found.
    pub bytes_wanted: u64,
    /// Bytes of these that are in the cache.
    pub bytes_done: u64,
    /// Bytes of these that had to be fetched from the store.
    pub bytes_fetched: u64,
    /// Files that could not be had, and directories that could not be read.
    pub failed: u64,
    /// The first ten of them.
    pub failures: Vec<WarmFailure>,
}

impl WarmReport {
    /// Whether nothing failed.
    pub fn is_whole(&self) -> bool {
        self.failed == 0
    }
}

/// What could not be warmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmFailure {
    /// Its path from the root.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Where a warming says how far it has come.
#[derive(Debug, Clone, Copy)]
struct Meter<'m>(&'m watch::Sender<WarmReport>);

impl Meter<'_> {
    fn found(self, size: u64) {
        self.0.send_modify(|r| (r.files_found, r.bytes_wanted) = (r.files_found + 1, r.bytes_wanted + size));
    }

    /// What was found with this size is no file any more.
    fn lost(self, size: u64) {
        self.0.send_modify(|r| (r.files_found, r.bytes_wanted) = (r.files_found - 1, r.bytes_wanted - size));
    }

    fn has_size(self, listed: u64, size: u64) {
        if listed != size {
            self.0.send_modify(|r| r.bytes_wanted = r.bytes_wanted - listed + size);
        }
    }

    /// Bytes that the cache had.
    fn there(self, bytes: u64) {
        self.0.send_modify(|r| r.bytes_done += bytes);
    }

    /// Bytes that came into the cache from the store.
    fn fetched(self, bytes: u64) {
        self.0.send_modify(|r| {
            r.bytes_done += bytes;
            r.bytes_fetched += bytes;
        });
    }

    fn done(self) {
        self.0.send_modify(|r| r.files_done += 1);
    }

    fn failed(self, path: &str, error: &FsError) {
        self.0.send_modify(|r| {
            r.failed += 1;
            if r.failures.len() < FAILURES_KEPT {
                r.failures.push(WarmFailure { path: path.to_owned(), reason: with_causes(error) });
            }
        });
    }
}

/// What is done with each file.
type WarmOne<'f> = dyn Fn(Arc<Inode>, Meter<'f>) -> BoxFuture<'f, Result<()>> + Send + Sync + 'f;

impl Filesystem {
    /// Fetches files into the cache, whole; `progress` shows how far it has come. What fails is in the report, and
    /// holds up nothing else.
    ///
    /// Keys that no path can name, symbolic links, and what is not stored yet are passed over.
    ///
    /// # Errors
    /// `Unsupported`, before anything is asked of the store, if there is no cache on disk.
    ///
    /// # Cancel safety
    /// Dropping the future ends the work; what is in the cache stays there.
    pub async fn warm(
        &self,
        request: &WarmRequest,
        progress: &watch::Sender<WarmReport>,
    ) -> Result<WarmReport> {
        let cache = self.disk_cache()?;
        let evicted = cache.stats().evicted;
        let one: &WarmOne<'_> = &|file, meter| Box::pin(async move { self.warm_file(&file, meter).await });
        self.warm_each(request, Meter(progress), one).await;
        let report = progress.borrow().clone();
        if cache.stats().evicted != evicted {
            return Ok(self.look_again(request, &report).await);
        }
        Ok(report)
    }

    /// What was fetched first may have had to go for what came last: says what is really there. What failed before
    /// keeps its reason.
    async fn look_again(&self, request: &WarmRequest, before: &WarmReport) -> WarmReport {
        let seen = watch::Sender::default();
        let one: &WarmOne<'_> = &|file, meter| {
            Box::pin(async move {
                self.check_whole(&file).await?;
                meter.there(file.state().size());
                Ok(())
            })
        };
        self.warm_each(request, Meter(&seen), one).await;
        let mut report = WarmReport { bytes_fetched: before.bytes_fetched, ..seen.borrow().clone() };
        for failure in &mut report.failures {
            if let Some(first) = before.failures.iter().find(|first| first.path == failure.path) {
                failure.reason.clone_from(&first.reason);
            }
        }
        report
    }

    /// Makes one file whole in the cache, telling `meter` of the bytes as they come.
    async fn warm_file(&self, file: &Arc<Inode>, meter: Meter<'_>) -> Result<()> {
        let size = file.state().size();
        // Many ranges at once.
        let fetched = AtomicU64::new(0);
        let count = |bytes| {
            fetched.fetch_add(bytes, Ordering::Relaxed);
            meter.fetched(bytes);
        };
        self.take_body(file, &count).await?;
        let here = size.saturating_sub(self.not_provided(file).await);
        meter.there(here.saturating_sub(fetched.load(Ordering::Relaxed)));
        self.provide(file, &count).await?;
        self.check_whole(file).await
    }

    /// A small object may have come along with its attributes: then it need not be fetched again.
    async fn take_body(&self, file: &Arc<Inode>, count: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let cache = self.disk_cache()?;
        let (body, parent) = {
            let state = file.state();
            (state.body.clone(), state.link.as_ref().map(|l| l.parent))
        };
        let Some(body) = body else { return Ok(()) };
        self.reward(parent);
        if let Some(cached) = self.cached(file).await.filter(|cached| !cached.is_whole()) {
            let len = body.len() as u64;
            cache.insist(&cached, 0, body).await;
            cache.settle().await;
            count(len);
        }
        Ok(())
    }

    /// Fails unless every byte of a file is in the cache.
    async fn check_whole(&self, file: &Arc<Inode>) -> Result<()> {
        let is_whole =
            file.state().size() == 0 || self.cached(file).await.is_some_and(|cached| cached.is_whole());
        if is_whole {
            return Ok(());
        }
        let text = "it had to leave again for others: together they do not fit into the disk cache";
        Err(FsError::new(FsErrorKind::NoSpace, text))
    }

    async fn warm_each<'f>(&'f self, request: &WarmRequest, meter: Meter<'f>, one: &WarmOne<'f>) {
        let (found, targets) = mpsc::channel(AHEAD);
        let jobs = request.jobs.clamp(1, JOBS_MAX);
        tokio::join!(self.walk(&request.paths, found, meter), self.work(jobs, targets, meter, one));
    }

    /// Takes targets until there are no more, `jobs` at once.
    async fn work<'f>(
        &'f self,
        jobs: usize,
        mut targets: mpsc::Receiver<Target<'f>>,
        meter: Meter<'f>,
        one: &WarmOne<'f>,
    ) {
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(target) = targets.recv(), if running.len() < jobs => {
                    running.push(self.warm_target(target, meter, one));
                }
                Some(()) = running.next() => {}
                else => return,
            }
        }
    }

    async fn warm_target<'f>(&'f self, target: Target<'f>, meter: Meter<'f>, one: &WarmOne<'f>) {
        let outcome = match self.child(target.dir.ino, &target.name).await {
            Ok(Some(file)) if file.kind == Kind::File && !file.state().is_local() => {
                meter.has_size(target.size, file.state().size());
                one(Arc::clone(&file), meter).await
            }
            // Gone since, become a directory, not stored yet, or a link, which a listing cannot tell from a file.
            Ok(_) => return meter.lost(target.size),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => meter.done(),
            Err(error) => meter.failed(&target.path, &error),
        }
    }
}

#[cfg(test)]
mod tests;
