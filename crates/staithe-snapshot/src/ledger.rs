//! Which states are alive, and who holds them.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Weak;

use crate::Epoch;
use crate::sync::Mutex;

/// A state that is still in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alive {
    /// Its epoch.
    pub epoch: Epoch,
    /// How many hold it, the cell included if it is the current one. A reader that is loading it at this moment may be
    /// missing. 0: it waits for the reclaimer.
    pub holders: usize,
    /// Those of them that gave a name, and how often each.
    pub labels: Vec<(Cow<'static, str>, usize)>,
}

struct Record {
    /// Of the snapshot, which is small: the state itself is boxed, and not kept by this.
    snapshot: Weak<dyn Any + Send + Sync>,
    labels: BTreeMap<Cow<'static, str>, usize>,
}

/// The states of a cell that are not freed. Its lock is held for a few map operations, and under it no other is taken.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<BTreeMap<Epoch, Record>>);

impl Ledger {
    pub(crate) fn born(&self, epoch: Epoch, snapshot: Weak<dyn Any + Send + Sync>) {
        self.0.lock().insert(epoch, Record { snapshot, labels: BTreeMap::new() });
    }

    pub(crate) fn forget(&self, epoch: Epoch) {
        // What it held is dropped when the lock is not held.
        let _record = self.0.lock().remove(&epoch);
    }

    pub(crate) fn hold(&self, epoch: Epoch, label: Cow<'static, str>) {
        if let Some(record) = self.0.lock().get_mut(&epoch) {
            *record.labels.entry(label).or_insert(0) += 1;
        }
    }

    pub(crate) fn release(&self, epoch: Epoch, label: &str) {
        let mut records = self.0.lock();
        let Some(record) = records.get_mut(&epoch) else { return };
        let Some(count) = record.labels.get_mut(label) else { return };
        *count -= 1;
        if *count == 0 {
            record.labels.remove(label);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Oldest first.
    pub(crate) fn alive(&self) -> Vec<Alive> {
        self.0.lock().iter().map(|(epoch, record)| record.alive(*epoch)).collect()
    }

    pub(crate) fn oldest(&self) -> Option<Alive> {
        self.0.lock().first_key_value().map(|(epoch, record)| record.alive(*epoch))
    }
}

impl Record {
    fn alive(&self, epoch: Epoch) -> Alive {
        Alive {
            epoch,
            holders: self.snapshot.strong_count(),
            labels: self.labels.iter().map(|(label, count)| (label.clone(), *count)).collect(),
        }
    }
}
