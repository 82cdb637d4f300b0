//! Waiting for moves: as a stream, for a phase, for the verdict.
//!
//! None of them has a buffer of its own. Each remembers the last move that it has seen, and looks into the history for
//! what came after it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream::{FusedStream, Stream};

use super::board::Board;
use super::{Shared, Verdict};
use crate::moves::Record;
use crate::phase::Phase;

/// A place among those who are woken for each change.
struct Seat<V: Verdict> {
    shared: Arc<Shared<V>>,
    place: Option<u64>,
}

impl<V: Verdict> Seat<V> {
    /// Looks, and is woken for the next change if there was nothing to see.
    fn look<R>(&mut self, context: &Context<'_>, look: impl FnOnce(&Board<V>) -> Option<R>) -> Poll<R> {
        let waker = context.waker().clone();
        let _replaced;
        let mut board = self.shared.board.lock();
        if let Some(seen) = look(&board) {
            _replaced = board.waiting.leave(&mut self.place);
            drop(board);
            return Poll::Ready(seen);
        }
        _replaced = board.waiting.enter(&mut self.place, waker);
        drop(board);
        Poll::Pending
    }
}

impl<V: Verdict> Drop for Seat<V> {
    fn drop(&mut self) {
        if self.place.is_some() {
            let _waker = self.shared.board.lock().waiting.leave(&mut self.place);
        }
    }
}

/// The moves of a watcher, as they come; see [`Watcher::changes`](crate::Watcher::changes).
#[must_use = "a stream does nothing unless it is polled"]
pub struct Changes<V: Verdict> {
    seat: Seat<V>,
    seen: u64,
    over: bool,
}

impl<V: Verdict> Changes<V> {
    pub(super) fn new(shared: Arc<Shared<V>>) -> Self {
        let seen = shared.board.lock().last();
        Self { seat: Seat { shared, place: None }, seen, over: false }
    }
}

impl<V: Verdict> Stream for Changes<V> {
    type Item = Record<V>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Record<V>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        let seen = this.seen;
        // The outer `None` waits, the inner one says that nothing will come.
        let look = |board: &Board<V>| {
            let (mut records, missed) = board.since(seen);
            match records.next() {
                Some(record) => Some(Some(Record { missed, ..record.clone() })),
                None => (board.core.phase() == Phase::Exited).then_some(None),
            }
        };
        let next = std::task::ready!(this.seat.look(context, look));
        match &next {
            Some(record) => this.seen = record.moved.number,
            None => this.over = true,
        }
        Poll::Ready(next)
    }
}

impl<V: Verdict> FusedStream for Changes<V> {
    fn is_terminated(&self) -> bool {
        self.over
    }
}

/// Waits for a phase; see [`Watcher::wait_for`](crate::Watcher::wait_for).
#[must_use = "a future does nothing unless it is awaited"]
pub struct WaitFor<V: Verdict, F> {
    seat: Seat<V>,
    wanted: F,
    /// The last move that was looked at; `None` before the first look.
    seen: Option<u64>,
}

impl<V: Verdict, F> WaitFor<V, F> {
    pub(super) fn new(shared: Arc<Shared<V>>, wanted: F) -> Self {
        Self { seat: Seat { shared, place: None }, wanted, seen: None }
    }
}

impl<V: Verdict, F: FnMut(Phase) -> bool + Unpin> Future for WaitFor<V, F> {
    type Output = Phase;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Phase> {
        let this = self.get_mut();
        loop {
            let seen = this.seen;
            let look = |board: &Board<V>| match seen {
                None => Some((board.last(), board.core.phase())),
                Some(seen) => board.since(seen).0.next().map(|record| (record.moved.number, record.moved.to)),
            };
            // The caller's question is asked without the lock.
            let (number, phase) = std::task::ready!(this.seat.look(context, look));
            this.seen = Some(number);
            if (this.wanted)(phase) {
                return Poll::Ready(phase);
            }
        }
    }
}

/// Waits for the verdict; see [`Watcher::condemned`](crate::Watcher::condemned).
#[must_use = "a future does nothing unless it is awaited"]
pub struct Condemned<V: Verdict> {
    seat: Seat<V>,
}

impl<V: Verdict> Condemned<V> {
    pub(super) fn new(shared: Arc<Shared<V>>) -> Self {
        Self { seat: Seat { shared, place: None } }
    }
}

impl<V: Verdict> Future for Condemned<V> {
    type Output = Option<V>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<V>> {
        let look = |board: &Board<V>| match board.core.verdict() {
            Some(verdict) => Some(Some(verdict.clone())),
            None => (board.core.phase() == Phase::Exited).then_some(None),
        };
        self.get_mut().seat.look(context, look)
    }
}

impl<V: Verdict> fmt::Debug for Changes<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl<V: Verdict, F> fmt::Debug for WaitFor<V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitFor").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl<V: Verdict> fmt::Debug for Condemned<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condemned").finish_non_exhaustive()
    }
}
