//! Files that the kernel reads, or writes to, by itself (FUSE passthrough, Linux 6.9): the kernel is given a descriptor of
//! a local file, and asks nothing more; but before a write that follows a look at the attributes it asks whether there are
//! privileges to take away, which [`privileges`](crate::privileges) answers as for any write.
//!
//! While such a file is open, every open of its inode must name the same backing file, or fails with EIO; so ids are
//! kept by inode, for as long as a handle has one. `FOPEN_DIRECT_IO` beside it brings the writes of a handle back to
//! us; and its reads, but for those of sendfile(2), splice(2) and `copy_file_range`(2), which then see pages of the
//! mount's that no memory map of the backing file stores to: so a handle that can read does not have it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use fuser::{BackingId, FileHandle, ReplyCreate, ReplyOpen};
use parking_lot::Mutex;
use staithe_fs::{Entry, Filesystem, HandleId, Ino, Opened};

use crate::attributes::{common_ttl, file_attr};
use crate::flags;
use crate::send::GENERATION;

/// The backing file of one inode.
#[derive(Debug)]
struct Backing {
    id: Arc<BackingId>,
    handles: HashSet<HandleId>,
}

#[derive(Debug, Default)]
struct Backings {
    by_ino: HashMap<Ino, Backing>,
    /// The kernel has refused: it is not asked again.
    is_off: bool,
}

/// What the kernel reads and writes by itself.
#[derive(Debug, Default)]
pub(crate) struct Passthrough {
    backings: Mutex<Backings>,
}

/// A reply that can carry a backing file.
trait Opener {
    fn open_backing(&self, file: &dyn AsFd) -> io::Result<BackingId>;
}

impl Opener for ReplyOpen {
    fn open_backing(&self, file: &dyn AsFd) -> io::Result<BackingId> {
        Self::open_backing(self, file.as_fd())
    }
}

impl Opener for ReplyCreate {
    fn open_backing(&self, file: &dyn AsFd) -> io::Result<BackingId> {
        Self::open_backing(self, file.as_fd())
    }
}

/// Whether the kernel will refuse the next file, too: not permitted, not on this file system, not in this kernel.
fn is_lasting(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = Errno::from_io_error(error);
    matches!(
        code,
        Some(Errno::PERM | Errno::LOOP | Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY | Errno::INVAL)
    )
}

impl Passthrough {
    /// Answers an open.
    pub(crate) fn opened(&self, fs: &Filesystem, reply: ReplyOpen, ino: Ino, opened: &Opened) {
        let (handle, flags) = (FileHandle(opened.handle.0), flags::opened(opened));
        match self.backing(fs, &reply, ino, opened) {
            Some(id) => reply.opened_passthrough(handle, flags, &id),
            None => reply.opened(handle, flags),
        }
    }

    /// Answers a create.
    pub(crate) fn created(&self, fs: &Filesystem, reply: ReplyCreate, entry: &Entry, opened: &Opened) {
        let (handle, flags) = (FileHandle(opened.handle.0), flags::opened(opened));
        let (ttl, attr) = (common_ttl(entry), file_attr(&entry.attr));
        match self.backing(fs, &reply, entry.attr.ino, opened) {
            Some(id) => reply.created_passthrough(&ttl, &attr, GENERATION, handle, flags, &id),
            None => reply.created(&ttl, &attr, GENERATION, handle, flags),
        }
    }

    /// The id for a handle that has a local file; without one, the filesystem serves the handle.
    fn backing(
        &self,
        fs: &Filesystem,
        reply: &impl Opener,
        ino: Ino,
        opened: &Opened,
    ) -> Option<Arc<BackingId>> {
        let local = opened.local.as_ref()?;
        // Held across the call to the kernel: an inode has one id, whoever comes first.
        let mut backings = self.backings.lock();
        if let Some(backing) = backings.by_ino.get_mut(&ino) {
            backing.handles.insert(opened.handle);
            return Some(Arc::clone(&backing.id));
        }
        let asked = if backings.is_off { None } else { Some(reply.open_backing(local)) };
        match asked {
            Some(Ok(id)) => {
                let id = Arc::new(id);
                let backing = Backing { id: Arc::clone(&id), handles: HashSet::from([opened.handle]) };
                backings.by_ino.insert(ino, backing);
                return Some(id);
            }
            Some(Err(error)) => {
                if is_lasting(&error) {
                    backings.is_off = true;
                    fs.lend_local_files(&Err(format!("the kernel refuses: {error}")));
                }
                tracing::info!(%error, "no passthrough: this process serves the file");
            }
            None => {}
        }
        drop(backings);
        fs.serve(opened.handle);
        None
    }

    /// A handle is closed.
    pub(crate) fn released(&self, ino: Ino, handle: HandleId) {
        let mut backings = self.backings.lock();
        if let Some(backing) = backings.by_ino.get_mut(&ino) {
            backing.handles.remove(&handle);
            if backing.handles.is_empty() {
                backings.by_ino.remove(&ino);
            }
        }
    }
}
