//! A file of this session on its way to becoming an object.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::attributes::{Attributes, Ownership};
use super::blocking::Cancel;
use super::errno;
use super::root::Root;
use super::session::{NEW_FILE, errno_of};
use crate::{ErrorKind, Key, NewObject, Payload, Result, StoreError, checks};

/// Bytes written or copied between two looks at whether anybody still waits.
const STEP: usize = 8 << 20;

/// A new file without a name in the tree; dropping it removes it, unless it was moved there.
pub(super) struct TempFile<'r> {
    root: &'r Root,
    operation: &'static str,
    key: Key,
    pub(super) name: String,
    file: File,
}

impl<'r> TempFile<'r> {
    pub(super) fn new(root: &'r Root, operation: &'static str, key: &Key) -> Result<Self> {
        let name = root.session.fresh("file-");
        let file = rustix::fs::openat(&root.session.dir, &name, NEW_FILE, Mode::from_raw_mode(0o666));
        let file = match file {
            Ok(file) => file,
            Err(Errno::NOENT) => {
                root.check_alive(operation)?;
                let text = "the store's hidden directory was removed under it; open the store anew";
                return Err(checks::fail(ErrorKind::Unavailable, operation, key, text));
            }
            Err(errno) => return Err(errno::error(operation, Some(key), "making a temporary file", errno)),
        };
        Ok(Self { root, operation, key: key.clone(), name, file: File::from(file) })
    }

    fn failed(&self, what: &str, errno: Errno) -> StoreError {
        errno::error(self.operation, Some(&self.key), what, errno)
    }

    pub(super) fn write(&mut self, body: &Payload, cancel: &Cancel) -> Result<()> {
        for piece in body.chunks().iter().flat_map(|chunk| chunk.chunks(STEP)) {
            cancel.check(self.operation)?;
            self.file.write_all(piece).map_err(|error| self.failed("writing", errno_of(&error)))?;
        }
        Ok(())
    }

    /// Appends `len` bytes of another file from `offset`, in the kernel where it can (sharing blocks where the
    /// filesystem can).
    pub(super) fn append(&mut self, from: &OwnedFd, offset: u64, len: u64, cancel: &Cancel) -> Result<()> {
        let (mut at, end) = (offset, offset + len);
        while at < end {
            cancel.check(self.operation)?;
            let step = (end - at).min(STEP as u64 * 8) as usize;
            match rustix::fs::copy_file_range(from, Some(&mut at), &self.file, None, step) {
                Ok(0) => return Err(self.source_changed()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {
                    at += self.append_by_hand(from, at, step.min(STEP))?;
                }
                Err(errno) => return Err(self.failed("copying", errno)),
            }
        }
        Ok(())
    }

    fn append_by_hand(&mut self, from: &OwnedFd, at: u64, len: usize) -> Result<u64> {
        let mut buffer = vec![0; len];
        let read =
            rustix::io::pread(from, &mut buffer[..], at).map_err(|errno| self.failed("reading", errno))?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return Err(self.source_changed());
        }
        self.file.write_all(bytes).map_err(|error| self.failed("writing", errno_of(&error)))?;
        Ok(read as u64)
    }

    fn source_changed(&self) -> StoreError {
        let text = "the source was cut short while it was copied";
        checks::fail(ErrorKind::VersionMismatch, self.operation, &self.key, text)
    }

    /// Gives the file its attributes, its unique time and, where asked for, a safe place on the disk. Also without
    /// any attributes they are written: that tells it from a file that others put there.
    pub(super) fn seal(&self, new: &NewObject) -> Result<()> {
        let attributes = Attributes { stamp: 0, new: new.clone() };
        attributes.write(&self.file).map_err(|errno| self.failed("writing the metadata", errno))?;
        let ownership = Ownership::of(&new.metadata, FileType::RegularFile);
        ownership.apply(&self.file, Mode::RUSR).map_err(|errno| self.failed("setting the mode", errno))?;
        self.date()?;
        if self.root.synced() {
            rustix::fs::fsync(&self.file).map_err(|errno| self.failed("syncing the file", errno))?;
        }
        Ok(())
    }

    /// Gives the file a modification time that no other has.
    pub(super) fn date(&self) -> Result<()> {
        let stamp = self.root.stamp();
        let time = Timespec { tv_sec: stamp / 1_000_000_000, tv_nsec: stamp % 1_000_000_000 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(&self.file, &times).map_err(|errno| self.failed("dating the file", errno))
    }

    pub(super) fn stat(&self) -> Result<Stat> {
        rustix::fs::fstat(&self.file).map_err(|errno| self.failed("looking at the new file", errno))
    }
}

impl Drop for TempFile<'_> {
    fn drop(&mut self) {
        // Gone already if it was moved to its place; its name is never used again.
        let _ = rustix::fs::unlinkat(&self.root.session.dir, &self.name, AtFlags::empty());
    }
}
