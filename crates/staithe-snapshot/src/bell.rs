//! Who waits for the next epoch.
//!
//! 1. A publisher swaps the pointer, then rings: whoever sees an epoch here finds it, or a newer one, in the cell.
//! 2. Epoch and waiters are under one lock: a wait sees the epoch or is among those who are woken for it.
//! 3. Wakers are called, and dropped, when the lock is not held.

use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::Epoch;
use crate::error::{Detail, Error};
use crate::sync::{Condvar, Mutex};

#[derive(Debug)]
struct Ring {
    epoch: Epoch,
    closed: bool,
    waiting: BTreeMap<u64, Waker>,
    next: u64,
}

#[derive(Debug)]
pub(crate) struct Bell {
    ring: Mutex<Ring>,
    most: usize,
}

impl Bell {
    pub(crate) fn new(epoch: Epoch, most: usize) -> Self {
        let ring = Ring { epoch, closed: false, waiting: BTreeMap::new(), next: 0 };
        Self { ring: Mutex::new(ring), most }
    }

    /// Tells of this epoch. Late news of an old one wakes nobody.
    pub(crate) fn ring(&self, epoch: Epoch) {
        let woken = {
            let mut ring = self.ring.lock();
            if epoch <= ring.epoch {
                return;
            }
            ring.epoch = epoch;
            mem::take(&mut ring.waiting)
        };
        woken.into_values().for_each(Waker::wake);
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        let woken = {
            let mut ring = self.ring.lock();
            ring.closed = true;
            mem::take(&mut ring.waiting)
        };
        woken.into_values().for_each(Waker::wake);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.ring.lock().waiting.len()
    }

    /// One look: the epoch if it is newer, else this waker is among those that are woken.
    fn poll(&self, since: Epoch, slot: &mut Option<u64>, waker: &Waker) -> Poll<Result<Epoch, Error>> {
        // A clone and a drop of a waker may run anything: neither happens under the lock.
        let waker = waker.clone();
        let _replaced;
        let mut ring = self.ring.lock();
        if ring.epoch > since || ring.closed {
            let answer = if ring.epoch > since { Ok(ring.epoch) } else { Err(Detail::Closed.into()) };
            _replaced = slot.take().and_then(|slot| ring.waiting.remove(&slot));
            drop(ring);
            return Poll::Ready(answer);
        }
        let known = slot.filter(|slot| ring.waiting.contains_key(slot));
        if known.is_none() && ring.waiting.len() >= self.most {
            drop(ring);
            return Poll::Ready(Err(Detail::Waiters { most: self.most }.into()));
        }
        let id = known.unwrap_or_else(|| {
            ring.next += 1;
            ring.next
        });
        *slot = Some(id);
        _replaced = ring.waiting.insert(id, waker);
        drop(ring);
        Poll::Pending
    }

    fn leave(&self, slot: u64) {
        let _waker = self.ring.lock().waiting.remove(&slot);
    }
}

/// Waits for a newer epoch; see [`crate::SnapshotCell::changed`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Changed {
    bell: Arc<Bell>,
    since: Epoch,
    slot: Option<u64>,
}

impl Changed {
    pub(crate) fn new(bell: Arc<Bell>, since: Epoch) -> Self {
        Self { bell, since, slot: None }
    }

    /// Waits as a thread does.
    ///
    /// # Errors
    /// As the future.
    pub fn wait(self) -> Result<Epoch, Error> {
        match self.block(None) {
            Some(answer) => answer,
            None => unreachable!("a wait without a limit ends with an answer"),
        }
    }

    /// The same, no longer than this; `None` if nothing has come.
    ///
    /// # Errors
    /// As the future.
    pub fn wait_timeout(self, most: Duration) -> Result<Option<Epoch>, Error> {
        self.block(Some(most)).transpose()
    }

    fn block(mut self, most: Option<Duration>) -> Option<Result<Epoch, Error>> {
        let parker = Arc::new(Parker::default());
        let waker = Waker::from(Arc::clone(&parker));
        loop {
            if let Poll::Ready(answer) = self.bell.poll(self.since, &mut self.slot, &waker) {
                return Some(answer);
            }
            // Woken once, there is an answer: the bell wakes for a newer epoch or for the end.
            if !parker.park(most) {
                return None;
            }
        }
    }
}

impl Future for Changed {
    type Output = Result<Epoch, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.bell.poll(this.since, &mut this.slot, context.waker())
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.bell.leave(slot);
        }
    }
}

/// A thread that waits, as a waker.
#[derive(Debug, Default)]
struct Parker {
    woken: Mutex<bool>,
    bell: Condvar,
}

impl Parker {
    /// Whether it was woken in time.
    fn park(&self, most: Option<Duration>) -> bool {
        let mut woken = self.woken.lock();
        match most {
            Some(most) => self.bell.wait_while_for(&mut woken, |woken| !*woken, most),
            None => self.bell.wait_while(&mut woken, |woken| !*woken),
        }
        std::mem::take(&mut *woken)
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        *self.woken.lock() = true;
        self.bell.notify_all();
    }
}
