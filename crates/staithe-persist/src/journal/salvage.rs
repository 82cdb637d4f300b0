//! What can be read of a journal that [`DiskJournal::open`] refuses, or that nothing may be written to.
//!
//! A frame says by its checksum where it belongs, so those behind a damaged place are found again. What stood in
//! between is not known: an intent whose completion was lost there is taken to stand.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;

use super::disk::{DiskJournal, failed};
use super::log::{self, COMPLETE, FRAME_HEAD, HEADER, Header, RECORD, Said};
use super::mark::Mark;
use super::{IntentId, JournalError, JournalErrorKind};

/// How much of a damaged log is looked through at once, in bytes.
const WINDOW: usize = 256 << 10;
/// What stands before the record in an entry: its kind, id and length, in bytes.
const RECORD_HEAD: usize = 13;
/// An entry that completes an intent, in bytes.
const COMPLETE_LEN: usize = 9;

/// What could be read of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Salvage {
    /// Every intent that was recorded and, as far as it can be read, not completed, in the order of their names.
    pub records: Vec<(IntentId, Bytes)>,
    /// What could not be read, each in a few words; empty if all of it could.
    pub damage: Vec<String>,
}

impl DiskJournal {
    /// Reads what can be read of the journal in `dir`, which no process may have open, and changes nothing. Of one that
    /// was never made, that is nothing. O(its length); of a damaged one more, by what lies between two whole batches.
    ///
    /// # Errors
    /// `InUse`; `NewerVersion`; `Io` if its directory cannot be read.
    pub fn salvage(dir: &Path) -> Result<Salvage, JournalError> {
        let unread = |error| failed("read", error);
        let lock = File::open(dir).map_err(unread)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let message = "the journal is in use by another process";
                return Err(JournalError::new(JournalErrorKind::InUse, message));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(unread(error)),
        }
        let (has_log, has_mark) = (is_there(dir, log::NAME)?, is_there(dir, super::mark::NAME)?);
        let mark = has_mark.then(|| Mark::look(dir)).transpose();
        let reached = mark.as_ref().ok().copied().flatten().unwrap_or_default();
        let mut salvage = Salvage::default();
        match (has_log, mark) {
            (false, Ok(None)) => return Ok(salvage),
            (false, Ok(Some(_))) if reached.log == 0 => return Ok(salvage),
            (false, _) => {
                salvage.damage.push(String::from("the log of the journal is missing"));
                return Ok(salvage);
            }
            (true, Ok(Some(_))) => {}
            (true, Ok(None)) => salvage.lacks("the mark of the journal is missing: its end may be, too"),
            (true, Err(_)) => salvage.lacks("the mark of the journal is damaged: its end may be missing"),
        }
        match File::open(dir.join(log::NAME)) {
            Ok(file) => Reading { file, number: reached.log, durable: 0 }.read(reached, salvage),
            Err(error) => Err(unread(error)),
        }
    }
}

impl Salvage {
    fn lacks(&mut self, what: impl Into<String>) {
        self.damage.push(what.into());
    }
}

fn is_there(dir: &Path, name: &str) -> Result<bool, JournalError> {
    dir.join(name).try_exists().map_err(|error| failed("look into", error))
}

/// A log that is gone through.
struct Reading {
    file: File,
    number: u64,
    /// What of it was made durable, in bytes.
    durable: u64,
}

impl Reading {
    fn read(mut self, reached: super::mark::Reached, mut salvage: Salvage) -> Result<Salvage, JournalError> {
        let len = self.file.metadata().map_err(|error| failed("examine", error))?.len();
        match self.header() {
            Ok(header) => {
                self.number = header.number;
                self.durable = header.born;
            }
            Err(error) if error.kind() == JournalErrorKind::NewerVersion => return Err(error),
            // The number that frames are checked with is that of the mark, or they are none.
            Err(error) => salvage.lacks(error.to_string()),
        }
        if reached.log > self.number {
            salvage.lacks("the log of the journal is an older one than its mark");
        } else if reached.log == self.number {
            self.durable = self.durable.max(reached.len);
        }
        let mut said = Said::nothing();
        while said.end < len {
            let taken = self.frame(said.end, len).map(|entries| said.take(&entries, frame_len(&entries)));
            if !matches!(taken, Some(Ok(()))) {
                let next = self.next_frame(said.end + 1, len);
                salvage.lacks(self.gap(said.end..next));
                said.end = next;
            }
        }
        if len < self.durable {
            let durable = self.durable;
            salvage.lacks(format!("the log of the journal ends at byte {len}, and had {durable}"));
        }
        for (id, place) in &said.live {
            let mut record = vec![0; place.len as usize];
            match self.file.read_exact_at(&mut record, place.at) {
                Ok(()) => salvage.records.push((*id, record.into())),
                Err(error) => salvage.lacks(format!("a record of the journal cannot be read: {error}")),
            }
        }
        Ok(salvage)
    }

    fn header(&self) -> Result<Header, JournalError> {
        let mut header = [0; HEADER as usize];
        match self.file.read_exact_at(&mut header, 0) {
            Ok(()) => Header::decode(&header),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(log::broken("the log of the journal is cut short"))
            }
            Err(error) => Err(failed("read the log of", error)),
        }
    }

    /// What is to be said of a stretch without frames.
    fn gap(&self, gap: Range<u64>) -> String {
        let Range { start, end } = gap;
        if start < self.durable {
            return format!("the log of the journal cannot be read from byte {start} to {end}");
        }
        format!("the end of the journal was not written whole: bytes {start} to {end} cannot be read")
    }

    /// The entries of the frame at a place, if one is there.
    fn frame(&self, at: u64, len: u64) -> Option<Vec<u8>> {
        let mut head = [0; FRAME_HEAD];
        self.file.read_exact_at(&mut head, at).ok()?;
        let [a, b, c, d, sum @ ..] = head;
        let size = u32::from_le_bytes([a, b, c, d]);
        let left = len.checked_sub(at + FRAME_HEAD as u64)?;
        if size == 0 || u64::from(size) > left {
            return None;
        }
        let mut entries = vec![0; size as usize];
        self.file.read_exact_at(&mut entries, at + FRAME_HEAD as u64).ok()?;
        let is_whole = u64::from_le_bytes(sum) == log::frame_sum(self.number, at, [a, b, c, d], &entries);
        is_whole.then_some(entries)
    }

    /// Where the first frame from `at` on is; `len`: nowhere.
    fn next_frame(&self, mut at: u64, len: u64) -> u64 {
        let mut window = vec![0; WINDOW];
        while at < len {
            let size = window.len().min((len - at) as usize);
            let window = &mut window[..size];
            // What the disk does not give is looked through by nobody.
            let is_read = self.file.read_exact_at(window, at).is_ok();
            let starts = if is_read { size.saturating_sub(FRAME_HEAD + RECORD_HEAD - 1) } else { 0 };
            for place in 0..starts {
                let from = at + place as u64;
                if may_be_frame(&window[place..], len - from) && self.frame(from, len).is_some() {
                    return from;
                }
            }
            if at + size as u64 >= len {
                // A frame that only completes is shorter than one that records.
                let tail = if is_read { at + starts as u64..len } else { len..len };
                return tail.into_iter().find(|from| self.frame(*from, len).is_some()).unwrap_or(len);
            }
            at += if is_read { starts as u64 } else { size as u64 };
        }
        len
    }
}

fn frame_len(entries: &[u8]) -> u64 {
    (FRAME_HEAD + entries.len()) as u64
}

/// Whether the beginning of a frame can be such a one, of which so much is left in the log.
fn may_be_frame(bytes: &[u8], left: u64) -> bool {
    let number =
        |at: usize| bytes[at..].first_chunk().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)));
    let size = number(0);
    let fits = FRAME_HEAD as u64 + size <= left;
    match bytes[FRAME_HEAD] {
        RECORD => fits && RECORD_HEAD as u64 + number(FRAME_HEAD + COMPLETE_LEN) <= size,
        COMPLETE => fits && COMPLETE_LEN as u64 <= size,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Durability, Entry, Journal as _};

    fn record(n: u64) -> Bytes {
        format!("record {n} {}", "x".repeat(n as usize % 50)).into()
    }

    /// A journal of frames, and where each of them ends.
    fn journal(dir: &Path) -> Vec<u64> {
        let journal = DiskJournal::open(dir).unwrap();
        let mut ends = Vec::new();
        for n in 0..40 {
            let id = journal.reserve();
            let mut batch = vec![Entry::Record(id, record(n))];
            if n % 4 == 3 {
                batch.push(Entry::Complete(IntentId(id.0 - 1)));
            }
            journal.write(&batch, Durability::Synced).unwrap();
            ends.push(dir.join("log").metadata().unwrap().len());
        }
        ends
    }

    fn change(dir: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(dir.join(name)).unwrap();
        change(&mut bytes);
        std::fs::write(dir.join(name), bytes).unwrap();
    }

    #[test]
    fn of_a_whole_journal_it_is_what_is_pending() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(DiskJournal::salvage(dir.path()).unwrap(), Salvage::default());
        journal(dir.path());
        let salvage = DiskJournal::salvage(dir.path()).unwrap();
        assert_eq!(salvage.damage, [""; 0]);
        let open = DiskJournal::open(dir.path()).unwrap();
        assert_eq!(salvage.records, open.pending().unwrap());
        assert_eq!(DiskJournal::salvage(dir.path()).unwrap_err().kind(), JournalErrorKind::InUse);
    }

    #[test]
    fn a_damaged_place_takes_one_batch_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let ends = journal(dir.path());
        let whole = DiskJournal::salvage(dir.path()).unwrap().records;
        let log = std::fs::read(dir.path().join("log")).unwrap();
        for at in ends[7]..ends[8] {
            change(dir.path(), "log", |log| log[at as usize] ^= 0x41);
            let salvage = DiskJournal::salvage(dir.path()).unwrap();
            assert_eq!(salvage.damage.len(), 1, "{at}: {:?}", salvage.damage);
            assert!(salvage.damage[0].contains("cannot be read from byte"), "{:?}", salvage.damage);
            let left: Vec<_> = whole.iter().filter(|(id, _)| id.0 != 8).cloned().collect();
            assert_eq!(salvage.records, left, "{at}");
            std::fs::write(dir.path().join("log"), &log).unwrap();
        }
    }

    #[test]
    fn an_end_that_is_cut_or_torn_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let ends = journal(dir.path());
        let cut = ends[38];
        change(dir.path(), "log", |log| log.truncate(cut as usize));
        let salvage = DiskJournal::salvage(dir.path()).unwrap();
        assert!(salvage.damage[0].contains(&format!("ends at byte {cut}")), "{:?}", salvage.damage);
        assert!(salvage.records.iter().all(|(id, _)| id.0 < 39));
        let dir = tempfile::tempdir().unwrap();
        journal(dir.path());
        change(dir.path(), "log", |log| log.extend([7; 30]));
        let salvage = DiskJournal::salvage(dir.path()).unwrap();
        assert!(salvage.damage[0].contains("not written whole"), "{:?}", salvage.damage);
    }

    #[test]
    fn the_beginning_the_mark_or_all_of_it_may_be_gone() {
        let dir = tempfile::tempdir().unwrap();
        journal(dir.path());
        let whole = DiskJournal::salvage(dir.path()).unwrap().records;
        change(dir.path(), "log", |log| log[20] ^= 1);
        let salvage = DiskJournal::salvage(dir.path()).unwrap();
        assert_eq!((salvage.records, salvage.damage.len()), (whole.clone(), 1));
        change(dir.path(), "log", |log| log[20] ^= 1);
        std::fs::remove_file(dir.path().join("mark")).unwrap();
        let salvage = DiskJournal::salvage(dir.path()).unwrap();
        assert_eq!((salvage.records, salvage.damage.len()), (whole, 1));
        change(dir.path(), "log", |log| log[8] = 9);
        let newer = DiskJournal::salvage(dir.path()).unwrap_err();
        assert_eq!(newer.kind(), JournalErrorKind::NewerVersion);
        let dir = tempfile::tempdir().unwrap();
        journal(dir.path());
        std::fs::remove_file(dir.path().join("log")).unwrap();
        let salvage = DiskJournal::salvage(dir.path()).unwrap();
        assert_eq!(salvage.damage, ["the log of the journal is missing"]);
    }
}
