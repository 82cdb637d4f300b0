//! The last of the disk, which is the journal's: it says what becomes of staging files, and takes nothing more once the disk
//! has refused it a write.
//!
//! Writes of ours leave it alone ([`Room`](crate::room::Room)). A kernel that writes by itself takes what it finds, so as long
//! as there may be one the reserve is blocks of a file of its own. They are given back piece by piece when the journal is
//! about to write and little else is left.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, StatVfs, fallocate, statvfs};

/// How large it is, in bytes; a twentieth of a small disk.
const RESERVE: u64 = 64 << 20;
/// In so many pieces it is given back.
const PIECES: u64 = 4;

/// The reserve of one state directory.
#[derive(Debug)]
pub(crate) struct Reserve {
    dir: PathBuf,
    /// What is held in the file, in bytes.
    held: AtomicU64,
    /// The file, if anything was ever held.
    file: Mutex<Option<File>>,
}

/// How large the reserve of a disk is, in bytes.
pub(crate) fn size_on(disk: &StatVfs) -> u64 {
    RESERVE.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 20)
}

/// What is free on a disk, in bytes.
pub(crate) fn free_on(disk: &StatVfs) -> u64 {
    disk.f_bavail.saturating_mul(disk.f_frsize)
}

impl Reserve {
    /// Nothing is held yet. What a process before this one held stays until [`take_over`](Self::take_over).
    pub(crate) fn new(dir: &Path) -> Arc<Self> {
        Arc::new(Self { dir: dir.to_owned(), held: AtomicU64::new(0), file: Mutex::new(None) })
    }

    /// Gives back what a process before this one held, once the state directory is known to be ours.
    pub(crate) fn take_over(&self) {
        self.remove();
    }

    fn path(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    fn remove(&self) {
        match std::fs::remove_file(self.path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(file = %self.path().display(), %error, "not removed");
            }
            _ => {}
        }
    }

    /// Holds all of it, unless it does already. Whether it could: not where as much again would not be left, or the disk
    /// sets nothing aside. One statvfs(2), and that only while it is not held.
    pub(crate) fn hold(&self) -> bool {
        let Ok(disk) = statvfs(&self.dir) else { return false };
        let size = size_on(&disk);
        let mut file = self.file.lock();
        let held = self.held.load(Ordering::Acquire);
        if held >= size {
            return true;
        }
        if free_on(&disk) < 2 * size - held {
            return false;
        }
        if file.is_none() {
            let mut options = OpenOptions::new();
            options.create(true).truncate(true).write(true).mode(0o600);
            *file = options.open(self.path()).ok();
        }
        let done =
            file.as_ref().is_some_and(|file| fallocate(file, FallocateFlags::empty(), 0, size).is_ok());
        if done {
            self.held.store(size, Ordering::Release);
        }
        done
    }

    /// Whether blocks are held, so that the rest of the disk may be written to its end.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire) > 0
    }

    /// Before the journal writes: gives a piece back if less than that is left on the disk. One statvfs(2), and that only
    /// while anything is held.
    pub(crate) fn ease(&self) {
        if !self.is_held() {
            return;
        }
        let Ok(disk) = statvfs(&self.dir) else { return };
        let piece = size_on(&disk) / PIECES;
        if free_on(&disk) >= piece {
            return;
        }
        let file = self.file.lock();
        let left = self.held.load(Ordering::Acquire).saturating_sub(piece.max(1));
        if file.as_ref().is_some_and(|file| file.set_len(left).is_ok()) {
            tracing::warn!(left, "the disk of the state directory is full: the journal takes of its reserve");
            self.held.store(left, Ordering::Release);
        }
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        if self.file.get_mut().is_some() {
            self.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn it_is_held_in_blocks_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("reserve"), "left by another").unwrap();
        let path = dir.path().join("reserve");
        drop(Reserve::new(dir.path()));
        let reserve = Reserve::new(dir.path());
        assert!(path.exists(), "the directory may be refused yet");
        reserve.take_over();
        assert!(!path.exists() && !reserve.is_held());
        reserve.ease();
        assert!(reserve.hold() && reserve.hold() && reserve.is_held());
        let size = size_on(&statvfs(dir.path()).unwrap());
        assert!(path.metadata().unwrap().blocks() * 512 >= size);
        reserve.ease();
        assert_eq!(path.metadata().unwrap().len(), size, "there is enough beside");
        drop(reserve);
        assert!(!path.exists());
    }
}
