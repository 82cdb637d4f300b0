//! The locks, the channel and the pointer of this crate, in one place so that the model checker can stand in for them.
//!
//! Of the pointer it checks less than the name suggests: arc-swap's own protocol of loads and stores cannot run under
//! loom, so a lock of loom's takes its place. What is explored are the orders in which this crate loads, swaps, locks
//! and wakes; that arc-swap's swap is one atomic step is taken from arc-swap. Reference counts are std's in both builds.

#[cfg(loom)]
pub(crate) use checked::{Condvar, Mutex, MutexGuard, Pointer, Receiver, Sender, spawn, unbounded};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

#[cfg(not(loom))]
pub(crate) use crossbeam::channel::{Receiver, Sender, unbounded};
#[cfg(not(loom))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use real::{Condvar, Pointer, spawn};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

#[cfg(not(loom))]
mod real {
    use std::sync::Arc;
    use std::time::Duration;
    use std::{io, thread};

    use arc_swap::ArcSwap;

    use super::MutexGuard;

    /// The cell's pointer to its current state.
    #[derive(Debug)]
    pub(crate) struct Pointer<T>(ArcSwap<T>);

    impl<T> Pointer<T> {
        pub(crate) fn new(first: Arc<T>) -> Self {
            Self(ArcSwap::new(first))
        }

        #[inline]
        pub(crate) fn load(&self) -> Arc<T> {
            self.0.load_full()
        }

        /// Looks at it without owning it, and for no longer than the call.
        #[inline]
        pub(crate) fn peek<R>(&self, look: impl FnOnce(&T) -> R) -> R {
            look(&self.0.load())
        }

        pub(crate) fn swap(&self, next: Arc<T>) -> Arc<T> {
            self.0.swap(next)
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(parking_lot::Condvar);

    impl Condvar {
        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(crate) fn wait_while<T>(&self, guard: &mut MutexGuard<'_, T>, wait: impl FnMut(&mut T) -> bool) {
            self.0.wait_while(guard, wait);
        }

        /// The same, no longer than this.
        pub(crate) fn wait_while_for<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            wait: impl FnMut(&mut T) -> bool,
            most: Duration,
        ) {
            self.0.wait_while_for(guard, wait, most);
        }
    }

    pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        thread::Builder::new().name(name.into()).spawn(run).map(drop)
    }
}

#[cfg(loom)]
mod checked {
    //! loom's primitives in the shape of the real ones. A poisoned lock is a failed model: it may panic.
    #![allow(clippy::expect_used)]

    use std::collections::VecDeque;
    use std::io;
    use std::ops::{Deref, DerefMut};
    use std::sync::Arc;
    use std::time::Duration;

    const POISONED: &str = "a thread of the model panicked while it held a lock";

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    /// `None` only inside of a wait.
    pub(crate) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().expect(POISONED)))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("not waiting")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("not waiting")
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(crate) fn wait_while<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            mut wait: impl FnMut(&mut T) -> bool,
        ) {
            while wait(guard) {
                let held = guard.0.take().expect("not waiting");
                guard.0 = Some(self.0.wait(held).expect(POISONED));
            }
        }

        /// In a model any time is over at once, when the others have had their turn.
        pub(crate) fn wait_while_for<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            mut wait: impl FnMut(&mut T) -> bool,
            _: Duration,
        ) {
            if wait(guard) {
                loom::thread::yield_now();
            }
        }
    }

    /// A lock in place of arc-swap.
    #[derive(Debug)]
    pub(crate) struct Pointer<T>(Mutex<Arc<T>>);

    impl<T> Pointer<T> {
        pub(crate) fn new(first: Arc<T>) -> Self {
            Self(Mutex::new(first))
        }

        pub(crate) fn load(&self) -> Arc<T> {
            Arc::clone(&self.0.lock())
        }

        pub(crate) fn peek<R>(&self, look: impl FnOnce(&T) -> R) -> R {
            let value = self.load();
            look(&value)
        }

        pub(crate) fn swap(&self, next: Arc<T>) -> Arc<T> {
            std::mem::replace(&mut self.0.lock(), next)
        }
    }

    /// A channel that knows how many senders there are.
    struct Channel<T> {
        line: Mutex<Line<T>>,
        bell: Condvar,
    }

    struct Line<T> {
        items: VecDeque<T>,
        senders: usize,
    }

    pub(crate) struct Sender<T>(Arc<Channel<T>>);
    pub(crate) struct Receiver<T>(Arc<Channel<T>>);

    pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
        let line = Mutex::new(Line { items: VecDeque::new(), senders: 1 });
        let channel = Arc::new(Channel { line, bell: Condvar::default() });
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    impl<T> Sender<T> {
        pub(crate) fn send(&self, value: T) -> Result<(), T> {
            self.0.line.lock().items.push_back(value);
            self.0.bell.notify_all();
            Ok(())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.line.lock().senders -= 1;
            self.0.bell.notify_all();
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn recv(&self) -> Result<T, ()> {
            let mut line = self.0.line.lock();
            self.0.bell.wait_while(&mut line, |line| line.items.is_empty() && line.senders > 0);
            line.items.pop_front().ok_or(())
        }

        pub(crate) fn try_recv(&self) -> Result<T, ()> {
            self.0.line.lock().items.pop_front().ok_or(())
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            Self(Arc::clone(&self.0))
        }
    }

    pub(crate) fn spawn(_: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        loom::thread::spawn(run);
        Ok(())
    }
}
