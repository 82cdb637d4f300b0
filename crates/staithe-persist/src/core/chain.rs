//! One key's chain: the job that is wanted, the attempt under way, and who waits for either.

use std::time::Instant;

use crate::error::Failure;
use crate::job::{AttemptId, CancelId, Generation, HoldId, JobId, TicketId};
use crate::order::{Needs, Priority};
use crate::states::State;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// Who is told when a generation is reached, or never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    Ticket(TicketId),
    Dependent { job: JobId, wait: u64, needs: Needs },
}

/// What a chain waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// Its name, for the watch that ends it.
    pub(super) id: u64,
    pub(super) on: JobId,
    pub(super) round: u32,
    pub(super) generation: Generation,
    pub(super) needs: Needs,
}

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) generation: Generation,
    pub(super) number: u32,
    pub(super) bytes: u64,
    /// The epoch of the oldest enqueue that it stands for; `None` once that is accounted for.
    pub(super) since: Option<u64>,
    /// What the job had committed when it began.
    pub(super) before: Option<Generation>,
    /// Asked to stop: it may not begin to commit.
    pub(super) stop: bool,
    /// Nothing that it stands for is wanted any more.
    pub(super) cancelled: bool,
    /// A newer enqueue lets it finish, because too many before it were outdated.
    pub(super) patient: bool,
    /// It passed the door, and did not abandon the commit.
    pub(super) entered: bool,
    /// The door's guard lives.
    pub(super) guarded: bool,
    /// What the runner said; the attempt is over when the guard is gone too.
    pub(super) result: Option<Result<(), Failure>>,
    pub(super) cancels: Vec<CancelId>,
    /// Who waited for what was cancelled while it ran.
    pub(super) orphans: Vec<(Generation, Watch)>,
}

#[derive(Debug)]
pub(super) struct Chain<K> {
    pub(super) key: K,
    pub(super) job: JobId,
    pub(super) state: State,
    /// Whether anything is to be done beyond the attempt under way; it was cancelled otherwise.
    pub(super) wants: bool,
    pub(super) wanted: Generation,
    pub(super) priority: Priority,
    pub(super) bytes: u64,
    /// The epoch of the oldest enqueue that no attempt under way stands for.
    pub(super) since: Option<u64>,
    pub(super) committed: Option<Generation>,
    pub(super) attempt: Option<Attempt>,
    pub(super) attempts: u32,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Attempts outdated in a row.
    pub(super) outdated: u32,
    /// The failure of an attempt that was committing: whether it took effect is not known.
    pub(super) uncertain: Option<Failure>,
    pub(super) failure: Option<Failure>,
    /// What it needs has failed while an attempt was under way.
    pub(super) doomed: Option<Failure>,
    pub(super) retry_at: Option<Instant>,
    /// When what is wanted may begin.
    pub(super) not_before: Option<Instant>,
    pub(super) born: Instant,
    pub(super) after: Vec<Wait>,
    /// How often it was cancelled while an attempt was under way.
    pub(super) round: u32,
    pub(super) watchers: Vec<(Generation, Watch)>,
    pub(super) holds: Vec<HoldId>,
    /// Its neighbours in a line, while `lined`.
    pub(super) previous: u32,
    pub(super) following: u32,
    pub(super) lined: bool,
}

impl<K> Chain<K> {
    pub(super) fn new(key: K, job: JobId, wanted: Generation, now: Instant) -> Self {
        Self {
            key,
            job,
            state: State::Queued,
            wants: true,
            wanted,
            priority: Priority::Background,
            bytes: 0,
            since: None,
            committed: None,
            attempt: None,
            attempts: 0,
            failures: 0,
            outdated: 0,
            uncertain: None,
            failure: None,
            doomed: None,
            retry_at: None,
            not_before: None,
            born: now,
            after: Vec::new(),
            round: 0,
            watchers: Vec::new(),
            holds: Vec::new(),
            previous: NONE,
            following: NONE,
            lined: false,
        }
    }

    pub(super) fn attempt_id(&self) -> AttemptId {
        AttemptId { job: self.job, number: self.attempts }
    }

    /// The state of a job that wants to run and has no attempt.
    pub(super) fn waiting_state(&self) -> State {
        if self.after.is_empty() { State::Queued } else { State::Blocked }
    }

    /// Whether the attempt under way may begin to commit, holds aside.
    pub(super) fn may_commit(&self) -> bool {
        self.attempt.as_ref().is_some_and(|a| !a.stop && a.result.is_none())
    }
}
