//! Small objects that came along with their attributes, until somebody opens them.
//!
//! Bounded in bytes, what each takes beside its bytes included: the oldest ones go first.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use staithe_store::ETag;

use crate::inode::Inode;

/// What a body takes beside its bytes: its place here, and the memory of an inode that went before it.
pub(crate) const OVERHEAD: u64 = 1024;

#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    oldest_first: VecDeque<(Weak<Inode>, u64)>,
}

/// The bodies held by inodes that nobody has read yet.
#[derive(Debug)]
pub(crate) struct SmallBodies {
    most: u64,
    held: Mutex<Held>,
}

impl SmallBodies {
    /// Holds at most `most` bytes.
    pub(crate) fn new(most: u64) -> Self {
        Self { most, held: Mutex::default() }
    }

    /// Whether a body of `size` bytes may be held at all.
    pub(crate) fn has_room(&self, size: u64) -> bool {
        size <= self.most
    }

    /// Hangs the body of the version `etag` on its inode, and lets the oldest ones go until all fit. Does nothing
    /// if that is not what the inode is any more: a write may have come in between. Amortised O(1).
    pub(crate) fn hold(&self, inode: &Arc<Inode>, etag: &ETag, body: Bytes) {
        let size = body.len() as u64 + OVERHEAD;
        {
            let mut state = inode.state();
            let is_it =
                state.remote.as_ref().is_some_and(|r| r.version.etag == *etag && r.size == body.len() as u64);
            if !is_it || state.staged.is_some() || state.is_dirty() {
                return;
            }
            state.body = Some(body);
        }
        let mut held = self.held.lock();
        held.bytes += size;
        held.oldest_first.push_back((Arc::downgrade(inode), size));
        while held.bytes > self.most {
            let Some((oldest, size)) = held.oldest_first.pop_front() else { return };
            held.bytes -= size;
            if let Some(oldest) = oldest.upgrade().filter(|o| !o.is_open()) {
                oldest.state().body = None;
            }
        }
    }
}
