//! Moving all objects below a prefix: copied in parallel, then switched, then removed; journaled.

use futures::{FutureExt, StreamExt};
use staithe_store::{Key, ListRequest, ObjectSummary, PutCondition, Version};

use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::Remote;
use crate::intent::Intent;
use crate::metadata::FileMeta;

/// Copies on their way at once.
const COPIES_AT_ONCE: usize = 16;

/// Where an object went.
struct Moved {
    from: Key,
    /// The path of the old key below the root of the filesystem.
    path: String,
    to: Remote,
}

impl Filesystem {
    /// Moves every object below the directory at `from` below `to`, and the marker. When this returns, nothing
    /// is left below `from`; when it fails before the switch, nothing is below `to`.
    pub(crate) async fn move_tree(&self, from: &str, to: &str, meta: &FileMeta) -> Result<()> {
        let (from_prefix, to_prefix) = (self.prefix_below(from), self.prefix_below(to));
        let intent = Intent::RenameTree { from_prefix: from_prefix.clone(), to_prefix: to_prefix.clone() };
        let intent = self.note(intent).await?;
        let moved = match self.copy_tree(&from_prefix, &to_prefix).await {
            Ok(moved) => moved,
            Err((copied, error)) => {
                self.undo(&copied).await;
                self.forget_intent(intent).await;
                return Err(error);
            }
        };
        self.put_marker(to, meta, PutCondition::Always).await?;
        self.rebase(&moved);
        let keys: Vec<Key> = moved.into_iter().map(|m| m.from).collect();
        self.delete_all(&keys).await?;
        self.forget_intent(intent).await;
        Ok(())
    }

    /// Finishes a move that a crash interrupted: whatever is still below `from` goes below `to`.
    pub(crate) async fn resume_move(&self, from_prefix: &str, to_prefix: &str) -> Result<()> {
        let moved = self.copy_tree(from_prefix, to_prefix).await.map_err(|(_, error)| error)?;
        let keys: Vec<Key> = moved.into_iter().map(|m| m.from).collect();
        self.delete_all(&keys).await
    }

    async fn copy_tree(&self, from: &str, to: &str) -> Result<Vec<Moved>, (Vec<Moved>, FsError)> {
        let mut moved = Vec::new();
        let mut request = ListRequest { prefix: from.to_owned(), ..ListRequest::default() };
        loop {
            let page = match self.store.list(request.clone()).await {
                Ok(page) => page,
                Err(error) => return Err((moved, error.into())),
            };
            let copies: Vec<_> =
                page.objects.iter().map(|object| self.copy_below(object, from, to).boxed()).collect();
            let mut copies = futures::stream::iter(copies).buffer_unordered(COPIES_AT_ONCE);
            let mut failure = None;
            while let Some(copy) = copies.next().await {
                match copy {
                    Ok(copy) => moved.push(copy),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            if let Some(error) = failure {
                return Err((moved, error));
            }
            match page.next {
                Some(token) => request.token = Some(token),
                None => return Ok(moved),
            }
        }
    }

    async fn copy_below(&self, object: &ObjectSummary, from: &str, to: &str) -> Result<Moved> {
        let rest = &object.key.as_str()[from.len()..];
        let to = Key::new(format!("{to}{rest}"))
            .map_err(|e| FsError::caused(FsErrorKind::NameTooLong, "the new path makes no object key", e))?;
        let path = object.key.as_str().strip_prefix(&self.config.prefix).unwrap_or_default().to_owned();
        // What an inode in memory knows of its object is more than a listing tells: the version id.
        let known = self.inode_at(&path).and_then(|i| i.state().remote.clone());
        let version = match known.filter(|k| k.version.etag == object.etag) {
            Some(known) => known.version,
            None => Version { etag: object.etag.clone(), id: None },
        };
        let source = Remote { key: object.key.clone(), version, size: object.size };
        let version = self.copy_object(&source, &to, None).await?;
        Ok(Moved { from: object.key.clone(), path, to: Remote { key: to, version, size: object.size } })
    }

    /// The inodes in memory learn where their objects are now.
    fn rebase(&self, moved: &[Moved]) {
        for moved in moved {
            let Some(inode) = self.inode_at(&moved.path).filter(|i| !i.is_dir()) else { continue };
            let mut state = inode.state();
            if state.remote.as_ref().is_some_and(|r| r.key == moved.from) {
                state.remote = Some(moved.to.clone());
            }
        }
    }

    async fn undo(&self, copied: &[Moved]) {
        let keys: Vec<Key> = copied.iter().map(|m| m.to.key.clone()).collect();
        if let Err(error) = self.delete_all(&keys).await {
            tracing::error!(%error, copies = keys.len(), "copies of a rename that failed were left behind");
        }
    }

    /// Deletes keys in batches; the deepest first, so that on a store with real directories they empty.
    pub(crate) async fn delete_all(&self, keys: &[Key]) -> Result<()> {
        let mut keys: Vec<Key> = keys.to_vec();
        keys.sort_by(|a, b| b.cmp(a));
        for batch in keys.chunks(self.store.capabilities().delete_batch_max.max(1)) {
            if let Some(failure) = self.store.delete_batch(batch).await?.into_iter().next() {
                return Err(failure.error.into());
            }
        }
        Ok(())
    }
}
