//! Telling the kernel what to forget.
//!
//! A notification may wait for requests in flight of the same inode, and those for whoever sent it: so it never
//! comes from a request, a runtime worker, or under a lock. This thread does nothing else.

use std::ffi::OsStr;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use fuser::{INodeNo, Notifier};
use staithe_fs::Invalidation;
use tokio::sync::watch;

/// How often an idle thread looks whether the session is over.
const PATROL: Duration = Duration::from_secs(1);

/// Starts the thread; it ends with the session, or when nobody can send any more.
pub(crate) fn spawn(
    notifier: Notifier,
    invalidations: Receiver<Invalidation>,
    ended: watch::Receiver<bool>,
) -> io::Result<()> {
    let work = move || {
        while !*ended.borrow() {
            match invalidations.recv_timeout(PATROL) {
                Ok(invalidation) => tell(&notifier, &invalidation),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    };
    thread::Builder::new().name("staithe-notify".to_owned()).spawn(work).map(drop)
}

fn tell(notifier: &Notifier, invalidation: &Invalidation) {
    let told = match invalidation {
        Invalidation::Entry { parent, name } => notifier.inval_entry(INodeNo(parent.0), OsStr::new(name)),
        // From the first byte, without an end.
        Invalidation::Inode { ino } => notifier.inval_inode(INodeNo(ino.0), 0, 0),
    };
    if let Err(error) = told {
        // The connection is gone; what the kernel has forgotten already is no error.
        tracing::debug!(?invalidation, %error, "the kernel could not be told");
    }
}
