//! The way of one commit to the store: a job's attempt has a door to pass first.

use parking_lot::Mutex;
use staithe_persist::{Attempt, Committing};

use crate::api::Ino;
use crate::error::{FsError, FsErrorKind, Result};

/// Who commits: somebody who waits for it (a close, the next start), or a job's attempt, which may be asked to stop until
/// it has passed.
#[derive(Debug, Default)]
pub(crate) struct Door<'a> {
    attempt: Option<&'a Attempt<Ino>>,
    committing: Mutex<Option<Committing<Ino>>>,
}

impl<'a> Door<'a> {
    /// Of nobody who could be asked to stop.
    pub(crate) fn open() -> Self {
        Self::default()
    }

    pub(crate) fn of(attempt: &'a Attempt<Ino>) -> Self {
        Self { attempt: Some(attempt), committing: Mutex::default() }
    }

    /// To be passed before what others can see. From then on whoever cancels the job waits for its end.
    ///
    /// # Errors
    /// `Stale`: the attempt is outdated; nobody looks at what it returns.
    pub(crate) async fn pass(&self) -> Result<()> {
        let Some(attempt) = self.attempt else { return Ok(()) };
        if self.committing.lock().is_some() {
            return Ok(());
        }
        let committing = attempt.begin_commit().await.map_err(|_| stopped())?;
        *self.committing.lock() = Some(committing);
        Ok(())
    }

    /// What was asked for after the door has certainly had no effect: back before it.
    pub(crate) fn go_back(&self) {
        if let Some(committing) = self.committing.lock().take() {
            committing.abandon();
        }
    }

    /// Does `work` unless asked to stop.
    ///
    /// # Errors
    /// As [`pass`](Self::pass), and those of `work`.
    pub(crate) async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(attempt) = self.attempt else { return work.await };
        tokio::select! {
            done = work => done,
            () = attempt.stopped() => Err(stopped()),
        }
    }

    /// Whether it was asked to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.attempt.is_some_and(Attempt::is_stopped)
    }

    /// Says how far it is, in bytes.
    pub(crate) fn progress(&self, done: u64, total: u64) {
        if let Some(attempt) = self.attempt {
            attempt.progress(done, total);
        }
    }
}

fn stopped() -> FsError {
    FsError::new(FsErrorKind::Stale, "this try to store the file is not wanted any more")
}
