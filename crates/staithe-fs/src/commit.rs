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

mod attributes;
mod conflict;
mod doubt;

use std::sync::Arc;
use std::time::Instant;

pub use conflict::Conflict;
pub(crate) use conflict::OnKept;
pub(crate) use doubt::{is_all_here, is_file_of, sum_of_file, sum_of_parts};
use staithe_store::{ErrorKind, Key, PutCondition, StoreError, Written};

use crate::config::OnConflict;
use crate::door::Door;
use crate::error::{FsError, FsErrorKind, Result};
use crate::failpoint::{Step, reach};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Remote, State};
use crate::layout::UploadPlan;
use crate::locks::Scope;
use crate::lookup::Dent;
use crate::metadata::FileMeta;
use crate::refresh::Moment;
use crate::revalidate::replaced;

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
    /// When it began.
    begun: Moment,
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
    /// The store has it; the attributes that went with it.
    Stored(Box<(Job, FileMeta)>),
    /// The name moved meanwhile, or what it was made from: begin again.
    Moved,
}

/// What the failure of a try means.
enum Refusal {
    /// Another client was first: the condition did not hold, or the base is gone.
    LostRace,
    /// What the try was made with moved, here: begin again.
    Again,
    /// The store's last word.
    Final,
}

impl Filesystem {
    /// Stores what is dirty of a file. Returns when the store has it; at once if nothing is dirty.
    ///
    /// # Errors
    /// `Stale` when the race against another client was lost; the store's errors; everything stays dirty, and where
    /// the store was only out of reach, an intent of the journal stores it if this process ends before it can.
    pub(crate) async fn commit(&self, inode: &Arc<Inode>, door: &Door<'_>) -> Result<()> {
        let before = inode.state().changes;
        let done = self.try_commit(inode, door).await;
        let changes = before + u64::from(done.as_ref().is_err_and(doubt::is_told_wrongly));
        match &done {
            Ok(()) => {
                reach(Step::BeforeStrikeOut);
                self.strike_out(inode);
            }
            Err(error) if !self.writes_back() && store_error(error).is_some_and(StoreError::is_retryable) => {
                // What was written since is nothing that anybody closed or synced.
                if inode.state().changes == changes {
                    self.keep_for_a_crash(inode).await;
                }
            }
            Err(_) if inode.state().staged.is_none() => self.strike_out(inode),
            Err(_) => {}
        }
        done
    }

    /// As [`commit`](Self::commit), without a word in the journal.
    pub(crate) async fn try_commit(&self, inode: &Arc<Inode>, door: &Door<'_>) -> Result<()> {
        let _serial = inode.commit.lock().await;
        inode.take_in_untold_writes().await;
        inode.mark_untold_writes().await;
        let (is_dirty, has_bytes) = {
            let state = inode.state();
            state.refuse_lost()?;
            if state.replaced && state.bytes_dirty {
                // Written by the kernel itself, which could not be refused the write.
                return Err(replaced());
            }
            (state.is_dirty() && state.link.is_some(), state.bytes_dirty)
        };
        if !is_dirty {
            return Ok(());
        }
        let under_way = UnderWay(Some(inode));
        let done =
            if has_bytes { self.store_bytes(inode, door).await } else { self.store_meta(inode, door).await };
        under_way.end();
        if done.as_ref().is_err_and(doubt::is_told_wrongly) {
            self.doubt_try(inode);
        }
        let mut state = inode.state();
        match &done {
            Ok(()) => state.failure = None,
            // Its name went meanwhile, by our own doing: there is nothing to store any more.
            Err(_) if state.link.is_none() && !state.replaced => return Ok(()),
            Err(error) => {
                if let Some(staged) = state.staged.as_mut() {
                    staged.abort_commit();
                }
                state.failure = (!door.is_stopped()).then(|| with_causes(error));
            }
        }
        done
    }

    async fn store_bytes(&self, inode: &Arc<Inode>, door: &Door<'_>) -> Result<()> {
        for _ in 0..MOVED_TRIES {
            let (is_unsure, base) = {
                let state = inode.state();
                (state.tries.unsure, state.remote.clone())
            };
            if is_unsure {
                let (_guard, path) = self.lock_path(|| self.inodes.path(inode.ino), Scope::Name).await?;
                let key = self.key(&path)?;
                self.know_tries(inode, &key).await?;
                if inode.state().tries.unsure {
                    return Err(stored_wrongly(&key));
                }
            }
            let Some(plan) = self.plan(inode)? else { return Ok(()) };
            let streaming = inode.state().streaming.take();
            let tried = match (plan, streaming) {
                (UploadPlan::Parts(_), Some(streaming)) => {
                    self.finish_streaming(inode, streaming, door).await
                }
                (UploadPlan::Parts(parts), None) => self.send_parts(inode, parts, door).await,
                (UploadPlan::Whole, streaming) => {
                    if let Some(streaming) = streaming {
                        self.abandon(streaming);
                    }
                    self.send_whole(inode, door).await
                }
            };
            match tried {
                Ok(Outcome::Stored(done)) => return self.stored(inode, &done.0, &done.1).await,
                Ok(Outcome::Moved) => {}
                Err(error) => match self.refusal(inode, base.as_ref(), &error).await? {
                    Refusal::LostRace => return self.lost_race(inode, error).await,
                    Refusal::Again => {}
                    Refusal::Final => return Err(error),
                },
            }
        }
        Err(FsError::new(FsErrorKind::TimedOut, "the file is renamed faster than it can be stored"))
    }

    /// What a failed try, which began with `base`, means.
    async fn refusal(&self, inode: &Inode, base: Option<&Remote>, error: &FsError) -> Result<Refusal> {
        use ErrorKind as K;
        let Some(cause) = store_error(error) else { return Ok(Refusal::Final) };
        let is_gone = matches!(cause.kind(), K::VersionMismatch | K::NotFound);
        match cause.operation() {
            "put" | "complete_multipart" if cause.kind() == K::VersionMismatch => Ok(Refusal::LostRace),
            "put" | "complete_multipart" if cause.kind() == K::AlreadyExists => Ok(Refusal::LostRace),
            // Somebody swept the upload away.
            "upload_part" | "complete_multipart" if cause.kind() == K::NotFound => Ok(Refusal::Again),
            "get" | "upload_part_copy" if is_gone => {
                let now = inode.state().remote.clone();
                let (Some(base), true) = (base, now.as_ref() == base) else { return Ok(Refusal::Again) };
                let there = self.head(base.key.clone()).await?;
                let is_there = there.is_some_and(|o| o.version.etag == base.version.etag);
                Ok(if is_there { Refusal::Again } else { Refusal::LostRace })
            }
            _ => Ok(Refusal::Final),
        }
    }

    /// How to send what is staged; `None` when nothing is to be sent any more.
    fn plan(&self, inode: &Inode) -> Result<Option<UploadPlan>> {
        let state = inode.state();
        if state.link.is_none() {
            return Ok(None);
        }
        let Some(staged) = &state.staged else { return Ok(None) };
        let capabilities = self.store.capabilities();
        // What may be wrong is no source of parts; all of the file is here then, or it was seen to be right.
        let base = staged.base_size().filter(|_| capabilities.part_copy && !state.tries.doubted);
        self.layout().plan(staged.size(), base, staged.dirty()).map(Some)
    }

    /// Begins one try: what is there now. To be called under the state's lock that reads the bytes, too.
    pub(crate) fn begin(&self, state: &mut State) -> Result<Job> {
        let Some(staged) = state.staged.as_mut() else {
            return Err(FsError::new(FsErrorKind::Io, "no staging file to store"));
        };
        let generation = staged.begin_commit();
        let size = staged.size();
        let mut meta = state.meta.clone();
        meta.write_id = Some(state.tries.id(state.changes));
        let (changes, begun) = (state.changes, self.refreshes.moment());
        if let Some(staged) = state.staged.as_mut().filter(|staged| !staged.shows_writes()) {
            // Nothing would tell of a write between this and the moment at which its bytes are read.
            staged.believe_changed();
            state.outdate_store();
        }
        Ok(Job { meta, base: state.remote.clone(), generation, changes, size, begun })
    }

    /// On what condition bytes made from `base` may be stored.
    pub(crate) fn condition_for(&self, base: Option<&Remote>) -> PutCondition {
        let capabilities = self.store.capabilities();
        match base {
            _ if self.live_config().on_conflict == OnConflict::Overwrite => PutCondition::Always,
            None if capabilities.put_if_absent => PutCondition::IfAbsent,
            Some(base) if capabilities.put_if_match => PutCondition::IfMatch(base.version.etag.clone()),
            _ => PutCondition::Always,
        }
    }

    /// Sends all bytes in one PUT.
    async fn send_whole(&self, inode: &Arc<Inode>, door: &Door<'_>) -> Result<Outcome> {
        loop {
            let size = inode.state().size();
            door.unless_stopped(self.bring_in(inode, 0..size)).await?;
            // Before the bytes are read, and the name is locked: what waits for a place holds nothing.
            let _room = door.unless_stopped(async { Ok(self.upload_room(size).await) }).await?;
            let (_guard, path) = self.lock_path(|| self.inodes.path(inode.ino), Scope::Name).await?;
            let key = self.key(&path)?;
            door.pass().await?;
            let (job, bytes) = {
                let mut state = inode.state();
                let size = state.size();
                if state.staged.as_ref().is_some_and(|s| !s.missing(0..size).is_empty()) {
                    continue;
                }
                let job = self.begin(&mut state)?;
                let bytes = state.staged.as_ref().map(|s| s.read(0, job.size as usize)).transpose()?;
                (state.tries.unsure, state.tries.expected) = (true, None);
                (job, bytes.unwrap_or_default())
            };
            let condition = self.condition_for(job.base.as_ref());
            let _landing = inode.landing.lock().await;
            reach(Step::BeforePut);
            let answer = self.store.put(&key, bytes.into(), self.encode(&job.meta)?, condition).await;
            reach(Step::AfterPut);
            let Some(written) = self.accept(inode, &key, &job, answer).await? else {
                door.go_back();
                return Ok(Outcome::Moved);
            };
            // Under the name's lock, so that whoever has it next finds the inode where the object is.
            self.settle_remote(inode, &job, &key, &written);
            let sent = job.meta.clone();
            return Ok(Outcome::Stored(Box::new((job, sent))));
        }
    }

    /// The store has the bytes of `job`: they are the inode's stored content now.
    pub(crate) fn settle_remote(&self, inode: &Inode, job: &Job, key: &Key, written: &Written) {
        // First what the name means, while the inode still answers for it: else a lookup in between would find
        // neither, and a kernel would believe for a while that there is nothing.
        let link = inode.state().link.clone();
        if let Some(link) = link {
            let etag = written.version.etag.clone();
            let (size, modified, kind) = (job.size, job.meta.mtime, Some(inode.kind));
            let dent = Dent::File { size, etag, id: None, modified, told: false, kind };
            self.remember_since(job.begun, link.parent, &link.name, Some(dent));
        }
        let mut state = inode.state();
        state.tries.settle();
        state.remote = Some(Remote { key: key.clone(), version: written.version.clone(), size: job.size });
        state.content += 1;
        state.validated = Some(Instant::now());
        state.meta_known = true;
        state.body = None;
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
        drop(state);
        self.doubt_since(job.begun, inode);
    }
}

/// Not all of a file is here, and the store's object cannot be trusted to hold the rest.
fn stored_wrongly(key: &Key) -> FsError {
    let text = "the store has stored this wrongly, and what was not changed here of it is not here";
    StoreError::new(ErrorKind::Corrupt, "get", text).with_key(key).into()
}

/// The store's error behind an error, if there is one.
pub(crate) fn store_error(error: &FsError) -> Option<&StoreError> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<StoreError>() {
            return Some(found);
        }
        next = cause.source();
    }
    None
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
