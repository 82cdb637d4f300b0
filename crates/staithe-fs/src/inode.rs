//! One inode: what it is, where its name stands, where its bytes are.
//!
//! An inode is one content through its whole life: a remote change makes a *new* inode under the name, and this
//! one goes on, nameless, for those who have it open. Local writes keep it. So no page cache ever holds bytes of
//! two versions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use staithe_store::{ETag, Key, Version};

use crate::api::{Attr, Ino, Kind};
use crate::cache::CachedFile;
use crate::error::{FsError, FsErrorKind, Result};
use crate::journal::IntentId;
use crate::lend::Lent;
use crate::lookup::Misses;
use crate::metadata::FileMeta;
use crate::revalidate::replaced;
use crate::staging::Staged;
use crate::streaming::Streaming;
use crate::tries::Tries;

/// Where an inode's stored bytes are. The place changes with a rename, the bytes do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    /// The object.
    pub(crate) key: Key,
    /// Its version.
    pub(crate) version: Version,
    /// Its length in bytes.
    pub(crate) size: u64,
}

/// A name: the directory it stands in, and how it reads there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) parent: Ino,
    pub(crate) name: Arc<str>,
}

/// What is remembered of the marker object of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    /// Nobody asked yet.
    Unknown,
    /// There is none: the directory exists by its children.
    Missing,
    /// The directory was made here, and the store has not been told yet.
    Pending,
    /// It is there.
    Present,
}

/// The changing part of an inode; short critical sections only, never held across an await.
#[derive(Debug)]
pub(crate) struct State {
    /// Its name; `None` once that is gone.
    pub(crate) link: Option<Link>,
    /// Mode, owner, times, extended attributes.
    pub(crate) meta: FileMeta,
    /// Whether `meta` is the object's own, or made up from a listing.
    pub(crate) meta_known: bool,
    /// The stored object; `None` for what was never stored, and for directories.
    pub(crate) remote: Option<Remote>,
    /// Whether another client's change took the name away: what is written here can never be stored there.
    pub(crate) replaced: bool,
    /// When `remote` was last seen to be what the name means.
    pub(crate) validated: Option<Instant>,
    /// The local file with the bytes, while it is written.
    pub(crate) staged: Option<Staged>,
    /// Whether the bytes have changed since they were stored, or were never stored.
    pub(crate) bytes_dirty: bool,
    /// Whether something in `meta` has not been stored.
    pub(crate) meta_dirty: bool,
    /// Whether somebody set mtime, so that no write may move it until the next write.
    pub(crate) mtime_set: bool,
    /// Raised by every change of bytes or attributes.
    pub(crate) changes: u64,
    /// Raised when the stored bytes become others (not when they move): what part queues call the version.
    pub(crate) content: u64,
    /// What is remembered of tries to store this.
    pub(crate) tries: Tries,
    /// How many operations are making the object's bytes local for those who have it open.
    pub(crate) keepers: u32,
    /// The intent of the journal by which it is stored if this process ends first.
    pub(crate) kept: Option<IntentId>,
    /// Of which of its changes that says all.
    pub(crate) said: u64,
    /// Of which of its changes there is, or was, a job.
    pub(crate) queued: Option<u64>,
    /// The upload that runs while the file is still being written.
    pub(crate) streaming: Option<Streaming>,
    /// All bytes of a small object, fetched with its attributes.
    pub(crate) body: Option<Bytes>,
    /// What the disk cache has of the stored bytes, and of which content these are; while it is open.
    pub(crate) cached: Option<(u64, Arc<CachedFile>)>,
    /// The local file that its handles read in our place.
    pub(crate) lent: Option<Lent>,
    /// Whether reads were delivered from this inode, so that the kernel may hold pages of it.
    pub(crate) was_read: bool,
    /// A lost race took its name: what is written to it now would go nowhere, so nothing is taken any more.
    pub(crate) lost: bool,
    /// Why the last commit failed.
    pub(crate) failure: Option<String>,
    /// Directories: the marker object.
    pub(crate) marker: Marker,
    /// Directories: an entry that was there when somebody asked for any.
    pub(crate) witness: Option<Arc<str>>,
}

/// An inode.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) ino: Ino,
    pub(crate) kind: Kind,
    state: Mutex<State>,
    /// Serialises commits and attribute changes of this inode.
    pub(crate) commit: tokio::sync::Mutex<()>,
    /// Held while a request of ours may replace or move the object, until `remote` says what it is then. Who finds
    /// another object meanwhile waits for this before they believe that it is another client's.
    pub(crate) landing: tokio::sync::Mutex<()>,
    /// References that the kernel holds.
    pub(crate) lookups: AtomicU64,
    /// Open handles.
    pub(crate) opens: AtomicU64,
    /// Open handles that can write.
    pub(crate) writers: AtomicU64,
    /// Directories: whether a small body fetched ahead of its open has been worth it lately.
    pub(crate) eagerness: AtomicI32,
    /// Directories: names that were asked for in vain.
    pub(crate) misses: Misses,
    /// Whether a background commit is under way after the last close.
    pub(crate) settling: AtomicBool,
}

impl State {
    /// A linked inode with these attributes and nothing else.
    pub(crate) fn new(link: Option<Link>, meta: FileMeta) -> Self {
        Self {
            link,
            meta,
            meta_known: true,
            remote: None,
            replaced: false,
            validated: None,
            staged: None,
            bytes_dirty: false,
            meta_dirty: false,
            mtime_set: false,
            changes: 0,
            content: 0,
            tries: Tries::default(),
            keepers: 0,
            kept: None,
            said: 0,
            queued: None,
            streaming: None,
            body: None,
            cached: None,
            lent: None,
            was_read: false,
            lost: false,
            failure: None,
            marker: Marker::Unknown,
            witness: None,
        }
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        match (&self.staged, &self.remote) {
            (Some(staged), _) => staged.size(),
            (None, Some(remote)) => remote.size,
            (None, None) => 0,
        }
    }

    /// Whether anything here is not in the store yet.
    pub(crate) fn is_dirty(&self) -> bool {
        self.meta_dirty || self.bytes_dirty
    }

    /// How many bytes the store does not have. O(changed ranges).
    pub(crate) fn unstored(&self) -> u64 {
        let staged = self.staged.as_ref().filter(|_| self.bytes_dirty);
        staged.map_or(0, |staged| staged.dirty().iter().map(|range| range.end - range.start).sum())
    }

    /// Whether the store cannot yet know this file under its name, so that only we can answer for it.
    pub(crate) fn is_local(&self) -> bool {
        self.link.is_some() && (self.is_dirty() || (self.remote.is_none() && self.staged.is_some()))
    }

    /// Notes a change of bytes at `now`: times, and that the store does not have it.
    pub(crate) fn touch_bytes(&mut self, now: SystemTime) {
        self.meta.mtime = now;
        self.meta.ctime = now;
        self.mtime_set = false;
        self.outdate_store();
    }

    /// Whether the journal says what is not stored of it as that is now.
    pub(crate) fn is_said(&self) -> bool {
        self.kept.is_some() && self.said == self.changes
    }

    /// Notes that the store does not have the bytes.
    pub(crate) fn outdate_store(&mut self) {
        self.changes += 1;
        self.bytes_dirty = true;
        self.body = None;
    }

    /// Takes in the length and the time of a staging file that is written to without our being told.
    fn catch_up(&mut self) {
        let written = self.staged.as_mut().and_then(Staged::catch_up);
        if let Some(at) = written {
            // A disk's clock ticks slower than ours; a time that is still to come was set by somebody.
            self.touch_bytes(at.max(self.meta.mtime.min(SystemTime::now())));
        }
    }

    /// Tells every descriptor of a file that lost a race, not only the one whose close or fsync met it.
    ///
    /// # Errors
    /// `Stale`.
    pub(crate) fn refuse_lost(&self) -> Result<()> {
        if self.lost {
            let text = "another client was first: what was written until then is kept beside";
            return Err(FsError::new(FsErrorKind::Stale, text));
        }
        Ok(())
    }

    /// As [`refuse_lost`](Self::refuse_lost), and tells those whose kernel could not be refused a write to what another
    /// client has replaced.
    ///
    /// # Errors
    /// `Stale`.
    pub(crate) fn refuse_unstorable(&self) -> Result<()> {
        self.refuse_lost()?;
        if self.replaced && self.bytes_dirty && self.link.is_none() { Err(replaced()) } else { Ok(()) }
    }

    /// Notes a change of attributes at `now`.
    pub(crate) fn touch_meta(&mut self, now: SystemTime) {
        self.meta.ctime = now;
        self.changes += 1;
    }
}

impl Inode {
    pub(crate) fn new(ino: Ino, state: State) -> Arc<Self> {
        Arc::new(Self {
            ino,
            kind: state.meta.kind,
            state: Mutex::new(state),
            commit: tokio::sync::Mutex::new(()),
            landing: tokio::sync::Mutex::new(()),
            lookups: AtomicU64::new(0),
            opens: AtomicU64::new(0),
            writers: AtomicU64::new(0),
            eagerness: AtomicI32::new(2),
            misses: Misses::default(),
            settling: AtomicBool::new(false),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.catch_up();
        state
    }

    /// Notes that a directory's entries changed: its times, as POSIX asks.
    pub(crate) fn touch(&self, now: SystemTime) {
        let mut state = self.state();
        (state.meta.mtime, state.meta.ctime) = (now, now);
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }

    pub(crate) fn is_open(&self) -> bool {
        self.opens.load(Ordering::Acquire) > 0
    }

    /// Whether nobody needs this inode to stay in memory.
    pub(crate) fn is_idle(&self) -> bool {
        self.lookups.load(Ordering::Acquire) == 0 && !self.is_open() && {
            let state = self.state();
            let is_shared = state.staged.as_ref().is_some_and(Staged::is_shared);
            state.link.is_none() || !(state.is_dirty() || is_shared)
        }
    }

    /// Whether it stands for the version that `state` is of: the same object, or a directory as that is.
    pub(crate) fn is_as(&self, state: &State) -> bool {
        fn tag(state: &State) -> Option<&ETag> {
            state.remote.as_ref().map(|remote| &remote.version.etag)
        }
        self.kind == state.meta.kind
            && (self.is_dir() || (state.remote.is_some() && tag(&self.state()) == tag(state)))
    }

    /// Takes the attributes and the body over from `other`, which is of the same version, where it knows none.
    pub(crate) fn fill(&self, other: State) {
        let mut state = self.state();
        if state.is_local() || state.meta_known || !other.meta_known {
            return;
        }
        (state.meta, state.meta_known, state.validated) = (other.meta, true, other.validated);
        if state.body.is_none() {
            state.body = other.body;
        }
    }

    /// The attributes as they are now.
    pub(crate) fn attr(&self) -> Attr {
        attr_of(self.ino, &self.state())
    }
}

/// The attributes of `state`.
pub(crate) fn attr_of(ino: Ino, state: &State) -> Attr {
    let m = &state.meta;
    let nlink = match (m.kind, &state.link) {
        (Kind::Directory, _) if ino == Ino::ROOT => 2,
        (_, None) => 0,
        (Kind::Directory, Some(_)) => 2,
        (_, Some(_)) => 1,
    };
    let size = if m.kind == Kind::Directory { 4096 } else { state.size() };
    Attr {
        ino,
        kind: m.kind,
        size,
        mode: m.mode,
        uid: m.uid,
        gid: m.gid,
        nlink,
        atime: m.atime,
        mtime: m.mtime,
        ctime: m.ctime,
    }
}
