//! The way into the cache: one thread that writes, once it knows what is there, and a bound on what waits for it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::survey::Survey;
use super::{CachedFile, DiskCache};
use crate::error::{FsError, Result};

/// The most that waits to be written, in KiB.
const WAITING_MOST_KIB: usize = 16 << 10;
/// How long a fetch waits for the disk before it goes on without the cache: a disk that is slower than the line slows
/// it down, one that stands still does not stop it.
const PATIENCE: Duration = Duration::from_secs(2);
/// For how long nothing is written after the disk refused it.
const REST: Duration = Duration::from_secs(10);

enum Job {
    Survey { objects: PathBuf, cache: Weak<DiskCache> },
    Fill { cache: Arc<DiskCache>, file: Arc<CachedFile>, at: u64, bytes: Bytes, _room: OwnedSemaphorePermit },
    Settle(oneshot::Sender<()>),
}

/// The thread, from outside; it ends with this value.
#[derive(Debug)]
pub(super) struct Filler {
    jobs: Sender<Job>,
    room: Arc<Semaphore>,
    /// A fetch has waited in vain, and the thread has not caught up since.
    is_behind: Arc<AtomicBool>,
}

impl Filler {
    pub(super) fn start() -> Result<Self> {
        let (jobs, work) = channel();
        let is_behind = Arc::new(AtomicBool::new(false));
        let catches_up = is_behind.clone();
        std::thread::Builder::new()
            .name("staithe-cache".to_owned())
            .spawn(move || write(&work, &catches_up))
            .map_err(|e| FsError::local("cannot start a thread", e))?;
        Ok(Self { jobs, room: Arc::new(Semaphore::new(WAITING_MOST_KIB)), is_behind })
    }

    /// Looks through the directory, before anything is written.
    pub(super) fn survey(&self, cache: &Arc<DiskCache>) {
        let job = Job::Survey { objects: cache.objects.clone(), cache: Arc::downgrade(cache) };
        let _ = self.jobs.send(job);
    }

    /// Waits a moment for a busy disk, but not for one that was waited for in vain since it last caught up: bytes that
    /// the disk is too slow for are fetched again another time.
    pub(super) async fn offer(&self, cache: &Arc<DiskCache>, file: &Arc<CachedFile>, at: u64, bytes: Bytes) {
        let patience = if self.is_behind.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
        if tokio::time::timeout(patience, self.insist(cache, file, at, bytes)).await.is_err() {
            self.is_behind.store(true, Ordering::Relaxed);
        }
    }

    pub(super) async fn insist(&self, cache: &Arc<DiskCache>, file: &Arc<CachedFile>, at: u64, bytes: Bytes) {
        let kib = bytes.len().div_ceil(1 << 10).min(WAITING_MOST_KIB) as u32;
        let Ok(room) = self.room.clone().acquire_many_owned(kib).await else { return };
        let job = Job::Fill { cache: cache.clone(), file: file.clone(), at, bytes, _room: room };
        // Refused only if the thread is gone: then nothing is cached any more.
        let _ = self.jobs.send(job);
    }

    pub(super) async fn settle(&self) {
        let (done, wait) = oneshot::channel();
        if self.jobs.send(Job::Settle(done)).is_ok() {
            let _ = wait.await;
        }
    }
}

fn write(work: &Receiver<Job>, is_behind: &AtomicBool) {
    let mut rest_until: Option<Instant> = None;
    loop {
        let job = if let Ok(job) = work.try_recv() {
            job
        } else {
            is_behind.store(false, Ordering::Relaxed);
            let Ok(job) = work.recv() else { return };
            job
        };
        match job {
            Job::Survey { objects, cache } => {
                let survey = Survey::of(&objects);
                if let Some(cache) = cache.upgrade() {
                    cache.found(survey);
                }
            }
            Job::Settle(done) => {
                let _ = done.send(());
            }
            Job::Fill { cache, file, at, bytes, .. } => {
                if rest_until.is_some_and(|until| Instant::now() < until) {
                    continue;
                }
                rest_until = None;
                if let Err(error) = file.fill(&cache, at, &bytes) {
                    tracing::warn!(%error, "the cache cannot be written to; going on without for a while");
                    rest_until = Some(Instant::now() + REST);
                }
            }
        }
    }
}
