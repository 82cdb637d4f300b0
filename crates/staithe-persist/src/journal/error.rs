//! Errors of a journal.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

/// What a caller may do about a [`JournalError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JournalErrorKind {
    /// The disk, or the quota, is full.
    NoSpace,
    /// Another process has the journal open.
    InUse,
    /// A newer version of the program wrote it.
    NewerVersion,
    /// It reads as nothing that this program wrote.
    Broken,
    /// The disk failed.
    Io,
}

/// Why a journal could not be opened, written or read. Cheap to clone: all that shared one fsync get the same.
#[derive(Debug, Clone)]
pub struct JournalError {
    kind: JournalErrorKind,
    message: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl JournalError {
    /// An error of a journal of one's own.
    pub fn new(kind: JournalErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same, with what it came from.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(cause));
        self
    }

    /// The kind.
    pub fn kind(&self) -> JournalErrorKind {
        self.kind
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for JournalError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<io::ErrorKind> for JournalErrorKind {
    fn from(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io,
        }
    }
}
