//! The locks and atomics of this crate, in one place so that the model checker can stand in for them.
//!
//! With `--cfg loom` every type here is loom's; otherwise the locks are `parking_lot`'s, which do not poison:
//! every critical section of this crate leaves its state whole, also when a caller's `Clone` panics inside it.

#[cfg(not(loom))]
pub(crate) use parking_lot::{Condvar, Mutex, RwLock, RwLockWriteGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(loom)]
pub(crate) use checked::{Condvar, Mutex, RwLock};
#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc, RwLockWriteGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(loom)]
mod checked {
    //! loom's locks in the shape of `parking_lot`'s. A poisoned lock is a failed model: it may panic.
    #![allow(clippy::expect_used)]

    use loom::sync as inner;

    const POISONED: &str = "a thread of the model panicked while it held a lock";

    pub(crate) struct RwLock<T>(inner::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(inner::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> inner::RwLockReadGuard<'_, T> {
            self.0.read().expect(POISONED)
        }

        pub(crate) fn write(&self) -> inner::RwLockWriteGuard<'_, T> {
            self.0.write().expect(POISONED)
        }
    }

    pub(crate) struct Mutex<T>(inner::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(inner::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> inner::MutexGuard<'_, T> {
            self.0.lock().expect(POISONED)
        }
    }

    pub(crate) struct Condvar(inner::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(inner::Condvar::new())
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}
