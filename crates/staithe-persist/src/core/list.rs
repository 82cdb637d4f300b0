//! Listings and figures.

use std::time::Instant;

use super::Core;
use super::chain::Chain;
use crate::error::Failure;
use crate::info::{JobInfo, Stats};
use crate::job::Key;
use crate::states::State;

impl<K: Key> Core<K> {
    /// Every job, in an order that is the same for the same events. O(jobs).
    pub fn jobs(&self, now: Instant) -> Vec<JobInfo<K>> {
        self.slab.iter().map(|(_, chain)| self.describe(chain, now)).collect()
    }

    /// The job of one key.
    pub fn job(&self, key: &K, now: Instant) -> Option<JobInfo<K>> {
        let chain = self.slab.get(self.slab.find(key)?)?;
        Some(self.describe(chain, now))
    }

    /// What failed for good and is not acknowledged, in the order of the keys. O(jobs) if there is any.
    pub fn failures(&self) -> Vec<(K, Failure)> {
        if self.counts[State::Failed as usize] == 0 {
            return Vec::new();
        }
        let failed = self.slab.iter().filter(|(_, chain)| chain.state == State::Failed);
        let mut failures: Vec<_> =
            failed.filter_map(|(_, chain)| Some((chain.key.clone(), chain.failure.clone()?))).collect();
        failures.sort_by(|a, b| a.0.cmp(&b.0));
        failures
    }

    /// The figures now. O(1).
    pub fn stats(&self) -> Stats {
        let count = |state: State| self.counts[state as usize];
        Stats {
            queued: count(State::Queued),
            blocked: count(State::Blocked),
            running: count(State::Running),
            committing: count(State::Committing),
            retrying: count(State::RetryAt),
            failed: count(State::Failed),
            bytes: self.space.bytes(),
            bytes_in_flight: self.in_flight,
            waiting: self.space.waiting(),
            ..self.totals
        }
    }

    /// Whether there is no job at all.
    pub fn is_empty(&self) -> bool {
        self.slab.len() == 0
    }

    fn describe(&self, chain: &Chain<K>, now: Instant) -> JobInfo<K> {
        let key_of = |job| self.slab.slot_of(job).and_then(|slot| self.slab.get(slot)).map(|c| c.key.clone());
        JobInfo {
            key: chain.key.clone(),
            job: chain.job,
            state: chain.state,
            wanted: (chain.wants || chain.state == State::Failed).then_some(chain.wanted),
            running: chain.attempt.as_ref().map(|attempt| attempt.generation),
            committed: chain.committed,
            attempts: chain.attempts,
            progress: None,
            priority: chain.priority,
            bytes: chain.bytes,
            age: now.saturating_duration_since(chain.born),
            blocked_on: chain.after.iter().filter_map(|wait| key_of(wait.on)).collect(),
            held: !chain.holds.is_empty(),
            retry_at: chain.retry_at,
            failure: chain.failure.clone(),
        }
    }
}
