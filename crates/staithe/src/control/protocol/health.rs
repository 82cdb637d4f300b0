//! How a daemon says that its volume fares.

use serde::{Deserialize, Serialize};
use staithe_fs::{RequestCount, Verdict};
use staithe_lifecycle::{Status, Supervisor, Suspected, What};

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

/// What the daemon does beside serving.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// The names of its tasks.
    pub(crate) running: Vec<String>,
    /// What has happened to them, the last of it.
    pub(crate) incidents: Vec<Mishap>,
}

/// A task panicked, and was started again; or not, if that was too often.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mishap {
    pub(crate) task: String,
    /// As RFC 3339 has it.
    pub(crate) time: String,
    /// `null`: it was given up.
    pub(crate) panicked: Option<String>,
}

impl Running {
    /// The tasks of these.
    pub(crate) fn of(supervisors: &[&Supervisor]) -> Self {
        let each = || supervisors.iter();
        let mut incidents: Vec<_> = each().flat_map(|supervisor| supervisor.incidents()).collect();
        incidents.sort_by_key(|incident| incident.at);
        let mishap = |incident: staithe_lifecycle::Incident| Mishap {
            task: incident.name.to_string(),
            time: humantime::format_rfc3339_millis(incident.at).to_string(),
            panicked: match incident.what {
                What::Panicked(said) => Some(said),
                What::GivenUp => None,
            },
        };
        Self {
            running: each()
                .flat_map(|supervisor| supervisor.running())
                .map(|name| name.to_string())
                .collect(),
            incidents: incidents.into_iter().map(mishap).collect(),
        }
    }
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
