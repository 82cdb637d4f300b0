//! Small objects that came along with their attributes, until somebody opens them.
//!
//! Bounded in bytes: the oldest ones go first.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::inode::Inode;

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

    /// Hangs a body on its inode, and lets the oldest ones go until all fit. Amortised O(1).
    pub(crate) fn hold(&self, inode: &Arc<Inode>, body: Bytes) {
        let size = body.len() as u64;
        inode.state().body = Some(body);
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
