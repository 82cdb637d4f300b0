//! The states of a job, and the one table of its legal moves.

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It may start as soon as there is room, unless it is held.
    Queued,
    /// It waits for another key.
    Blocked,
    /// An attempt is under way. Nothing that it did may be visible to others.
    Running,
    /// The attempt has passed the only door to effects that others can see.
    Committing,
    /// The next attempt has its time: the last one failed, or it is to wait for what else comes.
    RetryAt,
    /// The generation that was wanted is committed. Final.
    Done,
    /// It failed for good, and stays visible until it is acknowledged or enqueued again.
    Failed,
    /// It was cancelled, superseded or acknowledged. Final.
    Cancelled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Blocked,
        Self::Running,
        Self::Committing,
        Self::RetryAt,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The legal moves: every state that a job may go to from this one. A new job begins as `Queued` or `Blocked`.
    ///
    /// | from | to |
    /// |---|---|
    /// | Queued | Blocked (enqueued again with a dependency), Running, RetryAt (not yet), Cancelled |
    /// | Blocked | Queued, Failed (what it needs failed), Cancelled |
    /// | Running | Committing; Queued, Blocked (outdated: it runs again); RetryAt; Done (nothing to commit), Failed, Cancelled |
    /// | Committing | Running (the commit was abandoned without effect); Queued, Blocked (a newer generation is wanted); RetryAt, Done, Failed, Cancelled |
    /// | RetryAt | Queued (due, or waited for), Blocked, Failed (what it needs failed), Cancelled |
    /// | Failed | Queued, Blocked (enqueued again), Cancelled (acknowledged) |
    /// | Done, Cancelled | nothing |
    pub const fn next(self) -> &'static [Self] {
        use State::{Blocked, Cancelled, Committing, Done, Failed, Queued, RetryAt, Running};
        match self {
            Queued => &[Blocked, Running, RetryAt, Cancelled],
            Blocked => &[Queued, Failed, Cancelled],
            Running => &[Committing, Queued, Blocked, RetryAt, Done, Failed, Cancelled],
            Committing => &[Running, Queued, Blocked, RetryAt, Done, Failed, Cancelled],
            RetryAt => &[Queued, Blocked, Failed, Cancelled],
            Failed => &[Queued, Blocked, Cancelled],
            Done | Cancelled => &[],
        }
    }

    /// Whether the table has this move.
    pub fn may_become(self, next: Self) -> bool {
        self.next().contains(&next)
    }

    /// Whether a job that is here is over and forgotten.
    pub const fn is_final(self) -> bool {
        self.next().is_empty()
    }

    /// Whether an attempt is under way.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Committing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committing_has_one_door_and_what_is_over_stays_over() {
        for state in State::ALL {
            assert_eq!(state.may_become(State::Committing), state == State::Running, "{state:?}");
            assert!(!state.may_become(state), "{state:?}");
            assert_eq!(state.is_final(), matches!(state, State::Done | State::Cancelled), "{state:?}");
        }
    }

    #[test]
    fn every_job_that_is_not_over_can_be_cancelled_and_only_active_ones_get_done() {
        for state in State::ALL.into_iter().filter(|state| !state.is_final()) {
            assert!(state.may_become(State::Cancelled), "{state:?}");
            assert_eq!(state.may_become(State::Done), state.is_active(), "{state:?}");
            assert_eq!(state.may_become(State::Running), matches!(state, State::Queued | State::Committing));
        }
    }
}
