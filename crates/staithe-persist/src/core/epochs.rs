//! Barriers without a walk: enqueues are counted by epoch, and a barrier ends an epoch.

use std::collections::BTreeMap;

use crate::error::Failure;
use crate::job::BarrierId;

#[derive(Debug)]
struct Barrier<K> {
    id: BarrierId,
    /// It waits for this epoch and all before.
    until: u64,
    failures: Vec<(K, Failure)>,
}

#[derive(Debug)]
pub(super) struct Epochs<K> {
    current: u64,
    /// How many enqueues of an epoch are not over; epochs without any are absent.
    open: BTreeMap<u64, usize>,
    /// In the order of `until`.
    barriers: Vec<Barrier<K>>,
}

impl<K: Clone> Epochs<K> {
    pub(super) fn new() -> Self {
        Self { current: 0, open: BTreeMap::new(), barriers: Vec::new() }
    }

    /// One more enqueue that is not over: its epoch.
    pub(super) fn enter(&mut self) -> u64 {
        *self.open.entry(self.current).or_default() += 1;
        self.current
    }

    /// An enqueue of this epoch is over.
    pub(super) fn leave(&mut self, epoch: u64) {
        if let Some(count) = self.open.get_mut(&epoch) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&epoch);
            }
        }
    }

    /// Notes a failure of an enqueue of this epoch for the barriers that wait for it.
    pub(super) fn failed(&mut self, epoch: u64, key: &K, failure: &Failure) {
        for barrier in self.barriers.iter_mut().filter(|barrier| barrier.until >= epoch) {
            barrier.failures.push((key.clone(), failure.clone()));
        }
    }

    pub(super) fn barrier(&mut self, id: BarrierId, failures: Vec<(K, Failure)>) {
        let until = self.current;
        self.current += 1;
        self.barriers.push(Barrier { id, until, failures });
    }

    pub(super) fn is_awaited(&self) -> bool {
        !self.barriers.is_empty()
    }

    pub(super) fn forget(&mut self, id: BarrierId) {
        self.barriers.retain(|barrier| barrier.id != id);
    }

    /// The barriers that nothing holds up any more.
    pub(super) fn passed(&mut self) -> Vec<(BarrierId, Vec<(K, Failure)>)> {
        let oldest = self.open.first_key_value().map_or(u64::MAX, |(epoch, _)| *epoch);
        let count = self.barriers.iter().take_while(|barrier| barrier.until < oldest).count();
        self.barriers.drain(..count).map(|barrier| (barrier.id, barrier.failures)).collect()
    }
}
