//! New names: directories, symbolic links, empty files, and files opened for writing.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use staithe_store::{Payload, PutCondition, Version};

use crate::api::{Caller, Entry, Ino, Kind, Lookup, OpenMode, Opened};
use crate::error::{FsError, FsErrorKind, Result};
use crate::failpoint::{Step, reach};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Link, Marker, Remote, State};
use crate::lookup::deadline;
use crate::metadata::FileMeta;
use crate::names::check_name;
use crate::refresh::Moment;
use crate::revalidate::replaced;
use crate::staging::Staged;
use crate::state_dir::StateDir;

/// The longest target of a symbolic link, in bytes (`PATH_MAX` less its NUL).
const LINK_TARGET_MAX: usize = 4095;

impl Filesystem {
    /// Makes a directory: its marker is stored when this returns (write-through). One PUT.
    ///
    /// # Errors
    /// `Exists`, `Stale`, `ReadOnly`, `NameTooLong`, the store's errors.
    pub async fn mkdir(&self, parent: Ino, name: &str, mode: u16, caller: Caller) -> Result<Entry> {
        let directory = self.new_name(parent, name)?;
        let (_guard, path) = self.lock_name(parent, name).await?;
        self.refuse_taken(parent, name)?;
        let (mode, gid) = inherit(&directory, mode, caller.gid, true);
        let mut meta = FileMeta::new(Kind::Directory, mode, caller.uid, gid, SystemTime::now());
        meta.write_id = Some(new_write_id());
        let begun = self.refreshes.moment();
        let mut state = State::new(Some(Link { parent, name: Arc::from(name) }), meta);
        // What a flat listing has of it is of one that was there before.
        self.outdate_flat_at(&path);
        let entry = if self.writes_back() {
            self.marker_key(&path)?;
            (state.marker, state.meta_dirty) = (Marker::Pending, true);
            let entry = self.born_unstored(&directory, state).await?;
            self.remember_empty(entry.attr.ino);
            entry
        } else {
            self.put_marker(&path, &state.meta, PutCondition::IfAbsent).await?;
            state.marker = Marker::Present;
            self.outdate_flat_at(&path);
            self.born(&directory, state, begun)
        };
        Ok(entry)
    }

    /// A new directory that the store has not been told of is remembered whole: it has no names.
    fn remember_empty(&self, dir: Ino) {
        let token = self.names.begin(dir.0);
        let until = deadline(self.metadata_ttl(), Instant::now());
        if let Ok(listing) = self.names.listing(token, until) {
            // Refused: somebody makes a name in it already.
            let _ = listing.complete();
        }
    }

    /// Makes a symbolic link: an object with the target as its bytes. One PUT.
    ///
    /// # Errors
    /// As [`mkdir`](Self::mkdir); `NameTooLong` for a target over 4,095 bytes.
    pub async fn symlink(&self, parent: Ino, name: &str, target: &[u8], caller: Caller) -> Result<Entry> {
        if target.len() > LINK_TARGET_MAX {
            return Err(FsError::new(FsErrorKind::NameTooLong, "the target of a symbolic link is too long"));
        }
        let directory = self.new_name(parent, name)?;
        let (_, gid) = inherit(&directory, 0, caller.gid, false);
        let meta = FileMeta::new(Kind::Symlink, 0o777, caller.uid, gid, SystemTime::now());
        self.store_new(&directory, name, meta, Bytes::copy_from_slice(target)).await
    }

    /// Makes an empty regular file, stored when this returns (mknod; write-through). One PUT.
    ///
    /// # Errors
    /// As [`mkdir`](Self::mkdir).
    pub async fn mknod(&self, parent: Ino, name: &str, mode: u16, caller: Caller) -> Result<Entry> {
        let directory = self.new_name(parent, name)?;
        let (mode, gid) = inherit(&directory, mode, caller.gid, false);
        let meta = FileMeta::new(Kind::File, mode, caller.uid, gid, SystemTime::now());
        self.store_new(&directory, name, meta, Bytes::new()).await
    }

    async fn store_new(
        &self,
        directory: &Inode,
        name: &str,
        mut meta: FileMeta,
        bytes: Bytes,
    ) -> Result<Entry> {
        let parent = directory.ino;
        let (_guard, path) = self.lock_name(parent, name).await?;
        self.refuse_taken(parent, name)?;
        let key = self.key(&path)?;
        if self.writes_back() {
            let mut state = self.staged_state(parent, name, meta)?;
            if let Some(staged) = state.staged.as_mut() {
                staged.write(0, &bytes)?;
            }
            return self.born_unstored(directory, state).await;
        }
        meta.write_id = Some(new_write_id());
        let size = bytes.len() as u64;
        let begun = self.refreshes.moment();
        reach(Step::BeforePut);
        let version = self.put_new(&key, bytes, &meta).await?;
        reach(Step::AfterPut);
        let mut state = State::new(Some(Link { parent, name: Arc::from(name) }), meta);
        state.remote = Some(Remote { key, version, size });
        Ok(self.born(directory, state, begun))
    }

    async fn put_new(&self, key: &staithe_store::Key, bytes: Bytes, meta: &FileMeta) -> Result<Version> {
        let (condition, size) = (self.condition_for(None), bytes.len() as u64);
        match self.store.put(key, Payload::from(bytes), self.encode(meta)?, condition).await {
            Ok(written) => Ok(written.version),
            Err(error) => {
                if let Some(version) = self.was_ours(key, meta, size, error.kind()).await? {
                    return Ok(version);
                }
                self.take_back(key, meta, &error).await?;
                Err(error.into())
            }
        }
    }

    /// Creates a regular file and opens it. Nothing is asked of the store: the object is made when the file is
    /// closed. If the name was taken meanwhile, what has it is opened instead.
    ///
    /// # Errors
    /// `Stale`, `ReadOnly`, `NameTooLong`; `NoSpace` and `Io` from the staging directory.
    pub async fn create(
        &self,
        parent: Ino,
        name: &str,
        mode: u16,
        open: OpenMode,
        caller: Caller,
    ) -> Result<(Entry, Opened)> {
        let directory = self.new_name(parent, name)?;
        let (guard, path) = self.lock_name(parent, name).await?;
        self.key(&path)?;
        if self.is_taken(parent, name) || self.inodes.child(parent, name).is_some() {
            drop(guard);
            return self.open_existing(parent, name, open).await;
        }
        let (mode, gid) = inherit(&directory, mode, caller.gid, false);
        let meta = FileMeta::new(Kind::File, mode, caller.uid, gid, SystemTime::now());
        let mut state = self.staged_state(parent, name, meta)?;
        let loan = self.lend_new(&mut state, open)?;
        let inode = self.inodes.insert(state);
        // Outdates the answers under way; the name itself is ours until it is stored.
        self.remember(parent, name, None);
        directory.touch(SystemTime::now());
        let opened = self.open_handle(&inode, open, true, loan);
        Ok((self.entry(&inode, self.ttl()), opened))
    }

    /// A new name whose bytes are in a staging file, still empty.
    fn staged_state(&self, parent: Ino, name: &str, meta: FileMeta) -> Result<State> {
        let mut state = State::new(Some(Link { parent, name: Arc::from(name) }), meta);
        let staging = StateDir::new_staging_name();
        state.staged = Some(Staged::create(&self.state_dir.staging(), &staging)?.counted(&self.room));
        state.bytes_dirty = true;
        Ok(state)
    }

    /// A new name that the store will be told of later takes its place in memory and in the journal.
    async fn born_unstored(&self, directory: &Inode, state: State) -> Result<Entry> {
        let link = state.link.clone();
        let inode = self.inodes.insert(state);
        if let Some(link) = link {
            self.remember(link.parent, &link.name, None);
        }
        if let Err(error) = self.persist(&inode).await {
            // What the journal did not take it need not forget.
            let _ = self.nameless(&inode);
            return Err(error);
        }
        directory.touch(SystemTime::now());
        Ok(self.entry(&inode, self.ttl()))
    }

    /// Opens the file that has a name which a kernel took for free.
    async fn open_existing(&self, parent: Ino, name: &str, open: OpenMode) -> Result<(Entry, Opened)> {
        let Lookup::Found(entry) = self.lookup(parent, name).await? else {
            return Err(FsError::new(FsErrorKind::Stale, format!("{name:?} went while it was opened")));
        };
        let opened = self.open_file(entry.attr.ino, open).await;
        if opened.is_err() {
            self.forget(entry.attr.ino, 1);
        }
        Ok((entry, opened?))
    }

    /// The directory for a new name.
    fn new_name(&self, parent: Ino, name: &str) -> Result<Arc<Inode>> {
        check_name(name)?;
        self.writable()?;
        self.directory(parent)
    }

    /// Whether this mount knows that the name is taken.
    fn is_taken(&self, parent: Ino, name: &str) -> bool {
        let remembered = self.names.lookup(parent.0, name, std::time::Instant::now());
        let child = self.inodes.child(parent, name);
        child.is_some_and(|c| c.is_dir() || c.state().is_local())
            || matches!(remembered, staithe_dentry::Lookup::Hit(..))
    }

    fn refuse_taken(&self, parent: Ino, name: &str) -> Result<()> {
        if self.is_taken(parent, name) { Err(taken(name)) } else { Ok(()) }
    }

    /// A stored new name takes its place in memory.
    fn born(&self, directory: &Inode, state: State, begun: Moment) -> Entry {
        let inode = self.inodes.insert(state);
        self.confirm(&inode, begun);
        directory.touch(SystemTime::now());
        self.entry_of(&inode, self.ttl(), begun)
    }

    /// Fetches the target of a symbolic link; at most one GET, none if it is remembered.
    ///
    /// # Errors
    /// `Invalid` for what is no link; `Stale`; the store's errors.
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        let inode = self.inodes.get(ino)?;
        if inode.kind != Kind::Symlink {
            return Err(FsError::new(FsErrorKind::Invalid, "this is no symbolic link"));
        }
        let (body, remote) = {
            let state = inode.state();
            let staged = state.staged.as_ref().map(|staged| staged.read(0, LINK_TARGET_MAX)).transpose()?;
            (staged.or_else(|| state.body.clone()), state.remote.clone())
        };
        if let Some(body) = body {
            return Ok(body);
        }
        let remote = remote.ok_or_else(|| FsError::new(FsErrorKind::Stale, "the link is gone"))?;
        let object = self.get_small(remote.key.clone()).await?;
        let target = object.filter(|(meta, _)| meta.version.etag == remote.version.etag);
        let Some((_, target)) = target else {
            self.supersede(&inode, &remote.version);
            return Err(replaced());
        };
        self.bodies.hold(&inode, &remote.version.etag, target.clone());
        Ok(target)
    }
}

fn taken(name: &str) -> FsError {
    FsError::new(FsErrorKind::Exists, format!("{name:?} exists"))
}

/// A fresh id for one intent to write; in the object's metadata it tells our own write from another's.
pub(crate) fn new_write_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Group and set-gid bit of what is made in a set-gid directory come from that (as on other Linux filesystems).
fn inherit(directory: &Inode, mode: u16, gid: u32, is_dir: bool) -> (u16, u32) {
    let state = directory.state();
    if state.meta.mode & 0o2000 == 0 {
        return (mode, gid);
    }
    (if is_dir { mode | 0o2000 } else { mode }, state.meta.gid)
}
