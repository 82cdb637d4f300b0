//! How a daemon says that its volume fares.

use serde::{Deserialize, Serialize};
use staithe_fs::{RequestCount, Verdict};
use staithe_lifecycle::{Status, Suspected};

/// The phase, and why.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Health {
    /// `healthy`, `degraded`, `suspect`, `condemned` or `draining`.
    pub(crate) phase: String,
    pub(crate) reason: String,
    pub(crate) since_seconds: u64,
    /// How often it has changed.
    pub(crate) changes: u64,
    /// What is suspected, and how many of how many answers agree.
    pub(crate) suspicion: Option<Suspicion>,
    /// Since when nothing has succeeded, if the last answer was a failure.
    pub(crate) silent_seconds: Option<u64>,
}

/// What is not confirmed yet.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suspicion {
    pub(crate) of: String,
    pub(crate) agreeing: u32,
    pub(crate) needed: u32,
}

/// How many requests to the store ended so; tries are counted one by one.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requests {
    pub(crate) operation: String,
    /// `ok`, or the kind of the error.
    pub(crate) outcome: String,
    pub(crate) count: u64,
}

impl From<Status<Verdict>> for Health {
    fn from(status: Status<Verdict>) -> Self {
        let suspicion = |suspected: Suspected<Verdict>| Suspicion {
            of: suspected.verdict.to_string(),
            agreeing: suspected.agreeing,
            needed: suspected.needed,
        };
        Self {
            phase: status.phase.to_string(),
            reason: status.reason.to_string(),
            since_seconds: status.since.elapsed().as_secs(),
            changes: status.moves,
            suspicion: status.suspected.map(suspicion),
            silent_seconds: status.silent_since.map(|since| since.elapsed().as_secs()),
        }
    }
}

impl From<RequestCount> for Requests {
    fn from(counted: RequestCount) -> Self {
        let RequestCount { operation, outcome, count } = counted;
        Self { operation: operation.to_owned(), outcome: outcome.to_owned(), count }
    }
}
