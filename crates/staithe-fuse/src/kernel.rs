//! What is told to the kernel beside the session's own replies.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use fuser::{INodeNo, Notifier, RequestId, Version};
use rustix::io::IoSlice;
use staithe_fs::Ino;

use crate::direntplus::{Records, header};

/// `FUSE_NOTIFY_INVAL_ENTRY`.
const NOTIFY_INVAL_ENTRY: i32 = 3;
/// The first protocol version with [`EXPIRE_ONLY`]: that of Linux 6.2.
pub(crate) const EXPIRES_SINCE: Version = Version(7, 38);
/// `FUSE_EXPIRE_ONLY`.
const EXPIRE_ONLY: u32 = 1;
/// Length of a notification about a name, without the name.
const NOTICE: usize = 32;

/// A line to the kernel of one mount.
#[derive(Debug)]
pub(crate) struct Kernel {
    device: OwnedFd,
    notifier: Notifier,
    names_expire: Arc<AtomicBool>,
}

/// The line, once there is a session.
pub(crate) type Line = OnceLock<Kernel>;

impl Kernel {
    /// A line over a duplicate of the session's device. One device serves all threads of a session, so an answer
    /// may be written to it from anywhere. `names_expire` as [`names_expire`](Self::names_expire).
    pub(crate) fn new(device: OwnedFd, notifier: Notifier, names_expire: Arc<AtomicBool>) -> Self {
        Self { device, notifier, names_expire }
    }

    /// Whether a doubt leaves a name where it is. Else it takes the name away, and a directory with all that is
    /// mounted below: so it must not be told of one.
    pub(crate) fn names_expire(&self) -> bool {
        self.names_expire.load(Ordering::Acquire)
    }

    /// Answers READDIRPLUS `unique`.
    pub(crate) fn answer(&self, unique: RequestId, records: &Records) -> io::Result<()> {
        self.answer_with(unique, &[records.as_bytes()])
    }

    /// Answers READ `unique` with slices in order, as they are: no byte is copied on the way to the kernel.
    pub(crate) fn answer_slices(&self, unique: RequestId, data: &[Bytes]) -> io::Result<()> {
        self.answer_with(unique, data)
    }

    fn answer_with(&self, unique: RequestId, payload: &[impl AsRef<[u8]>]) -> io::Result<()> {
        let header = header(unique.0, payload.iter().map(|slice| slice.as_ref().len()).sum());
        let payload = payload.iter().map(|slice| IoSlice::new(slice.as_ref()));
        let slices: Vec<_> = std::iter::once(IoSlice::new(&header)).chain(payload).collect();
        rustix::io::writev(&self.device, &slices)?;
        Ok(())
    }

    /// Makes the kernel ask for the meaning of a name, or of its absence, again. If that is the same, the name stays
    /// who it is: a working directory, or a mount below it, does not lose its path. Linux before 6.2 does not know the
    /// flag, and drops the name (see [`names_expire`](Self::names_expire)). May wait for requests in flight in the
    /// directory.
    ///
    /// # Errors
    /// `NotFound` for what the kernel does not know; the device's.
    pub(crate) fn doubt(&self, parent: Ino, name: &str) -> io::Result<()> {
        let size = (NOTICE + name.len() + 1) as u32;
        // `struct fuse_out_header` and `struct fuse_notify_inval_entry_out` of the kernel's `fuse.h`.
        let mut notice = Vec::with_capacity(size as usize);
        notice.extend_from_slice(&size.to_ne_bytes());
        notice.extend_from_slice(&NOTIFY_INVAL_ENTRY.to_ne_bytes());
        notice.extend_from_slice(&0_u64.to_ne_bytes());
        notice.extend_from_slice(&parent.0.to_ne_bytes());
        notice.extend_from_slice(&(name.len() as u32).to_ne_bytes());
        notice.extend_from_slice(&EXPIRE_ONLY.to_ne_bytes());
        notice.extend_from_slice(name.as_bytes());
        notice.push(0);
        rustix::io::write(&self.device, &notice)?;
        Ok(())
    }

    /// Makes the kernel forget a name, and what it has below it. May wait for requests in flight in the directory.
    ///
    /// # Errors
    /// As [`doubt`](Self::doubt).
    pub(crate) fn forget_name(&self, parent: Ino, name: &str) -> io::Result<()> {
        self.notifier.inval_entry(INodeNo(parent.0), OsStr::new(name))
    }

    /// Makes the kernel forget the attributes and pages of `ino`. May wait for requests in flight of the inode.
    ///
    /// # Errors
    /// As [`doubt`](Self::doubt).
    pub(crate) fn forget_inode(&self, ino: Ino) -> io::Result<()> {
        // From the first byte, without an end.
        self.notifier.inval_inode(INodeNo(ino.0), 0, 0)
    }

    /// Makes the kernel ask for the attributes of `ino` again. Pages are left alone, so this waits for nobody, and
    /// still belongs on no thread that serves requests.
    ///
    /// # Errors
    /// As [`doubt`](Self::doubt).
    pub(crate) fn forget_attributes(&self, ino: Ino) -> io::Result<()> {
        const NO_PAGES: i64 = -1;
        self.notifier.inval_inode(INodeNo(ino.0), NO_PAGES, 0)
    }
}
