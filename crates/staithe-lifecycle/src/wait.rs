//! Who is to be woken, and a thread that waits as a task does.
//!
//! 1. A wait looks at what it waits for under the same lock that it is entered here under: a change is seen, or wakes it.
//! 2. Wakers are cloned, called and dropped when the lock is not held: they may run anything.

use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex};

/// Who waits, in the order of coming.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    wakers: BTreeMap<u64, Waker>,
    next: u64,
}

impl Waiting {
    /// Enters this waker, in the place that it had; gives back the one that was there, to be dropped without the lock.
    #[must_use]
    pub(crate) fn enter(&mut self, place: &mut Option<u64>, waker: Waker) -> Option<Waker> {
        let id = *place.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.wakers.insert(id, waker)
    }

    /// Nobody waits there any more.
    #[must_use]
    pub(crate) fn leave(&mut self, place: &mut Option<u64>) -> Option<Waker> {
        place.take().and_then(|id| self.wakers.remove(&id))
    }

    /// All of them, to be woken without the lock.
    #[must_use]
    pub(crate) fn take(&mut self) -> Woken {
        Woken(mem::take(&mut self.wakers))
    }
}

/// Wakers to be woken without the lock.
#[derive(Debug, Default)]
pub(crate) struct Woken(BTreeMap<u64, Waker>);

impl Woken {
    pub(crate) fn wake(self) {
        self.0.into_values().for_each(Waker::wake);
    }
}

/// Waits in this thread, no longer than this. `None` if the time is over.
#[allow(clippy::disallowed_methods)] // A thread's patience is of the thread's clock.
pub(crate) fn block_on<F: Future>(future: F, most: Duration) -> Option<F::Output> {
    let begun = Instant::now();
    let parker = Arc::new(Parker::default());
    let waker = Waker::from(Arc::clone(&parker));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        let left = most.saturating_sub(begun.elapsed());
        if !parker.park(left) {
            return None;
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
    fn park(&self, most: Duration) -> bool {
        let mut woken = self.woken.lock();
        self.bell.wait_while_for(&mut woken, |woken| !*woken, most);
        mem::take(&mut *woken)
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        *self.woken.lock() = true;
        self.bell.notify_all();
    }
}
