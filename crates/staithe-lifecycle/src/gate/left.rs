//! Waiting until a closed gate is empty.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Gate;
use crate::sync::{AtomicUsize, Mutex, Ordering};
use crate::wait::{Waiting, block_on};

/// Counts the cells that are not settled, and knows who waits for the last.
#[derive(Debug)]
pub(super) struct Bell {
    unsettled: AtomicUsize,
    waiting: Mutex<Waiting>,
}

impl Bell {
    pub(super) fn new(cells: usize) -> Self {
        Self { unsettled: AtomicUsize::new(cells), waiting: Mutex::new(Waiting::default()) }
    }

    /// One cell is closed and empty.
    #[cold]
    pub(super) fn settle(&self) {
        if self.unsettled.fetch_sub(1, Ordering::AcqRel) == 1 {
            let woken = self.waiting.lock().take();
            woken.wake();
        }
    }

    fn is_left(&self) -> bool {
        self.unsettled.load(Ordering::Acquire) == 0
    }
}

/// Resolves when the gate is closed and the last has left; see [`Gate::left`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Left {
    bell: Arc<Bell>,
    place: Option<u64>,
}

impl Future for Left {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.bell.is_left() {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        let _replaced = {
            let mut waiting = this.bell.waiting.lock();
            // Whoever settles the last cell takes the lock after that: it finds this waker, or this look finds it settled.
            if this.bell.is_left() {
                return Poll::Ready(());
            }
            waiting.enter(&mut this.place, waker)
        };
        Poll::Pending
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if self.place.is_some() {
            let _waker = self.bell.waiting.lock().leave(&mut self.place);
        }
    }
}

/// Somebody was still inside when the time was over.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Inside {
    /// Who, by label; nobody, if the gate was not closed.
    pub who: Vec<(&'static str, u64)>,
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the gate is not left: ")?;
        if self.who.is_empty() {
            return f.write_str("it was not closed, or its last guard has just left");
        }
        for (n, (name, count)) in self.who.iter().enumerate() {
            write!(f, "{}{count} {name}", if n == 0 { "" } else { ", " })?;
        }
        f.write_str(" still inside")
    }
}

impl Gate {
    /// Waits until it is closed and the last has left. What was done inside happened before.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub fn left(&self) -> Left {
        Left { bell: Arc::clone(&self.bell), place: None }
    }

    /// Whether it is closed and the last has left.
    pub fn is_left(&self) -> bool {
        self.bell.is_left()
    }

    /// The same as [`Gate::left`] in this thread, no longer than this.
    ///
    /// # Errors
    /// [`Inside`]: the time is over.
    pub fn left_blocking(&self, most: Duration) -> Result<(), Inside> {
        block_on(self.left(), most).ok_or_else(|| Inside { who: self.inside() })
    }

    /// The same as [`Gate::left`], no longer than this. Within a tokio runtime that has timers.
    ///
    /// # Errors
    /// [`Inside`]: the time is over.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    #[cfg(feature = "tokio")]
    pub async fn left_within(&self, most: Duration) -> Result<(), Inside> {
        tokio::time::timeout(most, self.left()).await.map_err(|_| Inside { who: self.inside() })
    }
}
