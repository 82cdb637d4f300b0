//! What the state machine is told, and what it asks for in return.

use std::sync::Arc;
use std::time::Instant;

use crate::moves::Move;

/// How an operation, or a probe, ended, as the caller classifies it. What is not known is [`Outcome::Transient`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<V> {
    /// It was done, or refused for a reason that only a living counterpart can give.
    Ok,
    /// It failed in a way that may pass: a lost connection, a deadline, a server's error.
    Transient(Arc<str>),
    /// The answer says that it is over for good: this verdict, and the answer's text.
    Permanent(V, Arc<str>),
}

impl<V> Outcome<V> {
    /// A failure that may pass.
    pub fn transient(what: impl Into<Arc<str>>) -> Self {
        Self::Transient(what.into())
    }

    /// A verdict, and the text of the answer that gave it.
    pub fn permanent(verdict: V, what: impl Into<Arc<str>>) -> Self {
        Self::Permanent(verdict, what.into())
    }
}

/// A probe that was asked for; its answer names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(pub u64);

/// What the state machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation<V> {
    /// The start is over.
    Ready,
    /// An operation of a user has ended.
    Operation {
        /// When it began: one that began before a suspicion says nothing against it.
        began: Instant,
        /// How it ended.
        outcome: Outcome<V>,
    },
    /// The answer to an [`Action::Probe`]. An id that is not outstanding is ignored.
    Probe {
        /// Of the action.
        id: ProbeId,
        /// What came of it.
        outcome: Outcome<V>,
    },
    /// The end is asked for, from outside.
    Drain {
        /// By whom, or why.
        reason: Arc<str>,
    },
    /// It has ended. From a phase that may not become [`Phase::Exited`](crate::Phase::Exited) it drains first.
    Exited {
        /// How.
        reason: Arc<str>,
    },
}

/// What the state machine asks for, or tells, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<V> {
    /// Ask what is watched whether it is there, and tell the answer with [`Observation::Probe`]. A newer one replaces
    /// what is outstanding.
    Probe {
        /// For the answer.
        id: ProbeId,
        /// On a connection of its own, past every cache: the answer is evidence for or against a suspicion.
        fresh: bool,
    },
    /// The phase has changed.
    Moved(Move<V>),
    /// The verdict is confirmed. Told once, after the move to [`Phase::Condemned`](crate::Phase::Condemned), or without
    /// one while draining.
    Condemned(V),
}
