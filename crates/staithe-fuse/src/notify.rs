//! Telling the kernel what to forget.
//!
//! A notification may wait for requests in flight of the same inode, and those for whoever sent it: so it never
//! comes from a request, a runtime worker, or under a lock. This thread does nothing else.
//!
//! Names are doubted one by one, also when all of them are. `FUSE_NOTIFY_INC_EPOCH` (Linux 6.16) would be one
//! notification for all. But a name of an older epoch is not asked about again: it is dropped at its next use, and
//! looked up as a new one, and what is mounted below, in any mount namespace, is detached by that (observed on Linux
//! 6.18). So it suits only those whose names all mean other inodes from then on.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use staithe_fs::Invalidation;
use tokio::sync::watch;

use crate::kernel::{Kernel, Line};

/// How often an idle thread looks whether the session is over.
const PATROL: Duration = Duration::from_secs(1);

/// Starts the thread; it ends with the session, or when nobody can send any more.
pub(crate) fn spawn(
    line: Arc<Line>,
    invalidations: Receiver<Invalidation>,
    ended: watch::Receiver<bool>,
) -> io::Result<()> {
    let work = move || {
        while !*ended.borrow() {
            match invalidations.recv_timeout(PATROL) {
                Ok(invalidation) => {
                    if let Some(kernel) = line.get() {
                        tell(kernel, &invalidation);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    };
    thread::Builder::new().name("staithe-notify".to_owned()).spawn(work).map(drop)
}

/// Tells the kernel one thing, on a thread that serves no requests.
pub(crate) fn tell(kernel: &Kernel, invalidation: &Invalidation) {
    let told = match invalidation {
        Invalidation::Entry { parent, name } => kernel.forget_name(*parent, name),
        Invalidation::Inode { ino } => kernel.forget_inode(*ino),
        Invalidation::Doubt { may_be_directory: true, .. } if !kernel.names_expire() => Ok(()),
        Invalidation::Doubt { parent, name, .. } => kernel.doubt(*parent, name),
        Invalidation::Attributes { ino } => kernel.forget_attributes(*ino),
        // Dropped right after this.
        Invalidation::Fence(_) => Ok(()),
    };
    if let Err(error) = told {
        // The connection is gone; what the kernel has forgotten already is no error.
        tracing::debug!(?invalidation, %error, "the kernel could not be told");
    }
}
