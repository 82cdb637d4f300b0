//! Failures of jobs, refusals of the queue.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What kind of failure it was, which decides when, and whether, the job is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Worth another try: a lost connection, a server's error.
    Transient,
    /// The other side asks for fewer requests.
    Throttled,
    /// Trying again cannot help: the caller must know at once.
    Permanent,
}

/// Why an attempt, or a job for good, has failed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Failure {
    class: Class,
    retry_after: Option<Duration>,
    cause: Arc<dyn Error + Send + Sync>,
}

impl Failure {
    /// A failure of this class, with its cause: an error or a sentence.
    pub fn new(class: Class, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class, retry_after: None, cause: Arc::from(cause.into()) }
    }

    /// A failure worth another try.
    pub fn transient(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Class::Transient, cause)
    }

    /// The other side asks for fewer requests.
    pub fn throttled(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Class::Throttled, cause)
    }

    /// A failure for good.
    pub fn permanent(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Class::Permanent, cause)
    }

    /// The same failure; the next attempt begins no earlier than this from now.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Its class.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The least wait before the next attempt, as the other side asked for it.
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after
    }

    /// What it came from, to be downcast.
    pub fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.cause
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

/// The same failure, not one that reads alike.
impl PartialEq for Failure {
    fn eq(&self, other: &Self) -> bool {
        self.class == other.class
            && self.retry_after == other.retry_after
            && Arc::ptr_eq(&self.cause, &other.cause)
    }
}

impl Eq for Failure {}

/// The cause of a job that failed because of one that it needed.
#[derive(Debug, thiserror::Error)]
#[error("a job that it needs {what}: enqueue both again, or acknowledge this one")]
pub struct Needed {
    pub(crate) what: &'static str,
    #[source]
    pub(crate) failure: Option<Failure>,
}

/// Why an enqueue was refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// There is no room for another job or for its bytes.
    #[error("the queue is full: reserve room, or try again when jobs are done")]
    Full,
    /// The queue is draining.
    #[error("the queue is draining and takes no more jobs")]
    Closed,
    /// What it would wait for waits for it.
    #[error("the job would wait for a job that waits for it: enqueue it without that dependency")]
    Cycle,
}

/// The attempt may not commit, and nothing that it does is wanted: clean up and return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the attempt is outdated and may not commit: clean up and return")]
pub struct Outdated;
