//! The journal: intents that survive the process, in an embedded database (fjall) in the state directory.
//!
//! Every call blocks on the local disk, [`record`](Journal::record) and [`update`](Journal::update) for as long as
//! an fsync takes: in async code they belong on `spawn_blocking`. Calls from several threads are fine.
//!
//! The database drops a torn record at the end of its log, which nobody was told of, and refuses to open over a
//! record whose checksum is wrong. A log whose *framing* is damaged in the middle it takes for one that ends there:
//! whoever reads the pending intents should therefore keep staging files that no intent names, never delete them.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::intent::Intent;
use crate::{FsError, FsErrorKind, Result};

/// Blocks of the database that stay in memory, in bytes: intents are few, and read once a start.
const CACHE_BYTES: u64 = 1 << 20;

/// How much the database gathers in memory before it writes a table, in bytes.
const MEMTABLE_BYTES: u64 = 2 << 20;

/// The least that the database takes for its write-ahead logs together, in bytes.
const LOG_BYTES: u64 = 64 << 20;

/// Files that the database keeps open.
const OPEN_FILES: usize = 16;

/// The name of one recorded intent; ascending in the order of recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct IntentId(u64);

/// What an intent is from now on; `None`: carried out.
pub(crate) type Word = (IntentId, Option<Intent>);

/// The open journal. Dropping it syncs and closes it.
pub(crate) struct Journal {
    database: Database,
    intents: Keyspace,
    next: AtomicU64,
}

impl Journal {
    /// Opens the journal in `dir`, which one process at a time may do; an empty directory becomes a new one.
    ///
    /// # Errors
    /// `NoSpace`, `Io`; `Invalid` for a database of a newer version, or one in use. Nothing is deleted then.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
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
        Ok(Self { database, intents, next: AtomicU64::new(next) })
    }

    /// A name for an intent that [`update`](Self::update) will record, or nobody.
    pub(crate) fn reserve(&self) -> IntentId {
        IntentId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Records intents, and forgets those without one, which were carried out: after a crash all of it holds, or nothing.
    /// It survives the end of the process at once, a power failure after [`sync`](Self::sync).
    ///
    /// # Errors
    /// `NoSpace`, `Io`; it is not certain then that it was recorded. After an error of the disk the journal takes
    /// nothing more until it is opened again.
    pub(crate) fn write(&self, words: &[Word]) -> Result<()> {
        let mut batch = self.database.batch();
        for (id, intent) in words {
            match intent {
                Some(intent) => batch.insert(&self.intents, id.0.to_be_bytes(), intent.encode()?),
                None => batch.remove(&self.intents, id.0.to_be_bytes()),
            }
        }
        batch.commit().map_err(|error| failed("write to", error))
    }

    /// Makes all that was written until now survive a power failure.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) fn sync(&self) -> Result<()> {
        self.database.persist(PersistMode::SyncData).map_err(|error| failed("write to", error))
    }

    /// Records an intent; once this returns, it survives a power failure.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) fn record(&self, intent: &Intent) -> Result<IntentId> {
        let id = self.reserve();
        self.update(id, intent)?;
        Ok(id)
    }

    /// Records what has become of an intent, as durably as [`record`](Self::record).
    ///
    /// # Errors
    /// As [`record`](Self::record); the former state may be the one that stays.
    pub(crate) fn update(&self, id: IntentId, intent: &Intent) -> Result<()> {
        let record = intent.encode()?;
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&self.intents, id.0.to_be_bytes(), record);
        batch.commit().map_err(|error| failed("write to", error))
    }

    /// Forgets an intent that was carried out. This survives the end of the process at once, a power failure only
    /// after the next [`record`](Self::record): an intent may be carried out twice.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub(crate) fn complete(&self, id: IntentId) -> Result<()> {
        self.intents.remove(id.0.to_be_bytes()).map_err(|error| failed("write to", error))
    }

    /// Every intent that was recorded and not completed, oldest first. O(intents).
    ///
    /// # Errors
    /// `Io`; `Invalid` if a newer version wrote one of them. All of them stay recorded.
    pub(crate) fn pending(&self) -> Result<Vec<(IntentId, Intent)>> {
        let entry = |guard: fjall::Guard| {
            let (key, record) = guard.into_inner().map_err(|error| failed("read", error))?;
            Ok((id_of(&key)?, Intent::decode(&record)?))
        };
        self.intents.iter().map(entry).collect()
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("next", &self.next).finish_non_exhaustive()
    }
}

fn id_of(key: &[u8]) -> Result<IntentId> {
    let bytes = key.try_into().map_err(|_| {
        FsError::new(FsErrorKind::Io, "the journal has a record without a number; it was left as it is")
    })?;
    Ok(IntentId(u64::from_be_bytes(bytes)))
}

fn failed(what: &str, error: fjall::Error) -> FsError {
    let sentence = format!("could not {what} the journal: {error}");
    match error {
        fjall::Error::Io(cause) => FsError::local(&sentence, cause),
        fjall::Error::Locked => {
            FsError::caused(FsErrorKind::Invalid, "the journal is in use by another process", error)
        }
        fjall::Error::InvalidVersion(_) => FsError::caused(FsErrorKind::Invalid, sentence, error),
        other => FsError::local(&sentence, io::Error::other(other)),
    }
}

#[cfg(test)]
mod tests {
    use staithe_store::{Key, UploadId};

    use super::*;

    fn upload(n: u32) -> Intent {
        Intent::Upload { key: Key::new(format!("k{n}")).unwrap(), upload_id: UploadId::new("u") }
    }

    #[test]
    fn what_was_recorded_and_not_completed_is_pending() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let ids: Vec<IntentId> = (0..300).map(|n| journal.record(&upload(n)).unwrap()).collect();
        for id in &ids[2..] {
            journal.complete(*id).unwrap();
        }
        journal.update(ids[1], &upload(1000)).unwrap();
        let expected = vec![(ids[0], upload(0)), (ids[1], upload(1000))];
        assert_eq!(journal.pending().unwrap(), expected);
        drop(journal);

        let again = Journal::open(dir.path()).unwrap();
        assert_eq!(again.pending().unwrap(), expected);
        assert!(again.record(&upload(7)).unwrap() > ids[1]);
        assert!(format!("{again:?}").starts_with("Journal"));
    }

    #[test]
    fn what_was_recorded_survives_a_process_that_never_closed_it() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let first = journal.record(&upload(1)).unwrap();
        let second = journal.record(&upload(2)).unwrap();
        journal.complete(first).unwrap();

        let copy = tempfile::tempdir().unwrap();
        copy_tree(dir.path(), copy.path());
        let after = Journal::open(copy.path()).unwrap();
        assert_eq!(after.pending().unwrap(), [(second, upload(2))]);
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
    fn a_record_that_cannot_be_read_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let good = journal.record(&upload(1)).unwrap();
        for (record, kind) in [(&b"\x01{"[..], FsErrorKind::Io), (b"\x02{}", FsErrorKind::Invalid)] {
            journal.intents.insert(9_u64.to_be_bytes(), record).unwrap();
            assert_eq!(journal.pending().unwrap_err().kind(), kind);
            assert_eq!(journal.pending().unwrap_err().kind(), kind, "it is still there");
        }
        journal.complete(IntentId(9)).unwrap();
        assert_eq!(journal.pending().unwrap(), [(good, upload(1))]);
        journal.intents.insert("short", "").unwrap();
        assert_eq!(journal.pending().unwrap_err().kind(), FsErrorKind::Io);
    }

    /// Opens a copy of `dir` whose log was changed by `damage`; says what is pending then, and the log it leaves.
    fn after(dir: &Path, damage: impl FnOnce(&mut Vec<u8>)) -> (Result<Vec<(IntentId, Intent)>>, Vec<u8>) {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(dir, copy.path());
        let path = copy.path().join("0.jnl");
        let mut log = std::fs::read(&path).unwrap();
        log.truncate(log.iter().rposition(|b| *b != 0).unwrap() + 1);
        damage(&mut log);
        std::fs::write(&path, log).unwrap();
        let pending = Journal::open(copy.path()).and_then(|journal| journal.pending());
        (pending, std::fs::read(&path).unwrap())
    }

    #[test]
    fn a_torn_log_loses_only_the_record_that_was_not_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let first = journal.record(&upload(1)).unwrap();
        journal.record(&upload(2)).unwrap();
        for torn in [1, 8, 19] {
            let (pending, _) = after(dir.path(), |log| log.truncate(log.len() - torn));
            assert_eq!(pending.unwrap(), [(first, upload(1))], "{torn} bytes short");
        }
    }

    #[test]
    fn a_broken_log_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        journal.record(&upload(1)).unwrap();
        journal.record(&upload(2)).unwrap();
        let mut broken = Vec::new();
        let (pending, left) = after(dir.path(), |log| {
            let at = log.windows(6).position(|window| window == b"upload").unwrap();
            log[at] ^= 0x20;
            broken.clone_from(log);
        });
        assert_eq!(pending.unwrap_err().kind(), FsErrorKind::Io);
        assert_eq!(left, broken);
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Journal::open(dir.path()).unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap_err().kind(), FsErrorKind::Invalid);
    }

    #[test]
    fn errors_of_the_disk_are_told_apart() {
        let full = failed("write to", fjall::Error::Io(io::ErrorKind::StorageFull.into()));
        assert_eq!(full.kind(), FsErrorKind::NoSpace);
        assert_eq!(failed("open", fjall::Error::InvalidVersion(None)).kind(), FsErrorKind::Invalid);
        assert_eq!(failed("write to", fjall::Error::Poisoned).kind(), FsErrorKind::Io);
    }
}
