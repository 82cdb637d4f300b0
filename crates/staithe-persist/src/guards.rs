//! What the queue hands out: tickets, permits, holds, and waits for answers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::action::{Answer, Outcome};
use crate::error::{Failure, Refused};
use crate::job::{BarrierId, HoldId, JobId, Key, ReserveId, TicketId};
use crate::promise::Reply;
use crate::shared::Shared;

/// Waits for a generation of a key: await it, or its [`outcome`](Self::outcome). Dropping it changes nothing of the
/// job.
#[must_use = "the job goes on without its ticket; drop it to say that nobody waits"]
pub struct Ticket<K: Key> {
    shared: Arc<Shared<K>>,
    job: JobId,
    id: TicketId,
    reply: Reply<Outcome>,
}

impl<K: Key> Ticket<K> {
    pub(crate) fn new(shared: Arc<Shared<K>>, job: JobId, id: TicketId, reply: Reply<Outcome>) -> Self {
        Self { shared, job, id, reply }
    }

    /// The job that it waits for.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Whether the outcome is there.
    pub fn is_over(&self) -> bool {
        self.reply.is_over()
    }

    /// What became of it.
    ///
    /// # Cancel safety
    /// Dropping the future drops the ticket; await `&mut ticket` to keep it.
    pub async fn outcome(self) -> Outcome {
        self.await
    }
}

impl<K: Key> Future for Ticket<K> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.reply).poll(context).map(|outcome| outcome.unwrap_or(Outcome::Abandoned))
    }
}

impl<K: Key> Drop for Ticket<K> {
    fn drop(&mut self) {
        if !self.reply.is_over() {
            let unmet = self.shared.with(|board| {
                board.core.forget(self.job, self.id);
                board.tickets.remove(&self.id)
            });
            drop(unmet);
        }
    }
}

/// Room for one job, to be used up by [`Queue::enqueue_with`](crate::Queue::enqueue_with). Dropping it returns the
/// room, and never blocks.
#[must_use = "dropping a permit returns its room"]
pub struct Permit<K: Key> {
    shared: Arc<Shared<K>>,
    id: ReserveId,
    bytes: u64,
    used_up: bool,
}

impl<K: Key> Permit<K> {
    pub(crate) fn new(shared: Arc<Shared<K>>, id: ReserveId, bytes: u64) -> Self {
        Self { shared, id, bytes, used_up: false }
    }

    /// What was reserved, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_of(&self, shared: &Arc<Shared<K>>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    pub(crate) fn used_up(mut self) {
        self.used_up = true;
    }
}

impl<K: Key> Drop for Permit<K> {
    fn drop(&mut self) {
        if !self.used_up {
            let unmet = self.shared.with(|board| {
                board.core.unreserve(self.id, self.bytes);
                board.grants.remove(&self.id)
            });
            drop(unmet);
        }
    }
}

/// Keeps keys from starting and committing while it lives: a rename in progress.
#[must_use = "dropping a hold ends it"]
pub struct Hold<K: Key> {
    shared: Arc<Shared<K>>,
    id: HoldId,
    quiet: Reply<()>,
}

impl<K: Key> Hold<K> {
    pub(crate) fn new(shared: Arc<Shared<K>>, id: HoldId, quiet: Reply<()>) -> Self {
        Self { shared, id, quiet }
    }

    /// Waits until nothing under this hold is committing; as long as it lives, nothing will be.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: ask again.
    pub async fn quiet(&mut self) {
        // A promise that was kept earlier reads as broken, and means the same.
        (&mut self.quiet).await;
    }
}

impl<K: Key> Drop for Hold<K> {
    fn drop(&mut self) {
        let unmet = self.shared.with(|board| {
            board.core.release(self.shared.now(), self.id);
            board.quiet.remove(&self.id)
        });
        drop(unmet);
    }
}

/// Waits for the answers to a cancel, which has happened already: one for each key that had a job, in no order, once
/// none of them can have any further effect.
#[must_use = "until it is ready, what was cancelled may still take effect"]
pub struct Cancelling<K: Key> {
    reply: Reply<Vec<(K, Answer)>>,
}

impl<K: Key> Cancelling<K> {
    pub(crate) fn new(reply: Reply<Vec<(K, Answer)>>) -> Self {
        Self { reply }
    }

    /// The answer of a cancel of one key; `None` if it had no job.
    ///
    /// # Cancel safety
    /// Dropping the future loses the answer; the cancel stays.
    pub async fn answer(self) -> Option<Answer> {
        self.await.pop().map(|(_, answer)| answer)
    }
}

impl<K: Key> Future for Cancelling<K> {
    type Output = Vec<(K, Answer)>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The promise is kept as long as any attempt lives: it holds the board.
        Pin::new(&mut self.reply).poll(context).map(Option::unwrap_or_default)
    }
}

/// Waits for everything that was enqueued before it. `Closed` if the queue is dropped first.
#[must_use = "futures do nothing unless polled"]
pub struct Barrier<K: Key> {
    shared: Arc<Shared<K>>,
    id: BarrierId,
    reply: Reply<Vec<(K, Failure)>>,
}

impl<K: Key> Barrier<K> {
    pub(crate) fn new(shared: Arc<Shared<K>>, id: BarrierId, reply: Reply<Vec<(K, Failure)>>) -> Self {
        Self { shared, id, reply }
    }
}

impl<K: Key> Future for Barrier<K> {
    type Output = Result<Vec<(K, Failure)>, Refused>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.reply).poll(context).map(|failures| failures.ok_or(Refused::Closed))
    }
}

impl<K: Key> Drop for Barrier<K> {
    fn drop(&mut self) {
        if !self.reply.is_over() {
            let unmet = self.shared.with(|board| {
                board.core.forget_barrier(self.id);
                board.barriers.remove(&self.id)
            });
            drop(unmet);
        }
    }
}

macro_rules! debug_by_id {
    ($($guard:ident . $id:ident),*) => {$(
        impl<K: Key> fmt::Debug for $guard<K> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($guard)).field(&self.$id).finish()
            }
        }
    )*};
}

debug_by_id!(Ticket.id, Permit.id, Hold.id, Barrier.id);

impl<K: Key> fmt::Debug for Cancelling<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancelling").field("over", &self.reply.is_over()).finish()
    }
}
