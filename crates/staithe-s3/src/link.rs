//! One bucket on the wire: the clients, and the loop that every request goes through.
//!
//! Invariants: (1) a try, but for the questions of who watches the bucket, holds one permit of the gate and never while it pauses; (2) a try has a time limit,
//! and tries are counted, so a call ends; (3) nothing is spawned: dropping a call drops its request.

use std::future::Future;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use staithe_store::Key;
use tokio::sync::Semaphore;

use crate::classify::{Condition, Meaning, Shape};
use crate::config::UploadChecksum;
use crate::failure::{Failure, Subject};
use crate::retry::{Backoff, Patience};

/// What the SDK answers.
pub(crate) type SdkResult<T, E> = Result<T, SdkError<E, HttpResponse>>;

/// A bucket, the ways to it, and the patience to have with it.
#[derive(Debug)]
pub(crate) struct Link {
    /// Keeps connections.
    pub(crate) client: Client,
    /// Opens one for each request.
    pub(crate) fresh: Client,
    /// The credentials that were found when it was opened; they may have been renewed since, where they came from.
    pub(crate) found: Option<Credentials>,
    /// The bucket's name.
    pub(crate) bucket: String,
    /// The bucket and whose it is: see [`volume::name`](crate::volume::name).
    pub(crate) volume: String,
    /// Pauses between tries.
    pub(crate) backoff: Backoff,
    /// Limits of one try.
    pub(crate) patience: Patience,
    /// One permit a request whose answer has not begun.
    pub(crate) gate: Semaphore,
    /// What goes with uploads.
    pub(crate) checksum: UploadChecksum,
    /// Whether the tag of what is put is its MD5, as far as it was seen.
    pub(crate) tags_are_md5: bool,
    /// Whether version ids are those of a bucket that keeps versions.
    pub(crate) versions: bool,
}

/// A call: what it is about, and how it is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    /// For the error.
    pub(crate) subject: Subject<'a>,
    /// Longest time of one try.
    pub(crate) limit: Duration,
    /// Whether a conflict with another conditional write is worth another try.
    pub(crate) retry_conflicts: bool,
    /// Whether a failure is worth another try.
    pub(crate) retry: bool,
    /// Whether it waits for its turn among all requests.
    pub(crate) queues: bool,
}

impl<'a> Call<'a> {
    /// An unconditional call; conflicts are tried again.
    pub(crate) fn new(operation: &'static str, key: Option<&'a Key>, limit: Duration) -> Self {
        let subject = Subject { operation, key, condition: Condition::Unconditional };
        Self { subject, limit, retry_conflicts: true, retry: true, queues: true }
    }

    /// The same under a condition.
    pub(crate) fn on(mut self, condition: Condition) -> Self {
        self.subject.condition = condition;
        self
    }

    /// The same, tried once and at once, whatever else waits for an answer: somebody else decides when to ask again.
    pub(crate) fn once(mut self) -> Self {
        (self.retry, self.queues) = (false, false);
        self
    }

    /// The same, not tried again after a conflict.
    pub(crate) fn conflicts_are_final(mut self) -> Self {
        self.retry_conflicts = false;
        self
    }
}

impl Link {
    /// Tries until it succeeds, fails for good, or the tries are used up.
    ///
    /// A try whose answer was lost may have taken effect: a conditional request that is tried again can then
    /// find its own result in the way, and fail on it.
    ///
    /// # Cancel safety
    /// Nothing goes on in this process once the future is dropped; the request may have taken effect.
    pub(crate) async fn call<T, E, F>(&self, call: Call<'_>, attempt: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = SdkResult<T, E>>,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let mut tried = 0;
        loop {
            tried += 1;
            let failure = match self.attempt(call, &attempt).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let conflict = failure.meaning == Meaning::ConditionConflict;
            // What was done is not done again because its answer reads badly.
            let done = failure.unread.is_some();
            if done || !call.retry || !failure.meaning.is_transient() || (conflict && !call.retry_conflicts) {
                return Err(failure);
            }
            let attempts = if conflict { self.backoff.attempts_in_conflict } else { self.backoff.attempts };
            let asked = failure.error.retry_after();
            let Some(pause) = self.backoff.pause((tried, attempts), fastrand::f64(), asked) else {
                return Err(failure);
            };
            tracing::debug!(tried, ?pause, error = %failure.error, "trying again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt<T, E, F>(&self, call: Call<'_>, attempt: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = SdkResult<T, E>>,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        // The gate is never closed: an error here would mean no limit, which is the safe side.
        let _permit = if call.queues { self.gate.acquire().await.ok() } else { None };
        match tokio::time::timeout(call.limit, attempt()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::from_sdk(call.subject, error)),
            Err(_) => {
                let message = format!("no answer in {:?}", call.limit);
                Err(Failure::local(call.subject, &Shape::Timeout, message))
            }
        }
    }
}
