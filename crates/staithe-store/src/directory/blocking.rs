//! Work on threads that may block, and how it is told that nobody waits for it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{ErrorKind, Result, StoreError};

/// Tells work on another thread to stop.
#[derive(Debug)]
pub(super) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Fails if the caller is gone. Whoever asks this under the lock of what it is about to change keeps the
    /// promise of the port: what a dropped request does not do before the drop, it does not do after it.
    pub(super) fn check(&self, operation: &'static str) -> Result<()> {
        if self.0.load(Ordering::Acquire) {
            return Err(StoreError::new(ErrorKind::Unavailable, operation, "the request was given up"));
        }
        Ok(())
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs `work` where blocking is allowed.
///
/// # Cancel safety
/// Dropping the future makes `work` stop at its next check.
pub(super) async fn run<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce(&Cancel) -> Result<T> + Send + 'static,
) -> Result<T> {
    let flag = Arc::new(AtomicBool::new(false));
    let cancel = Cancel(flag.clone());
    let _given_up = SetOnDrop(flag);
    tokio::task::spawn_blocking(move || work(&cancel)).await.unwrap_or_else(|failed| {
        let text = "the thread that did the work failed";
        Err(StoreError::new(ErrorKind::Unavailable, operation, text).with_source(failed))
    })
}
