//! The caller's side of a job: what it does, and the door that it has to pass before others see it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Poll, Waker};

use futures::future::BoxFuture;

use crate::core::Gate;
use crate::error::{Failure, Outdated};
use crate::job::{AttemptId, Generation, Key};
use crate::order::Priority;
use crate::shared::Shared;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};

/// Does what jobs are for.
///
/// An attempt prepares what it likes (parts of a multipart upload, a temporary object), asks
/// [`Attempt::begin_commit`], and only then does what others can see. The future is never dropped to cancel it: it is
/// asked to stop ([`Attempt::stopped`]) and waited for, so that it can remove what it made. A deadline is its own to keep.
///
/// `Ok` says that the generation is committed; without `begin_commit`, that there was nothing to do. A panic is a
/// permanent failure.
///
/// Every `Fn(Attempt<K>) -> impl Future` with the right output is a runner.
pub trait Runner<K: Key>: Send + Sync + 'static {
    /// Makes one attempt.
    fn run(&self, attempt: Attempt<K>) -> BoxFuture<'static, Result<(), Failure>>;
}

impl<K, F, R> Runner<K> for F
where
    K: Key,
    F: Fn(Attempt<K>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Failure>> + Send + 'static,
{
    fn run(&self, attempt: Attempt<K>) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(self(attempt))
    }
}

/// What the queue and an attempt share.
#[derive(Debug)]
pub(crate) struct Control {
    stop: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
    done: AtomicU64,
    total: AtomicU64,
}

impl Control {
    pub(crate) fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            wakers: Mutex::new(Vec::new()),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
        }
    }

    /// Asks to stop; the wakers are for when no lock is held.
    pub(crate) fn stop(&self) -> Vec<Waker> {
        self.stop.store(true, Ordering::SeqCst);
        self.proceed()
    }

    pub(crate) fn proceed(&self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers.lock())
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub(crate) fn wait(&self, waker: &Waker) {
        let mut wakers = self.wakers.lock();
        if !wakers.iter().any(|other| other.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    pub(crate) fn progress(&self) -> Option<(u64, u64)> {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        (total > 0).then_some((done, total))
    }
}

/// One run of a job, in the hands of its [`Runner`].
pub struct Attempt<K: Key> {
    pub(crate) shared: Arc<Shared<K>>,
    pub(crate) control: Arc<Control>,
    pub(crate) id: AttemptId,
    pub(crate) key: K,
    pub(crate) generation: Generation,
    pub(crate) priority: Priority,
}

impl<K: Key> Attempt<K> {
    /// Whose job it is.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// The generation that it is for.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Which run of the job it is, counted from 1.
    pub fn number(&self) -> u32 {
        self.id.number
    }

    /// Whether somebody waited for it when it started.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Whether it was asked to stop: it was cancelled or outdated, or the queue is at its end.
    pub fn is_stopped(&self) -> bool {
        self.control.is_stopped()
    }

    /// Waits until it is asked to stop.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn stopped(&self) {
        poll_fn(|context| {
            // Registered first: a stop between the two is seen by the second.
            self.control.wait(context.waker());
            if self.control.is_stopped() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Passes the only door to effects that others can see; waits while a hold is over the key. Whatever the effect
    /// depends on (where the bytes go) is resolved after this. From here on the attempt is not stopped, and whoever
    /// cancels it waits for its end.
    ///
    /// # Errors
    /// [`Outdated`]: the attempt is stale. Clean up and return; the result is not looked at.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready leaves the attempt before the door.
    pub async fn begin_commit(&self) -> Result<Committing<K>, Outdated> {
        poll_fn(|context| {
            let gate = self.shared.with(|board| {
                let gate = board.core.begin_commit(self.id);
                if gate == Gate::Held {
                    self.control.wait(context.waker());
                }
                gate
            });
            match gate {
                Gate::Open => {
                    let shared = Arc::clone(&self.shared);
                    Poll::Ready(Ok(Committing { shared, id: self.id, abandoned: false }))
                }
                Gate::Held => Poll::Pending,
                Gate::Outdated => Poll::Ready(Err(Outdated)),
            }
        })
        .await
    }

    /// Says how far it is, for listings, in bytes.
    pub fn progress(&self, done: u64, total: u64) {
        self.control.done.store(done, Ordering::Relaxed);
        self.control.total.store(total, Ordering::Relaxed);
    }
}

impl<K: Key> fmt::Debug for Attempt<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("id", &self.id)
            .field("key", &self.key)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// The attempt is committing. As long as this lives it is not over, even if its future has returned; dropping it
/// changes nothing else. What came of the commit is the result of the run.
#[must_use = "the commit happens while this lives"]
pub struct Committing<K: Key> {
    shared: Arc<Shared<K>>,
    id: AttemptId,
    abandoned: bool,
}

impl<K: Key> Committing<K> {
    /// The other side has refused the commit, and it is certain that it had no effect: the attempt is as before the
    /// door. It may try again, or clean up and return.
    pub fn abandon(mut self) {
        self.abandoned = true;
        self.shared.with(|board| board.core.abandon_commit(self.shared.now(), self.id));
    }
}

impl<K: Key> Drop for Committing<K> {
    fn drop(&mut self) {
        if !self.abandoned {
            self.shared.with(|board| board.core.commit_over(self.shared.now(), self.id));
        }
    }
}

impl<K: Key> fmt::Debug for Committing<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Committing").field(&self.id).finish()
    }
}
