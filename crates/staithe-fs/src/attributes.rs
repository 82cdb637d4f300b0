//! stat, and what changes it: mode, owner, times, size, extended attributes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use crate::api::{Attributes, HandleId, Ino, Kind, SetAttr, SetTime, XattrMode};
use crate::door::Door;
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, State};
use crate::persist::JobPhase;
use crate::revalidate::replaced;

/// The attribute that tells whether a file is stored.
const STATE_ATTRIBUTE: &str = "user.staithe.state";
/// The namespace that objects can carry.
const USER: &str = "user.";

impl Filesystem {
    /// Attributes from memory; `None`: ask [`getattr`](Self::getattr).
    pub fn try_getattr(&self, ino: Ino, handle: Option<HandleId>) -> Option<Result<Attributes>> {
        let inode = match self.inode_of(ino, handle) {
            Ok(inode) => inode,
            Err(error) => return Some(Err(error)),
        };
        let state = inode.state();
        let named = state.link.is_some() || ino == Ino::ROOT;
        if !named && !inode.is_open() {
            return Some(Err(FsError::new(FsErrorKind::Stale, "the name of this inode is gone")));
        }
        let known = state.meta_known || !self.wants_full();
        let from_memory = (inode.is_dir() && (known || !named))
            || state.is_local()
            || (known && (inode.is_open() || self.is_fresh(state.validated, Instant::now())));
        from_memory.then(|| Ok(self.attributes_of(ino, &state)))
    }

    /// The attributes of an inode. At most one HEAD.
    ///
    /// # Errors
    /// `Stale` when its name is gone or means something else, and nobody has it open; the store's errors.
    pub async fn getattr(&self, ino: Ino, handle: Option<HandleId>) -> Result<Attributes> {
        if let Some(known) = self.try_getattr(ino, handle) {
            return known;
        }
        let inode = self.inode_of(ino, handle)?;
        let asked =
            if inode.is_dir() { self.know_directory(&inode).await } else { self.revalidate(&inode).await };
        match asked {
            Err(error) if error.kind() == FsErrorKind::Stale && inode.is_open() => {}
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        let state = inode.state();
        Ok(self.attributes_of(ino, &state))
    }

    fn inode_of(&self, ino: Ino, handle: Option<HandleId>) -> Result<Arc<Inode>> {
        match handle.and_then(|h| self.files.get(h).ok()) {
            Some(handle) if handle.inode.ino == ino => Ok(handle.inode.clone()),
            _ => self.inodes.get(ino),
        }
    }

    /// Changes attributes. A stored file: one self-copy with the new metadata; a file that is being written:
    /// nothing, its next commit carries them; a directory: one PUT of its marker. A size without a handle is
    /// stored before this returns.
    ///
    /// # Errors
    /// `Stale`, `ReadOnly`, `NoSpace`, `TooLarge`, the store's errors.
    pub async fn setattr(&self, ino: Ino, handle: Option<HandleId>, set: SetAttr) -> Result<Attributes> {
        let inode = self.inode_of(ino, handle)?;
        if handle.is_none() || set.size.is_none() {
            self.writable()?;
        }
        self.know_meta(&inode).await?;
        if let Some(size) = set.size {
            self.resize(&inode, size).await?;
        }
        if (SetAttr { size: None, ..set }) != SetAttr::default() {
            self.change_meta(&inode, |state| {
                apply(state, set, SystemTime::now());
                Ok(())
            })
            .await?;
        }
        if set.size.is_some() && handle.is_none() {
            self.persist(&inode).await?;
            inode.settle_staging();
        }
        let state = inode.state();
        Ok(self.attributes_of(ino, &state))
    }

    async fn resize(&self, inode: &Arc<Inode>, size: u64) -> Result<()> {
        if inode.kind != Kind::File {
            return Err(FsError::new(FsErrorKind::IsDirectory, "only files have a size to set"));
        }
        if size > self.store.capabilities().object_size_max {
            return Err(FsError::new(FsErrorKind::TooLarge, "the store takes no object of that size"));
        }
        if inode.state().staged.is_none() {
            self.revalidate(inode).await?;
        }
        self.truncate(inode, size)
    }

    /// Changes attributes in memory, and in the store unless the next commit of the file does it anyway.
    async fn change_meta(&self, inode: &Arc<Inode>, change: impl Fn(&mut State) -> Result<()>) -> Result<()> {
        // Nothing is stored here then, and what is being stored may take long: it finds the change when it is done.
        let _serial = if self.writes_back() { None } else { Some(inode.commit.lock().await) };
        let before = {
            let mut state = inode.state();
            if state.replaced {
                return Err(replaced());
            }
            let before = (state.meta.clone(), state.meta_dirty, state.mtime_set);
            change(&mut state)?;
            state.touch_meta(SystemTime::now());
            let is_nameless = state.link.is_none();
            let is_deferred = is_nameless || state.is_local() || self.writes_back();
            state.meta_dirty |= is_deferred && !is_nameless;
            (!is_deferred).then_some(before)
        };
        let Some(before) = before else {
            // Its next close says all of it.
            let is_being_written = inode.writers.load(Ordering::Acquire) > 0 && {
                let state = inode.state();
                state.bytes_dirty && state.kept.is_none()
            };
            if self.writes_back() && !is_being_written {
                return self.persist(inode).await;
            }
            return self.keep_anew(std::slice::from_ref(inode), Vec::new());
        };
        let stored = self.store_meta(inode, &Door::open()).await;
        if stored.is_err() {
            let mut state = inode.state();
            (state.meta, state.meta_dirty, state.mtime_set) = before;
        }
        stored
    }

    /// An extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`; `Stale`; the store's errors.
    pub async fn getxattr(&self, ino: Ino, name: &str) -> Result<Bytes> {
        let inode = self.inodes.get(ino)?;
        if name == STATE_ATTRIBUTE {
            return Ok(Bytes::from(self.storage_state(&inode)));
        }
        self.know_meta(&inode).await?;
        inode.state().meta.xattrs.get(name).cloned().ok_or_else(|| no_attribute(name))
    }

    /// The names of all extended attributes.
    ///
    /// # Errors
    /// `Stale`; the store's errors.
    pub async fn listxattr(&self, ino: Ino) -> Result<Vec<String>> {
        let inode = self.inodes.get(ino)?;
        self.know_meta(&inode).await?;
        let state = inode.state();
        Ok(state.meta.xattrs.keys().cloned().collect())
    }

    /// Sets an extended attribute; only `user.*` can be stored. Requests as for [`setattr`](Self::setattr).
    ///
    /// # Errors
    /// `Exists`, `NoAttribute` as `mode` asks; `AttributeTooLarge`; `Unsupported` for other namespaces;
    /// `NotPermitted` for `user.staithe.*`.
    pub async fn setxattr(&self, ino: Ino, name: &str, value: &[u8], mode: XattrMode) -> Result<()> {
        let inode = self.attribute_to_change(ino, name)?;
        self.know_meta(&inode).await?;
        let value = Bytes::copy_from_slice(value);
        let most = self.store.capabilities().metadata_bytes_max;
        self.change_meta(&inode, |state| {
            let exists = state.meta.xattrs.contains_key(name);
            match mode {
                XattrMode::Create if exists => {
                    return Err(FsError::new(FsErrorKind::Exists, format!("attribute {name} exists")));
                }
                XattrMode::Replace if !exists => return Err(no_attribute(name)),
                _ => {}
            }
            let mut meta = state.meta.clone();
            meta.xattrs.insert(name.to_owned(), value.clone());
            meta.encode(most)?;
            state.meta = meta;
            Ok(())
        })
        .await
    }

    /// Removes an extended attribute. Requests as for [`setattr`](Self::setattr).
    ///
    /// # Errors
    /// `NoAttribute`, and as [`setxattr`](Self::setxattr).
    pub async fn removexattr(&self, ino: Ino, name: &str) -> Result<()> {
        let inode = self.attribute_to_change(ino, name)?;
        self.know_meta(&inode).await?;
        self.change_meta(&inode, |state| {
            state.meta.xattrs.remove(name).map(drop).ok_or_else(|| no_attribute(name))
        })
        .await
    }

    /// What `user.staithe.state` says: clean, dirty, persisting, or failed and why; of a directory, what holds for
    /// itself, not for what is in it.
    fn storage_state(&self, inode: &Inode) -> String {
        let is_committing = inode.commit.try_lock().is_err();
        let phase = self.phase(inode.ino);
        let state = inode.state();
        match (phase, &state.failure) {
            _ if !state.is_dirty() => "clean".to_owned(),
            (Some((JobPhase::Running, _)), _) => "persisting".to_owned(),
            (Some((JobPhase::Retrying | JobPhase::Failed, why)), _) => {
                format!("failed: {}", why.unwrap_or_default())
            }
            (None, _) if is_committing => "persisting".to_owned(),
            (None, Some(why)) => format!("failed: {why}"),
            (Some((JobPhase::Waiting, _)), _) | (None, None) => "dirty".to_owned(),
        }
    }

    fn attribute_to_change(&self, ino: Ino, name: &str) -> Result<Arc<Inode>> {
        self.writable()?;
        if name.starts_with("user.staithe.") {
            return Err(FsError::new(FsErrorKind::NotPermitted, "user.staithe.* is told, not set"));
        }
        if !name.starts_with(USER) {
            return Err(FsError::new(FsErrorKind::Unsupported, "objects carry only user.* attributes"));
        }
        let inode = self.inodes.get(ino)?;
        if inode.kind == Kind::Symlink {
            return Err(FsError::new(FsErrorKind::NotPermitted, "symbolic links carry no user.* attributes"));
        }
        Ok(inode)
    }
}

fn no_attribute(name: &str) -> FsError {
    FsError::new(FsErrorKind::NoAttribute, format!("no attribute {name}"))
}

fn apply(state: &mut State, set: SetAttr, now: SystemTime) {
    let time = |t: SetTime| match t {
        SetTime::Now => now,
        SetTime::To(time) => time,
    };
    let meta = &mut state.meta;
    if let Some(mode) = set.mode {
        meta.mode = (mode & 0o7777) as u16;
    }
    meta.uid = set.uid.unwrap_or(meta.uid);
    meta.gid = set.gid.unwrap_or(meta.gid);
    meta.atime = set.atime.map_or(meta.atime, time);
    if let Some(mtime) = set.mtime {
        meta.mtime = time(mtime);
        state.mtime_set = true;
    }
}
