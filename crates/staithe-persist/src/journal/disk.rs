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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u32) -> Bytes {
        Bytes::from(format!("an upload of key {n}"))
    }

    fn write(journal: &DiskJournal, n: u32, durability: Durability) -> IntentId {
        let id = journal.reserve();
        journal.write(&[Entry::Record(id, record(n))], durability).unwrap();
        id
    }

    #[test]
    fn what_was_recorded_and_not_completed_is_pending() {
        let dir = tempfile::tempdir().unwrap();
        let journal = DiskJournal::open(dir.path()).unwrap();
        let ids: Vec<IntentId> = (0..300).map(|n| write(&journal, n, Durability::Buffered)).collect();
        let completed: Vec<Entry> = ids[2..].iter().map(|id| Entry::Complete(*id)).collect();
        journal.write(&completed, Durability::Buffered).unwrap();
        journal.write(&[Entry::Record(ids[1], record(1000))], Durability::Synced).unwrap();
        let expected = vec![(ids[0], record(0)), (ids[1], record(1000))];
        assert_eq!(journal.pending().unwrap(), expected);
        drop(journal);

        let again = DiskJournal::open(dir.path()).unwrap();
        assert_eq!(again.pending().unwrap(), expected);
        assert!(write(&again, 7, Durability::Synced) > ids[1]);
        assert!(format!("{again:?}").starts_with("DiskJournal"));
    }

    #[test]
    fn what_was_recorded_survives_a_process_that_never_closed_it() {
        let dir = tempfile::tempdir().unwrap();
        let journal = DiskJournal::open(dir.path()).unwrap();
        let first = write(&journal, 1, Durability::Buffered);
        let second = write(&journal, 2, Durability::Buffered);
        journal.write(&[Entry::Complete(first)], Durability::Buffered).unwrap();

        let copy = tempfile::tempdir().unwrap();
        copy_tree(dir.path(), copy.path());
        let after = DiskJournal::open(copy.path()).unwrap();
        assert_eq!(after.pending().unwrap(), [(second, record(2))]);
    }

    fn copy_tree(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                std::fs::create_dir(&to).unwrap();
                copy_tree(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }

    #[test]
    fn a_record_without_a_number_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let journal = DiskJournal::open(dir.path()).unwrap();
        write(&journal, 1, Durability::Synced);
        journal.intents.insert("short", "").unwrap();
        for _ in 0..2 {
            assert_eq!(journal.pending().unwrap_err().kind(), JournalErrorKind::Broken);
        }
    }

    type Pending = Result<Vec<(IntentId, Bytes)>, JournalError>;

    /// Opens a copy of `dir` whose log was changed by `damage`; says what is pending then, and the log it leaves.
    fn after(dir: &Path, damage: impl FnOnce(&mut Vec<u8>)) -> (Pending, Vec<u8>) {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(dir, copy.path());
        let path = copy.path().join("0.jnl");
        let mut log = std::fs::read(&path).unwrap();
        log.truncate(log.iter().rposition(|b| *b != 0).unwrap() + 1);
        damage(&mut log);
        std::fs::write(&path, log).unwrap();
        let pending = DiskJournal::open(copy.path()).and_then(|journal| journal.pending());
        (pending, std::fs::read(&path).unwrap())
    }

    #[test]
    fn a_torn_log_loses_only_the_batch_that_was_not_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let journal = DiskJournal::open(dir.path()).unwrap();
        let first = write(&journal, 1, Durability::Synced);
        let batch = [2, 3].map(|n| Entry::Record(journal.reserve(), record(n)));
        journal.write(&batch, Durability::Synced).unwrap();
        for torn in [1, 8, 19, 40, 60] {
            let (pending, _) = after(dir.path(), |log| log.truncate(log.len() - torn));
            assert_eq!(pending.unwrap(), [(first, record(1))], "{torn} bytes short");
        }
    }

    #[test]
    fn a_broken_log_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let journal = DiskJournal::open(dir.path()).unwrap();
        write(&journal, 1, Durability::Synced);
        write(&journal, 2, Durability::Synced);
        let mut broken = Vec::new();
        let (pending, left) = after(dir.path(), |log| {
            let at = log.windows(6).position(|window| window == b"upload").unwrap();
            log[at] ^= 0x20;
            broken.clone_from(log);
        });
        assert_eq!(pending.unwrap_err().kind(), JournalErrorKind::Broken);
        assert_eq!(left, broken);
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let _first = DiskJournal::open(dir.path()).unwrap();
        assert_eq!(DiskJournal::open(dir.path()).unwrap_err().kind(), JournalErrorKind::InUse);
    }

    #[test]
    fn errors_are_told_apart() {
        let full = failed("write to", fjall::Error::Io(io::ErrorKind::StorageFull.into()));
        assert_eq!(full.kind(), JournalErrorKind::NoSpace);
        let quota = failed("write to", fjall::Error::Io(io::ErrorKind::QuotaExceeded.into()));
        assert_eq!(quota.kind(), JournalErrorKind::NoSpace);
        assert_eq!(failed("open", fjall::Error::InvalidVersion(None)).kind(), JournalErrorKind::NewerVersion);
        assert_eq!(failed("write to", fjall::Error::Poisoned).kind(), JournalErrorKind::Io);
        assert_eq!(failed("open", fjall::Error::InvalidTrailer).kind(), JournalErrorKind::Broken);
        assert!(full.to_string().starts_with("could not write to the journal") && full.source().is_some());
    }

    #[test]
    fn writers_that_meet_are_all_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let journal = DiskJournal::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let journal = &journal;
                scope.spawn(move || {
                    for n in 0..25 {
                        write(journal, thread * 100 + n, Durability::Synced);
                    }
                });
            }
        });
        journal.sync().unwrap();
        assert_eq!(journal.pending().unwrap().len(), 200);
    }
}
