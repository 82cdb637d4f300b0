//! What can go wrong: for the reader ([`ReadError`]) and for a fetcher ([`PushError`]).

/// Why a read has no bytes. Once the queue has failed, every later read gets the same value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError<V, E> {
    /// The source delivered another version of the object. Bytes of it were not, and will not be, returned.
    #[error(
        "the object changed at offset {offset} from {expected:?} to {found:?}: open it again to read the new version"
    )]
    VersionChanged {
        /// The version that the queue was made for.
        expected: V,
        /// The version that a fetcher met.
        found: V,
        /// Where it was met, in bytes from the start of the object.
        offset: u64,
    },
    /// The source failed for good; what it said is inside.
    #[error("the source of the object's bytes failed: open it again to retry")]
    Source(#[source] E),
    /// The queue was closed.
    #[error("the part queue was closed: open the object again to read it")]
    Ended,
}

/// The coarse kind of a [`ReadError`], to choose a reaction by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The object is no longer what was opened (a filesystem says ESTALE).
    VersionChanged,
    /// The source failed; its own error tells whether a new queue may help.
    Source,
    /// The reader itself closed the queue.
    Ended,
}

impl<V, E> ReadError<V, E> {
    /// The kind.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::VersionChanged { .. } => ErrorKind::VersionChanged,
            Self::Source(_) => ErrorKind::Source,
            Self::Ended => ErrorKind::Ended,
        }
    }
}

/// Why a pushed part was refused. Every variant means that the fetcher should stop: nothing that it may still
/// push is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The reader went elsewhere: a new generation began, or nobody wants this range any more.
    #[error("the reader went elsewhere: stop this fetch")]
    Superseded,
    /// The part is of another version than the queue's. The queue has taken note and fails there.
    #[error("the part is of another version: stop this fetch")]
    VersionChanged,
    /// The queue has failed at or before this part.
    #[error("the queue failed before this part: stop this fetch")]
    Failed,
    /// The queue was closed or dropped.
    #[error("the queue was closed: stop this fetch")]
    Ended,
    /// The part reaches outside of the fetch's range: the source ignored the range it was asked for.
    #[error("the part reaches outside of the range that was asked for: stop this fetch")]
    OutOfRange,
}
