//! The locks and the atomics of this crate, in one place so that the model checker can stand in for them. Reference
//! counts are std's in both builds.

#[cfg(loom)]
pub(crate) use checked::{Condvar, Mutex};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

#[cfg(not(loom))]
pub(crate) use parking_lot::Mutex;
#[cfg(not(loom))]
pub(crate) use real::Condvar;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

pub(crate) use shards::{index as shard, most as most_shards};

#[cfg(not(loom))]
mod shards {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    thread_local! {
        static INDEX: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// Threads take turns: one that lives beside few others shares its shard with none.
    static NEXT: AtomicUsize = AtomicUsize::new(0);

    /// A number of this thread, from 0 up. It stays the same.
    #[inline]
    pub(crate) fn index() -> usize {
        INDEX.with(|index| match index.get() {
            usize::MAX => first(index),
            known => known,
        })
    }

    #[cold]
    fn first(index: &Cell<usize>) -> usize {
        let new = NEXT.fetch_add(1, Ordering::Relaxed) % (usize::MAX / 2);
        index.set(new);
        new
    }

    /// How many shards are worth while: twice the processors, a power of two, 16 at most.
    pub(crate) fn most() -> usize {
        let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (processors * 2).next_power_of_two().min(16)
    }
}

#[cfg(loom)]
mod shards {
    //! Two shards, and threads numbered anew in each execution.
    use std::sync::atomic::{AtomicUsize, Ordering};

    loom::lazy_static! {
        static ref NEXT: AtomicUsize = AtomicUsize::new(0);
    }

    loom::thread_local! {
        static INDEX: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn index() -> usize {
        INDEX.with(|index| *index)
    }

    pub(crate) fn most() -> usize {
        2
    }
}

#[cfg(not(loom))]
mod real {
    use std::time::Duration;

    use parking_lot::MutexGuard;

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(parking_lot::Condvar);

    impl Condvar {
        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(crate) fn wait_while_for<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            wait: impl FnMut(&mut T) -> bool,
            most: Duration,
        ) {
            self.0.wait_while_for(guard, wait, most);
        }
    }
}

#[cfg(loom)]
mod checked {
    //! loom's lock in the shape of `parking_lot`'s. A poisoned lock is a failed model: it may panic.
    #![allow(clippy::expect_used)]

    use std::ops::{Deref, DerefMut};
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

        /// In a model no time is ever over: a wake-up that is lost is a deadlock, which loom reports.
        pub(crate) fn wait_while_for<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            mut wait: impl FnMut(&mut T) -> bool,
            _: Duration,
        ) {
            while wait(guard) {
                let held = guard.0.take().expect("not waiting");
                guard.0 = Some(self.0.wait(held).expect(POISONED));
            }
        }
    }
}
