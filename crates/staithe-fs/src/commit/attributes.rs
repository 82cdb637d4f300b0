//! Attributes on their way to the store: with the bytes they belong to, or after them.

use std::sync::Arc;

use staithe_store::{CopyRequest, ErrorKind, Key, PutCondition, StoreError, Version};

use super::{Job, store_error};
use crate::api::Ino;
use crate::create::new_write_id;
use crate::door::Door;
use crate::error::{FsError, FsErrorKind, Result};
use crate::failpoint::{Step, reach};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Marker, Remote};
use crate::locks::Scope;
use crate::metadata::FileMeta;
use crate::refresh::Moment;

impl Filesystem {
    /// After a successful commit: attributes that the upload could not carry yet.
    pub(super) async fn stored(&self, inode: &Arc<Inode>, job: &Job, sent: &FileMeta) -> Result<()> {
        tracing::debug!(ino = inode.ino.0, size = job.size, "stored");
        let needs_meta = {
            let mut state = inode.state();
            let explicit = state.mtime_set;
            let differs = !same_attributes(sent, &job.meta, explicit);
            if !differs && state.changes == job.changes && !explicit {
                (state.meta.mtime, state.meta.ctime) = (sent.mtime, sent.ctime);
            }
            let needs_meta = differs && state.link.is_some();
            // Until the store has them, also if that fails now.
            state.meta_dirty |= needs_meta;
            needs_meta
        };
        // What was stored is to be told whole: nobody stops it here.
        if needs_meta { self.store_meta(inode, &Door::open()).await } else { Ok(()) }
    }

    /// Stores the attributes of a directory: its marker. One that another client made meanwhile stays as it is.
    async fn store_marker(&self, inode: &Arc<Inode>, door: &Door<'_>) -> Result<()> {
        if inode.ino == Ino::ROOT {
            return Ok(());
        }
        let (_guard, path) = self.lock_path(|| self.inodes.path(inode.ino), Scope::Name).await?;
        let (meta, changes, is_new, may_be_ours) = {
            let mut state = inode.state();
            let may_be_ours = std::mem::replace(&mut state.tries.unsure, true);
            (state.meta.clone(), state.changes, state.marker == Marker::Pending, may_be_ours)
        };
        door.pass().await?;
        let begun = self.refreshes.moment();
        // An earlier try of ours may have made it.
        let is_new = is_new && !may_be_ours;
        let condition = if is_new { PutCondition::IfAbsent } else { PutCondition::Always };
        match self.put_marker(&path, &meta, condition).await {
            Err(error) if is_new && error.kind() == FsErrorKind::Exists => {
                tracing::debug!(path, "another client made the same directory meanwhile");
            }
            stored => stored?,
        }
        {
            let mut state = inode.state();
            state.marker = Marker::Present;
            state.tries.settle();
        }
        self.confirm_attributes(inode, begun, changes);
        Ok(())
    }

    /// The store has the attributes as they were at `changes`.
    fn confirm_attributes(&self, inode: &Inode, begun: Moment, changes: u64) {
        // First what the name means, while the inode still answers for it.
        self.confirm(inode, begun);
        let mut state = inode.state();
        if state.changes == changes {
            state.meta_dirty = false;
        }
    }

    /// Stores the attributes of a stored object: a copy onto itself; of a directory: its marker.
    ///
    /// # Errors
    /// `Stale` when the object is not the one we know any more; the store's errors.
    pub(crate) async fn store_meta(&self, inode: &Arc<Inode>, door: &Door<'_>) -> Result<()> {
        if inode.is_dir() {
            return self.store_marker(inode, door).await;
        }
        let (_guard, path) = self.lock_path(|| self.inodes.path(inode.ino), Scope::Name).await?;
        let key = self.key(&path)?;
        let (mut meta, changes, remote) = {
            let state = inode.state();
            (state.meta.clone(), state.changes, state.remote.clone())
        };
        let Some(remote) = remote else { return Ok(()) };
        meta.write_id = Some(new_write_id());
        let begun = self.refreshes.moment();
        door.pass().await?;
        let _landing = inode.landing.lock().await;
        reach(Step::BeforeAttributes);
        let version = match self.copy_object(&remote, &key, Some(&meta)).await {
            Ok(version) => version,
            // A copy may have another tag than its source, and then its own first try is in its way.
            Err(error) => match self.was_ours(&key, &meta, remote.size, kind_in_store(&error)).await? {
                Some(version) => version,
                None if matches!(error.kind(), FsErrorKind::NotFound | FsErrorKind::Stale) => {
                    self.supersede(inode, &remote.version);
                    let text = "the object was replaced or removed";
                    return Err(FsError::caused(FsErrorKind::Stale, text, error));
                }
                None => return Err(error),
            },
        };
        reach(Step::AfterAttributes);
        inode.state().remote = Some(Remote { key, version, ..remote });
        self.confirm_attributes(inode, begun, changes);
        Ok(())
    }

    /// Copies a stored object server-side, with other attributes if `meta` says so; part by part when it is too
    /// large for one copy.
    pub(crate) async fn copy_object(
        &self,
        from: &Remote,
        to: &Key,
        meta: Option<&FileMeta>,
    ) -> Result<Version> {
        let capabilities = self.store.capabilities();
        if from.size > capabilities.part_size_max {
            return self.copy_in_parts(from, to, meta).await;
        }
        let from_version =
            (capabilities.copy_if_match || from.version.id.is_some()).then(|| from.version.clone());
        let replace = meta.map(|m| self.encode(m)).transpose()?;
        let request = CopyRequest { from: from.key.clone(), from_version, to: to.clone(), replace };
        Ok(self.store.copy(request).await?.version)
    }
}

/// The store's word for what went wrong; `Invalid` if it was not the store.
fn kind_in_store(error: &FsError) -> ErrorKind {
    store_error(error).map_or(ErrorKind::Invalid, StoreError::kind)
}

/// Whether attributes sent ahead are those that the file has in the end.
fn same_attributes(sent: &FileMeta, wanted: &FileMeta, mtime_set: bool) -> bool {
    debug_assert_eq!(sent.kind, wanted.kind);
    (!mtime_set || sent.mtime == wanted.mtime)
        && sent.atime == wanted.atime
        && (sent.mode, sent.uid, sent.gid) == (wanted.mode, wanted.uid, wanted.gid)
        && sent.xattrs == wanted.xattrs
}
