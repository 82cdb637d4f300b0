use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Key;

/// What a store operation returns.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The coarse class of a [`StoreError`]; what callers decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No such object, version or upload.
    NotFound,
    /// The bucket (or the root directory) itself is not there.
    VolumeGone,
    /// The object is not the version that the request named (HTTP 412 on a match condition).
    VersionMismatch,
    /// The request asked for a new object and one exists (HTTP 412 on If-None-Match).
    AlreadyExists,
    /// The credentials are good, the operation is not allowed.
    Forbidden,
    /// The credentials were good once; a refresh may help.
    CredentialsExpired,
    /// The store does not know these credentials, or there are none.
    CredentialsRefused,
    /// The store asks for less; see [`StoreError::retry_after`].
    Throttled,
    /// Out of reach or failing: connection refused or reset, DNS, HTTP 5xx.
    Unavailable,
    /// No answer, or no progress, in the time allowed.
    Timeout,
    /// The answer is provably wrong: length or checksum mismatch, an unreadable document.
    Corrupt,
    /// The volume has no room left, or a quota is reached; a retry helps only after somebody made room.
    OutOfSpace,
    /// This store cannot do that.
    Unsupported,
    /// The request makes no sense to the store: a bad key, range, part order or size.
    Invalid,
}

impl ErrorKind {
    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable | Self::Timeout | Self::Corrupt)
    }
}

/// An error from an object store: its kind, what was attempted on which key, and the chain of causes.
///
/// Cloning is a reference count, so that one failure can be handed to every waiting reader.
#[derive(Clone)]
pub struct StoreError(Arc<Detail>);

#[derive(Clone)]
struct Detail {
    kind: ErrorKind,
    operation: &'static str,
    key: Option<Key>,
    message: String,
    request_id: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl StoreError {
    /// An error of `kind`, met while doing `operation` (a verb of the port: `get`, `put`, ...).
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        let (key, request_id, retry_after, source) = (None, None, None, None);
        Self(Arc::new(Detail { kind, operation, key, message, request_id, retry_after, source }))
    }

    fn with(mut self, change: impl FnOnce(&mut Detail)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Names the object that the operation was about.
    #[must_use]
    pub fn with_key(self, key: &Key) -> Self {
        self.with(|d| d.key = Some(key.clone()))
    }

    /// Adds the store's own id for the request.
    #[must_use]
    pub fn with_request_id(self, id: impl Into<String>) -> Self {
        self.with(|d| d.request_id = Some(id.into()))
    }

    /// Adds how long the store asked to wait.
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        self.with(|d| d.retry_after = Some(wait))
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.with(|d| d.source = Some(Arc::new(source)))
    }

    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The verb of the port that failed.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The object that it was about, where there was one.
    pub fn key(&self) -> Option<&Key> {
        self.0.key.as_ref()
    }

    /// The store's id for the request, where it gave one.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// How long the store asked to wait before the next try, where it did.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the same request may succeed later; see [`ErrorKind::is_retryable`].
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = &*self.0;
        write!(f, "{}", d.operation)?;
        if let Some(key) = &d.key {
            write!(f, " {key:?}")?;
        }
        write!(f, ": {}", d.message)?;
        if let Some(id) = &d.request_id {
            write!(f, " (request {id})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreError")
            .field("kind", &self.0.kind)
            .field("text", &self.to_string())
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|s| s.as_ref() as &(dyn StdError + 'static))
    }
}
