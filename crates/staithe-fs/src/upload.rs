//! Objects in parts: multipart uploads of staged bytes, server-side copies of clean ones.

mod alive;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use staithe_store::{Key, MultipartUpload, PartNumber, PartReceipt, Payload, PutCondition, Version, Written};
use tokio::sync::SemaphorePermit;

use crate::commit::{Job, Outcome, sum_of_parts};
use crate::create::new_write_id;
use crate::door::Door;
use crate::error::{FsError, FsErrorKind, Result};
use crate::failpoint::{Step, reach};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Remote};
use crate::intent::Intent;
use crate::journal::IntentId;
use crate::layout::{FIRST_PART, PartLayout, PartSource, PlannedPart};
use crate::locks::Scope;
use crate::metadata::FileMeta;
use crate::read::pieces;

pub(crate) use alive::{Alive, Uploads};

/// Parts of one upload on their way at once. More of them help only where a connection is slow, and cost a store that is
/// near a third of the rate: what is on its way no longer fits a processor's cache.
pub(crate) const PARTS_AT_ONCE: usize = 8;
/// What memory for bytes on their way to the store is counted in, in bytes.
const UPLOAD_PIECE: u64 = 256 << 10;
/// How much there is of it: 128 MiB.
pub(crate) const UPLOAD_PIECES: usize = 512;
/// Parts of a server-side copy; they cost no bytes here.
const COPY_PART: u64 = 1 << 30;

/// An upload that the journal knows of, so that a crash leaves no orphan.
#[derive(Debug, Clone)]
pub(crate) struct KnownUpload {
    pub(crate) upload: MultipartUpload,
    intent: IntentId,
    _alive: Alive,
}

impl Filesystem {
    /// How this store's objects are cut into parts.
    pub(crate) fn layout(&self) -> PartLayout {
        let capabilities = self.store.capabilities();
        PartLayout::new(capabilities.part_size_min, capabilities.part_size_max, FIRST_PART)
    }

    /// Waits for room for so many bytes in memory on their way to the store.
    pub(crate) async fn upload_room(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let pieces = bytes.div_ceil(UPLOAD_PIECE).clamp(1, UPLOAD_PIECES as u64) as u32;
        // Closed never; a missing permit only means no bound.
        self.upload_room.acquire_many(pieces).await.ok()
    }

    pub(crate) async fn begin_upload(&self, key: &Key, meta: &FileMeta) -> Result<KnownUpload> {
        let upload = self.store.create_multipart(key, self.encode(meta)?).await?;
        reach(Step::AfterUploadBegun);
        let said = Intent::Upload { key: key.clone(), upload_id: upload.id.clone() };
        let intent = self.journal.reserve();
        let alive = self.uploads.begin(intent);
        match self.renote(intent, said).await {
            Ok(()) => {
                reach(Step::AfterUploadNoted);
                Ok(KnownUpload { upload, intent, _alive: alive })
            }
            Err(error) => {
                self.store.abort_multipart(&upload).await?;
                Err(error)
            }
        }
    }

    pub(crate) async fn abort_upload(&self, known: &KnownUpload) {
        match self.store.abort_multipart(&known.upload).await {
            Ok(()) => self.forget_intent(known.intent).await,
            Err(error) => {
                tracing::warn!(key = %known.upload.key, %error, "an upload could not be aborted yet");
            }
        }
    }

    /// Sends a planned upload: local parts from the staging file, clean ones by the store's own copy.
    pub(crate) async fn send_parts(
        &self,
        inode: &Arc<Inode>,
        parts: Vec<PlannedPart>,
        door: &Door<'_>,
    ) -> Result<Outcome> {
        let key = self.key(&self.inodes.path(inode.ino)?)?;
        let job = self.begin(&mut inode.state())?;
        if parts.last().is_none_or(|p| p.range.end != job.size) {
            return Ok(Outcome::Moved);
        }
        let known = self.begin_upload(&key, &job.meta).await?;
        let (sent, size) = (AtomicU64::new(0), job.size);
        let sends = parts.into_iter().map(|part| {
            let (known, job, sent, len) = (&known, &job, &sent, part.range.end - part.range.start);
            async move {
                let receipt = self.send_planned(inode, &known.upload, job, part).await?;
                door.progress(sent.fetch_add(len, Ordering::Relaxed) + len, size);
                Ok(receipt)
            }
        });
        let receipts = futures::stream::iter(sends).buffered(PARTS_AT_ONCE).try_collect::<Vec<_>>();
        match door.unless_stopped(receipts).await {
            Ok(receipts) => self.complete(inode, job, known, &receipts, door).await,
            Err(error) => {
                self.abort_upload(&known).await;
                Err(error)
            }
        }
    }

    async fn send_planned(
        &self,
        inode: &Arc<Inode>,
        upload: &MultipartUpload,
        job: &Job,
        part: PlannedPart,
    ) -> Result<PartReceipt> {
        match (part.from, &job.base) {
            (PartSource::Base, Some(base)) => Ok(self
                .store
                .upload_part_copy(upload, part.number, &base.key, &base.version, part.range)
                .await?),
            _ => self.send_local(inode, upload, part.number, part.range).await,
        }
    }

    /// Sends a range of the staging file as one part. What was cut off meanwhile is sent as zeros: it counts as
    /// changed, and the next commit brings it in order.
    pub(crate) async fn send_local(
        &self,
        inode: &Arc<Inode>,
        upload: &MultipartUpload,
        number: PartNumber,
        range: Range<u64>,
    ) -> Result<PartReceipt> {
        let _room = self.upload_room(range.end - range.start).await;
        let (start, len) = (range.start, (range.end - range.start) as usize);
        let disk = loop {
            self.bring_in(inode, range.clone()).await?;
            let state = inode.state();
            let Some(staged) = state.staged.as_ref() else {
                return Err(FsError::new(FsErrorKind::Stale, "the file went while it was being stored"));
            };
            if staged.missing(range.clone()).is_empty() {
                break staged.disk_file().clone();
            }
        };
        // Not while the state is locked, which would hold up who writes: what changes meanwhile counts as changed.
        let bytes = blocking(move || disk.read_up_to(start, len)).await?;
        let cut = (bytes.len() < len).then(|| Bytes::from(vec![0; len - bytes.len()]));
        let body = Payload::new([bytes].into_iter().chain(cut));
        let receipt = self.store.upload_part(upload, number, body).await?;
        reach(Step::AfterPart);
        Ok(receipt)
    }

    /// Makes the object of its parts, if the file still has the name that the upload is for.
    pub(crate) async fn complete(
        &self,
        inode: &Arc<Inode>,
        job: Job,
        known: KnownUpload,
        receipts: &[PartReceipt],
        door: &Door<'_>,
    ) -> Result<Outcome> {
        let locked = self.lock_path(|| self.inodes.path(inode.ino), Scope::Name).await;
        let same_name = match &locked {
            Ok((_, path)) => self.key(path)? == known.upload.key,
            Err(_) => false,
        };
        if !same_name {
            self.abort_upload(&known).await;
            return locked.map(|_| Outcome::Moved);
        }
        if let Err(stopped) = door.pass().await {
            self.abort_upload(&known).await;
            return Err(stopped);
        }
        let condition = self.condition_for(job.base.as_ref());
        let key = &known.upload.key;
        {
            let mut state = inode.state();
            (state.tries.unsure, state.tries.expected) = (true, sum_of_parts(receipts));
        }
        let _landing = inode.landing.lock().await;
        reach(Step::BeforeComplete);
        let answer = self.store.complete_multipart(&known.upload, receipts, condition).await;
        reach(Step::AfterComplete);
        match self.accept(inode, key, &job, answer).await {
            Ok(Some(written)) => {
                self.settle_remote(inode, &job, key, &written);
                self.forget_intent(known.intent).await;
                let sent = job.meta.clone();
                Ok(Outcome::Stored(Box::new((job, sent))))
            }
            Ok(None) => {
                door.go_back();
                self.abort_upload(&known).await;
                Ok(Outcome::Moved)
            }
            Err(error) => {
                self.abort_upload(&known).await;
                Err(error)
            }
        }
    }

    async fn complete_known(
        &self,
        known: &KnownUpload,
        receipts: &[PartReceipt],
        meta: &FileMeta,
        condition: PutCondition,
    ) -> Result<Written> {
        let answer = self.store.complete_multipart(&known.upload, receipts, condition).await;
        let error = match answer {
            Ok(written) => {
                self.forget_intent(known.intent).await;
                return Ok(written);
            }
            Err(error) => error,
        };
        let size = receipts.iter().map(|part| part.size).sum();
        let ours = self.was_ours(&known.upload.key, meta, size, error.kind()).await;
        self.abort_upload(known).await;
        ours?.map(|version| Written { version }).ok_or_else(|| error.into())
    }

    /// Stores the staged bytes under another key, whatever is there: what a lost race leaves. Their generation.
    pub(crate) async fn store_beside(&self, inode: &Arc<Inode>, path: &str) -> Result<u64> {
        let key = self.key(path)?;
        let size = inode.state().size();
        self.bring_in(inode, 0..size).await?;
        let job = self.begin(&mut inode.state())?;
        match self.layout().plan(job.size, None, &rangemap::RangeSet::new())? {
            crate::layout::UploadPlan::Whole => {
                let bytes =
                    inode.state().staged.as_ref().map(|s| s.read(0, job.size as usize)).transpose()?;
                let new = self.encode(&job.meta)?;
                self.store.put(&key, bytes.unwrap_or_default().into(), new, PutCondition::Always).await?;
            }
            crate::layout::UploadPlan::Parts(parts) => {
                let known = self.begin_upload(&key, &job.meta).await?;
                let sends =
                    parts.into_iter().map(|p| self.send_local(inode, &known.upload, p.number, p.range));
                let sent: Result<Vec<_>> =
                    futures::stream::iter(sends).buffered(PARTS_AT_ONCE).try_collect().await;
                match sent {
                    Ok(receipts) => {
                        self.complete_known(&known, &receipts, &job.meta, PutCondition::Always).await?;
                    }
                    Err(error) => {
                        self.abort_upload(&known).await;
                        return Err(error);
                    }
                }
            }
        }
        Ok(job.generation)
    }

    /// Copies an object that is too large for one request.
    pub(crate) async fn copy_in_parts(
        &self,
        from: &Remote,
        to: &Key,
        meta: Option<&FileMeta>,
    ) -> Result<Version> {
        let mut meta = match meta {
            Some(meta) => meta.clone(),
            None => self.meta_of(from).await?,
        };
        // Its own, lest the object that it is to replace be taken for it.
        meta.write_id = Some(new_write_id());
        let known = self.begin_upload(to, &meta).await?;
        let part = COPY_PART.min(self.store.capabilities().part_size_max).max(from.size.div_ceil(9_999));
        let ranges = pieces(0..from.size, part).enumerate();
        let copies = ranges.map(|(i, range)| {
            let (store, upload) = (&self.store, &known.upload);
            async move {
                let number = u16::try_from(i + 1).ok().and_then(PartNumber::new);
                let number = number.ok_or_else(|| FsError::new(FsErrorKind::TooLarge, "too many parts"))?;
                Ok(store.upload_part_copy(upload, number, &from.key, &from.version, range).await?)
            }
        });
        let copied: Result<Vec<_>> =
            futures::stream::iter(copies).buffered(PARTS_AT_ONCE).try_collect().await;
        match copied {
            Ok(receipts) => {
                Ok(self.complete_known(&known, &receipts, &meta, PutCondition::Always).await?.version)
            }
            Err(error) => {
                self.abort_upload(&known).await;
                Err(error)
            }
        }
    }

    async fn meta_of(&self, remote: &Remote) -> Result<FileMeta> {
        let object = self.head(remote.key.clone()).await?;
        let object = object.ok_or_else(|| FsError::new(FsErrorKind::NotFound, "the object is gone"))?;
        Ok(FileMeta::decode(&object, &self.defaults()))
    }

    /// Writes an intent to the journal, durably.
    pub(crate) async fn note(&self, intent: Intent) -> Result<IntentId> {
        let journal = self.journal.clone();
        blocking(move || journal.record(intent)).await
    }

    /// Writes to the journal, durably, what has become of an intent.
    pub(crate) async fn renote(&self, id: IntentId, intent: Intent) -> Result<()> {
        let journal = self.journal.clone();
        blocking(move || journal.update(id, intent)).await
    }

    /// Strikes an intent out. A failure only means that the next start looks at it once more.
    pub(crate) async fn forget_intent(&self, id: IntentId) {
        let journal = self.journal.clone();
        if let Err(error) = blocking(move || journal.complete(id)).await {
            tracing::warn!(%error, "an entry of the journal could not be struck out");
        }
    }
}

/// Runs a short piece of local I/O off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| FsError::caused(FsErrorKind::Io, "local I/O did not finish", e))?
}
