//! What the queue needs of a runtime: tasks, a clock, an alarm.

use std::time::Instant;

use futures::future::BoxFuture;

/// Runs tasks and tells the time. Tokio's `Handle` is one (feature `tokio`); a simulation brings its own.
pub trait Runtime: Send + Sync + 'static {
    /// The time.
    fn now(&self) -> Instant;

    /// Runs a task to its end.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Is ready at `at`, or as soon after as can be.
    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()>;
}

#[cfg(feature = "tokio")]
impl Runtime for tokio::runtime::Handle {
    /// Tokio's clock, which stands still where tokio's time is paused.
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(Self::spawn(self, task));
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(async move { tokio::time::sleep_until(at.into()).await })
    }
}
