//! Moves from phase to phase, and what they were made for.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::phase::Phase;

/// Why a phase was entered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason<V> {
    /// The watch began.
    Began,
    /// The start is over.
    Ready,
    /// Too many failures.
    Failures {
        /// Within [`Config::window`](crate::Config::window).
        failures: u64,
        /// All outcomes in the same time, successes included.
        outcomes: u64,
        /// The text of the last failure.
        last: Arc<str>,
    },
    /// Nothing has failed for this long, and so much has succeeded since.
    Recovered {
        /// Successes since the last failure; at least these.
        successes: u64,
        /// Time since the last failure.
        calm: Duration,
    },
    /// An answer gave this verdict.
    Verdict {
        /// Which.
        verdict: V,
        /// The answer's text.
        what: Arc<str>,
    },
    /// An answer was contrary to this verdict.
    Contrary {
        /// Which was suspected.
        verdict: V,
        /// How many probes had agreed with it before.
        agreed: u32,
    },
    /// So many probes agreed on this verdict, and none was contrary to it.
    Confirmed {
        /// Which.
        verdict: V,
        /// How many probes.
        times: u32,
        /// Time from the first answer to the last.
        over: Duration,
        /// The text of the last answer.
        what: Arc<str>,
    },
    /// The end was asked for.
    Asked(Arc<str>),
    /// It has ended.
    Ended(Arc<str>),
}

impl<V: fmt::Debug> fmt::Display for Reason<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began => f.write_str("the watch began"),
            Self::Ready => f.write_str("the start is over"),
            Self::Failures { failures, outcomes, last } => {
                write!(f, "{failures} of {outcomes} outcomes failed, the last with: {last}")
            }
            Self::Recovered { successes, calm } => {
                write!(f, "{successes} successes and no failure in {:.1} s", calm.as_secs_f64())
            }
            Self::Verdict { verdict, what } => write!(f, "an answer says {verdict:?}: {what}"),
            Self::Contrary { verdict, agreed } => {
                write!(f, "an answer is contrary to {verdict:?}, on which {agreed} probes had agreed")
            }
            Self::Confirmed { verdict, times, over, what } => {
                let over = over.as_secs_f64();
                write!(f, "{times} probes over {over:.1} s agree on {verdict:?}, the last with: {what}")
            }
            Self::Asked(reason) | Self::Ended(reason) => f.write_str(reason),
        }
    }
}

/// One move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move<V> {
    /// The phase that was left.
    pub from: Phase,
    /// The phase that was entered.
    pub to: Phase,
    /// Why.
    pub reason: Reason<V>,
    /// When.
    pub at: Instant,
    /// Counted from 1, without gaps.
    pub number: u64,
}

/// A move as a [`Watcher`](crate::Watcher) tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<V> {
    /// The move.
    pub moved: Move<V>,
    /// When it was, for people.
    pub wall: SystemTime,
    /// How many moves before this one the subscriber was too slow for. 0 in a history.
    pub missed: u64,
}

impl<V: fmt::Debug> fmt::Display for Move<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}: {}", self.from, self.to, self.reason)
    }
}
