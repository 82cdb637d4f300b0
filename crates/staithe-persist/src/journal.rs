//! The journal: intents that outlive the process, as a trait.
//!
//! An *intent* is a record of what is to be done, opaque here. Whoever makes a promise writes the intent first; whoever
//! has kept it completes it. After a crash, [`pending`](Journal::pending) says what was promised and not completed:
//! all of it is done again. What the records ask for must therefore be *idempotent*: a completion may be lost, and
//! then its intent comes back.
//!
//! Every call may block on the local disk, a synced one for as long as an fsync takes: in async code they belong on
//! `spawn_blocking`. Calls from several threads are fine, and concurrent synced writes share one fsync.

#[cfg(feature = "disk")]
mod disk;
mod error;
#[cfg(feature = "disk")]
mod group;
#[cfg(feature = "disk")]
mod log;
#[cfg(feature = "disk")]
mod mark;
mod memory;
#[cfg(feature = "disk")]
mod salvage;

use bytes::Bytes;

#[cfg(feature = "disk")]
pub use disk::DiskJournal;
pub use error::{JournalError, JournalErrorKind};
pub use memory::MemoryJournal;
#[cfg(feature = "disk")]
pub use salvage::Salvage;

/// The name of one intent; ascending in the order of reserving. A journal gives them out, once each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntentId(pub u64);

/// One change of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Records an intent, or what has become of it since it was recorded.
    Record(IntentId, Bytes),
    /// Forgets an intent that was carried out, or given up. Forgetting one that is not there changes nothing.
    Complete(IntentId),
}

/// What a write survives once it has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// The end of the process. A power failure may take it, but only together with everything written after it.
    Buffered,
    /// A power failure; and so does everything that was written before it.
    Synced,
}

/// Where intents are kept.
pub trait Journal: Send + Sync {
    /// A name for an intent that [`write`](Self::write) will record, or nobody. Never blocks.
    fn reserve(&self) -> IntentId;

    /// Writes these entries, all or none of them, in this order.
    ///
    /// # Errors
    /// [`JournalError`]; it is not certain then what was written. After an error of the disk a journal may take
    /// nothing more until it is opened again.
    fn write(&self, batch: &[Entry], durability: Durability) -> Result<(), JournalError>;

    /// Makes everything that was written survive a power failure.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn sync(&self) -> Result<(), JournalError> {
        self.write(&[], Durability::Synced)
    }

    /// Every intent that was recorded and not completed, in the order of their names. O(intents).
    ///
    /// # Errors
    /// `Io`, `Broken`. Everything stays as it is.
    fn pending(&self) -> Result<Vec<(IntentId, Bytes)>, JournalError>;
}
