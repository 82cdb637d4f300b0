//! What is told to the kernel beside the session's own replies.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use bytes::Bytes;
use fuser::{INodeNo, Notifier, RequestId};
use rustix::io::IoSlice;
use staithe_fs::Ino;

use crate::direntplus::{Records, header};

/// A line to the kernel of one mount.
#[derive(Debug)]
pub(crate) struct Kernel {
    device: OwnedFd,
    notifier: Notifier,
}

/// The line, once there is a session.
pub(crate) type Line = OnceLock<Kernel>;

impl Kernel {
    /// A line over a duplicate of the session's device. One device serves all threads of a session, so an answer
    /// may be written to it from anywhere.
    pub(crate) fn new(device: OwnedFd, notifier: Notifier) -> Self {
        Self { device, notifier }
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

    /// Makes the kernel ask for the attributes of `ino` again. Pages are left alone, so this waits for nobody, and
    /// still belongs on no thread that serves requests.
    pub(crate) fn forget_attributes(&self, ino: Ino) {
        const NO_PAGES: i64 = -1;
        if let Err(error) = self.notifier.inval_inode(INodeNo(ino.0), NO_PAGES, 0) {
            tracing::debug!(ino = ino.0, %error, "the kernel could not be told");
        }
    }
}
