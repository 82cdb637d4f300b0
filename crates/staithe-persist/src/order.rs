//! What an enqueue asks for beyond its key and generation.

use std::time::Instant;

use crate::job::Generation;

/// Who goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Nobody waits for it.
    #[default]
    Background,
    /// Somebody waits for it, as after an fsync; and so for whatever it is blocked on.
    Waited,
}

/// What a dependency needs of the other key's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Needs {
    /// That it is done: a copy before a delete. If it fails or is cancelled, this job fails.
    Done,
    /// That it is over, in whatever way: an order, no more.
    Settled,
}

/// A dependency on what another key has under way when the job is enqueued; on nothing, if that is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct After<K> {
    /// The other key. A key's own jobs are in order anyway.
    pub key: K,
    /// What is needed of it.
    pub needs: Needs,
}

impl<K> After<K> {
    /// Only once `key` is done; if that fails or is cancelled, so does this.
    pub const fn done(key: K) -> Self {
        Self { key, needs: Needs::Done }
    }

    /// Only once `key` is over, whether it was done, failed for good or was cancelled.
    pub const fn settled(key: K) -> Self {
        Self { key, needs: Needs::Settled }
    }
}

/// What a newer generation means for an attempt that is running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overlap {
    /// It is outdated: it may not commit, and is asked to stop. After
    /// [`Config::patience`](crate::Config::patience) attempts of a key that were outdated in a row, the next one may
    /// finish, so that a key which changes all the time is committed at all.
    #[default]
    Outdates,
    /// It may finish and commit what it has; the job then runs once more.
    LetsFinish,
}

/// What an enqueue asks for. `Order::default()` is a background job without bytes or dependencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order<K> {
    /// Who goes first.
    pub priority: Priority,
    /// What must be over before.
    pub after: Vec<After<K>>,
    /// What the job weighs, against [`Config::max_bytes`](crate::Config::max_bytes) while it is there and against
    /// [`Config::bytes_in_flight`](crate::Config::bytes_in_flight) while it runs.
    pub bytes: u64,
    /// What this means for an attempt that is running.
    pub overlap: Overlap,
    /// Not to begin before this, unless somebody waits for it, so that what comes until then is coalesced. Of a job that
    /// waits already, the first such time holds; one that waits for another key begins when that is over.
    pub not_before: Option<Instant>,
}

impl<K> Default for Order<K> {
    fn default() -> Self {
        Self {
            priority: Priority::Background,
            after: Vec::new(),
            bytes: 0,
            overlap: Overlap::Outdates,
            not_before: None,
        }
    }
}

impl<K> Order<K> {
    /// An order for a job that somebody waits for.
    pub fn waited() -> Self {
        Self { priority: Priority::Waited, ..Self::default() }
    }

    /// The same, of this weight.
    #[must_use]
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// The same, with one more dependency.
    #[must_use]
    pub fn after(mut self, after: After<K>) -> Self {
        self.after.push(after);
        self
    }

    /// The same, to begin at this time unless somebody waits for it.
    #[must_use]
    pub fn not_before(mut self, at: Instant) -> Self {
        self.not_before = Some(at);
        self
    }

    /// The same, letting a running attempt finish.
    #[must_use]
    pub fn lets_finish(mut self) -> Self {
        self.overlap = Overlap::LetsFinish;
        self
    }
}

/// What a retarget found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retargeted {
    /// The job had not started: it runs with the new generation.
    Queued,
    /// An attempt was running: it may not commit, and the job runs again with the new generation.
    Outdated,
    /// An attempt is committing this generation: it can no longer be kept from it. The job runs again with the new
    /// one, and what was committed is the caller's to undo. A hold that is quiet excludes this.
    TooLate(Generation),
    /// The job had failed for good, and stays so with the new generation.
    Failed,
}
