//! Uploads that somebody in this process is going to complete or abort.
//!
//! Invariant: from before the journal knows of an upload until after that is struck out it is in here, unless whoever had
//! it has given up: what the journal knows and is not in here, nobody ends any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::journal::IntentId;

/// The uploads, by their intents.
#[derive(Debug, Default)]
pub(crate) struct Uploads(Mutex<BTreeSet<IntentId>>);

/// One of them, until the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Alive {
    _entry: Arc<Entry>,
}

#[derive(Debug)]
struct Entry {
    all: Arc<Uploads>,
    intent: IntentId,
}

impl Uploads {
    /// Puts one in.
    pub(crate) fn begin(self: &Arc<Self>, intent: IntentId) -> Alive {
        self.0.lock().insert(intent);
        Alive { _entry: Arc::new(Entry { all: self.clone(), intent }) }
    }

    /// Whether somebody has it.
    pub(crate) fn has(&self, intent: IntentId) -> bool {
        self.0.lock().contains(&intent)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.intent);
    }
}
