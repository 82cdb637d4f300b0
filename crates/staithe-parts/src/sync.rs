//! The only door to locks: `parking_lot` in production, loom's model-checked ones under `cfg(loom)`.
//!
//! `Arc` and `Weak` stay the standard ones in both: loom's `Arc` has no `Weak`, and no ordering here rests on
//! a reference count.

#[cfg(not(loom))]
pub(crate) use parking_lot::Mutex;

#[cfg(loom)]
pub(crate) use modelled::Mutex;

#[cfg(loom)]
mod modelled {
    use loom::sync::{Mutex as Inner, MutexGuard};

    /// Loom's mutex with `parking_lot`'s signature. A poisoned lock is taken over: loom stops the model on a
    /// panic anyway.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(Inner<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Inner::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}
