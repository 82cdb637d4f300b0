//! The fetchers' side: a ticket for a range, and the wait for tickets.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::core::TicketId;
use crate::error::PushError;
use crate::planner::Planned;
use crate::queue::PartQueue;

/// Counts the resets of a queue, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// A ticket to fetch one range. The task that fetches owns it; its memory is reserved until then.
///
/// Dropping it unfinished returns what it did not deliver to be planned again. It does not keep the queue alive:
/// once every reader is gone, pushes say [`PushError::Ended`]. Methods take `&self`: hedged fetches of one range
/// share the ticket in an `Arc`, and the first bytes win.
#[derive(Debug)]
#[must_use = "dropping a fetch returns its range to be planned again"]
pub struct Fetch<V: Clone + Eq + Send + 'static, E: Clone + Send + 'static> {
    queue: Weak<PartQueue<V, E>>,
    id: TicketId,
    planned: Planned,
    generation: Generation,
}

impl<V: Clone + Eq + Send + 'static, E: Clone + Send + 'static> Fetch<V, E> {
    pub(crate) fn new(
        queue: Weak<PartQueue<V, E>>,
        id: TicketId,
        planned: Planned,
        generation: Generation,
    ) -> Self {
        Self { queue, id, planned, generation }
    }

    /// What to fetch: non-empty, in bytes from the start of the object.
    pub fn range(&self) -> Range<u64> {
        self.planned.range.clone()
    }

    /// How many bytes, at least 1.
    pub fn len(&self) -> u64 {
        self.planned.range.end - self.planned.range.start
    }

    /// Never: a range is not empty.
    pub fn is_empty(&self) -> bool {
        self.planned.range.is_empty()
    }

    /// Whether a read waits for it, and not only read-ahead.
    pub fn is_demanded(&self) -> bool {
        self.planned.demanded > 0
    }

    /// The queue's generation when this was handed out.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether anything that it may push is still wanted. Cheap: ask before a request is sent or retried.
    pub fn is_live(&self) -> bool {
        self.queue.upgrade().is_some_and(|queue| queue.is_live(self.id))
    }

    /// Delivers a piece of the body: `part` begins at `offset` bytes from the start of the object and is of
    /// `version`. It is readable when this returns. Pieces may come in any order, overlap or repeat; what is here
    /// already is kept, so that the first bytes win. An empty piece changes nothing. Never blocks.
    ///
    /// O(log parts + waiting reads), no copy.
    ///
    /// # Errors
    /// Every error means: stop, nothing more is wanted. [`PushError::VersionChanged`] has failed the queue at
    /// `offset`; [`PushError::OutOfRange`] has changed nothing.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a producer hands the buffer over; that it is shared is our affair"
    )]
    pub fn push(&self, offset: u64, version: &V, part: Bytes) -> Result<(), PushError> {
        let queue = self.queue.upgrade().ok_or(PushError::Ended)?;
        queue.push(self.id, offset, version, &part)
    }

    /// The body is complete. Answers how many bytes of the range it lacked: they will be planned again, so a
    /// source that is short by design must [`fail`](Self::fail) instead.
    #[allow(clippy::must_use_candidate)]
    pub fn done(self) -> u64 {
        self.finish()
    }

    /// The source failed for good, at the first byte that was not delivered: earlier bytes are still served.
    /// For a failure worth a retry, drop the fetch instead. Nothing happens if it is no longer live.
    pub fn fail(self, error: E) {
        if let Some(queue) = self.queue.upgrade() {
            queue.fail_ticket(self.id, error);
        }
    }

    fn finish(&self) -> u64 {
        self.queue.upgrade().map_or(0, |queue| queue.finish(self.id))
    }
}

impl<V: Clone + Eq + Send + 'static, E: Clone + Send + 'static> Drop for Fetch<V, E> {
    fn drop(&mut self) {
        // Harmless after `done` and `fail`: the ticket is gone by then.
        self.finish();
    }
}

/// Waits for something to fetch; see [`PartQueue::next_fetches`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct NextFetches<V, E> {
    queue: Arc<PartQueue<V, E>>,
}

impl<V, E> NextFetches<V, E> {
    pub(crate) fn new(queue: Arc<PartQueue<V, E>>) -> Self {
        Self { queue }
    }
}

impl<V: Clone + Eq + Send + 'static, E: Clone + Send + 'static> Future for NextFetches<V, E> {
    type Output = Option<Vec<Fetch<V, E>>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.queue.poll_fetches(context)
    }
}
