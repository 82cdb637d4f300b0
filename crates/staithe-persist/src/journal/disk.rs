//! A journal on the local disk, in an embedded database (fjall).
//!
//! The database drops a torn record at the end of its log, which nobody was told of, and refuses to open over a
//! record whose checksum is wrong. A log whose *framing* is damaged in the middle it takes for one that ends there:
//! whoever reads the pending intents should therefore keep what no intent names, never delete it.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::group::Group;
use super::{Durability, Entry, IntentId, Journal, JournalError, JournalErrorKind};

/// Blocks of the database that stay in memory, in bytes: intents are few, and read once a start.
const CACHE_BYTES: u64 = 1 << 20;

/// How much the database gathers in memory before it writes a table, in bytes.
const MEMTABLE_BYTES: u64 = 2 << 20;

/// The least that the database takes for its write-ahead logs together, in bytes.
const LOG_BYTES: u64 = 64 << 20;

/// Files that the database keeps open.
const OPEN_FILES: usize = 16;

/// A journal in a directory of its own. Dropping it syncs and closes it.
pub struct DiskJournal {
    database: Database,
    intents: Keyspace,
    next: AtomicU64,
    group: Group<Entry, JournalError>,
}

impl DiskJournal {
    /// Opens the journal in `dir`, which one process at a time may do; an empty directory becomes a new one.
    ///
    /// # Errors
    /// `InUse`, `NewerVersion`, `Broken`, `NoSpace`, `Io`. Nothing is deleted then.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        let open = || {
            let database = Database::builder(dir)
                .worker_threads(1)
                .cache_size(CACHE_BYTES)
                .max_cached_files(Some(OPEN_FILES))
                .max_journaling_size(LOG_BYTES)
                .open()?;
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
            let intents = database.keyspace("intents", options)?;
            let last = intents.last_key_value().map(fjall::Guard::key).transpose()?;
            Ok((database, intents, last))
        };
        let (database, intents, last) = open().map_err(|error| failed("open", error))?;
        let next = match last {
            Some(key) => id_of(&key)?.0.saturating_add(1),
            None => 0,
        };
        Ok(Self { database, intents, next: AtomicU64::new(next), group: Group::new() })
    }

    fn commit(
        &self,
        entries: impl IntoIterator<Item = Entry>,
        mode: PersistMode,
    ) -> Result<(), JournalError> {
        let mut batch = self.database.batch().durability(Some(mode));
        for entry in entries {
            match entry {
                Entry::Record(id, record) => batch.insert(&self.intents, id.0.to_be_bytes(), record.as_ref()),
                Entry::Complete(id) => batch.remove(&self.intents, id.0.to_be_bytes()),
            }
        }
        let written = if batch.is_empty() { self.database.persist(mode) } else { batch.commit() };
        written.map_err(|error| failed("write to", error))
    }
}

impl Journal for DiskJournal {
    fn reserve(&self) -> IntentId {
        IntentId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn write(&self, batch: &[Entry], durability: Durability) -> Result<(), JournalError> {
        match durability {
            Durability::Buffered => self.commit(batch.iter().cloned(), PersistMode::Buffer),
            Durability::Synced => {
                self.group.join(batch, |entries| self.commit(entries, PersistMode::SyncData))
            }
        }
    }

    fn pending(&self) -> Result<Vec<(IntentId, Bytes)>, JournalError> {
        let entry = |guard: fjall::Guard| {
            let (key, record) = guard.into_inner().map_err(|error| failed("read", error))?;
            Ok((id_of(&key)?, Bytes::copy_from_slice(&record)))
        };
        self.intents.iter().map(entry).collect()
    }
}

impl fmt::Debug for DiskJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskJournal").field("next", &self.next).finish_non_exhaustive()
    }
}

fn id_of(key: &[u8]) -> Result<IntentId, JournalError> {
    let bytes = key.try_into().map_err(|_| {
        let message = "the journal has a record without a number; it was left as it is";
        JournalError::new(JournalErrorKind::Broken, message)
    })?;
    Ok(IntentId(u64::from_be_bytes(bytes)))
}

fn failed(what: &str, error: fjall::Error) -> JournalError {
    let kind = match &error {
        fjall::Error::Locked => {
            let message = "the journal is in use by another process";
            return JournalError::new(JournalErrorKind::InUse, message).caused_by(error);
        }
        fjall::Error::InvalidVersion(_) => JournalErrorKind::NewerVersion,
        fjall::Error::Poisoned => JournalErrorKind::Io,
        other => io_kind(other).map_or(JournalErrorKind::Broken, JournalErrorKind::from),
    };
    JournalError::new(kind, format!("could not {what} the journal: {error}")).caused_by(error)
}

/// The error of the disk that this came from, if one did.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}
