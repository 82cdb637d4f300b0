//! One answer, once, from one side to the other.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::Mutex;

#[derive(Debug)]
enum Slot<T> {
    Open(Option<Waker>),
    Kept(T),
    /// Taken, or broken: nothing will come.
    Over,
}

/// The side that answers. Dropping it unanswered breaks the promise.
#[derive(Debug)]
pub(crate) struct Promise<T>(Arc<Mutex<Slot<T>>>);

/// The side that waits: `None` if the promise was broken.
#[derive(Debug)]
pub(crate) struct Reply<T>(Arc<Mutex<Slot<T>>>);

pub(crate) fn promise<T>() -> (Promise<T>, Reply<T>) {
    let slot = Arc::new(Mutex::new(Slot::Open(None)));
    (Promise(Arc::clone(&slot)), Reply(slot))
}

impl<T> Promise<T> {
    /// Answers; whoever waited is to be woken when no lock is held.
    pub(crate) fn keep(self, value: T) -> Option<Waker> {
        self.close(Slot::Kept(value))
    }

    fn close(&self, last: Slot<T>) -> Option<Waker> {
        let mut slot = self.0.lock();
        match &mut *slot {
            Slot::Open(waker) => {
                let waker = waker.take();
                *slot = last;
                waker
            }
            Slot::Kept(_) | Slot::Over => None,
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        // After an answer this finds nothing open.
        if let Some(waker) = self.close(Slot::Over) {
            waker.wake();
        }
    }
}

impl<T> Reply<T> {
    /// Whether the answer, or the certainty that none comes, is there.
    pub(crate) fn is_over(&self) -> bool {
        !matches!(*self.0.lock(), Slot::Open(_))
    }
}

impl<T> Future for Reply<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = self.0.lock();
        match mem::replace(&mut *slot, Slot::Over) {
            Slot::Open(_) => {
                *slot = Slot::Open(Some(context.waker().clone()));
                Poll::Pending
            }
            Slot::Kept(value) => Poll::Ready(Some(value)),
            Slot::Over => Poll::Ready(None),
        }
    }
}
