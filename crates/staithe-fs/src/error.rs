use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use staithe_store::{ErrorKind, StoreError};

/// What a filesystem operation returns.
pub type Result<T, E = FsError> = std::result::Result<T, E>;

/// The situation that an operation met; an adapter turns it into its protocol's code (an errno for FUSE).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FsErrorKind {
    /// No such name, on lookup.
    NotFound,
    /// Addressed by inode, and its name is gone; a version that cannot be had any more; a lost commit.
    Stale,
    /// The name is taken.
    Exists,
    /// A directory was needed.
    NotDirectory,
    /// A directory was not expected.
    IsDirectory,
    /// The directory has entries.
    NotEmpty,
    /// The name, or the key it would make, is too long.
    NameTooLong,
    /// The name is not UTF-8, so no key can carry it.
    NameNotUtf8,
    /// The arguments make no sense.
    Invalid,
    /// The mount is read-only, or draining.
    ReadOnly,
    /// An object store cannot do that (hard links, devices).
    NotPermitted,
    /// Not supported here, and nothing was changed.
    Unsupported,
    /// The staging disk, or the volume, is full.
    NoSpace,
    /// Over the store's limit for an object.
    TooLarge,
    /// The store forbids it.
    Forbidden,
    /// The credentials have expired.
    CredentialsExpired,
    /// The credentials are refused.
    CredentialsRefused,
    /// The store was out of reach until the deadline.
    TimedOut,
    /// The store throttled until the deadline.
    Throttled,
    /// The volume is gone.
    VolumeGone,
    /// Wrong bytes, a broken local file, a caught panic.
    Io,
    /// No such extended attribute.
    NoAttribute,
    /// The extended attributes would not fit into the object's metadata.
    AttributeTooLarge,
    /// The handle is not open, or not open for that.
    BadHandle,
}

/// An error of a filesystem operation: the situation, what was attempted, and the chain of causes.
#[derive(Clone)]
pub struct FsError(Arc<Detail>);

struct Detail {
    kind: FsErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl FsError {
    /// An error of `kind`.
    pub fn new(kind: FsErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Detail { kind, message: message.into(), source: None }))
    }

    /// An error of `kind` with its cause.
    pub fn caused(
        kind: FsErrorKind,
        message: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Detail { kind, message: message.into(), source: Some(Box::new(source)) }))
    }

    /// An I/O error on a local file (staging, journal): full disks are told apart.
    pub fn local(what: &str, error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => FsErrorKind::NoSpace,
            std::io::ErrorKind::FileTooLarge => FsErrorKind::TooLarge,
            _ => FsErrorKind::Io,
        };
        Self::caused(kind, what.to_owned(), error)
    }

    /// The situation.
    pub fn kind(&self) -> FsErrorKind {
        self.0.kind
    }

    /// Whether this is an everyday answer (a missing name, a taken one) that no log needs.
    pub fn is_ordinary(&self) -> bool {
        use FsErrorKind as K;
        matches!(
            self.0.kind,
            K::NotFound
                | K::Exists
                | K::NotDirectory
                | K::IsDirectory
                | K::NotEmpty
                | K::NameTooLong
                | K::NameNotUtf8
                | K::Invalid
                | K::ReadOnly
                | K::NotPermitted
                | K::Unsupported
                | K::NoAttribute
                | K::BadHandle
        )
    }
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        use FsErrorKind as K;
        let kind = match error.kind() {
            ErrorKind::NotFound => K::NotFound,
            ErrorKind::VolumeGone => K::VolumeGone,
            ErrorKind::VersionMismatch => K::Stale,
            ErrorKind::AlreadyExists => K::Exists,
            ErrorKind::Forbidden => K::Forbidden,
            ErrorKind::CredentialsExpired => K::CredentialsExpired,
            ErrorKind::CredentialsRefused => K::CredentialsRefused,
            ErrorKind::Throttled => K::Throttled,
            ErrorKind::Unavailable | ErrorKind::Timeout => K::TimedOut,
            ErrorKind::Unsupported => K::Unsupported,
            ErrorKind::Invalid => K::Invalid,
            ErrorKind::OutOfSpace => K::NoSpace,
            _ => K::Io,
        };
        Self::caused(kind, "the store answered with an error", error)
    }
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FsError")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for FsError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|s| &**s as &(dyn StdError + 'static))
    }
}
