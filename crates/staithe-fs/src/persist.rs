//! Storing in the background: what becomes a job, what an attempt of it does, and how its failures are taken.
//!
//! A job is an inode's, its generation the inode's count of changes; where its bytes go is resolved when it commits,
//! under the lock of the name. So a rename only asks a running attempt to begin again, and what was unlinked has nothing
//! to commit.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use staithe_persist::{
    After, Attempt, Class, Config, Failure, Generation, Order, Queue, Runner, State as JobState,
};

use crate::api::Ino;
use crate::commit::{store_error, with_causes};
use crate::door::Door;
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Marker};

/// Jobs under way at once; their bytes are bounded by [`Filesystem::upload_room`].
const JOBS_AT_ONCE: usize = 64;

/// Jobs, by inode.
pub(crate) type Jobs = Queue<Ino>;

/// A queue for the jobs of a filesystem.
pub(crate) fn jobs_of(fs: Weak<Filesystem>, runtime: tokio::runtime::Handle) -> Jobs {
    let config = Config { concurrency: JOBS_AT_ONCE, ..Config::default() };
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

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobPhase {
    /// It waits for its turn, or for another one.
    Waiting,
    /// It is being stored.
    Running,
    /// It waits for its next try.
    Retrying,
    /// It failed, or was cancelled, and waits for somebody to say that it is to be tried again.
    Failed,
}

/// What could not be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Files and directories that were not in the store when it began.
    pub stored: u64,
    /// Those that still are not, and why.
    pub failures: Vec<(String, String)>,
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
        self.enqueue(inode, order);
    }

    /// The same at once: somebody waits for it.
    pub(crate) fn persist_now(&self, inode: &Arc<Inode>) {
        self.enqueue(inode, Order::waited().lets_finish());
    }

    fn enqueue(&self, inode: &Arc<Inode>, order: Order<Ino>) {
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
        if let Err(error) = self.jobs.enqueue(inode.ino, generation, order) {
            // What the journal knows is stored by the drain, or the next start.
            tracing::warn!(ino = inode.ino.0, %error, "not stored yet");
        }
    }

    /// One attempt of a job.
    async fn attempt(&self, attempt: &Attempt<Ino>) -> Result<(), Failure> {
        let Ok(inode) = self.inodes.get(*attempt.key()) else { return Ok(()) };
        let done = self.commit(&inode, &Door::of(attempt)).await;
        let error = match done {
            Err(error) if !inode.state().lost => error,
            // Also what was given up to another client is stored, beside theirs.
            _ => {
                inode.settle_staging();
                self.inodes.let_go(&inode);
                return Ok(());
            }
        };
        // Nobody looks at it then.
        Err(if attempt.is_stopped() { Failure::transient(error) } else { failure(&inode, error) })
    }

    /// Stores everything that is not stored. Returns when that is done, however long the store is out of reach; what
    /// fails for good is reported.
    ///
    /// # Cancel safety
    /// Dropping the future waits no longer; what it began goes on.
    pub async fn sync(&self) -> SyncReport {
        for inode in self.inodes.shared() {
            inode.take_in_untold_writes().await;
        }
        let dirty = self.inodes.dirty();
        let mut report = SyncReport { stored: dirty.len() as u64, failures: Vec::new() };
        let mut failures = BTreeMap::new();
        if self.writes_back() {
            dirty.iter().for_each(|inode| self.persist_now(inode));
            let failed = self.jobs.barrier().await.unwrap_or_default();
            failures.extend(failed.into_iter().map(|(ino, failure)| (ino, with_causes(&failure))));
        } else {
            for inode in &dirty {
                if let Err(error) = self.commit_to_its_end(inode).await {
                    failures.insert(inode.ino, with_causes(&error));
                }
            }
        }
        for (ino, why) in failures {
            report.failures.push((self.name_of(ino), why));
        }
        report.stored -= report.failures.len().min(dirty.len()) as u64;
        report
    }

    /// Every file and directory that is not stored, with what is being done about it. O(jobs).
    pub fn jobs(&self) -> Vec<Job> {
        let now = Instant::now();
        let jobs = self.jobs.jobs().into_iter().map(|job| Job {
            path: self.name_of(job.key),
            state: match job.state {
                JobState::Running | JobState::Committing => JobPhase::Running,
                JobState::RetryAt if job.failure.is_some() => JobPhase::Retrying,
                JobState::Failed => JobPhase::Failed,
                _ => JobPhase::Waiting,
            },
            size: job.bytes,
            done: job.progress.map_or(0, |(done, _)| done),
            attempts: job.attempts,
            age: job.age,
            next: job.retry_at.map(|at| at.saturating_duration_since(now)),
            failure: job.failure.as_ref().map(|failure| with_causes(failure)),
        });
        let mut jobs: Vec<Job> = jobs.collect();
        jobs.extend(self.jobless());
        jobs.sort_by(|a, b| (a.state, &a.path).cmp(&(b.state, &b.path)));
        jobs
    }

    /// What is not stored and has no job: its last try failed (write-through), or its job was cancelled.
    fn jobless(&self) -> Vec<Job> {
        let without = |inode: &Arc<Inode>| self.jobs.job(&inode.ino).is_none();
        let dirty = self.inodes.dirty().into_iter().filter(without);
        let failed = dirty.filter_map(|inode| {
            let (failure, size) = {
                let state = inode.state();
                (state.failure.clone()?, state.size())
            };
            let path = self.name_of(inode.ino);
            let (state, age) = (JobPhase::Failed, Duration::ZERO);
            Some(Job { path, state, size, done: 0, attempts: 1, age, next: None, failure: Some(failure) })
        });
        failed.collect()
    }

    /// Tries again what failed or waits for its next try: these paths, or everything. How many there were.
    pub fn retry_jobs(&self, paths: Option<&[String]>) -> u64 {
        let is_meant = |inode: &Arc<Inode>| {
            paths.is_none_or(|paths| self.inodes.path(inode.ino).is_ok_and(|path| is_below_any(&path, paths)))
        };
        let dirty: Vec<_> = self.inodes.dirty().into_iter().filter(is_meant).collect();
        dirty.iter().for_each(|inode| self.persist_now(inode));
        dirty.len() as u64
    }

    /// Stops storing these files, or everything below these directories. Their bytes stay here, and in the journal,
    /// until they change again, or [`retry_jobs`](Self::retry_jobs) or the next start stores them. Returns when none is
    /// being stored any more; how many there were.
    ///
    /// # Cancel safety
    /// Dropping the future leaves them cancelled, and one of them may still be stored.
    pub async fn cancel_jobs(&self, paths: &[String]) -> u64 {
        let jobs = self.jobs.jobs().into_iter().map(|job| job.key);
        let meant = jobs.filter(|ino| self.inodes.path(*ino).is_ok_and(|path| is_below_any(&path, paths)));
        let answers = self.jobs.cancel_all(meant.collect::<Vec<_>>()).await;
        for (ino, _) in &answers {
            if let Ok(inode) = self.inodes.get(*ino) {
                let mut state = inode.state();
                if state.is_dirty() {
                    state.failure = Some(String::from("cancelled; its bytes are kept here"));
                }
            }
        }
        answers.len() as u64
    }

    /// A name to show for an inode.
    fn name_of(&self, ino: Ino) -> String {
        self.inodes.path(ino).unwrap_or_else(|_| format!("inode {} (without a name)", ino.0))
    }
}

fn is_below_any(path: &str, above: &[String]) -> bool {
    above.iter().any(|above| path == above || crate::locks::is_below(path, above))
}

/// How a failed commit is taken: what may go well later without anybody doing anything is tried again.
fn failure(inode: &Inode, error: FsError) -> Failure {
    let cause = store_error(&error);
    let class = match error.kind() {
        FsErrorKind::Throttled => Class::Throttled,
        // Somebody may renew them, or make room.
        FsErrorKind::TimedOut | FsErrorKind::CredentialsExpired | FsErrorKind::NoSpace => Class::Transient,
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
