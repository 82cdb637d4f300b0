//! The journal: intents that survive the process, in the state directory.
//!
//! Every call blocks on the local disk, [`record`](Journal::record), [`update`](Journal::update) and
//! [`sync`](Journal::sync) for as long as an fsync takes, which those who wait at once share: in async code they belong on
//! `spawn_blocking`. Calls from several threads are fine.
//!
//! What lies below is [`DiskJournal`], which reads nothing of a log that lacks what was made durable. Of what was not, a
//! power failure may take the end: whoever reads the pending intents keeps staging files that no intent names.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use staithe_persist::{
    DiskJournal, Durability, Entry, Journal as _, JournalError, JournalErrorKind, Salvage,
};

pub(crate) use staithe_persist::IntentId;

use crate::failpoint::{Step, reach};
use crate::intent::Intent;
use crate::reserve::Reserve;
use crate::{FsError, FsErrorKind, Result};

/// What an intent is from now on; `None`: carried out.
pub(crate) type Word = (IntentId, Option<Intent>);

/// The open journal. Dropping it syncs and closes it.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: DiskJournal,
    reserve: Arc<Reserve>,
}

impl Journal {
    /// Opens the journal in `dir`, which one process at a time may do; an empty directory becomes a new one. It may take
    /// of `reserve` when nothing else of the disk is left.
    ///
    /// # Errors
    /// `NoSpace`, `Io`; `Invalid` for one of a newer version, or one in use. Nothing is changed then.
    pub(crate) fn open(dir: &Path, reserve: Arc<Reserve>) -> Result<Self> {
        let disk = DiskJournal::open(dir).map_err(failed)?;
        let torn = disk.torn_bytes();
        if torn > 0 {
            tracing::warn!(bytes = torn, "the end of the journal was not written whole, and is not read");
        }
        Ok(Self { disk, reserve })
    }

    /// A name for an intent that [`update`](Self::update) or [`write`](Self::write) will record, or nobody.
    pub(crate) fn reserve(&self) -> IntentId {
        self.disk.reserve()
    }

    /// Records intents, and forgets those without one, which were carried out: after a crash all of it holds, or nothing.
    /// It survives the end of the process at once, a power failure after [`sync`](Self::sync).
    ///
    /// # Errors
    /// `NoSpace`, `Io`; it is not certain then that it was recorded. After an error of the disk the journal takes
    /// nothing more until it is opened again.
    pub(crate) fn write(&self, words: &[Word]) -> Result<()> {
        self.write_as(words, Durability::Buffered)
    }

    fn write_as(&self, words: &[Word], durability: Durability) -> Result<()> {
        let entry = |(id, intent): &Word| {
            Ok(match intent {
                Some(intent) => Entry::Record(*id, Bytes::from(intent.encode()?)),
                None => Entry::Complete(*id),
            })
        };
        let entries: Vec<Entry> = words.iter().map(entry).collect::<Result<_>>()?;
        self.reserve.ease();
        reach(Step::BeforeJournalWrite);
        self.disk.write(&entries, durability).map_err(failed)?;
        reach(Step::AfterJournalWrite);
        Ok(())
    }

    /// Makes all that was written until now survive a power failure.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) fn sync(&self) -> Result<()> {
        reach(Step::BeforeJournalSync);
        self.disk.sync().map_err(failed)?;
        reach(Step::AfterJournalSync);
        Ok(())
    }

    /// Records an intent; once this returns, it survives a power failure.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) fn record(&self, intent: Intent) -> Result<IntentId> {
        let id = self.reserve();
        self.update(id, intent)?;
        Ok(id)
    }

    /// Records what has become of an intent, as durably as [`record`](Self::record).
    ///
    /// # Errors
    /// As [`record`](Self::record); the former state may be the one that stays.
    pub(crate) fn update(&self, id: IntentId, intent: Intent) -> Result<()> {
        self.write_as(&[(id, Some(intent))], Durability::Synced)
    }

    /// Forgets an intent that was carried out. This survives the end of the process at once, a power failure only
    /// after the next [`record`](Self::record): an intent may be carried out twice.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub(crate) fn complete(&self, id: IntentId) -> Result<()> {
        self.write(&[(id, None)])
    }

    /// Whether an intent was recorded and not completed. O(1), from memory.
    pub(crate) fn has(&self, id: IntentId) -> bool {
        self.disk.has(id)
    }

    /// Every intent that was recorded and not completed, oldest first. O(intents).
    ///
    /// # Errors
    /// `Io`; `Invalid` if a newer version wrote one of them. All of them stay recorded.
    pub(crate) fn pending(&self) -> Result<Vec<(IntentId, Intent)>> {
        let pending = self.disk.pending().map_err(failed)?;
        pending.into_iter().map(|(id, record)| Ok((id, Intent::decode(&record)?))).collect()
    }
}

/// What could be read of a journal.
#[derive(Debug)]
pub(crate) struct Salvaged {
    /// The intents that were recorded and not completed, oldest first.
    pub(crate) intents: Vec<(IntentId, Intent)>,
    /// What could not be read, each in a few words.
    pub(crate) damage: Vec<String>,
}

/// Reads what can be read of the journal in `dir`, and changes nothing there. O(its length).
///
/// # Errors
/// `Invalid` if another process has it open, or a newer version wrote any of it; `Io`.
pub(crate) fn salvage(dir: &Path) -> Result<Salvaged> {
    let Salvage { records, mut damage } = DiskJournal::salvage(dir).map_err(failed)?;
    let mut intents = Vec::with_capacity(records.len());
    for (id, record) in records {
        match Intent::decode(&record) {
            Ok(intent) => intents.push((id, intent)),
            Err(error) if error.kind() == FsErrorKind::Invalid => return Err(error),
            Err(error) => damage.push(error.to_string()),
        }
    }
    Ok(Salvaged { intents, damage })
}

fn failed(error: JournalError) -> FsError {
    let kind = match error.kind() {
        JournalErrorKind::NoSpace => FsErrorKind::NoSpace,
        JournalErrorKind::InUse | JournalErrorKind::NewerVersion => FsErrorKind::Invalid,
        _ => FsErrorKind::Io,
    };
    FsError::caused(kind, "the journal in the state directory", error)
}

#[cfg(test)]
mod tests {
    use staithe_store::{Key, UploadId};

    use super::*;

    fn open(dir: &Path) -> Result<Journal> {
        Journal::open(dir, Reserve::new(dir))
    }

    fn upload(n: u32) -> Intent {
        Intent::Upload { key: Key::new(format!("k{n}")).unwrap(), upload_id: UploadId::new("u") }
    }

    #[test]
    fn what_was_recorded_and_not_completed_is_pending() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path()).unwrap();
        let ids: Vec<IntentId> = (0..300).map(|n| journal.record(upload(n)).unwrap()).collect();
        for id in &ids[2..] {
            journal.complete(*id).unwrap();
        }
        journal.update(ids[1], upload(1000)).unwrap();
        let expected = vec![(ids[0], upload(0)), (ids[1], upload(1000))];
        assert_eq!(journal.pending().unwrap(), expected);
        drop(journal);

        let again = open(dir.path()).unwrap();
        assert_eq!(again.pending().unwrap(), expected);
        assert!(again.record(upload(7)).unwrap() > ids[1]);
        again.write(&[(ids[0], None), (ids[1], Some(upload(1)))]).unwrap();
        assert_eq!(again.pending().unwrap()[0], (ids[1], upload(1)));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path()).unwrap();
        let good = journal.record(upload(1)).unwrap();
        for (record, kind) in [(&b"\x01{"[..], FsErrorKind::Io), (b"\x02{}", FsErrorKind::Invalid)] {
            let id = journal.reserve();
            let entry = Entry::Record(id, Bytes::from_static(record));
            journal.disk.write(&[entry], Durability::Buffered).unwrap();
            assert_eq!(journal.pending().unwrap_err().kind(), kind);
            assert_eq!(journal.pending().unwrap_err().kind(), kind, "it is still there");
            journal.complete(id).unwrap();
        }
        assert_eq!(journal.pending().unwrap(), [(good, upload(1))]);
    }

    #[test]
    fn errors_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let _first = open(dir.path()).unwrap();
        assert_eq!(open(dir.path()).unwrap_err().kind(), FsErrorKind::Invalid);
        let kind = |kind| failed(JournalError::new(kind, "x")).kind();
        assert_eq!(kind(JournalErrorKind::NoSpace), FsErrorKind::NoSpace);
        assert_eq!(kind(JournalErrorKind::NewerVersion), FsErrorKind::Invalid);
        assert_eq!(kind(JournalErrorKind::Broken), FsErrorKind::Io);
    }
}
