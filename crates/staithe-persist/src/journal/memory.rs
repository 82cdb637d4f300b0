//! A journal in memory: for tests, and for mounts that promise nothing beyond their process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::{Durability, Entry, IntentId, Journal, JournalError};

/// How many batches may be at the mercy of a power failure; older ones are taken for synced.
const UNSYNCED: usize = 4096;

type Intents = BTreeMap<IntentId, Bytes>;

/// A journal that knows what a kill, and what a power failure, would leave of it.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    state: std::sync::Mutex<State>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    current: Intents,
    durable: Intents,
    unsynced: VecDeque<Vec<Entry>>,
}

impl MemoryJournal {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a process finds that starts after this one was killed.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let current = self.lock().current.clone();
        Self::of(current)
    }

    /// What a process finds after a power failure that took all but the first `kept` batches that were not synced.
    #[must_use]
    pub fn after_power_failure(&self, kept: usize) -> Self {
        let state = self.lock();
        let mut intents = state.durable.clone();
        state.unsynced.iter().take(kept).for_each(|batch| apply(&mut intents, batch));
        Self::of(intents)
    }

    /// How many batches a power failure could take.
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    fn of(intents: Intents) -> Self {
        let next = intents.last_key_value().map_or(0, |(id, _)| id.0 + 1);
        let state = State { current: intents.clone(), durable: intents, unsynced: VecDeque::new() };
        Self { state: std::sync::Mutex::new(state), next: AtomicU64::new(next) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(intents: &mut Intents, batch: &[Entry]) {
    for entry in batch {
        match entry {
            Entry::Record(id, record) => drop(intents.insert(*id, record.clone())),
            Entry::Complete(id) => drop(intents.remove(id)),
        }
    }
}

impl Journal for MemoryJournal {
    fn reserve(&self) -> IntentId {
        IntentId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn write(&self, batch: &[Entry], durability: Durability) -> Result<(), JournalError> {
        let mut state = self.lock();
        let State { current, durable, unsynced } = &mut *state;
        apply(current, batch);
        if !batch.is_empty() {
            unsynced.push_back(batch.to_vec());
        }
        let over = match durability {
            Durability::Buffered => unsynced.len().saturating_sub(UNSYNCED),
            Durability::Synced => unsynced.len(),
        };
        unsynced.drain(..over).for_each(|batch| apply(durable, &batch));
        Ok(())
    }

    fn pending(&self) -> Result<Vec<(IntentId, Bytes)>, JournalError> {
        Ok(self.lock().current.iter().map(|(id, record)| (*id, record.clone())).collect())
    }
}
