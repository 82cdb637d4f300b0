//! What is remembered of objects, on the disk and in memory, and the store has otherwise.

use std::sync::Arc;

use futures::{StreamExt, stream};
use staithe_store::{ListRequest, ObjectMeta, ObjectSummary, PageToken};

use super::{DifferenceKind, QUESTIONS_AT_ONCE, Repair, Run};
use crate::commit::with_causes;
use crate::config::Ttl;
use crate::error::{FsError, FsErrorKind, Result};
use crate::inode::{Inode, Remote};
use crate::locks::Scope;
use crate::metadata::FileMeta;

impl Run<'_> {
    pub(super) async fn attributes(&self) {
        if let Err(error) = self.kept().await {
            self.unknown(&self.request.path, &error).await;
        }
        // What is believed for a time only may differ meanwhile.
        if self.fs.metadata_ttl() == Ttl::Forever {
            self.in_memory().await;
        }
    }

    /// The attributes that outlive a run: of those that a listing would make believed, each is asked for.
    async fn kept(&self) -> Result<()> {
        if self.fs.recall.kept().unwrap_or(0) == 0 {
            return Ok(());
        }
        let prefix = format!("{}{}", self.fs.config.prefix, self.request.path);
        let mut token: Option<PageToken> = None;
        loop {
            let request = ListRequest { prefix: prefix.clone(), token, ..ListRequest::default() };
            let page = self.fs.store.list(request).await?;
            let listed = self.fs.recall.would_believe(page.objects).await;
            stream::iter(listed)
                .map(|object| self.kept_of(object))
                .buffer_unordered(QUESTIONS_AT_ONCE)
                .for_each(std::future::ready)
                .await;
            token = page.next;
            if token.is_none() {
                return Ok(());
            }
        }
    }

    async fn kept_of(&self, object: ObjectSummary) {
        let path = object.key.as_str().strip_prefix(&self.fs.config.prefix).unwrap_or_default().to_owned();
        if !self.covers(&path) {
            return;
        }
        self.compared();
        match self.is_kept_rightly(&object).await {
            Ok(true) => {}
            Ok(false) => {
                // Whoever of us changes the object just now has it forgotten before this is had.
                let guard = self.fs.locks.acquire(vec![Scope::Name(path.clone())]).await;
                if matches!(self.is_kept_rightly(&object).await, Ok(false)) {
                    let detail = "its attributes are remembered otherwise than the store has them";
                    self.differs_under(guard, path, DifferenceKind::Attributes, detail, async {
                        self.fs.recall.forget(&object.key);
                        Ok(Repair::Done("forgotten"))
                    })
                    .await;
                }
            }
            Err(error) => self.unknown(&path, &error).await,
        }
    }

    /// Whether what is kept of a listed object is what the store says of it, if that is still as it was listed.
    async fn is_kept_rightly(&self, listed: &ObjectSummary) -> Result<bool> {
        let Some(now) = self.head(&listed.key).await? else { return Ok(true) };
        Ok(self.fs.recall.would_tell(listed, &now).await)
    }

    /// Files in memory, of which nobody asks the store any more.
    async fn in_memory(&self) {
        let all = self.fs.inodes.all();
        let candidates = all.into_iter().filter_map(|inode| {
            let path = self.fs.inodes.path(inode.ino).ok().filter(|path| self.covers(path))?;
            believed(&inode).map(|remote| (inode, path, remote))
        });
        stream::iter(candidates.collect::<Vec<_>>())
            .map(|(inode, path, remote)| async move { self.remembered(&inode, path, remote).await })
            .buffer_unordered(QUESTIONS_AT_ONCE)
            .for_each(std::future::ready)
            .await;
    }

    async fn remembered(&self, inode: &Arc<Inode>, path: String, remote: Remote) {
        self.compared();
        match self.is_remembered_rightly(inode, &remote).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => return self.unknown(&path, &error).await,
        }
        let is_so_still = {
            let _guard = self.fs.locks.acquire(vec![Scope::Name(path.clone())]).await;
            let is_same = self.fs.inodes.path(inode.ino).is_ok_and(|now| now == path)
                && believed(inode).as_ref() == Some(&remote);
            is_same && matches!(self.is_remembered_rightly(inode, &remote).await, Ok(false))
        };
        if is_so_still {
            let detail = "it is remembered otherwise than the store has it";
            self.differs(&*path, DifferenceKind::Attributes, detail, self.forget(&path)).await;
        }
    }

    async fn is_remembered_rightly(&self, inode: &Inode, remote: &Remote) -> Result<bool> {
        let object = self.head(&remote.key).await?;
        Ok(object.is_some_and(|object| self.is_as_remembered(inode, remote, &object)))
    }

    fn is_as_remembered(&self, inode: &Inode, remote: &Remote, object: &ObjectMeta) -> bool {
        if object.version.etag != remote.version.etag || object.size != remote.size {
            return false;
        }
        let stored = FileMeta::decode(object, &self.fs.defaults());
        let state = inode.state();
        let ours = &state.meta;
        !state.meta_known
            || ((ours.kind, ours.mode, ours.uid, ours.gid)
                == (stored.kind, stored.mode, stored.uid, stored.gid)
                && ours.xattrs == stored.xattrs)
    }

    async fn forget(&self, path: &str) -> Result<Repair> {
        let report = self.fs.refresh(&[path.to_owned()]).await;
        match report.failures.into_iter().next() {
            None => Ok(Repair::Done("forgotten")),
            Some(failure) => {
                let error = FsError::new(FsErrorKind::Io, failure.reason);
                Ok(Repair::Left(with_causes(&error)))
            }
        }
    }
}

/// The object that a file in memory is taken for, without anything of ours that is not stored.
fn believed(inode: &Inode) -> Option<Remote> {
    let state = inode.state();
    let is_believed = !inode.is_dir()
        && !state.is_local()
        && state.link.is_some()
        && state.validated.is_some()
        && !state.tries.unsure;
    state.remote.clone().filter(|_| is_believed)
}
