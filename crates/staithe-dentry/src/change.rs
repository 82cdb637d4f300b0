//! The stream of what became invalid, for the one who must tell a kernel.
//!
//! Invariants:
//! 1. The queue's lock is a leaf: nothing else is taken under it, and it is taken under nothing.
//! 2. A change that does not fit is never lost silently: the next [`Drained`] says that some were.

use std::collections::VecDeque;

use crate::sync::{Arc, Condvar, Mutex};

/// Why something that may have been told to others no longer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The store says that the name now stands for something else.
    Replaced,
    /// The store says that the name is gone.
    Removed,
    /// The store says that the name exists, where its absence was known before.
    Appeared,
    /// The caller asked for it to be forgotten.
    Forgotten,
}

/// One thing that became invalid.
///
/// Changes made here through [`mutate`](crate::Dentries::mutate) are not reported: they came from the kernel.
/// Neither are evictions and deadlines that passed: what was told was true and ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// What was said about one name.
    Name {
        /// The directory.
        parent: u64,
        /// The name in it.
        name: Box<str>,
        /// Why.
        cause: Cause,
    },
    /// What was said about every name of a directory.
    Directory {
        /// The directory.
        id: u64,
        /// Why.
        cause: Cause,
    },
}

/// What [`Changes::drain`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// How many changes were appended.
    pub taken: usize,
    /// The queue ran over and was emptied since the last drain: take everything that was told as invalid.
    pub lost: bool,
}

struct Pending {
    queue: VecDeque<Change>,
    lost: bool,
    closed: bool,
}

/// The queue between the shards and the consumer.
pub(crate) struct ChangeQueue {
    pending: Mutex<Pending>,
    arrived: Condvar,
    bound: usize,
}

impl ChangeQueue {
    pub(crate) fn new(bound: usize) -> Self {
        let pending = Pending { queue: VecDeque::new(), lost: false, closed: false };
        Self { pending: Mutex::new(pending), arrived: Condvar::new(), bound }
    }

    pub(crate) fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        let mut pending = self.pending.lock();
        for change in changes {
            if pending.closed {
                return;
            }
            if pending.queue.len() >= self.bound {
                pending.queue.clear();
                pending.lost = true;
            } else if !pending.lost {
                pending.queue.push_back(change);
            }
        }
        drop(pending);
        self.arrived.notify_one();
    }
}

/// The receiving end, of which a cache has one. Dropping it ends the stream: later changes are not kept.
pub struct Changes {
    queue: Arc<ChangeQueue>,
}

impl Changes {
    pub(crate) fn new(queue: Arc<ChangeQueue>) -> Self {
        Self { queue }
    }

    /// Moves what is there to the end of `into`, at most the configured bound, in the order in which it was
    /// published. Never waits.
    pub fn drain(&self, into: &mut Vec<Change>) -> Drained {
        let mut pending = self.queue.pending.lock();
        let taken = pending.queue.len();
        into.extend(pending.queue.drain(..));
        Drained { taken, lost: std::mem::take(&mut pending.lost) }
    }

    /// Blocks the thread until there is something to drain; `false` once the stream was closed and is empty.
    #[cfg(not(loom))]
    pub fn wait(&self) -> bool {
        let mut pending = self.queue.pending.lock();
        while pending.queue.is_empty() && !pending.lost {
            if pending.closed {
                return false;
            }
            self.queue.arrived.wait(&mut pending);
        }
        true
    }

    /// A handle that ends [`Changes::wait`] from another thread.
    pub fn closer(&self) -> Closer {
        Closer { queue: Arc::clone(&self.queue) }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.closer().close();
        self.queue.pending.lock().queue = VecDeque::new();
    }
}

/// Ends the stream of changes.
#[derive(Clone)]
pub struct Closer {
    queue: Arc<ChangeQueue>,
}

impl Closer {
    /// Lets nothing more into the stream and wakes its consumer, who still gets what is in it.
    pub fn close(&self) {
        self.queue.pending.lock().closed = true;
        self.queue.arrived.notify_all();
    }
}
