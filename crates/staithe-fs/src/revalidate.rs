//! Whether an inode still is what the store has under its name, and what its own attributes are.

use std::sync::Arc;
use std::time::Instant;

use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Marker};
use crate::metadata::FileMeta;

impl Filesystem {
    /// Asks the store whether `inode` still is what its name means, unless that was asked lately.
    ///
    /// # Errors
    /// `Stale` when it is not: the kernel then looks the name up again.
    pub(crate) async fn revalidate(&self, inode: &Arc<Inode>) -> Result<()> {
        let (key, version, changes) = {
            let state = inode.state();
            if state.replaced {
                return Err(replaced());
            }
            let fresh =
                self.is_fresh(state.validated, Instant::now()) && (state.meta_known || !self.wants_full());
            match &state.remote {
                Some(remote) if !fresh && !state.is_local() => {
                    (remote.key.clone(), remote.version.clone(), state.changes)
                }
                _ => return Ok(()),
            }
        };
        let (at, asked) = (Instant::now(), self.refreshes.moment());
        let Some(object) = self.head(key).await?.filter(|o| o.version.etag == version.etag) else {
            // Not superseded: what the store answered with is what was stored from here meanwhile.
            return if self.supersede(inode, &version) { Err(replaced()) } else { Ok(()) };
        };
        let meta = FileMeta::decode(&object, &self.defaults());
        let mut state = inode.state();
        let is_believed = self.refreshes.none_since(asked);
        let is_untouched = !state.is_dirty() && state.changes == changes;
        if is_untouched && meta.kind == inode.kind && self.wants_full() {
            state.meta = meta;
            state.meta_known |= is_believed;
        }
        if let Some(remote) = state.remote.as_mut().filter(|r| r.version.etag == object.version.etag) {
            remote.version = object.version;
            state.validated = is_believed.then_some(at);
        }
        Ok(())
    }

    /// Makes sure that `inode` has its object's own attributes, for a change that would store them again. Those of a
    /// file with unstored changes are ours: nothing is asked, and no answer that is under way replaces them.
    pub(crate) async fn know_meta(&self, inode: &Arc<Inode>) -> Result<()> {
        let (known, remote, changes) = {
            let state = inode.state();
            (state.meta_known || state.is_dirty(), state.remote.clone(), state.changes)
        };
        if inode.is_dir() {
            return self.know_directory(inode).await;
        }
        let (false, Some(remote)) = (known, remote) else { return Ok(()) };
        let asked = self.refreshes.moment();
        let object = self.head(remote.key).await?;
        let Some(object) = object.filter(|o| o.version.etag == remote.version.etag) else {
            let is_known = !self.supersede(inode, &remote.version) && inode.state().meta_known;
            return if is_known { Ok(()) } else { Err(replaced()) };
        };
        let meta = FileMeta::decode(&object, &self.defaults());
        let mut state = inode.state();
        if !state.meta_known && !state.is_dirty() && state.changes == changes {
            state.meta = meta;
            state.meta_known = self.refreshes.none_since(asked);
        }
        Ok(())
    }

    /// Makes sure that a directory has its marker's attributes, unless nobody doubts those that it has. One HEAD then.
    pub(crate) async fn know_directory(&self, dir: &Arc<Inode>) -> Result<()> {
        let changes = {
            let state = dir.state();
            if state.meta_known || state.is_dirty() || state.link.is_none() {
                return Ok(());
            }
            state.changes
        };
        let asked = self.refreshes.moment();
        let Some(key) = self.marker_key(&self.inodes.path(dir.ino)?)? else { return Ok(()) };
        let object = self.head(key).await?;
        let mut state = dir.state();
        if !state.meta_known && state.changes == changes {
            let marker = if object.is_some() { Marker::Present } else { Marker::Missing };
            self.take_marker(&mut state, marker, object.as_ref());
            state.meta_known = self.refreshes.none_since(asked);
        }
        Ok(())
    }
}

/// What somebody gets whose object is not there any more.
pub(crate) fn replaced() -> FsError {
    FsError::new(FsErrorKind::Stale, "the object was replaced or removed by another client")
}
