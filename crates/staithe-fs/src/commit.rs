//! From the staging file to the store: one commit of one inode.
//!
//! Invariants:
//! 1. The key is resolved when the commit takes effect, under the lock of the name: a file renamed meanwhile is
//!    stored under its new name or not at all, an unlinked one not at all.
//! 2. Every commit is conditional on what the file was made from, where the store can do that, and carries a write
//!    id, by which a retried request that had succeeded is recognised.
//! 3. What changes while a commit runs stays dirty.
//! 4. A commit that fails leaves everything dirty, and nothing in the store that it knows of. If its answer was
//!    lost, the next one finds what it had stored by its write id, and goes on from that.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use staithe_store::{CopyRequest, ErrorKind, Key, PutCondition, StoreError, Version, Written};

use crate::api::Kind;
use crate::config::OnConflict;
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Remote, State};
use crate::layout::UploadPlan;
use crate::locks::Scope;
use crate::metadata::FileMeta;

/// How often a commit begins again because the file was renamed under it.
const MOVED_TRIES: u32 = 8;

/// What one try of a commit sets out to store.
#[derive(Debug)]
pub(crate) struct Job {
    /// The attributes that go with the bytes, write id included.
    pub(crate) meta: FileMeta,
    /// The stored object that the bytes were made from.
    pub(crate) base: Option<Remote>,
    /// The staging file's generation.
    pub(crate) generation: u64,
    /// The inode's count of changes.
    changes: u64,
    /// Length in bytes.
    pub(crate) size: u64,
}

/// A commit under way. Dropped before its end, it leaves the file as it was, and says so.
struct UnderWay<'a>(Option<&'a Inode>);

impl UnderWay<'_> {
    fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let Some(inode) = self.0 else { return };
        let mut state = inode.state();
        if let Some(staged) = state.staged.as_mut() {
            staged.abort_commit();
        }
        state.failure = Some("given up before the store had answered".to_owned());
    }
}

/// How a try ended.
pub(crate) enum Outcome {
    /// The store has it at this key; the attributes that went with it.
    Stored(Key, Written, FileMeta),
    /// The name moved meanwhile: begin again.
    Moved,
}

impl Filesystem {
    /// Stores what is dirty of a file. Returns when the store has it; at once if nothing is dirty.
    ///
    /// # Errors
    /// `Stale` when the race against another client was lost; the store's errors; everything stays dirty.
    pub(crate) async fn commit(&self, inode: &Arc<Inode>) -> Result<()> {
        let _serial = inode.commit.lock().await;
        let (is_dirty, has_bytes) = {
            let state = inode.state();
            state.refuse_lost()?;
            (state.is_dirty() && state.link.is_some(), state.bytes_dirty)
        };
        if !is_dirty {
            return Ok(());
        }
        let under_way = UnderWay(Some(inode));
        let done = if has_bytes { self.store_bytes(inode).await } else { self.store_meta(inode).await };
        under_way.end();
        let mut state = inode.state();
        match &done {
            Ok(()) => state.failure = None,
            Err(error) => {
                if let Some(staged) = state.staged.as_mut() {
                    staged.abort_commit();
                }
                state.failure = Some(with_causes(error));
            }
        }
        done
    }

    async fn store_bytes(&self, inode: &Arc<Inode>) -> Result<()> {
        for _ in 0..MOVED_TRIES {
            let Some(plan) = self.plan(inode)? else { return Ok(()) };
            let streaming = inode.state().streaming.take();
            let tried = match (plan, streaming) {
                (UploadPlan::Parts(_), Some(streaming)) => self.finish_streaming(inode, streaming).await,
                (UploadPlan::Parts(parts), None) => self.send_parts(inode, parts).await,
                (UploadPlan::Whole, streaming) => {
                    if let Some(streaming) = streaming {
                        self.abandon(streaming);
                    }
                    self.send_whole(inode).await
                }
            };
            match tried {
                Ok((job, Outcome::Stored(key, written, sent))) => {
                    return self.stored(inode, &job, key, written, sent).await;
                }
                Ok((_, Outcome::Moved)) => {}
                Err(error) if is_lost_race(&error) && self.adopt_earlier(inode).await? => {}
                Err(error) if is_lost_race(&error) => return self.lost_race(inode, error).await,
                Err(error) => {
                    let is_unlinked = inode.state().link.is_none();
                    return if is_unlinked { Ok(()) } else { Err(error) };
                }
            }
        }
        Err(FsError::new(FsErrorKind::TimedOut, "the file is renamed faster than it can be stored"))
    }

    /// How to send what is staged; `None` when nothing is to be sent any more.
    fn plan(&self, inode: &Inode) -> Result<Option<UploadPlan>> {
        let state = inode.state();
        if state.link.is_none() {
            return Ok(None);
        }
        let Some(staged) = &state.staged else { return Ok(None) };
        let capabilities = self.store.capabilities();
        let base = staged.base_size().filter(|_| capabilities.part_copy);
        self.layout().plan(staged.size(), base, staged.dirty()).map(Some)
    }

    /// Begins one try: what is there now. To be called under the state's lock that reads the bytes, too.
    pub(crate) fn begin(state: &mut State) -> Result<Job> {
        let Some(staged) = state.staged.as_mut() else {
            return Err(FsError::new(FsErrorKind::Io, "no staging file to store"));
        };
        let generation = staged.begin_commit();
        let size = staged.size();
        let mut meta = state.meta.clone();
        let write_id = crate::create::new_write_id();
        state.sent_as(&write_id);
        meta.write_id = Some(write_id);
        Ok(Job { meta, base: state.remote.clone(), generation, changes: state.changes, size })
    }

    /// On what condition bytes made from `base` may be stored.
    pub(crate) fn condition_for(&self, base: Option<&Remote>) -> PutCondition {
        let capabilities = self.store.capabilities();
        match base {
            _ if self.config.on_conflict == OnConflict::Overwrite => PutCondition::Always,
            None if capabilities.put_if_absent => PutCondition::IfAbsent,
            Some(base) if capabilities.put_if_match => PutCondition::IfMatch(base.version.etag.clone()),
            _ => PutCondition::Always,
        }
    }

    /// After a write that failed: the version, if it had succeeded all the same.
    pub(crate) async fn was_ours(
        &self,
        key: &Key,
        meta: &FileMeta,
        error: &StoreError,
    ) -> Result<Option<Version>> {
        use ErrorKind as K;
        if !matches!(error.kind(), K::VersionMismatch | K::AlreadyExists | K::NotFound) {
            return Ok(None);
        }
        let object = self.head(key.clone()).await?;
        let found = object.map(|o| (FileMeta::decode(&o, &self.defaults()), o.version));
        Ok(found.filter(|(theirs, _)| theirs.write_id == meta.write_id).map(|(_, version)| version))
    }

    /// Whether the store has what an earlier commit of this file sent, without our having heard; then that is
    /// what the file is made from now.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn adopt_earlier(&self, inode: &Inode) -> Result<bool> {
        if inode.state().tried.is_empty() {
            return Ok(false);
        }
        let key = self.key(&self.inodes.path(inode.ino)?)?;
        let Some(object) = self.head(key.clone()).await? else { return Ok(false) };
        let write_id = FileMeta::decode(&object, &self.defaults()).write_id;
        let mut state = inode.state();
        let is_ours = write_id.is_some_and(|id| state.tried.contains(&id));
        if is_ours {
            tracing::debug!(%key, "an earlier commit had succeeded");
            state.remote = Some(Remote { key, version: object.version, size: object.size });
            state.content += 1;
            if let Some(staged) = state.staged.as_mut() {
                staged.abort_commit();
            }
        }
        Ok(is_ours)
    }

    /// Sends all bytes in one PUT.
    async fn send_whole(&self, inode: &Arc<Inode>) -> Result<(Job, Outcome)> {
        let (_guard, path, job, bytes) = loop {
            let size = inode.state().size();
            self.bring_in(inode, 0..size).await?;
            let (guard, path) = self.lock_path(|| self.inodes.path(inode.ino), Scope::Name).await?;
            let mut state = inode.state();
            let size = state.size();
            let is_here = state.staged.as_ref().is_some_and(|s| s.missing(0..size).is_empty());
            if is_here {
                let job = Self::begin(&mut state)?;
                let bytes = state.staged.as_ref().map(|s| s.read(0, job.size as usize)).transpose()?;
                break (guard, path, job, bytes.unwrap_or_default());
            }
        };
        let key = self.key(&path)?;
        let _slot = self.upload_slot().await;
        let condition = self.condition_for(job.base.as_ref());
        let written = self.store.put(&key, bytes.into(), self.encode(&job.meta)?, condition).await;
        let written = self.accept(&key, &job.meta, written).await?;
        let sent = job.meta.clone();
        // Under the name's lock, so that whoever has it next finds the inode where the object is.
        self.settle_remote(inode, &job, &key, &written);
        Ok((job, Outcome::Stored(key, written, sent)))
    }

    /// The answer to a conditional write, unless it is a refusal of what our own first try had done.
    pub(crate) async fn accept(
        &self,
        key: &Key,
        meta: &FileMeta,
        answer: staithe_store::Result<Written>,
    ) -> Result<Written> {
        match answer {
            Ok(written) => Ok(written),
            Err(error) => match self.was_ours(key, meta, &error).await? {
                Some(version) => Ok(Written { version }),
                None => Err(error.into()),
            },
        }
    }

    /// The store has the bytes of `job`: they are the inode's stored content now.
    pub(crate) fn settle_remote(&self, inode: &Inode, job: &Job, key: &Key, written: &Written) {
        let mut state = inode.state();
        state.remote = Some(Remote { key: key.clone(), version: written.version.clone(), size: job.size });
        state.content += 1;
        state.validated = Some(Instant::now());
        state.meta_known = true;
        state.tried.clear();
        state.meta.write_id.clone_from(&job.meta.write_id);
        let unchanged = state
            .staged
            .as_mut()
            .is_none_or(|s| s.committed(job.generation) && s.generation() == job.generation);
        if unchanged {
            state.bytes_dirty = false;
        }
        if state.changes == job.changes {
            state.meta_dirty = false;
        } else {
            // Something changed while the bytes were on their way; what it was goes with the next commit.
            state.meta_dirty = true;
        }
    }

    /// After a successful commit: attributes that the upload could not carry yet, and what names mean.
    async fn stored(
        &self,
        inode: &Arc<Inode>,
        job: &Job,
        key: Key,
        _written: Written,
        sent: FileMeta,
    ) -> Result<()> {
        tracing::debug!(%key, size = job.size, "stored");
        self.confirm(inode);
        let needs_meta = {
            let mut state = inode.state();
            let explicit = state.mtime_set;
            let differs = !same_attributes(&sent, &job.meta, explicit);
            if !differs && state.changes == job.changes && !explicit {
                (state.meta.mtime, state.meta.ctime) = (sent.mtime, sent.ctime);
            }
            differs && state.link.is_some()
        };
        if needs_meta { self.store_meta(inode).await } else { Ok(()) }
    }

    /// Stores the attributes of a stored object: a copy onto itself.
    ///
    /// # Errors
    /// `Stale` when the object is not the one we know any more; the store's errors.
    pub(crate) async fn store_meta(&self, inode: &Arc<Inode>) -> Result<()> {
        let (_guard, path) = self.lock_path(|| self.inodes.path(inode.ino), Scope::Name).await?;
        let key = self.key(&path)?;
        let (meta, changes, remote) = {
            let state = inode.state();
            (state.meta.clone(), state.changes, state.remote.clone())
        };
        let Some(remote) = remote else { return Ok(()) };
        let version = self.copy_object(&remote, &key, Some(&meta)).await;
        let version = match version {
            Ok(version) => version,
            Err(error) if matches!(error.kind(), FsErrorKind::NotFound | FsErrorKind::Stale) => {
                self.supersede(inode);
                return Err(FsError::caused(FsErrorKind::Stale, "the object was replaced or removed", error));
            }
            Err(error) => return Err(error),
        };
        {
            let mut state = inode.state();
            state.remote = Some(Remote { key, version, ..remote });
            if state.changes == changes {
                state.meta_dirty = false;
            }
        }
        self.confirm(inode);
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

    /// Another client was first. Ours goes beside theirs, or nowhere: never over it.
    async fn lost_race(&self, inode: &Arc<Inode>, error: FsError) -> Result<()> {
        let Some(link) = inode.state().link.clone() else { return Ok(()) };
        let path = self.inodes.path(link.parent)?;
        let name = crate::names::conflict_name(&link.name, &self.config.host, SystemTime::now());
        let beside = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        let kept = self.store_beside(inode, &beside).await;
        match &kept {
            Ok(()) => {
                tracing::warn!(
                    name = &*link.name,
                    kept_as = beside,
                    "another client was first: both are kept"
                );
                self.names.forget(link.parent.0, &name);
                inode.state().lost = true;
                self.supersede(inode);
                self.drop_staged(inode);
            }
            Err(cause) => {
                let cause = with_causes(cause);
                tracing::error!(
                    name = &*link.name,
                    cause,
                    "another client was first, and ours could not be kept beside"
                );
            }
        }
        kept?;
        let text = format!("{:?} was changed by another client; ours is kept as {beside:?}", &*link.name);
        Err(FsError::caused(FsErrorKind::Stale, text, error))
    }
}

/// Whether the condition of a commit did not hold.
fn is_lost_race(error: &FsError) -> bool {
    let source = std::error::Error::source(error).and_then(|s| s.downcast_ref::<StoreError>());
    source.is_some_and(|s| {
        let is_write = matches!(s.operation(), "put" | "complete_multipart");
        is_write && matches!(s.kind(), ErrorKind::VersionMismatch | ErrorKind::AlreadyExists)
    })
}

/// Whether attributes sent ahead are those that the file has in the end.
fn same_attributes(sent: &FileMeta, wanted: &FileMeta, mtime_set: bool) -> bool {
    debug_assert_eq!(sent.kind, Kind::File);
    let times = !mtime_set || (sent.mtime == wanted.mtime && sent.atime == wanted.atime);
    times
        && (sent.mode, sent.uid, sent.gid) == (wanted.mode, wanted.uid, wanted.gid)
        && sent.xattrs == wanted.xattrs
}

/// An error and its causes in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
