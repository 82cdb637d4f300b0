//! What the state machine wants done, and what it answers.

use crate::error::Failure;
use crate::job::{AttemptId, BarrierId, CancelId, Generation, HoldId, ReserveId, TicketId};
use crate::order::Priority;

/// What became of a job, for those who waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This generation was committed; it is the one that was waited for, or a later one.
    Done(Generation),
    /// It failed for good. If it was committing, the effect is not known.
    Failed(Failure),
    /// It was cancelled or superseded, and has had no effect.
    Cancelled,
    /// The queue is gone; what its journal has will be done by the next one.
    Abandoned,
}

/// What a cancel could still do. Once it is given, the job has no further effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No attempt was ever made.
    NotStarted,
    /// Attempts were made, and none had an effect.
    Aborted,
    /// Something of the job has taken effect (`Done`: up to that generation, by this attempt or an earlier one), or may
    /// have (`Failed`: it was committing). The caller compensates.
    TooLate(Outcome),
}

/// What the driver of a [`Core`](crate::Core) has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<K> {
    /// Run this attempt, and say [`finished`](crate::Core::finished) when it is over.
    Start {
        /// The attempt.
        attempt: AttemptId,
        /// Whose it is.
        key: K,
        /// The generation it is for.
        generation: Generation,
        /// Whether somebody waits for it.
        priority: Priority,
    },
    /// Ask this attempt to stop: it may not commit any more.
    Stop {
        /// The attempt.
        attempt: AttemptId,
    },
    /// The hold before this attempt's commit is over: it may ask again.
    Proceed {
        /// The attempt.
        attempt: AttemptId,
    },
    /// A wait is over.
    Resolved {
        /// Who waited.
        ticket: TicketId,
        /// For what.
        outcome: Outcome,
    },
    /// Everything that a cancel was about is over.
    Cancelled {
        /// The cancel.
        cancel: CancelId,
        /// What became of each key that had a job, in no order.
        answers: Vec<(K, Answer)>,
    },
    /// Everything that was enqueued before a barrier is over.
    Passed {
        /// The barrier.
        barrier: BarrierId,
        /// What of that has failed for good.
        failures: Vec<(K, Failure)>,
    },
    /// Nothing under this hold is committing.
    Quiet {
        /// The hold.
        hold: HoldId,
    },
    /// There is room for this reservation, and it is taken.
    Granted {
        /// The reservation.
        reserve: ReserveId,
    },
    /// Nothing is left but what failed.
    Idle,
}
