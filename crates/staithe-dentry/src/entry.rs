//! What is cached, and what a lookup answers.

use crate::ttl::Ttl;

/// What a name stands for: the caller's inode number, attributes, version. The cache asks three things of it.
///
/// Values are cloned and compared under a lock: keep both cheap (a `Copy` struct, an `Arc`), and never call back
/// into the cache from them.
pub trait Value: Clone {
    /// The identity of the directory that this value names, `None` for anything else. It is the `parent` under
    /// which that directory's own names are cached, and what [`invalidate_tree`](crate::Dentries::invalidate_tree)
    /// follows downwards.
    fn directory(&self) -> Option<u64> {
        None
    }

    /// Whether somebody who was told `other` may go on believing it now that the store has said `self`.
    /// `false` publishes a [`Change`](crate::Change).
    fn same(&self, other: &Self) -> bool;

    /// Bytes that this value owns outside itself. Counted against [`Config::max_bytes`](crate::Config::max_bytes).
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// An answer about one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<V> {
    /// The name exists.
    Positive(V),
    /// There is no such name.
    Negative,
}

impl<V> From<Option<V>> for Entry<V> {
    fn from(value: Option<V>) -> Self {
        value.map_or(Entry::Negative, Entry::Positive)
    }
}

/// What the cache knows about a name. The time is what is left of the answer: a kernel may be told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup<V> {
    /// The name exists.
    Hit(V, Ttl),
    /// The name was asked for, or removed here, and does not exist.
    Negative(Ttl),
    /// The directory is complete and the name is not in it.
    AbsentByListing(Ttl),
    /// The name existed, but the answer's time is over: offer its version to the store and ask again.
    Expired(V),
    /// Nothing is known: ask the store.
    Miss,
}

impl<V> Lookup<V> {
    /// Whether this answers the question without the store.
    pub fn is_answer(&self) -> bool {
        matches!(self, Lookup::Hit(..) | Lookup::Negative(_) | Lookup::AbsentByListing(_))
    }

    /// The value of a name that exists and whose time is not over.
    pub fn hit(self) -> Option<V> {
        match self {
            Lookup::Hit(value, _) => Some(value),
            _ => None,
        }
    }
}

/// Why an answer of the store was not taken in. The answer itself may still be handed to whoever asked, once,
/// with a time to live of zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The name, or the directory as a whole, was changed here after the token was taken: take a new token and ask
    /// again.
    #[error(
        "the name or its directory was changed after the store was asked; take a new token and ask again"
    )]
    Stale,
    /// A later listing of the same directory has begun: this one no longer decides what is in it.
    #[error("a later listing of the same directory has begun; leave the directory to that one")]
    Superseded,
    /// A name that exists was not kept while the listing was under way, because it was evicted or its deadline had
    /// passed: the directory stays incomplete.
    #[error(
        "a name of the directory was not kept while it was listed; it stays incomplete until it is listed again"
    )]
    Evicted,
}
