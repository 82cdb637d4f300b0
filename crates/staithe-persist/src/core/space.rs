//! Room for jobs and bytes, and the line of those who wait for it.

use std::collections::BTreeMap;

use crate::job::ReserveId;

#[derive(Debug)]
pub(super) struct Space {
    max_jobs: usize,
    max_bytes: u64,
    jobs: usize,
    bytes: u64,
    line: BTreeMap<ReserveId, u64>,
}

impl Space {
    pub(super) fn new(max_jobs: usize, max_bytes: u64) -> Self {
        Self { max_jobs, max_bytes, jobs: 0, bytes: 0, line: BTreeMap::new() }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn waiting(&self) -> usize {
        self.line.len()
    }

    fn fits(&self, bytes: u64) -> bool {
        self.jobs < self.max_jobs && (self.jobs == 0 || self.bytes.saturating_add(bytes) <= self.max_bytes)
    }

    /// Takes room for one job, unless there is none or others wait for it.
    pub(super) fn try_take(&mut self, bytes: u64) -> bool {
        let fits = self.line.is_empty() && self.fits(bytes);
        if fits {
            self.take(bytes);
        }
        fits
    }

    pub(super) fn take(&mut self, bytes: u64) {
        self.jobs += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(super) fn give(&mut self, bytes: u64) {
        self.jobs = self.jobs.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// A job that is there has become heavier or lighter.
    pub(super) fn change(&mut self, from: u64, to: u64) {
        self.bytes = self.bytes.saturating_sub(from).saturating_add(to);
    }

    pub(super) fn wait(&mut self, reserve: ReserveId, bytes: u64) {
        self.line.insert(reserve, bytes);
    }

    /// Leaves the line; whether it was in it.
    pub(super) fn leave(&mut self, reserve: ReserveId) -> bool {
        self.line.remove(&reserve).is_some()
    }

    /// The first in line, if there is room for it now; it is taken.
    pub(super) fn grant(&mut self) -> Option<ReserveId> {
        let (&reserve, &bytes) = self.line.first_key_value()?;
        if !self.fits(bytes) {
            return None;
        }
        self.line.pop_first();
        self.take(bytes);
        Some(reserve)
    }
}
