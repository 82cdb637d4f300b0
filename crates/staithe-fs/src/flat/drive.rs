//! Who drives a run: a task that asks for pages as long as somebody wants them.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::rebuild::Disorder;
use super::run::{RunId, Turn};
use crate::api::Ino;
use crate::filesystem::Filesystem;

/// How long a page is waited for, tries again included: a walker waits with it, and can ask for himself.
const PATIENCE: Duration = Duration::from_secs(5);

impl Filesystem {
    /// Sends a driver for a run; it ends with the run.
    pub(super) fn send_driver(&self, run: RunId, top: Ino) {
        let ends = Ends { fs: self.me.clone(), run };
        let task = drive(ends, self.flat.wake.clone(), top);
        let driver = AbortOnDropHandle::new(self.tasks.spawn_on(task, &self.runtime));
        self.runs(|runs| runs.driven(run, driver));
    }

    /// Does what a run for the walk below `top` needs now; for how long it needs nothing then, or `None` when it is
    /// over.
    async fn drive_on(&self, run: RunId, top: Ino) -> Option<Duration> {
        loop {
            let request = match self.runs(|runs| runs.turn(run, Instant::now())) {
                Turn::Ask(request) => request,
                Turn::Rest(time) => return Some(time),
                Turn::Over { was_worth_it } => {
                    if !was_worth_it {
                        self.flat.seen.lock().was_useless(top);
                    }
                    return None;
                }
            };
            let root = request.prefix.clone();
            let page = match tokio::time::timeout(PATIENCE, self.store.list(request)).await {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => {
                    // Who wants a directory asks for himself, and is told.
                    tracing::debug!(root, %error, "a flat listing failed");
                    self.flat.seen.lock().was_useless(top);
                    return None;
                }
                Err(_) => {
                    tracing::debug!(root, "a flat listing took too long");
                    self.flat.seen.lock().was_useless(top);
                    return None;
                }
            };
            if self.runs(|runs| runs.answered(run, &page)) == Err(Disorder) {
                tracing::warn!(
                    root,
                    "this store does not list keys in their order: directories are listed one by one"
                );
                self.flat.is_useless.store(true, std::sync::atomic::Ordering::Relaxed);
                return None;
            }
        }
    }
}

/// Ends a run with its driver, however that ends: nobody waits for a run that nobody drives.
struct Ends {
    fs: Weak<Filesystem>,
    run: RunId,
}

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(fs) = self.fs.upgrade() {
            fs.runs(|runs| runs.end(self.run));
        }
    }
}

async fn drive(ends: Ends, wake: Arc<Notify>, top: Ino) {
    loop {
        let woken = wake.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let Some(fs) = ends.fs.upgrade() else { return };
        let Some(rest) = fs.drive_on(ends.run, top).await else { return };
        drop(fs);
        // Without a wake-up, to see whether the run is over by now.
        let _ = tokio::time::timeout(rest, woken).await;
    }
}
