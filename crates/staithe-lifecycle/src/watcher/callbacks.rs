//! Callbacks for moves.
//!
//! 1. They run without the lock, so that they may call the watcher.
//! 2. One thread tells at a time, and goes on until nothing is left to tell: so they are called in the order of the moves,
//!    and a move that a callback makes is told after the one that it is about.
//! 3. They are dropped without the lock.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use super::{Shared, Verdict};
use crate::moves::Record;
use crate::sync::{AtomicBool, Ordering};
use crate::text::panicked;

type Call<V> = Box<dyn Fn(&Record<V>) + Send + Sync>;

pub(super) type Callbacks<V> = Vec<Arc<Callback<V>>>;

pub(super) struct Callback<V> {
    call: Call<V>,
    /// Whether it is still wanted.
    on: AtomicBool,
    /// It is told of what comes after this move.
    after: u64,
}

/// A callback for moves; dropped, it is off. See [`Watcher::on_change`](crate::Watcher::on_change).
#[must_use = "a callback is off when its subscription is dropped"]
pub struct Subscription(Option<Box<dyn Off>>);

/// Takes a callback off, whatever its watcher's type.
trait Off: Send + Sync {
    fn off(&self);
}

struct Entry<V: Verdict> {
    shared: Weak<Shared<V>>,
    callback: Weak<Callback<V>>,
}

impl Subscription {
    /// Leaves the callback on for as long as there is a watcher.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(entry) = self.0.take() {
            entry.off();
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

impl<V: Verdict> Off for Entry<V> {
    fn off(&self) {
        let Some(callback) = self.callback.upgrade() else { return };
        callback.on.store(false, Ordering::Release);
        if let Some(shared) = self.shared.upgrade() {
            shared.drop_callbacks_that_are_off();
        }
    }
}

impl<V: Verdict> Shared<V> {
    pub(super) fn subscribe(self: &Arc<Self>, call: Call<V>) -> Subscription {
        let callback = {
            let mut board = self.board.lock();
            let after = board.last();
            let callback = Arc::new(Callback { call, on: AtomicBool::new(true), after });
            board.callbacks.push(Arc::clone(&callback));
            callback
        };
        let entry = Entry { shared: Arc::downgrade(self), callback: Arc::downgrade(&callback) };
        Subscription(Some(Box::new(entry)))
    }

    fn drop_callbacks_that_are_off(&self) {
        let off: Vec<_> = {
            let callbacks = &mut self.board.lock().callbacks;
            callbacks.extract_if(.., |callback| !callback.on.load(Ordering::Acquire)).collect()
        };
        drop(off);
    }

    /// Tells the callbacks what there is to tell, unless another thread does.
    pub(super) fn tell(&self) {
        {
            let mut board = self.board.lock();
            if board.telling {
                return;
            }
            board.telling = true;
        }
        while let Some((record, callbacks)) = self.next_to_tell() {
            let mut panics = false;
            for callback in callbacks {
                panics |= !callback.tell(&record);
            }
            if panics {
                self.drop_callbacks_that_are_off();
            }
        }
    }

    /// The next move, and who is to be told of it. When there is none, this thread does not tell any more.
    fn next_to_tell(&self) -> Option<(Record<V>, Callbacks<V>)> {
        let mut board = self.board.lock();
        let (mut records, missed) = board.since(board.told);
        let record = records.next().cloned();
        drop(records);
        let Some(mut record) = record else {
            board.telling = false;
            return None;
        };
        record.missed = missed;
        board.told = record.moved.number;
        let callbacks = board.callbacks.clone();
        Some((record, callbacks))
    }
}

impl<V: Verdict> Callback<V> {
    /// Whether it ended without a panic.
    fn tell(&self, record: &Record<V>) -> bool {
        if !self.on.load(Ordering::Acquire) || record.moved.number <= self.after {
            return true;
        }
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.call)(record))) else { return true };
        tracing::error!(
            what = panicked(&*panic),
            moved = %record.moved,
            "a callback for moves panicked, and is not called again"
        );
        self.on.store(false, Ordering::Release);
        false
    }
}
