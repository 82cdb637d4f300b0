//! Names that end: unlink and rmdir.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use staithe_store::DeleteRequest;

use crate::api::{Ino, Kind};
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Marker};
use crate::locks::Scope;
use crate::names::check_name;

impl Filesystem {
    /// Removes a file or a symbolic link. Who has it open reads on. One DELETE; none if it was never stored;
    /// one PUT more the first time in a directory without a marker.
    ///
    /// # Errors
    /// `NotFound`, `IsDirectory`, `ReadOnly`, `Stale`; `NoSpace` when an open file's bytes cannot be kept; the
    /// store's errors.
    pub async fn unlink(&self, parent: Ino, name: &str) -> Result<()> {
        check_name(name)?;
        self.writable()?;
        let directory = self.directory(parent)?;
        self.know_child(parent, name).await?;
        let (_guard, path) = self.lock_name(parent, name).await?;
        let child = self.inodes.child(parent, name);
        if let Some(inode) = &child {
            if inode.is_dir() {
                return Err(FsError::new(FsErrorKind::IsDirectory, format!("{name:?} is a directory")));
            }
            self.keep_for_open(inode).await?;
        }
        let is_stored = child.as_ref().is_none_or(|c| c.state().may_be_stored());
        if is_stored {
            if !self.has_sibling(&directory, name) {
                self.keep_directory(&directory).await?;
            }
            self.store.delete(DeleteRequest::latest(self.key(&path)?)).await?;
        }
        if let Some(inode) = &child {
            self.nameless(inode);
        }
        self.remember(parent, name, None);
        self.touch_directory(&directory);
        Ok(())
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
    pub(crate) fn nameless(&self, inode: &Arc<Inode>) {
        self.inodes.unlink(inode);
        let mut state = inode.state();
        state.meta.ctime = SystemTime::now();
        let streaming = state.streaming.take();
        drop(state);
        if let Some(streaming) = streaming {
            self.abandon(streaming);
        }
        if !inode.is_open() {
            self.drop_staged(inode);
        }
        self.inodes.let_go(inode);
    }

    /// Before the object of an open file goes: brings in what its handles may still read. Nothing need be
    /// brought where the bucket keeps the version.
    pub(crate) async fn keep_for_open(&self, inode: &Arc<Inode>) -> Result<()> {
        if !inode.is_open() || inode.kind != Kind::File {
            return Ok(());
        }
        let size = {
            let mut state = inode.state();
            let Some(remote) = state.remote.clone() else { return Ok(()) };
            if remote.version.id.is_some() {
                return Ok(());
            }
            self.stage(inode, &mut state)?;
            state.size()
        };
        self.bring_in(inode, 0..size).await
    }

    /// Whether memory knows, freshly, of another entry in this directory.
    fn has_sibling(&self, directory: &Inode, name: &str) -> bool {
        if directory.ino == Ino::ROOT || directory.state().marker == Marker::Present {
            return true;
        }
        self.names
            .entries(directory.ino.0, Instant::now())
            .is_some_and(|all| all.iter().any(|(other, _)| other != name))
    }

    /// Removes an empty directory. One LIST and one DELETE.
    ///
    /// # Errors
    /// `NotEmpty`, `NotFound`, `NotDirectory`, `ReadOnly`, `Stale`; the store's errors.
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
        if let Some(marker) = self.marker_key(&path)? {
            self.store.delete(DeleteRequest::latest(marker)).await?;
        }
        if let Some(inode) = &child {
            self.names.forget_dir(inode.ino.0);
            self.nameless(inode);
        }
        self.remember(parent, name, None);
        self.touch_directory(&directory);
        Ok(())
    }

    /// Fails unless the directory at `path` has nothing in it, here or in the store.
    pub(crate) async fn refuse_children(
        &self,
        directory: Option<&Inode>,
        path: &str,
        name: &str,
    ) -> Result<()> {
        let not_empty = || FsError::new(FsErrorKind::NotEmpty, format!("directory {name:?} is not empty"));
        if let Some(directory) = directory {
            if self.inodes.children(directory.ino).iter().any(|(_, c)| c.state().is_local()) {
                return Err(not_empty());
            }
        }
        let marker = self.marker_key(path)?;
        let below = self.first_below(path, 2).await?;
        match below.objects.iter().any(|o| Some(&o.key) != marker.as_ref()) {
            true => Err(not_empty()),
            false => Ok(()),
        }
    }
}
