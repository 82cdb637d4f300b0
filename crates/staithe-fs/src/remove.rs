//! Names that end: unlink and rmdir.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use staithe_dentry::Lookup as Cached;
use staithe_store::DeleteRequest;

use crate::api::{Ino, Kind};
use crate::error::{FsError, FsErrorKind, Result};
use crate::failpoint::{Step, reach};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Marker};
use crate::locks::Scope;
use crate::names::check_name;

/// Holds a staging file that [`keep_for_open`](Filesystem::keep_for_open) filled.
#[derive(Debug)]
pub(crate) struct Kept(Arc<Inode>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.state().keepers -= 1;
    }
}

impl Filesystem {
    /// Removes a file or a symbolic link. Who has it open reads on. One DELETE; none if it was never stored;
    /// one PUT more the first time in a directory without a marker.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`, `ReadOnly`, `Stale`; `NoSpace` when an open file's bytes cannot be kept; the
    /// store's errors. `NoSpace` and `Io` from the journal: the name is gone, and a crash would bring back what the store
    /// did not have.
    pub async fn unlink(&self, parent: Ino, name: &str) -> Result<()> {
        check_name(name)?;
        self.writable()?;
        let directory = self.directory(parent)?;
        self.know_child(parent, name).await?;
        let (_guard, path) = self.lock_name(parent, name).await?;
        let key = self.key(&path)?;
        let child = self.inodes.child(parent, name);
        let mut _kept = None;
        if let Some(inode) = &child {
            if inode.is_dir() {
                return Err(FsError::new(FsErrorKind::IsDirectory, format!("{name:?} is a directory")));
            }
            self.know_tries(inode, &key).await?;
            _kept = self.keep_for_open(inode).await?;
        }
        let begun = self.refreshes.moment();
        let is_stored = child.as_ref().is_none_or(|c| c.state().remote.is_some());
        if is_stored {
            if !self.has_sibling(&directory, name) {
                self.keep_directory(&directory).await?;
            }
            reach(Step::BeforeUnlink);
            self.store.delete(DeleteRequest::latest(key)).await?;
            reach(Step::AfterUnlink);
        }
        let forgotten = child.as_ref().map_or(Ok(()), |inode| self.nameless(inode));
        self.remember_since(begun, parent, name, None);
        directory.touch(SystemTime::now());
        forgotten
    }

    /// Makes sure that an inode in memory stands for a stored name, so that an unlink of it, by a kernel that
    /// has dropped it, still finds its handles.
    async fn know_child(&self, parent: Ino, name: &str) -> Result<()> {
        if self.inodes.child(parent, name).is_some() {
            return Ok(());
        }
        match self.lookup(parent, name).await? {
            crate::api::Lookup::Found(entry) => {
                self.forget(entry.attr.ino, 1);
                Ok(())
            }
            crate::api::Lookup::Absent { .. } => {
                Err(FsError::new(FsErrorKind::NotFound, format!("{name:?} does not exist")))
            }
        }
    }

    /// The inode has lost its name for good; what is not stored of it never will be.
    ///
    /// # Errors
    /// As [`void`](Self::void): a start after a crash may store it all the same.
    pub(crate) fn nameless(&self, inode: &Arc<Inode>) -> Result<()> {
        self.inodes.unlink(inode);
        // What runs of it has nothing to commit any more, and removes what it made.
        drop(self.jobs.cancel(&inode.ino));
        let mut state = inode.state();
        state.meta.ctime = SystemTime::now();
        let streaming = state.streaming.take();
        let forgotten = self.void(&mut state);
        drop(state);
        if let Some(streaming) = streaming {
            self.abandon(streaming);
        }
        if !inode.is_open() {
            inode.drop_staged();
        }
        self.inodes.let_go(inode);
        forgotten
    }

    /// Before the object of an open file goes: brings in what its handles may still read. Nothing need be
    /// brought where the bucket keeps the version. Until the value is dropped no close takes the bytes away again.
    pub(crate) async fn keep_for_open(&self, inode: &Arc<Inode>) -> Result<Option<Kept>> {
        if !inode.is_open() || inode.kind != Kind::File {
            return Ok(None);
        }
        let (kept, size) = {
            let mut state = inode.state();
            let Some(remote) = state.remote.clone() else { return Ok(None) };
            if remote.version.id.is_some() {
                return Ok(None);
            }
            self.stage(inode, &mut state)?;
            state.keepers += 1;
            (Kept(inode.clone()), state.size())
        };
        self.bring_in(inode, 0..size).await?;
        Ok(Some(kept))
    }

    /// Whether memory knows, freshly, of another entry in this directory. Enumerates it only when the witness has
    /// gone that the last time found: the last entry, as removers go from the first one on.
    fn has_sibling(&self, directory: &Inode, name: &str) -> bool {
        if directory.ino == Ino::ROOT || directory.state().marker == Marker::Present {
            return true;
        }
        let now = Instant::now();
        let witness = directory.state().witness.clone().filter(|w| **w != *name);
        if witness.is_some_and(|w| matches!(self.names.lookup(directory.ino.0, &w, now), Cached::Hit(..))) {
            return true;
        }
        let all = self.names.entries(directory.ino.0, now);
        let other =
            all.as_ref().and_then(|all| all.iter().map(|(other, _)| other).rfind(|other| *other != name));
        directory.state().witness = other.map(Arc::from);
        other.is_some()
    }

    /// Removes an empty directory. One LIST and one DELETE.
    ///
    /// # Errors
    /// `NotEmpty`, `NotFound`, `NotDirectory`, `ReadOnly`, `Stale`; the store's errors; the journal's as of
    /// [`unlink`](Self::unlink).
    pub async fn rmdir(&self, parent: Ino, name: &str) -> Result<()> {
        check_name(name)?;
        self.writable()?;
        let directory = self.directory(parent)?;
        self.know_child(parent, name).await?;
        let (_guard, path) = self.lock_path(|| self.path_in(parent, name), Scope::Subtree).await?;
        let child = self.inodes.child(parent, name);
        if child.as_ref().is_some_and(|c| !c.is_dir()) {
            return Err(FsError::new(FsErrorKind::NotDirectory, format!("{name:?} is no directory")));
        }
        self.refuse_children(child.as_deref(), &path, name).await?;
        if !self.has_sibling(&directory, name) {
            self.keep_directory(&directory).await?;
        }
        let begun = self.refreshes.moment();
        if let Some(marker) = self.marker_key(&path)? {
            reach(Step::BeforeRmdir);
            self.store.delete(DeleteRequest::latest(marker)).await?;
            reach(Step::AfterRmdir);
        }
        self.outdate_flat_at(&path);
        let forgotten = child.as_ref().map_or(Ok(()), |inode| {
            self.names.forget_dir(inode.ino.0);
            self.nameless(inode)
        });
        self.remember_since(begun, parent, name, None);
        directory.touch(SystemTime::now());
        forgotten
    }

    /// Fails unless the directory at `path` has nothing in it, here or in the store.
    pub(crate) async fn refuse_children(
        &self,
        directory: Option<&Inode>,
        path: &str,
        name: &str,
    ) -> Result<()> {
        let not_empty = || FsError::new(FsErrorKind::NotEmpty, format!("directory {name:?} is not empty"));
        let children = directory.map(|d| self.inodes.children(d.ino)).unwrap_or_default();
        if children.iter().any(|(_, child)| child.state().is_local()) {
            return Err(not_empty());
        }
        let marker = self.marker_key(path)?;
        let below = self.first_below(path, 2).await?;
        if below.objects.iter().any(|o| Some(&o.key) != marker.as_ref()) { Err(not_empty()) } else { Ok(()) }
    }
}
