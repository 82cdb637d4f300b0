//! A journal on the local disk: a log of batches, and a mark of how much of it is durable.
//!
//! ```text
//! log     what was recorded and completed, in order
//! mark    how much of it is certainly durable
//! *.new   one of them before it has its name
//! ```
//!
//! Invariants:
//! 1. What is read as the journal's content is a prefix of what was written, and has all that was made durable: of a log
//!    that lacks any of that nothing is read, and nothing is changed.
//! 2. A log and a mark get their names when they are whole and durable, the mark first. So neither is ever without the
//!    other, but for a mark that has reached nothing.
//! 3. What lies behind the last whole frame is cut off before anything is written there, and not before: an open
//!    journal that nobody writes to is as it was found.
//!
//! Lock order: the log, then the mark.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::group::Group;
use super::log::{self, HEADER, Header, Said, broken};
use super::mark::{self, Mark, Reached};
use super::{Durability, Entry, IntentId, Journal, JournalError, JournalErrorKind};

/// A log is not written anew below this, in bytes.
const SMALL: u64 = 1 << 20;

/// It is written anew when it is so many times as long as the records that stand: so each is copied once for three times
/// its length of new ones.
const SPARSE: u64 = 4;

/// Records are copied to a new log in batches of this, in bytes.
const COPY_BATCH: usize = 1 << 20;

/// A journal in a directory of its own. Dropping it syncs it.
pub struct DiskJournal {
    dir: PathBuf,
    log: Mutex<Log>,
    mark: Mutex<Mark>,
    next: AtomicU64,
    group: Group<Entry, JournalError>,
    /// The lock lives as long as this descriptor.
    _lock: File,
}

struct Log {
    file: Arc<File>,
    number: u64,
    said: Said,
    /// What lies behind the end, in bytes.
    torn: u64,
    /// Where what an earlier process wrote, and may not have made durable, begins. If its sync failed, the system takes
    /// those pages for clean, and no later sync writes them.
    unsure_from: u64,
    /// Something was written since it was opened.
    is_written: bool,
    /// After an error it is not certain what the file has.
    is_broken: bool,
    /// Not to be written anew before it is so long, in bytes.
    compact_at: u64,
}

/// What a directory has.
struct Found {
    log: bool,
    mark: bool,
    /// A file that is not a journal's.
    other: Option<String>,
}

impl DiskJournal {
    /// Opens the journal in `dir`, which one process at a time may do; an empty directory becomes a new one. O(its
    /// length): it is written anew when three quarters of it are of no more use, so that is a small multiple of what is
    /// pending.
    ///
    /// # Errors
    /// `InUse`, `NewerVersion`, `Broken`, `NoSpace`, `Io`. Nothing in it is changed then.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        let unopened = |error| failed("open", error);
        std::fs::create_dir_all(dir).map_err(unopened)?;
        let lock = File::open(dir).map_err(unopened)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let message = "the journal is in use by another process";
                return Err(JournalError::new(JournalErrorKind::InUse, message));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(unopened(error)),
        }
        let found = Found::read(dir).map_err(unopened)?;
        let (log, mark) = match (found.log, found.mark) {
            (true, true) => read(dir)?,
            (true, false) => return Err(broken("the mark of the journal is missing")),
            (false, true) => {
                let mark = Mark::read(dir)?;
                if mark.reached() != Reached::default() {
                    return Err(broken("the log of the journal is missing"));
                }
                create(dir, mark).map_err(unopened)?
            }
            (false, false) => {
                if let Some(other) = found.other {
                    let message = format!("{other} is there, and no journal of this program");
                    return Err(broken(message));
                }
                Mark::create(dir).and_then(|mark| create(dir, mark)).map_err(unopened)?
            }
        };
        let next = AtomicU64::new(log.said.next);
        let (log, mark) = (Mutex::new(log), Mutex::new(mark));
        Ok(Self { dir: dir.to_owned(), log, mark, next, group: Group::new(), _lock: lock })
    }

    /// What lies behind the last batch that is whole, in bytes: the one that a crash cut short, or, after a power failure,
    /// all that was written and never synced behind the first that the disk did not get. It is dropped by the next write.
    pub fn torn_bytes(&self) -> u64 {
        self.log.lock().torn
    }

    /// Whether an intent is recorded, and not completed. O(1).
    pub fn has(&self, id: IntentId) -> bool {
        self.log.lock().said.live.contains_key(&id)
    }

    /// Writes a batch; it survives the end of the process then.
    fn append(&self, entries: &[Entry]) -> Result<(), JournalError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut log = self.log.lock();
        log.append(entries)?;
        if log.said.end >= log.compact_at && log.is_sparse() {
            self.compact(&mut log);
        }
        Ok(())
    }

    /// Makes durable what was written.
    fn settle(&self) -> Result<(), JournalError> {
        let (file, reached) = {
            let mut log = self.log.lock();
            log.refuse_broken()?;
            log.renew().map_err(|error| failed("write to", error))?;
            (Arc::clone(&log.file), Reached { log: log.number, len: log.said.end })
        };
        // Others write meanwhile.
        let synced = file.sync_data().and_then(|()| self.mark.lock().advance(reached));
        synced.map_err(|error| {
            // What a failed sync has left undone, no later one makes good.
            self.log.lock().is_broken = true;
            failed("sync", error)
        })
    }

    /// Writes the log anew with the records that stand. If that fails, it goes on as it is, and is tried again when it is
    /// twice as long.
    fn compact(&self, log: &mut Log) {
        match log.copy(&self.dir) {
            Ok(new) => {
                let reached = Reached { log: new.number, len: new.said.end };
                *log = new;
                // The old one is gone, whether or not the disk knows that yet.
                let named = sync_dir(&self.dir).and_then(|()| self.mark.lock().advance(reached));
                log.is_broken = named.is_err();
            }
            Err(_) => log.compact_at = log.said.end * 2,
        }
    }
}

impl Log {
    fn new(file: File, number: u64, said: Said) -> Self {
        let compact_at = SMALL;
        let (file, unsure_from) = (Arc::new(file), said.end);
        Self { file, number, said, torn: 0, unsure_from, is_written: false, is_broken: false, compact_at }
    }

    /// Writes once more, as it is, what an earlier process may not have made durable.
    fn renew(&mut self) -> io::Result<()> {
        let mut piece = vec![0; COPY_BATCH.min((self.said.end - self.unsure_from) as usize)];
        while self.unsure_from < self.said.end {
            let len = piece.len().min((self.said.end - self.unsure_from) as usize);
            self.file.read_exact_at(&mut piece[..len], self.unsure_from)?;
            self.file.write_all_at(&piece[..len], self.unsure_from)?;
            self.unsure_from += len as u64;
        }
        Ok(())
    }

    fn refuse_broken(&self) -> Result<(), JournalError> {
        if self.is_broken {
            let message = "the journal takes nothing more after an error of its disk";
            return Err(JournalError::new(JournalErrorKind::Io, message));
        }
        Ok(())
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        self.refuse_broken()?;
        let unwritten = |error| failed("write to", error);
        let end = self.said.end;
        if self.torn > 0 {
            self.file.set_len(end).map_err(unwritten)?;
            self.torn = 0;
        }
        if !self.is_written {
            self.renew().map_err(unwritten)?;
        }
        let frame = log::frame(self.number, end, entries).map_err(unwritten)?;
        if let Err(error) = self.file.write_all_at(&frame, end) {
            // Half a frame is none; but nothing may follow it.
            self.is_broken = self.file.set_len(end).is_err();
            return Err(unwritten(error));
        }
        self.is_written = true;
        self.said.append(&frame)?;
        self.unsure_from = self.said.end;
        Ok(())
    }

    fn is_sparse(&self) -> bool {
        self.said.end / SPARSE > self.said.live_bytes
    }

    /// The next log, under its name.
    fn copy(&self, dir: &Path) -> io::Result<Self> {
        let number = self.number + 1;
        let mut said = Said::nothing();
        let file = write_whole(dir, log::NAME, |file| {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            let mut write = |batch: &mut Vec<Entry>| {
                let frame = log::frame(number, said.end, batch)?;
                file.write_all_at(&frame, said.end)?;
                batch.clear();
                said.append(&frame).map_err(io::Error::other)
            };
            for (id, place) in &self.said.live {
                let record = self.record(*place)?;
                bytes += record.len();
                batch.push(Entry::Record(*id, record));
                if bytes >= COPY_BATCH {
                    write(&mut batch)?;
                    bytes = 0;
                }
            }
            if !batch.is_empty() {
                write(&mut batch)?;
            }
            file.write_all_at(&Header { number, born: said.end }.encode(), 0)
        })?;
        // Of what is completed only the copy knows nothing: its ids are not given out again in this life.
        said.next = self.said.next;
        Ok(Self::new(file, number, said))
    }

    fn record(&self, place: log::Place) -> io::Result<Bytes> {
        let mut record = vec![0; place.len as usize];
        self.file.read_exact_at(&mut record, place.at)?;
        Ok(record.into())
    }
}

impl Journal for DiskJournal {
    fn reserve(&self) -> IntentId {
        IntentId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn write(&self, batch: &[Entry], durability: Durability) -> Result<(), JournalError> {
        match durability {
            Durability::Buffered => self.append(batch),
            Durability::Synced => {
                self.group.join(batch, |entries| self.append(&entries).and_then(|()| self.settle()))
            }
        }
    }

    fn pending(&self) -> Result<Vec<(IntentId, Bytes)>, JournalError> {
        let log = self.log.lock();
        let live = log.said.live.iter();
        let records = live.map(|(id, place)| Ok((*id, log.record(*place)?)));
        records.collect::<io::Result<_>>().map_err(|error| failed("read", error))
    }
}

impl Drop for DiskJournal {
    fn drop(&mut self) {
        if self.log.lock().is_written {
            // Nobody is left to be told; what was promised to be durable is.
            let _ = self.settle();
        }
    }
}

impl fmt::Debug for DiskJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskJournal").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Found {
    fn read(dir: &Path) -> io::Result<Self> {
        let mut found = Self { log: false, mark: false, other: None };
        for entry in std::fs::read_dir(dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            match name.as_str() {
                log::NAME => found.log = true,
                mark::NAME => found.mark = true,
                _ if name.strip_suffix(NEW).is_some_and(|n| n == log::NAME || n == mark::NAME) => {}
                _ => found.other = Some(name),
            }
        }
        Ok(found)
    }
}

/// The log and the mark that are there. Changes nothing.
fn read(dir: &Path) -> Result<(Log, Mark), JournalError> {
    let mark = Mark::read(dir)?;
    let options = std::fs::OpenOptions::new().read(true).write(true).open(dir.join(log::NAME));
    let file = options.map_err(|error| failed("open", error))?;
    let (header, said) = log::read(&file)?;
    let durable = match mark.reached() {
        Reached { log, .. } if log > header.number => {
            return Err(broken("the log of the journal is an older one than its mark"));
        }
        Reached { log, len } if log == header.number => len.max(header.born),
        _ => header.born,
    };
    let end = said.end;
    if end < durable {
        let message =
            format!("the log of the journal is damaged at byte {end}, and was whole up to {durable}");
        return Err(broken(message));
    }
    let len = file.metadata().map_err(|error| failed("examine", error))?.len();
    let mut log = Log::new(file, header.number, said);
    (log.torn, log.unsure_from) = (len - end, durable);
    Ok((log, mark))
}

/// The first log of a directory.
fn create(dir: &Path, mut mark: Mark) -> io::Result<(Log, Mark)> {
    let header = Header { number: 1, born: HEADER };
    let file = write_whole(dir, log::NAME, |file| file.write_all_at(&header.encode(), 0))?;
    sync_dir(dir)?;
    mark.advance(Reached { log: header.number, len: HEADER })?;
    // From now on a log that is missing is missed.
    mark.sync()?;
    Ok((Log::new(file, header.number, Said::nothing()), mark))
}

/// What a file is called before it has its name.
const NEW: &str = ".new";

/// Writes a file that has its name when it is whole and durable; the name itself is when its directory is synced.
pub(super) fn write_whole(
    dir: &Path,
    name: &str,
    write: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<File> {
    let new = dir.join(format!("{name}{NEW}"));
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let written =
        write(&file).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&new, dir.join(name)));
    if let Err(error) = written {
        // It takes room, and nobody reads it.
        let _ = std::fs::remove_file(&new);
        return Err(error);
    }
    Ok(file)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// An error of the local disk.
pub(super) fn failed(what: &str, error: io::Error) -> JournalError {
    let kind = JournalErrorKind::from(error.kind());
    JournalError::new(kind, format!("could not {what} the journal: {error}")).caused_by(error)
}

#[cfg(test)]
mod tests;
