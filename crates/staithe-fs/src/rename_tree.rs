//! Moving all objects below a prefix: copied in parallel, then switched, then removed; journaled.

use futures::{FutureExt, StreamExt};
use staithe_store::{Key, ListRequest, ObjectSummary, PutCondition, Version};

use crate::commit::with_causes;
use crate::error::{FsError, FsErrorKind, Result};
use crate::failpoint::{Step, reach};
use crate::fate::is_suspicion;
use crate::filesystem::Filesystem;
use crate::inode::Remote;
use crate::intent::Intent;
use crate::journal::IntentId;
use crate::metadata::FileMeta;

/// Copies on their way at once.
const COPIES_AT_ONCE: usize = 16;

/// Where an object went.
struct Moved {
    from: Remote,
    /// The path of the old key below the root of the filesystem.
    path: String,
    to: Remote,
}

/// How far a move has come.
#[derive(Default)]
struct Progress {
    moved: Vec<Moved>,
    /// Every new key that a copy was asked for, whether or not an answer came.
    tried: Vec<Key>,
}

/// Why keys could not be deleted, and whether some of them may be gone.
struct NotDeleted {
    error: FsError,
    partly: bool,
}

/// A move whose objects are where they are to be.
#[must_use]
pub(crate) struct TreeMove {
    id: IntentId,
    /// What the next start has to do.
    remains: Option<Intent>,
}

impl Filesystem {
    /// Moves every object below the directory at `from` below `to`, and the marker. When this returns, nothing
    /// is left below `from`; when it fails, nothing is below `to` but a marker that was there (`to_exists`).
    ///
    /// A store that stops answering after the first deletes does not turn back: what is left below `from` is
    /// deleted by the next start.
    ///
    /// The intent of it stands until the caller has [settled](Self::settle_move) the names.
    pub(crate) async fn move_tree(
        &self,
        from: &str,
        to: &str,
        meta: &FileMeta,
        to_exists: bool,
    ) -> Result<TreeMove> {
        let (from_prefix, to_prefix) = (self.prefix_below(from), self.prefix_below(to));
        let intent = |switched, settled| {
            let (from_prefix, to_prefix) = (from_prefix.clone(), to_prefix.clone());
            Intent::RenameTree { from_prefix, to_prefix, switched, settled }
        };
        let id = self.note(intent(false, false)).await?;
        reach(Step::MoveNoted);
        let mut progress = Progress::default();
        let mut there = self.copy_tree(&from_prefix, &to_prefix, &mut progress).await;
        if there.is_ok() {
            reach(Step::MoveCopied);
            there = self.put_marker(to, meta, PutCondition::Always).await;
        }
        if there.is_ok() {
            reach(Step::MoveMarked);
            there = self.renote(id, intent(true, false)).await;
        }
        let mut gone = Ok(());
        if there.is_ok() {
            reach(Step::MoveSwitched);
            self.rebase(&progress.moved, |m| (&m.from, &m.to));
            let keys: Vec<Key> = progress.moved.iter().map(|m| m.from.key.clone()).collect();
            gone = self.delete_all(&keys).await;
            reach(Step::MoveDeleted);
        }
        let error = match (there, gone) {
            (Ok(()), Ok(())) => {
                return Ok(TreeMove { id, remains: None });
            }
            (Ok(()), Err(NotDeleted { error, partly: true })) => {
                tracing::error!(
                    from,
                    to,
                    error = with_causes(&error),
                    "renamed; old objects were left behind"
                );
                return Ok(TreeMove { id, remains: Some(intent(true, true)) });
            }
            (Ok(()), Err(NotDeleted { error, partly: false })) => {
                self.rebase(&progress.moved, |m| (&m.to, &m.from));
                error
            }
            (Err(error), _) => error,
        };
        if self.fate.verdict().is_some() {
            // Nothing can be undone: the next start finishes it.
            return Err(error);
        }
        progress.tried.extend(self.marker_key(to)?);
        let kept = self.marker_key(to)?.filter(|_| to_exists);
        progress.tried.retain(|key| Some(key) != kept.as_ref());
        self.undo(&progress.tried).await;
        self.forget_intent(id).await;
        Err(error)
    }

    /// After the names of a moved tree are what they are to be: the journal says of all that is not stored below where it
    /// is now, and that the move is done, or what remains of it; all of that at once, so that no crash brings an old name
    /// back.
    ///
    /// # Errors
    /// As [`keep_anew`](Self::keep_anew).
    pub(crate) fn settle_move(&self, moved: TreeMove, to: &str) -> Result<()> {
        let TreeMove { id, remains } = moved;
        let unstored = self.unstored_below(to);
        let said = self.keep_anew(&unstored, vec![(id, remains)]);
        self.retry_failed(&unstored);
        said
    }

    /// Finishes a move that a crash interrupted. What somebody wrote since, under either name, stays: an object
    /// below `from` is copied unless that was done, and, once all were there (`switched`), only deleted, if its copy
    /// is there.
    pub(crate) async fn resume_move(&self, from: &str, to: &str, switched: bool) -> Result<()> {
        let mut request = ListRequest { prefix: from.to_owned(), ..ListRequest::default() };
        let mut done = Vec::new();
        loop {
            let page = self.store.list(request.clone()).await?;
            let moves: Vec<_> =
                page.objects.iter().map(|o| self.resume_one(o, from, to, switched).boxed()).collect();
            let mut moves = futures::stream::iter(moves).buffer_unordered(COPIES_AT_ONCE);
            while let Some(moved) = moves.next().await {
                done.extend(moved?);
            }
            match page.next {
                Some(token) => request.token = Some(token),
                None => return self.delete_all(&done).await.map_err(|e| e.error),
            }
        }
    }

    /// The key below `from`, if the object is below `to` now and has to go.
    async fn resume_one(
        &self,
        object: &ObjectSummary,
        from: &str,
        to: &str,
        switched: bool,
    ) -> Result<Option<Key>> {
        let target = moved_key(&object.key, from, to)?;
        let there = self.head(target.clone()).await?;
        let is_copied =
            there.is_some_and(|t| t.version.etag == object.etag || t.last_modified > object.last_modified);
        if !is_copied && switched {
            return Ok(None);
        }
        if !is_copied {
            self.copy_one(object, &target).await?;
        }
        Ok(Some(object.key.clone()))
    }

    async fn copy_tree(&self, from: &str, to: &str, progress: &mut Progress) -> Result<()> {
        let mut request = ListRequest { prefix: from.to_owned(), ..ListRequest::default() };
        loop {
            let page = self.store.list(request.clone()).await?;
            let mut copies = Vec::with_capacity(page.objects.len());
            for object in &page.objects {
                let target = moved_key(&object.key, from, to)?;
                progress.tried.push(target.clone());
                copies.push(async move { self.copy_one(object, &target).await }.boxed());
            }
            let mut copies = futures::stream::iter(copies).buffer_unordered(COPIES_AT_ONCE);
            let mut failure = None;
            while let Some(copy) = copies.next().await {
                match copy {
                    Ok(copy) => progress.moved.push(copy),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            match (failure, page.next) {
                (Some(error), _) => return Err(error),
                (None, Some(token)) => request.token = Some(token),
                (None, None) => return Ok(()),
            }
        }
    }

    async fn copy_one(&self, object: &ObjectSummary, to: &Key) -> Result<Moved> {
        let path = object.key.as_str().strip_prefix(&self.config.prefix).unwrap_or_default().to_owned();
        // What an inode in memory knows of its object is more than a listing tells: the version id.
        let known = self.inode_at(&path).and_then(|i| i.state().remote.clone());
        let version = match known.filter(|k| k.key == object.key && k.version.etag == object.etag) {
            Some(known) => known.version,
            None => Version { etag: object.etag.clone(), id: None },
        };
        let from = Remote { key: object.key.clone(), version, size: object.size };
        let version = self.copy_object(&from, to, None).await?;
        let to = Remote { key: to.clone(), version, size: object.size };
        Ok(Moved { from, path, to })
    }

    /// The inodes in memory learn where their objects are now. One whose object is another version than the one
    /// that moved keeps what it has: it is of that no more than before.
    fn rebase(&self, moved: &[Moved], way: impl Fn(&Moved) -> (&Remote, &Remote)) {
        for moved in moved {
            let (from, to) = way(moved);
            let Some(inode) = self.inode_at(&moved.path).filter(|i| !i.is_dir()) else { continue };
            let mut state = inode.state();
            let is_it = |r: &Remote| r.key == from.key && r.version.etag == from.version.etag;
            if state.remote.as_ref().is_some_and(is_it) {
                state.remote = Some(to.clone());
            }
        }
    }

    async fn undo(&self, tried: &[Key]) {
        if let Err(NotDeleted { error, .. }) = self.delete_all(tried).await {
            tracing::error!(%error, copies = tried.len(), "copies of a rename that failed were left behind");
        }
    }

    /// Deletes keys in batches; the deepest first, so that on a store with real directories they empty.
    async fn delete_all(&self, keys: &[Key]) -> Result<(), NotDeleted> {
        let mut keys: Vec<Key> = keys.to_vec();
        keys.sort_by(|a, b| b.cmp(a));
        let batch_max = self.store.capabilities().delete_batch_max.max(1);
        for (i, batch) in keys.chunks(batch_max).enumerate() {
            let answer = self.store.delete_batch(batch).await;
            let failed = answer.as_ref().map_or(batch.len(), Vec::len);
            let error = match answer {
                Ok(failures) => match failures.into_iter().next() {
                    Some(failure) => failure.error,
                    None => continue,
                },
                Err(error) => error,
            };
            let may_be = error.is_retryable() || is_suspicion(error.kind());
            let partly = i > 0 || failed < batch.len() || may_be;
            return Err(NotDeleted { error: error.into(), partly });
        }
        Ok(())
    }
}

fn moved_key(key: &Key, from: &str, to: &str) -> Result<Key> {
    let rest = key.as_str().strip_prefix(from).unwrap_or_default();
    Key::new(format!("{to}{rest}"))
        .map_err(|e| FsError::caused(FsErrorKind::NameTooLong, "the new path makes no object key", e))
}
