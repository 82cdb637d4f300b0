//! A file in the staging directory, as bytes on a local disk: positions, holes, durability; nothing of what it means.

use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, Timespec, Timestamps, UTIME_OMIT, fallocate, futimens};
use rustix::io::{Errno, pread, retry_on_intr};

use crate::failpoint::{Step, reach};
use crate::{FsError, Result};

/// Read and written by its owner only.
const MODE: u32 = 0o600;

/// Beside that, and of no meaning on a file: a kernel may write to it.
const LENT: u32 = 0o1000;

/// An open file on a local disk; cheap to clone, all clones are the same file. [`Display`](fmt::Display) names it.
#[derive(Debug, Clone)]
pub(crate) struct DiskFile(Arc<Disk>);

/// What a file looks like from outside: after a change of its bytes it is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    mtime: (i64, i64),
    len: u64,
}

/// A time of modification that was set by us, in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(i64, i64);

impl Stamp {
    /// The look of an open file.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self { mtime: (meta.mtime(), meta.mtime_nsec()), len: meta.len() })
    }

    /// Length in bytes.
    pub(crate) fn len(self) -> u64 {
        self.len
    }

    /// A time that no write leaves: just before the last one.
    pub(crate) fn mark(self) -> Mark {
        match self.mtime {
            (seconds, 0) => Mark(seconds - 1, 999_999_999),
            (seconds, nanos) => Mark(seconds, nanos - 1),
        }
    }

    /// Whether nothing was written since the file was given that time.
    pub(crate) fn is_marked(self, mark: Mark) -> bool {
        self.mtime == (mark.0, mark.1)
    }

    /// When it was last modified, by the clock of its disk; the epoch for what is before that.
    pub(crate) fn modified(self) -> SystemTime {
        let (seconds, nanos) = (self.mtime.0.try_into().unwrap_or(0), self.mtime.1.try_into().unwrap_or(0));
        SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
    }
}

#[derive(Debug)]
struct Disk {
    file: File,
    path: PathBuf,
    /// The directory entry is on the disk too: a file can outlive its name otherwise.
    name_is_durable: AtomicBool,
}

impl DiskFile {
    /// A new file, readable by its owner only.
    ///
    /// # Errors
    /// `Io` if the name is taken, and the disk's.
    pub(crate) fn create(dir: &Path, name: &str) -> Result<Self> {
        reach(Step::BeforeStagingCreate);
        let created = Self::open_with(dir.join(name), "create", OpenOptions::new().create_new(true))?;
        reach(Step::AfterStagingCreate);
        Ok(created)
    }

    /// A file that is there.
    ///
    /// # Errors
    /// `Io` if it is not, and the disk's.
    pub(crate) fn open(dir: &Path, name: &str) -> Result<Self> {
        Self::open_with(dir.join(name), "open", &mut OpenOptions::new())
    }

    fn open_with(path: PathBuf, what: &str, options: &mut OpenOptions) -> Result<Self> {
        match options.read(true).write(true).mode(MODE).open(&path) {
            Ok(file) => Ok(Self(Arc::new(Disk { file, path, name_is_durable: AtomicBool::new(false) }))),
            Err(error) => Err(failed(what, &path, error)),
        }
    }

    /// Its name in the directory.
    pub(crate) fn name(&self) -> String {
        self.0.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What the disk has given it, in bytes.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn allocated(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = self.0.file.metadata().map_err(|e| self.failed("examine", e))?;
        Ok(metadata.blocks() * 512)
    }

    /// Length in bytes.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn len(&self) -> Result<u64> {
        self.0.file.metadata().map(|meta| meta.len()).map_err(|e| self.failed("examine", e))
    }

    /// What it looks like now.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn stamp(&self) -> Result<Stamp> {
        Stamp::of(&self.0.file).map_err(|e| self.failed("examine", e))
    }

    /// Gives it the time of a mark. Waits for the writes that are under way, which hold the lock that this takes: those
    /// that begin later leave another time, however coarse the disk's clock is.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn set_mark(&self, mark: Mark) -> Result<()> {
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let last_modification = Timespec { tv_sec: mark.0, tv_nsec: mark.1 };
        let times = Timestamps { last_access, last_modification };
        futimens(&self.0.file, &times).map_err(|e| self.failed("mark", e.into()))
    }

    /// Notes on the file itself whether a kernel may write to it: one does so even if this process is gone.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn set_lent(&self, is_lent: bool) -> Result<()> {
        let mode = if is_lent { MODE | LENT } else { MODE };
        let set = self.0.file.set_permissions(Permissions::from_mode(mode));
        set.map_err(|e| self.failed("change the mode of", e))
    }

    /// Whether it says that a kernel may write to it.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn is_lent(&self) -> Result<bool> {
        let meta = self.0.file.metadata().map_err(|e| self.failed("examine", e))?;
        Ok(meta.mode() & LENT != 0)
    }

    /// Cuts or extends with zeros.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn set_len(&self, len: u64) -> Result<()> {
        reach(Step::BeforeStagingResize);
        self.0.file.set_len(len).map_err(|e| self.failed("resize", e))?;
        reach(Step::AfterStagingResize);
        Ok(())
    }

    /// Writes at `offset`. How many bytes were written counts even when the outcome is an error.
    pub(crate) fn write_at(&self, offset: u64, data: &[u8]) -> (usize, Result<()>) {
        let mut written = 0;
        while written < data.len() {
            match self.0.file.write_at(&data[written..], offset + written as u64) {
                Ok(0) => return (written, Err(self.failed("write", io::ErrorKind::WriteZero.into()))),
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(self.failed("write", error))),
            }
        }
        reach(Step::AfterStagingWrite);
        (written, Ok(()))
    }

    /// Exactly `len` bytes from `offset`.
    ///
    /// # Errors
    /// `Io` if the file ends before, and the disk's.
    pub(crate) fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let bytes = self.read_up_to(offset, len)?;
        if bytes.len() < len {
            return Err(self.failed("read", io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(bytes)
    }

    /// `len` bytes from `offset`, fewer only where the file ends before.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn read_up_to(&self, offset: u64, len: usize) -> Result<Bytes> {
        // Not zeroed first: every byte is written by the read.
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            match retry_on_intr(|| pread(&self.0.file, spare_capacity(&mut bytes), at)) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(self.failed("read", error.into())),
            }
        }
        bytes.truncate(len);
        Ok(bytes.into())
    }

    /// Reserves disk space without changing the length. Where the disk cannot, nothing is reserved.
    ///
    /// # Errors
    /// `NoSpace`, and the disk's.
    pub(crate) fn reserve(&self, offset: u64, len: u64) -> Result<()> {
        self.fallocate("reserve room for", FallocateFlags::KEEP_SIZE, offset, len).map(|_| ())
    }

    /// Makes a hole, which reads as zeros; false, and nothing done, where the disk cannot.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn punch(&self, offset: u64, len: u64) -> Result<bool> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.fallocate("make a hole in", mode, offset, len)
    }

    fn fallocate(&self, what: &str, mode: FallocateFlags, offset: u64, len: u64) -> Result<bool> {
        match retry_on_intr(|| fallocate(&self.0.file, mode, offset, len)) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(error) => Err(self.failed(what, error.into())),
        }
    }

    /// Makes the bytes, and the first time the name, durable.
    ///
    /// # Errors
    /// The disk's; then nothing is certain to be durable.
    pub(crate) fn sync(&self) -> Result<()> {
        reach(Step::BeforeStagingSync);
        self.0.file.sync_data().map_err(|e| self.failed("sync", e))?;
        if !self.0.name_is_durable.load(Ordering::Acquire) {
            let dir = self.0.path.parent().unwrap_or(Path::new("."));
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| failed("sync", dir, e))?;
            self.0.name_is_durable.store(true, Ordering::Release);
        }
        reach(Step::AfterStagingSync);
        Ok(())
    }

    /// Takes the name away; the bytes last until the last clone is dropped. Twice is no error.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn remove(&self) -> Result<()> {
        reach(Step::BeforeStagingRemove);
        match std::fs::remove_file(&self.0.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.failed("remove", error)),
            _ => {}
        }
        reach(Step::AfterStagingRemove);
        Ok(())
    }

    fn failed(&self, what: &str, error: io::Error) -> FsError {
        failed(what, &self.0.path, error)
    }
}

impl AsFd for DiskFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

impl fmt::Display for DiskFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.path.display())
    }
}

fn failed(what: &str, path: &Path, error: io::Error) -> FsError {
    FsError::local(&format!("could not {what} {}: {error}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FsErrorKind;

    #[test]
    fn bytes_holes_and_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = DiskFile::create(dir.path(), "a").unwrap();
        assert_eq!(DiskFile::create(dir.path(), "a").unwrap_err().kind(), FsErrorKind::Io);
        let (written, outcome) = file.write_at(4096, &[7; 8192]);
        outcome.unwrap();
        assert_eq!((written, file.len().unwrap()), (8192, 12_288));
        file.reserve(0, 1 << 20).unwrap();
        if file.punch(4096, 4096).unwrap() {
            assert_eq!(&file.read_at(4096, 4096).unwrap()[..], &[0; 4096]);
        }
        assert_eq!(&file.read_at(8192, 4096).unwrap()[..], &[7; 4096]);
        assert_eq!(file.len().unwrap(), 12_288);
        assert_eq!(file.read_at(12_000, 4096).unwrap_err().kind(), FsErrorKind::Io);
        file.sync().unwrap();
        file.sync().unwrap();

        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(DiskFile::open(dir.path(), "a").unwrap_err().kind(), FsErrorKind::Io);
        assert_eq!(file.clone().read_at(12_287, 1).unwrap()[..], [7]);
        assert!(rustix::fs::fstat(&file).is_ok());
        assert!(file.to_string().ends_with("/a"));
    }
}
