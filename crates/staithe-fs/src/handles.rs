//! Open files and directory streams, by handle number.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::api::HandleId;
use crate::directory::Stream;
use crate::error::{FsError, FsErrorKind, Result};
use crate::fetch::Reading;
use crate::inode::Inode;

/// An open file.
#[derive(Debug)]
pub(crate) struct FileHandle {
    pub(crate) inode: Arc<Inode>,
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// Something may have changed through it, if only by opening it: its close stores the file.
    pub(crate) flushes: bool,
    /// A local file is read in our place: see [`lend`](crate::lend).
    pub(crate) lent: AtomicBool,
    /// A kernel writes through it in our place, to a file that is watched for that.
    pub(crate) is_untold: bool,
    /// What is on its way for this reader; made at the first read that needs it.
    pub(crate) queue: Mutex<Option<Reading>>,
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct DirHandle {
    pub(crate) inode: Arc<Inode>,
    pub(crate) stream: tokio::sync::Mutex<Stream>,
}

/// A table of handles; numbers are never reused.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    next: AtomicU64,
    open: RwLock<HashMap<HandleId, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { next: AtomicU64::new(1), open: RwLock::default() }
    }
}

impl<T> Handles<T> {
    pub(crate) fn insert(&self, handle: T) -> HandleId {
        let id = HandleId(self.next.fetch_add(1, Ordering::Relaxed));
        self.open.write().insert(id, Arc::new(handle));
        id
    }

    pub(crate) fn get(&self, id: HandleId) -> Result<Arc<T>> {
        self.open
            .read()
            .get(&id)
            .cloned()
            .ok_or_else(|| FsError::new(FsErrorKind::BadHandle, format!("handle {} is not open", id.0)))
    }

    /// All that are open.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.open.read().values().cloned().collect()
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.open.read().len()
    }

    pub(crate) fn remove(&self, id: HandleId) -> Option<Arc<T>> {
        self.open.write().remove(&id)
    }
}
