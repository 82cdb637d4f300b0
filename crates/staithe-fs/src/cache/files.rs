//! The two files of a cached object: its bytes, sparse and in place, and the map that says which of them to believe.
//!
//! ```text
//! objects/ab/<name>.data   the object's bytes, each where it is in the object: may be handed to a kernel as it is
//! objects/ab/<name>.map    whose bytes these are, then a record for every block
//! ```
//!
//! A block's bytes are written before its record. A crash between the two leaves no record; a power failure may
//! leave a record without the bytes, which its checksum then tells.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::blocks::{RECORD, decode, encode, length};
use super::identity::{Identity, Name};
use super::survey::on_disk;
use crate::disk_file::Stamp;
use crate::owned_dir::is_ours_alone;

/// Where the files of a name lie.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub(super) data: PathBuf,
    pub(super) map: PathBuf,
}

impl Paths {
    /// Below `objects`.
    pub(super) fn of(objects: &Path, name: Name) -> Self {
        let directory = objects.join(name.directory());
        Self { data: directory.join(format!("{name}.data")), map: directory.join(format!("{name}.map")) }
    }

    /// Removes both: the map first, so that no map ever speaks of bytes that are gone. Absence is no error.
    pub(super) fn remove(&self) -> io::Result<()> {
        absence_is_fine(std::fs::remove_file(&self.map))?;
        absence_is_fine(std::fs::remove_file(&self.data))
    }
}

/// Both files, open.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) data: Arc<File>,
    map: File,
    records_at: u64,
}

impl Files {
    /// Opens what is there: the files, and the checksum of every block that is said to be present. `None` if there is
    /// nothing, or nothing of this identity, or what others could have written to; what is there then is removed.
    pub(super) fn open(
        paths: &Paths,
        identity: &Identity,
        count: usize,
    ) -> io::Result<Option<(Self, Vec<Option<u32>>)>> {
        let map = match options().open(&paths.map) {
            Ok(map) => map,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = identity.header();
        let mut found = vec![0; header.len()];
        let is_ours = map.read_exact_at(&mut found, 0).is_ok() && found == header;
        let data = match options().open(&paths.data) {
            Ok(data) if is_ours && is_ours_alone(&map.metadata()?) && is_ours_alone(&data.metadata()?) => {
                data
            }
            Err(error) if is_ours && error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {
                paths.remove()?;
                return Ok(None);
            }
        };
        // One that was cut reads as zeros there, which no record vouches for.
        data.set_len(identity.size)?;
        let files = Self { data: Arc::new(data), map, records_at: header.len() as u64 };
        let records = files.records(count)?;
        // When it was last used, for the start that has nothing else to go by. It does not matter if that fails.
        let _ = files.map.set_modified(SystemTime::now());
        Ok(Some((files, records)))
    }

    /// Makes both, without a byte in them.
    pub(super) fn create(paths: &Paths, identity: &Identity) -> io::Result<Self> {
        if let Some(directory) = paths.data.parent() {
            absence_or_presence(std::fs::create_dir(directory))?;
        }
        paths.remove()?;
        let data = options().create_new(true).open(&paths.data)?;
        data.set_len(identity.size)?;
        let map = options().create_new(true).open(&paths.map)?;
        let header = identity.header();
        map.write_all_at(&header, 0)?;
        Ok(Self { data: Arc::new(data), map, records_at: header.len() as u64 })
    }

    fn records(&self, count: usize) -> io::Result<Vec<Option<u32>>> {
        let mut bytes = vec![0; count * RECORD];
        let mut read = 0;
        while read < bytes.len() {
            match self.map.read_at(&mut bytes[read..], self.records_at + read as u64)? {
                // Behind the last record that was written.
                0 => break,
                n => read += n,
            }
        }
        let (records, _) = bytes.as_chunks::<RECORD>();
        Ok(records.iter().enumerate().map(|(n, record)| decode(n, *record)).collect())
    }

    /// Says that a block is present, with this checksum.
    pub(super) fn record(&self, index: usize, sum: u32) -> io::Result<()> {
        self.map.write_all_at(&encode(index, sum), self.records_at + (index * RECORD) as u64)
    }

    /// Says that a block is absent.
    pub(super) fn erase(&self, index: usize) -> io::Result<()> {
        self.map.write_all_at(&[0; RECORD], self.records_at + (index * RECORD) as u64)
    }

    /// Gives the disk space of a range back, where the disk can.
    pub(super) fn punch(&self, range: &Range<u64>) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = fallocate(&*self.data, flags, range.start, length(range)) {
            tracing::debug!(%error, "the space of absent blocks stays in use");
        }
    }

    /// Exactly the bytes of `range`. Unless it `may_wait`, only if the disk need not be asked (`WouldBlock`).
    pub(super) fn read(&self, range: &Range<u64>, may_wait: bool) -> io::Result<Bytes> {
        let len = length(range) as usize;
        let flags = if may_wait { ReadWriteFlags::empty() } else { ReadWriteFlags::NOWAIT };
        // Not zeroed first: every byte is written by the read.
        let mut bytes: Vec<u8> = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = range.start + bytes.len() as u64;
            match read_some(&self.data, &mut bytes, at, flags) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                // Only whole answers are of use.
                Err(Errno::AGAIN) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(len);
        Ok(bytes.into())
    }

    /// What both take of the disk, in bytes; where `written` bytes of the object were written, and the disk does not
    /// know yet where to, no less than these.
    pub(super) fn held(&self, written: u64) -> io::Result<u64> {
        let (data, map) = (self.data.metadata()?, self.map.metadata()?);
        Ok(on_disk(&data).max(written) + on_disk(&map).max(map.len()))
    }

    /// What the file looks like now.
    pub(super) fn stamp(&self) -> io::Result<Stamp> {
        Stamp::of(&self.data)
    }
}

fn read_some(file: &File, bytes: &mut Vec<u8>, at: u64, flags: ReadWriteFlags) -> Result<usize, Errno> {
    if flags.is_empty() {
        return rustix::io::pread(file, spare_capacity(bytes), at);
    }
    // There is no call that reads into spare capacity without waiting.
    let filled = bytes.len();
    bytes.resize(bytes.capacity(), 0);
    let read = preadv2(file, &mut [io::IoSliceMut::new(&mut bytes[filled..])], at, flags);
    bytes.truncate(filled + read.unwrap_or(0));
    read
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // No link: it could lead to a file of somebody else.
    options.read(true).write(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

fn absence_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn absence_or_presence(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
