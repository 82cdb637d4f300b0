//! What can be seen of a queue from outside.

use std::time::{Duration, Instant};

use crate::error::Failure;
use crate::job::{Generation, JobId};
use crate::order::Priority;
use crate::states::State;

/// A job as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobInfo<K> {
    /// Whose it is.
    pub key: K,
    /// Its name.
    pub job: JobId,
    /// Where it is in its life.
    pub state: State,
    /// The generation that is wanted; `None` if an attempt is being stopped and nothing is wanted after it.
    pub wanted: Option<Generation>,
    /// The generation of the attempt under way.
    pub running: Option<Generation>,
    /// The last generation that this job has committed.
    pub committed: Option<Generation>,
    /// Attempts made, the one under way included.
    pub attempts: u32,
    /// How far the attempt under way says it is: done and total, in bytes.
    pub progress: Option<(u64, u64)>,
    /// Whether somebody waits for it.
    pub priority: Priority,
    /// What it weighs, in bytes.
    pub bytes: u64,
    /// How long it has been here.
    pub age: Duration,
    /// Which keys it waits for.
    pub blocked_on: Vec<K>,
    /// Whether a hold keeps it from starting and committing.
    pub held: bool,
    /// When the next attempt is due.
    pub retry_at: Option<Instant>,
    /// The last failure; in state `Failed`, the one to acknowledge.
    pub failure: Option<Failure>,
}

/// A queue's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Jobs that may start.
    pub queued: usize,
    /// Jobs that wait for another key.
    pub blocked: usize,
    /// Attempts under way that have not begun to commit.
    pub running: usize,
    /// Attempts that are committing.
    pub committing: usize,
    /// Jobs that wait for their next attempt.
    pub retrying: usize,
    /// Jobs that failed and are not acknowledged.
    pub failed: usize,
    /// The bytes of all jobs and reservations.
    pub bytes: u64,
    /// The bytes of the attempts under way.
    pub bytes_in_flight: u64,
    /// Reservations that wait for room.
    pub waiting: usize,
    /// Enqueues taken so far.
    pub enqueued: u64,
    /// Of these, how many a job that was there has absorbed.
    pub coalesced: u64,
    /// Attempts started so far.
    pub attempts: u64,
    /// Generations committed so far.
    pub committed: u64,
    /// Jobs cancelled or superseded so far.
    pub cancelled: u64,
    /// Attempts that failed so far.
    pub failures: u64,
}

impl Stats {
    /// Everything that is not over: the jobs without those that failed.
    pub const fn unfinished(&self) -> usize {
        self.queued + self.blocked + self.running + self.committing + self.retrying
    }
}
