//! The reference store: a bucket in memory, with every behaviour of the port.

mod bucket;
mod multipart;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::RwLock;

use self::bucket::Bucket;
use crate::{
    Body, Capabilities, CopyRequest, DeleteFailure, DeleteRequest, ErrorKind, GetRequest, GetResponse,
    HeadRequest, Key, ListPage, ListRequest, MultipartUpload, NewObject, ObjectMeta, ObjectStore, PageToken,
    PartNumber, PartReceipt, Payload, PutCondition, Result, StoreError, UploadPage, Version, VersionPage,
    VolumeInfo, Written, checks,
};

/// How a [`MemoryStore`] behaves. The defaults are those of Amazon S3 without versions.
#[derive(Debug, Clone)]
pub struct MemoryOptions {
    /// Keep versions and delete markers. This sets [`Capabilities::versions`].
    pub versioned: bool,
    /// What the store claims and enforces; a condition that is `false` here is refused.
    pub capabilities: Capabilities,
    /// Most entries in a page of any listing; 1 to 1,000.
    pub page_max: u16,
    /// Largest chunk of a response body, in bytes; at least 1.
    pub chunk_bytes: usize,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { versioned: false, capabilities: Capabilities::S3, page_max: 1000, chunk_bytes: 256 << 10 }
    }
}

/// A bucket in memory: the reference that other stores are compared with, and the data of tests.
///
/// Every request is one step under a lock, so the store is linearizable. Bodies are shared, never copied: a
/// `get` hands out slices of what `put` took in.
///
/// # Cancel safety
/// Every method does its work at its first poll: a future that was polled has had its effect.
#[derive(Debug)]
pub struct MemoryStore {
    id: uuid::Uuid,
    options: MemoryOptions,
    bucket: RwLock<Option<Bucket>>,
    serial: AtomicU64,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(MemoryOptions::default())
    }
}

impl MemoryStore {
    /// An empty bucket.
    pub fn new(mut options: MemoryOptions) -> Self {
        options.capabilities.versions = options.versioned;
        options.page_max = options.page_max.clamp(1, 1000);
        options.chunk_bytes = options.chunk_bytes.max(1);
        let bucket = RwLock::new(Some(Bucket::new(now())));
        Self { id: uuid::Uuid::new_v4(), options, bucket, serial: AtomicU64::new(1) }
    }

    /// An empty bucket that keeps versions.
    pub fn versioned() -> Self {
        Self::new(MemoryOptions { versioned: true, ..MemoryOptions::default() })
    }

    /// Deletes the bucket with all that is in it: from now on every request answers
    /// [`ErrorKind::VolumeGone`].
    pub fn remove_volume(&self) {
        // Freed after the lock is released: dropping millions of objects takes a while.
        let gone = self.bucket.write().take();
        drop(gone);
    }

    /// Makes the bucket anew, empty, if it was removed.
    pub fn create_volume(&self) {
        self.bucket.write().get_or_insert_with(|| Bucket::new(now()));
    }

    /// Number of objects that a flat listing would show. O(n).
    pub fn object_count(&self) -> usize {
        self.bucket.read().as_ref().map_or(0, Bucket::live_objects)
    }

    fn read<T>(&self, operation: &'static str, look: impl FnOnce(&Bucket) -> Result<T>) -> Result<T> {
        self.bucket.read().as_ref().map_or_else(|| Err(volume_gone(operation)), look)
    }

    fn write<T>(&self, operation: &'static str, change: impl FnOnce(&mut Bucket) -> Result<T>) -> Result<T> {
        self.bucket.write().as_mut().map_or_else(|| Err(volume_gone(operation)), change)
    }

    /// What a change carries: who it is, and when it happens.
    fn stamp(&self) -> Stamp {
        Stamp {
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
            now: now(),
            versioned: self.options.versioned,
        }
    }
}

/// The moment of a change and its number, unique in the store.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    serial: u64,
    now: SystemTime,
    versioned: bool,
}

/// The one place where this store reads the clock: it is the store's own, as S3's is.
#[allow(clippy::disallowed_methods, reason = "a store dates its objects itself")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn volume_gone(operation: &'static str) -> StoreError {
    StoreError::new(ErrorKind::VolumeGone, operation, "the bucket was deleted")
}

/// The bytes `range` of `payload` as a stream of slices of at most `chunk` bytes.
fn body(payload: &Payload, range: &Range<u64>, chunk: usize) -> Body {
    let mut slices = Vec::new();
    let mut offset = 0;
    for piece in payload.chunks() {
        let len = piece.len() as u64;
        let mut start = range.start.clamp(offset, offset + len) - offset;
        let end = range.end.clamp(offset, offset + len) - offset;
        while start < end {
            let stop = end.min(start + chunk as u64);
            slices.push(Ok(piece.slice(start as usize..stop as usize)));
            start = stop;
        }
        offset += len;
    }
    futures::stream::iter(slices).boxed()
}

#[async_trait]
impl ObjectStore for MemoryStore {
    fn url(&self) -> String {
        "memory://".to_owned()
    }

    /// No other bucket in memory ever has the same.
    fn volume(&self) -> String {
        format!("memory://{}", self.id.simple())
    }

    fn capabilities(&self) -> &Capabilities {
        &self.options.capabilities
    }

    async fn probe(&self) -> Result<VolumeInfo> {
        self.read("probe", |bucket| Ok(VolumeInfo { created: Some(bucket.created()), region: None }))
    }

    async fn head(&self, request: HeadRequest) -> Result<ObjectMeta> {
        self.read("head", |bucket| {
            let found = bucket.find("head", &request.key, request.version.as_ref())?;
            Ok(found.meta(&request.key))
        })
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse> {
        let (meta, payload) = self.read("get", |bucket| {
            let found = bucket.find("get", &request.key, request.version.as_ref())?;
            Ok((found.meta(&request.key), found.payload().clone()))
        })?;
        let range = checks::resolve_range(&request.key, request.range.as_ref(), meta.size)?;
        let body = body(&payload, &range, self.options.chunk_bytes);
        Ok(GetResponse { meta, range, body })
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage> {
        self.read("list", |bucket| bucket.list(&request, self.options.page_max))
    }

    async fn put(
        &self,
        key: &Key,
        body: Payload,
        new: NewObject,
        condition: PutCondition,
    ) -> Result<Written> {
        let caps = &self.options.capabilities;
        checks::new_object(caps, "put", key, &new, body.len())?;
        checks::condition_supported(caps, "put", key, &condition)?;
        let content = bucket::Content::single(body, new);
        self.write("put", |bucket| bucket.store("put", key, content, &condition, self.stamp()))
    }

    async fn create_multipart(&self, key: &Key, new: NewObject) -> Result<MultipartUpload> {
        checks::new_object(&self.options.capabilities, "create_multipart", key, &new, 0)?;
        self.write("create_multipart", |bucket| Ok(bucket.uploads.create(key, new, self.stamp())))
    }

    async fn upload_part(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        body: Payload,
    ) -> Result<PartReceipt> {
        let limits = &self.options.capabilities;
        checks::new_object(limits, "upload_part", &upload.key, &NewObject::default(), body.len())?;
        let part = multipart::Part::new(body);
        self.write("upload_part", |bucket| bucket.uploads.add("upload_part", upload, number, part))
    }

    async fn upload_part_copy(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        from: &Key,
        version: &Version,
        range: Range<u64>,
    ) -> Result<PartReceipt> {
        const OP: &str = "upload_part_copy";
        if !self.options.capabilities.part_copy {
            return Err(checks::fail(ErrorKind::Unsupported, OP, from, "this store copies no parts"));
        }
        let source = self.read(OP, |bucket| {
            let found = bucket.find(OP, from, Some(version))?;
            Ok(found.payload().clone())
        })?;
        checks::part_copy_range(&self.options.capabilities, from, &range, source.len())?;
        let part = multipart::Part::new(multipart::slice(&source, &range));
        self.write(OP, |bucket| bucket.uploads.add(OP, upload, number, part))
    }

    async fn complete_multipart(
        &self,
        upload: &MultipartUpload,
        parts: &[PartReceipt],
        condition: PutCondition,
    ) -> Result<Written> {
        const OP: &str = "complete_multipart";
        let caps = &self.options.capabilities;
        checks::condition_supported(caps, OP, &upload.key, &condition)?;
        self.write(OP, |bucket| {
            let content = bucket.uploads.assemble(caps, upload, parts)?;
            let written = bucket.store(OP, &upload.key, content, &condition, self.stamp())?;
            bucket.uploads.remove(upload);
            Ok(written)
        })
    }

    async fn abort_multipart(&self, upload: &MultipartUpload) -> Result<()> {
        self.write("abort_multipart", |bucket| {
            bucket.uploads.remove(upload);
            Ok(())
        })
    }

    async fn list_multiparts(&self, prefix: &str, token: Option<PageToken>) -> Result<UploadPage> {
        self.read("list_multiparts", |bucket| {
            bucket.uploads.list(prefix, token.as_ref(), self.options.page_max)
        })
    }

    async fn copy(&self, request: CopyRequest) -> Result<Written> {
        let caps = &self.options.capabilities;
        checks::copy_changes_something(&request)?;
        if let Some(new) = &request.replace {
            checks::new_object(caps, "copy", &request.to, new, 0)?;
        }
        let pinned_by_tag = request.from_version.as_ref().is_some_and(|version| version.id.is_none());
        if pinned_by_tag && !caps.copy_if_match {
            let text = "this store does not honour a condition on the source of a copy";
            return Err(checks::fail(ErrorKind::Unsupported, "copy", &request.from, text));
        }
        self.write("copy", |bucket| bucket.copy(caps, &request, self.stamp()))
    }

    async fn delete(&self, request: DeleteRequest) -> Result<()> {
        if request.if_match.is_some() && !self.options.capabilities.delete_if_match {
            let text = "this store does not honour If-Match on delete";
            return Err(checks::fail(ErrorKind::Unsupported, "delete", &request.key, text));
        }
        self.write("delete", |bucket| bucket.delete(&request, self.stamp()))
    }

    async fn delete_batch(&self, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        checks::batch_size(&self.options.capabilities, keys)?;
        self.write("delete_batch", |bucket| {
            for key in keys {
                bucket.delete(&DeleteRequest::latest(key.clone()), self.stamp())?;
            }
            Ok(Vec::new())
        })
    }

    async fn list_versions(&self, prefix: &str, token: Option<PageToken>) -> Result<VersionPage> {
        if !self.options.versioned {
            let text = "this bucket keeps no versions";
            return Err(StoreError::new(ErrorKind::Unsupported, "list_versions", text));
        }
        self.read("list_versions", |bucket| {
            bucket.list_versions(prefix, token.as_ref(), self.options.page_max)
        })
    }
}
