//! How a daemon tells of what is to be stored.

use serde::{Deserialize, Serialize};
use staithe_fs::{Job, JobCounts, JobPhase};

/// Jobs told of.
const JOBS_MAX: usize = 1000;
/// What they may take of a line, in bytes.
const JOBS_BYTES_MAX: usize = 900 << 10;

/// Jobs: what needs somebody first, then by path.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobList {
    /// As many as fit.
    pub(crate) jobs: Vec<JobLine>,
    /// Of all that were asked for.
    pub(crate) counts: Counts,
    /// How many of them did not fit.
    pub(crate) left_out: u64,
}

/// How many jobs are in which state.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) failed: u64,
    pub(crate) retrying: u64,
    pub(crate) running: u64,
    pub(crate) waiting: u64,
}

/// A file or directory that is to be stored: a [`Job`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobLine {
    /// From the root of the mount.
    pub(crate) path: String,
    /// `failed`, `retrying`, `running` or `waiting`.
    pub(crate) state: String,
    pub(crate) size_bytes: u64,
    pub(crate) done_bytes: u64,
    pub(crate) tries: u32,
    pub(crate) age_seconds: u64,
    /// `null`: there is no time set for it.
    pub(crate) next_try_seconds: Option<u64>,
    /// Why the last try failed.
    pub(crate) failure: Option<String>,
}

impl From<JobCounts> for Counts {
    fn from(counts: JobCounts) -> Self {
        let JobCounts { waiting, running, retrying, failed } = counts;
        Self { failed, retrying, running, waiting }
    }
}

impl From<Vec<Job>> for JobList {
    fn from(jobs: Vec<Job>) -> Self {
        let (all, counts) = (jobs.len(), JobCounts::of(jobs.iter().map(|job| job.state)).into());
        let mut room = JOBS_BYTES_MAX;
        let fits = |line: &JobLine| {
            let len = serde_json::to_vec(line).map_or(usize::MAX, |text| text.len());
            room = room.saturating_sub(len);
            room > 0
        };
        let jobs: Vec<_> = jobs.into_iter().take(JOBS_MAX).map(JobLine::from).take_while(fits).collect();
        Self { left_out: (all - jobs.len()) as u64, jobs, counts }
    }
}

impl From<Job> for JobLine {
    fn from(job: Job) -> Self {
        let state = match job.state {
            JobPhase::Failed => "failed",
            JobPhase::Retrying => "retrying",
            JobPhase::Running => "running",
            JobPhase::Waiting => "waiting",
        };
        Self {
            path: job.path,
            state: state.to_owned(),
            size_bytes: job.size,
            done_bytes: job.done,
            tries: job.attempts,
            age_seconds: job.age.as_secs(),
            // Not 0 before it is due.
            next_try_seconds: job.next.map(|next| next.as_millis().div_ceil(1000) as u64),
            failure: job.failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::protocol::{LINE_MAX, Reply};

    #[test]
    fn jobs_fit_into_a_line_and_those_that_do_not_are_counted() {
        let job = |n: usize, path: &str, state| Job {
            path: format!("{path}{n:06}"),
            state,
            size: 1,
            done: 0,
            attempts: 1,
            age: Duration::from_millis(1900),
            next: Some(Duration::from_millis(100)),
            failure: Some("the store is away".to_owned()),
        };
        let some: Vec<_> = (0..20).map(|n| job(n, "f", JobPhase::Retrying)).collect();
        let all = JobList::from(some);
        assert_eq!((all.jobs.len(), all.counts.retrying, all.left_out), (20, 20, 0));
        assert_eq!((all.jobs[0].age_seconds, all.jobs[0].next_try_seconds), (1, Some(1)));
        // Six bytes in JSON for one of a path's.
        for path in ["f", &"\u{1}".repeat(1000)] {
            let many: Vec<_> = (0..100_000).map(|n| job(n, path, JobPhase::Waiting)).collect();
            let jobs = JobList::from(many);
            assert_eq!(jobs.counts.waiting, 100_000);
            assert_eq!(jobs.left_out + jobs.jobs.len() as u64, 100_000);
            assert!(jobs.jobs.len() > 100 && jobs.jobs.len() <= JOBS_MAX, "{}", jobs.jobs.len());
            let line = serde_json::to_vec(&Reply::Done(serde_json::to_value(jobs).unwrap())).unwrap();
            assert!(line.len() as u64 <= LINE_MAX, "{}", line.len());
        }
    }
}
