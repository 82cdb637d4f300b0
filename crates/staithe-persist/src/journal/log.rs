//! The form of a log: a header, then frames, each a batch of entries that holds whole or not at all.
//!
//! ```text
//! header   magic (8)  version (4)  zero (4)  number (8)  born (8)  checksum (8)
//! frame    length (4)  checksum (8)  entries                  the checksum is also of the log's number and the frame's place
//! entry    1, id (8), length (4), record   |   2, id (8)      recorded | completed
//! ```
//!
//! Numbers are little endian. `born` is how long the log was when it got its name: so much of it is durable. A frame says
//! by its checksum where it belongs, so no bytes of another log, or of another place, are ever taken for one. The first that
//! is none ends the log: what was written later nobody can tell from what a crash left.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};

use super::{Entry, IntentId, JournalError, JournalErrorKind};

/// Its name in the directory of the journal.
pub(super) const NAME: &str = "log";

const MAGIC: &[u8; 8] = b"staithe\n";
/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;
/// Length of the header in bytes.
pub(super) const HEADER: u64 = 40;
/// Length of what stands before the entries of a frame, in bytes.
pub(super) const FRAME_HEAD: usize = 12;
pub(super) const RECORD: u8 = 1;
pub(super) const COMPLETE: u8 = 2;
/// Read ahead while a log is gone through, in bytes.
const READ_AHEAD: usize = 256 << 10;

/// What stands at the beginning of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Every log has a higher one than those before it.
    pub(super) number: u64,
    /// How long it was when it got its name, in bytes.
    pub(super) born: u64,
}

/// Where a record stands in a log, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) len: u32,
}

/// What a log says, up to its end.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The records that stand.
    pub(super) live: BTreeMap<IntentId, Place>,
    /// Their lengths together, in bytes.
    pub(super) live_bytes: u64,
    /// The lowest id that was never seen.
    pub(super) next: u64,
    /// Where the next frame goes.
    pub(super) end: u64,
}

impl Said {
    fn record(&mut self, id: IntentId, place: Place) {
        self.live_bytes += u64::from(place.len);
        self.forget(id, Some(place));
    }

    fn forget(&mut self, id: IntentId, instead: Option<Place>) {
        self.next = self.next.max(id.0.saturating_add(1));
        let before = match instead {
            Some(place) => self.live.insert(id, place),
            None => self.live.remove(&id),
        };
        self.live_bytes -= before.map_or(0, |before| u64::from(before.len));
    }

    /// Takes in the entries of the frame at the end, which is `frame` bytes long with its head.
    pub(super) fn take(&mut self, entries: &[u8], frame: u64) -> Result<(), JournalError> {
        let start = self.end + FRAME_HEAD as u64;
        let mut rest = entries;
        while let [kind, tail @ ..] = rest {
            let (id, tail) = split(tail)?;
            let id = IntentId(u64::from_le_bytes(id));
            rest = match *kind {
                RECORD => {
                    let (len, tail) = split(tail)?;
                    let len = u32::from_le_bytes(len);
                    let at = start + (entries.len() - tail.len()) as u64;
                    self.record(id, Place { at, len });
                    tail.get(len as usize..).ok_or_else(senseless)?
                }
                COMPLETE => {
                    self.forget(id, None);
                    tail
                }
                _ => return Err(senseless()),
            };
        }
        self.end += frame;
        Ok(())
    }
}

fn split<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), JournalError> {
    bytes.split_first_chunk().map(|(first, rest)| (*first, rest)).ok_or_else(senseless)
}

fn senseless() -> JournalError {
    broken("the log of the journal has an entry that this program never wrote")
}

pub(super) fn broken(message: impl Into<String>) -> JournalError {
    JournalError::new(JournalErrorKind::Broken, message)
}

/// CRC-64/NVME of all pieces, in order.
pub(super) fn checksum(pieces: &[&[u8]]) -> u64 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    for piece in pieces {
        digest.update(piece);
    }
    digest.finalize()
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER as usize] {
        let mut bytes = [0; HEADER as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.born.to_le_bytes());
        let sum = checksum(&[&bytes[..32]]);
        bytes[32..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER as usize]) -> Result<Self, JournalError> {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let version = u32::from_le_bytes(std::array::from_fn(|i| bytes[8 + i]));
        if &bytes[..8] != MAGIC {
            return Err(broken("the log of the journal is a file of another program, or damaged"));
        }
        if version > VERSION {
            let message = format!(
                "the journal has version {version}, and this program knows {VERSION}: use a newer one"
            );
            return Err(JournalError::new(JournalErrorKind::NewerVersion, message));
        }
        let header = Self { number: number(16), born: number(24) };
        if header.encode() == *bytes {
            Ok(header)
        } else {
            Err(broken("the log of the journal is damaged at its beginning"))
        }
    }
}

/// A frame with these entries, for the end of a log; where it ends, and what it says is taken in with
/// [`Said::append`].
///
/// # Errors
/// `InvalidInput` for 4 GiB at once.
pub(super) fn frame(log: u64, at: u64, entries: &[Entry]) -> io::Result<Vec<u8>> {
    let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "a batch of 4 GiB or more");
    let mut bytes = vec![0; FRAME_HEAD];
    for entry in entries {
        match entry {
            Entry::Record(id, record) => {
                bytes.push(RECORD);
                bytes.extend_from_slice(&id.0.to_le_bytes());
                bytes.extend_from_slice(&u32::try_from(record.len()).map_err(|_| too_large())?.to_le_bytes());
                bytes.extend_from_slice(record);
            }
            Entry::Complete(id) => {
                bytes.push(COMPLETE);
                bytes.extend_from_slice(&id.0.to_le_bytes());
            }
        }
    }
    let len = u32::try_from(bytes.len() - FRAME_HEAD).map_err(|_| too_large())?.to_le_bytes();
    let sum = frame_sum(log, at, len, &bytes[FRAME_HEAD..]);
    bytes[..4].copy_from_slice(&len);
    bytes[4..FRAME_HEAD].copy_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

pub(super) fn frame_sum(log: u64, at: u64, len: [u8; 4], entries: &[u8]) -> u64 {
    checksum(&[&log.to_le_bytes(), &at.to_le_bytes(), &len, entries])
}

impl Said {
    /// What a log says that has nothing but its header.
    pub(super) fn nothing() -> Self {
        Self { end: HEADER, ..Self::default() }
    }

    /// Takes in a frame that was written at the end.
    pub(super) fn append(&mut self, frame: &[u8]) -> Result<(), JournalError> {
        self.take(&frame[FRAME_HEAD..], frame.len() as u64)
    }
}

/// Goes through a log. Changes nothing.
///
/// # Errors
/// `Broken`, `NewerVersion`, `Io`.
pub(super) fn read(file: &File) -> Result<(Header, Said), JournalError> {
    let failed = |error| super::disk::failed("read the log of", error);
    let len = file.metadata().map_err(failed)?.len();
    let mut reader = BufReader::with_capacity(READ_AHEAD, file);
    reader.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut header = [0; HEADER as usize];
    match reader.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(broken("the log of the journal is cut short"));
        }
        Err(error) => return Err(failed(error)),
    }
    let header = Header::decode(&header)?;
    let (mut said, mut entries) = (Said::nothing(), Vec::new());
    while len - said.end > FRAME_HEAD as u64 {
        let mut head = [0; FRAME_HEAD];
        reader.read_exact(&mut head).map_err(failed)?;
        let ([a, b, c, d, sum @ ..], left) = (head, len - said.end - FRAME_HEAD as u64);
        let size = u32::from_le_bytes([a, b, c, d]);
        if size == 0 || u64::from(size) > left {
            break;
        }
        entries.resize(size as usize, 0);
        reader.read_exact(&mut entries).map_err(failed)?;
        if u64::from_le_bytes(sum) != frame_sum(header.number, said.end, [a, b, c, d], &entries) {
            break;
        }
        said.take(&entries, FRAME_HEAD as u64 + u64::from(size))?;
    }
    Ok((header, said))
}
