//! How much of a log was certainly made durable, in a small file beside it.
//!
//! It is written after the log was synced, and not synced itself: after a power failure it may say less than is true,
//! never more. So a log that ends before its mark was damaged, and one that ends behind it may only have lost what nobody
//! was promised.
//!
//! Two slots are written in turn, each with a checksum: if a write of one is cut short, the other one holds.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{JournalError, JournalErrorKind};

/// Its name in the directory of the journal.
pub(super) const NAME: &str = "mark";

/// A slot is a sector, which a disk writes whole or not at all.
const SLOT: usize = 512;
const LEN: usize = 2 * SLOT;
/// Number of the log, length, checksum.
const USED: usize = 24;

/// A place in the logs: the number of one, and a length of it in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reached {
    pub(super) log: u64,
    pub(super) len: u64,
}

#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    reached: Reached,
    /// The slot with the older word.
    older: usize,
}

impl Mark {
    /// A new one, durable, which has reached nothing.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        let slot = encode(Reached::default());
        let bytes = [slot, slot].concat();
        let file = super::disk::write_whole(dir, NAME, |file| file.write_all_at(&bytes, 0))?;
        super::disk::sync_dir(dir)?;
        Ok(Self { file, reached: Reached::default(), older: 0 })
    }

    /// The one that is there. Changes nothing.
    pub(super) fn read(dir: &Path) -> Result<Self, JournalError> {
        let file = open(dir).map_err(|error| super::disk::failed("read the mark of", error))?;
        let (reached, older) = read(&file)?;
        Ok(Self { file, reached, older })
    }

    /// What the one that is there has reached, for who may only read. Changes nothing.
    pub(super) fn look(dir: &Path) -> Result<Reached, JournalError> {
        let file = File::open(dir.join(NAME));
        let file = file.map_err(|error| super::disk::failed("read the mark of", error))?;
        read(&file).map(|(reached, _)| reached)
    }

    pub(super) fn reached(&self) -> Reached {
        self.reached
    }

    /// Notes that all up to there is durable; what was reached before stays reached.
    pub(super) fn advance(&mut self, to: Reached) -> io::Result<()> {
        if to <= self.reached {
            return Ok(());
        }
        self.file.write_all_at(&encode(to), (self.older * SLOT) as u64)?;
        (self.reached, self.older) = (to, 1 - self.older);
        Ok(())
    }

    /// Makes durable what was reached.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// What a mark has reached, and which slot has the older word.
fn read(file: &File) -> Result<(Reached, usize), JournalError> {
    let read = || {
        // One byte more than it has: a longer one is not ours.
        let mut bytes = vec![0; LEN + 1];
        let mut len = 0;
        while let n @ 1.. = file.read_at(&mut bytes[len..], len as u64)? {
            len += n;
        }
        bytes.truncate(len);
        Ok(bytes)
    };
    let bytes = read().map_err(|error| super::disk::failed("read the mark of", error))?;
    let slots = (bytes.len() == LEN).then(|| [decode(&bytes[..SLOT]), decode(&bytes[SLOT..])]);
    match slots {
        Some([Some(first), Some(second)]) if first > second => Ok((first, 1)),
        Some([_, Some(second)]) => Ok((second, 0)),
        Some([Some(first), None]) => Ok((first, 1)),
        _ => Err(JournalError::new(JournalErrorKind::Broken, "the mark of the journal is damaged")),
    }
}

fn open(dir: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(dir.join(NAME))
}

fn encode(reached: Reached) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(&reached.log.to_le_bytes());
    slot[8..16].copy_from_slice(&reached.len.to_le_bytes());
    let sum = super::log::checksum(&[b"mark", &slot[..16]]);
    slot[16..USED].copy_from_slice(&sum.to_le_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<Reached> {
    let number = |at: usize| Some(u64::from_le_bytes(slot.get(at..at + 8)?.try_into().ok()?));
    let reached = Reached { log: number(0)?, len: number(8)? };
    (encode(reached) == *slot).then_some(reached)
}
