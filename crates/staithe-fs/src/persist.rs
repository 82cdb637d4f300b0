//! Storing in the background: what becomes a job, what an attempt of it does, and how its failures are taken.
//!
//! A job is an inode's, its generation the inode's count of changes; where its bytes go is resolved when it commits,
//! under the lock of the name. So a rename only asks a running attempt to begin again, and what was unlinked has nothing
//! to commit.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use staithe_persist::{
    After, Attempt, Class, Config, Failure, Generation, JobInfo, Order, Queue, Runner, State as JobState,
    Ticket,
};

use crate::api::Ino;
use crate::commit::{store_error, with_causes};
use crate::door::Door;
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Marker};
use crate::locks::is_below;

/// Jobs under way at once; their bytes are bounded by [`Filesystem::upload_room`].
pub(crate) const JOBS_AT_ONCE: usize = 64;
/// Why a file whose job was cancelled is not stored.
pub(crate) const CANCELLED: &str = "cancelled; its bytes are kept here";

/// Jobs, by inode.
pub(crate) type Jobs = Queue<Ino>;

/// A queue for the jobs of a filesystem.
pub(crate) fn jobs_of(fs: Weak<Filesystem>, runtime: tokio::runtime::Handle) -> Jobs {
    // What is to be stored is in memory and on the disk anyway: `Room` bounds it. Their bytes on the way are bounded by
    // `upload_room`, part by part.
    let config = Config {
        concurrency: JOBS_AT_ONCE,
        max_jobs: usize::MAX,
        max_bytes: u64::MAX,
        bytes_in_flight: u64::MAX,
        ..Config::default()
    };
    Queue::new(config, Arc::new(Storer(fs)), runtime)
}

struct Storer(Weak<Filesystem>);

impl Runner<Ino> for Storer {
    fn run(&self, attempt: Attempt<Ino>) -> BoxFuture<'static, Result<(), Failure>> {
        let fs = self.0.upgrade();
        Box::pin(async move {
            match fs {
                Some(fs) => fs.attempt(&attempt).await,
                None => Ok(()),
            }
        })
    }
}

/// A job as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The path of the file or directory, from the root.
    pub path: String,
    /// Where it is.
    pub state: JobPhase,
    /// What is to be stored, in bytes.
    pub size: u64,
    /// How much of that is on the other side, in bytes.
    pub done: u64,
    /// Tries so far, the one under way included.
    pub attempts: u32,
    /// How long it has been waiting or running.
    pub age: Duration,
    /// How long until the next try.
    pub next: Option<Duration>,
    /// Why the last try failed.
    pub failure: Option<String>,
}

/// Where a job is; what needs somebody comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobPhase {
    /// It failed, or was cancelled, and waits for somebody to say that it is to be tried again.
    Failed,
    /// It waits for its next try.
    Retrying,
    /// It is being stored.
    Running,
    /// It waits for its turn, or for another one.
    Waiting,
}

/// How many jobs are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// As [`JobPhase::Waiting`].
    pub waiting: u64,
    /// As [`JobPhase::Running`].
    pub running: u64,
    /// As [`JobPhase::Retrying`].
    pub retrying: u64,
    /// As [`JobPhase::Failed`].
    pub failed: u64,
}

impl JobCounts {
    /// Counts.
    pub fn of(phases: impl IntoIterator<Item = JobPhase>) -> Self {
        let mut counts = Self::default();
        for phase in phases {
            *match phase {
                JobPhase::Waiting => &mut counts.waiting,
                JobPhase::Running => &mut counts.running,
                JobPhase::Retrying => &mut counts.retrying,
                JobPhase::Failed => &mut counts.failed,
            } += 1;
        }
        counts
    }
}

impl Filesystem {
    /// Sees to it that an inode whose change is in the journal is stored soon. What a job was made for, and nobody has
    /// changed since, is left to that.
    pub(crate) fn persist_later(&self, inode: &Arc<Inode>) {
        {
            let state = inode.state();
            if !state.is_dirty() || state.queued == Some(state.changes) {
                return;
            }
        }
        let order = Order::default().lets_finish().not_before(Instant::now() + self.config.write_back_delay);
        drop(self.enqueue(inode, order));
    }

    /// The same at once: somebody waits for it. `None`: the queue is at its end.
    pub(crate) fn persist_now(&self, inode: &Arc<Inode>) -> Option<Ticket<Ino>> {
        self.enqueue(inode, Order::waited().lets_finish())
    }

    fn enqueue(&self, inode: &Arc<Inode>, order: Order<Ino>) -> Option<Ticket<Ino>> {
        let (generation, size, parent) = {
            let mut state = inode.state();
            state.queued = Some(state.changes);
            let size = if state.bytes_dirty { state.size() } else { 0 };
            (Generation(state.changes), size, state.link.as_ref().map(|link| link.parent))
        };
        // Not before its directory: else others would find that without attributes.
        let is_pending =
            |dir: &Ino| self.inodes.get(*dir).is_ok_and(|dir| dir.state().marker == Marker::Pending);
        let after = parent.filter(is_pending).map(After::settled);
        let order = after.into_iter().fold(order.bytes(size), Order::after);
        let enqueued = self.jobs.enqueue(inode.ino, generation, order);
        if let Err(error) = &enqueued {
            // What the journal knows is stored by the drain, or the next start.
            tracing::warn!(ino = inode.ino.0, %error, "not stored yet");
            inode.state().queued = None;
        }
        enqueued.ok()
    }

    /// One attempt of a job.
    async fn attempt(&self, attempt: &Attempt<Ino>) -> Result<(), Failure> {
        let Ok(inode) = self.inodes.get(*attempt.key()) else { return Ok(()) };
        if let Some(why) = self.fate.holds_back() {
            return Err(Failure::transient(why));
        }
        let done = self.commit(&inode, &Door::of(attempt)).await;
        let error = match done {
            Err(error) if !is_given_up(&inode) => error,
            // What was given up to another client is stored beside theirs, or nowhere: nobody can try it again.
            _ => {
                inode.settle_staging();
                self.inodes.let_go(&inode);
                return Ok(());
            }
        };
        // Nobody looks at it then.
        Err(if attempt.is_stopped() { Failure::transient(error) } else { failure(&inode, error) })
    }

    /// Every file and directory that is to be stored, with what is being done about it: what needs somebody first, then
    /// by path. O(inodes).
    pub fn jobs(&self) -> Vec<Job> {
        let now = Instant::now();
        let jobs = self.jobs.jobs().into_iter().map(|job| Job {
            path: self.name_of(job.key),
            state: phase_of(&job),
            size: job.bytes,
            done: job.progress.map_or(0, |(done, _)| done),
            attempts: job.attempts,
            age: job.age,
            next: job.retry_at.map(|at| at.saturating_duration_since(now)),
            failure: job.failure.as_ref().map(|failure| with_causes(failure)),
        });
        let mut jobs: Vec<Job> = jobs.collect();
        jobs.extend(self.jobless().into_iter().filter_map(|inode| {
            let (failure, size) = {
                let state = inode.state();
                (state.failure.clone()?, state.size())
            };
            let path = self.name_of(inode.ino);
            let (state, age) = (JobPhase::Failed, Duration::ZERO);
            Some(Job { path, state, size, done: 0, attempts: 1, age, next: None, failure: Some(failure) })
        }));
        jobs.sort_by(|a, b| (a.state, &a.path).cmp(&(b.state, &b.path)));
        jobs
    }

    /// How many [`jobs`](Self::jobs) are where. O(inodes).
    pub(crate) fn job_counts(&self) -> JobCounts {
        let counts = JobCounts::of(self.jobs.jobs().iter().map(phase_of));
        JobCounts { failed: counts.failed + self.jobless().len() as u64, ..counts }
    }

    /// Where the job of an inode is, and why it failed if it did; `None`: it has none.
    pub(crate) fn phase(&self, ino: Ino) -> Option<(JobPhase, Option<String>)> {
        let job = self.jobs.job(&ino)?;
        Some((phase_of(&job), job.failure.as_ref().map(|failure| with_causes(failure))))
    }

    /// What is not stored, has no job, and is not just being written: its last try failed (write-through), or its job
    /// was cancelled.
    fn jobless(&self) -> Vec<Arc<Inode>> {
        let mut dirty = self.inodes.dirty();
        dirty.retain(|inode| inode.state().failure.is_some() && self.jobs.job(&inode.ino).is_none());
        dirty
    }

    /// Tries again what failed, was cancelled, or waits for its next try: these paths and what is below them, or
    /// everything. How many there were. O(inodes).
    pub fn retry_jobs(&self, paths: Option<&[String]>) -> u64 {
        let has_failed = |inode: &Arc<Inode>| match self.phase(inode.ino) {
            Some((phase, _)) => matches!(phase, JobPhase::Failed | JobPhase::Retrying),
            None => inode.state().failure.is_some(),
        };
        let is_meant = |inode: &Arc<Inode>| paths.is_none_or(|paths| self.is_at_any(inode.ino, paths));
        let mut meant = self.inodes.dirty();
        meant.retain(|inode| is_meant(inode) && has_failed(inode));
        for inode in &meant {
            drop(self.persist_now(inode));
        }
        meant.len() as u64
    }

    /// What failed under an old name, or in an old store, may do better in the new one: tries it at once.
    pub(crate) fn retry_failed(&self, inodes: &[Arc<Inode>]) {
        for inode in inodes {
            if let Some((JobPhase::Failed | JobPhase::Retrying, _)) = self.phase(inode.ino) {
                drop(self.persist_now(inode));
            }
        }
    }

    /// Stops storing these files, and everything below these directories. Their bytes stay here, and in the journal,
    /// until they change again, or [`retry_jobs`](Self::retry_jobs), [`sync`](Self::sync), the end of the mount or the
    /// next start stores them. Returns when none is being stored any more; how many were not. O(inodes).
    ///
    /// # Cancel safety
    /// Dropping the future leaves them cancelled, and one of them may still be stored.
    pub async fn cancel_jobs(&self, paths: &[String]) -> u64 {
        let jobs = self.jobs.jobs().into_iter().map(|job| job.key);
        let meant = jobs.filter(|ino| self.is_at_any(*ino, paths));
        let answers = self.jobs.cancel_all(meant.collect::<Vec<_>>()).await;
        let mut cancelled = 0;
        for (ino, _) in &answers {
            let Ok(inode) = self.inodes.get(*ino) else { continue };
            let mut state = inode.state();
            if state.is_dirty() {
                state.failure = Some(String::from(CANCELLED));
                cancelled += 1;
            }
        }
        cancelled
    }

    fn is_at_any(&self, ino: Ino, above: &[String]) -> bool {
        self.inodes.path(ino).is_ok_and(|path| above.iter().any(|a| path == *a || is_below(&path, a)))
    }

    /// A name to show for an inode.
    pub(crate) fn name_of(&self, ino: Ino) -> String {
        self.inodes.path(ino).unwrap_or_else(|_| format!("inode {} (without a name)", ino.0))
    }
}

fn phase_of(job: &JobInfo<Ino>) -> JobPhase {
    match job.state {
        JobState::Running | JobState::Committing => JobPhase::Running,
        JobState::RetryAt if job.failure.is_some() => JobPhase::Retrying,
        JobState::Failed => JobPhase::Failed,
        _ => JobPhase::Waiting,
    }
}

/// Whether it lost its name, by our doing or another client's.
fn is_given_up(inode: &Inode) -> bool {
    let state = inode.state();
    state.lost || state.link.is_none()
}

/// How a failed commit is taken: what may go well later without anybody doing anything is tried again.
fn failure(inode: &Inode, error: FsError) -> Failure {
    let cause = store_error(&error);
    let class = match error.kind() {
        FsErrorKind::Throttled => Class::Throttled,
        // Somebody may renew them, or make room; and what is gone, or refused, for good ends all jobs.
        FsErrorKind::TimedOut
        | FsErrorKind::CredentialsExpired
        | FsErrorKind::CredentialsRefused
        | FsErrorKind::VolumeGone
        | FsErrorKind::NoSpace => Class::Transient,
        _ if cause.is_some_and(staithe_store::StoreError::is_retryable) => Class::Transient,
        _ => Class::Permanent,
    };
    if class == Class::Permanent {
        tracing::error!(ino = inode.ino.0, error = with_causes(&error), "cannot be stored; kept here");
    }
    let wait = cause.and_then(staithe_store::StoreError::retry_after);
    let failure = Failure::new(class, error);
    match wait {
        Some(wait) => failure.retry_after(wait),
        None => failure,
    }
}
