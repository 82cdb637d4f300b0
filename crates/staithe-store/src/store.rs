use std::fmt;
use std::ops::Range;

use async_trait::async_trait;

use crate::{
    Body, Capabilities, Crc64Nvme, ETag, Key, Metadata, MultipartUpload, ObjectMeta, ObjectSummary,
    PageToken, PartNumber, PartReceipt, Payload, Result, StoreError, Version, VersionEntry, VersionId,
    VolumeInfo,
};

/// A HEAD: which object, and which version of it.
#[derive(Debug, Clone)]
pub struct HeadRequest {
    /// The object.
    pub key: Key,
    /// Only this version; `None` takes the latest.
    pub version: Option<Version>,
}

impl HeadRequest {
    /// A HEAD of the latest version of `key`.
    pub fn latest(key: Key) -> Self {
        Self { key, version: None }
    }
}

/// A GET of a range of one version.
#[derive(Debug, Clone)]
pub struct GetRequest {
    /// The object.
    pub key: Key,
    /// Byte range, half open; `None` is the whole object. An end beyond the object is cut to its size; a start
    /// at or beyond it is [`ErrorKind::Invalid`](crate::ErrorKind::Invalid).
    pub range: Option<Range<u64>>,
    /// Only this version: read by its id where there is one, else on the condition that the tag matches.
    pub version: Option<Version>,
}

/// The answer to a GET: what the object is, and a stream of the bytes asked for.
pub struct GetResponse {
    /// The version that answers, with its metadata and full size.
    pub meta: ObjectMeta,
    /// The bytes that `body` delivers.
    pub range: Range<u64>,
    /// Exactly `range.end - range.start` bytes, or an error (a short body is
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), a checksum mismatch too).
    pub body: Body,
}

impl fmt::Debug for GetResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetResponse")
            .field("meta", &self.meta)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// One page of a listing, in the order of the keys' bytes.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Roll up what shares a prefix up to this delimiter (`/`); `None` lists flat.
    pub delimiter: Option<char>,
    /// Only keys after this one (not with `token`).
    pub start_after: Option<String>,
    /// At most this many keys and prefixes together; `None` is the store's page, 1,000.
    pub max_keys: Option<u16>,
    /// Go on where an earlier page ended.
    pub token: Option<PageToken>,
}

/// A page of a listing. Objects and prefixes are each in byte order and may be empty though `next` is set.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// The objects.
    pub objects: Vec<ObjectSummary>,
    /// The common prefixes, each ending in the delimiter.
    pub prefixes: Vec<String>,
    /// Where to go on; `None` on the last page.
    pub next: Option<PageToken>,
}

/// A page of the listing of versions: by key, then newest first.
#[derive(Debug, Clone, Default)]
pub struct VersionPage {
    /// The versions and delete markers.
    pub entries: Vec<VersionEntry>,
    /// Where to go on; `None` on the last page.
    pub next: Option<PageToken>,
}

/// A page of the listing of multipart uploads in progress.
#[derive(Debug, Clone, Default)]
pub struct UploadPage {
    /// The uploads.
    pub uploads: Vec<MultipartUpload>,
    /// Where to go on; `None` on the last page.
    pub next: Option<PageToken>,
}

/// On what condition a put or a completed upload may take effect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PutCondition {
    /// Always.
    #[default]
    Always,
    /// Only if no such object exists (`If-None-Match: *`).
    IfAbsent,
    /// Only over this version (`If-Match`).
    IfMatch(ETag),
}

/// What a new object carries beside its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewObject {
    /// User metadata.
    pub metadata: Metadata,
    /// The media type; `None` leaves the store's default.
    pub content_type: Option<String>,
}

/// What a successful write answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The version that now is the latest.
    pub version: Version,
}

/// A server-side copy of one object, whole.
#[derive(Debug, Clone)]
pub struct CopyRequest {
    /// What to copy.
    pub from: Key,
    /// Only this version of it.
    pub from_version: Option<Version>,
    /// Where to; may equal `from` when `replace` is set.
    pub to: Key,
    /// New metadata and media type; `None` keeps the source's.
    pub replace: Option<NewObject>,
}

/// A delete of one object.
#[derive(Debug, Clone)]
pub struct DeleteRequest {
    /// The object. Deleting what is not there succeeds.
    pub key: Key,
    /// Delete only if the latest version has this tag. Where
    /// [`Capabilities::delete_if_match`] is false this is `Unsupported`.
    pub if_match: Option<ETag>,
    /// Remove this one version for good, instead of hiding the object behind a delete marker.
    pub version_id: Option<VersionId>,
}

impl DeleteRequest {
    /// An unconditional delete of the latest version of `key`.
    pub fn latest(key: Key) -> Self {
        Self { key, if_match: None, version_id: None }
    }
}

/// A key that a batch delete could not remove, and why.
#[derive(Debug, Clone)]
pub struct DeleteFailure {
    /// The object that remains.
    pub key: Key,
    /// Why.
    pub error: StoreError,
}

/// A bucket, or a part of one.
///
/// Every method is safe to cancel: dropping the future leaves the request's effect undecided (it happened or
/// it did not, never half), and nothing of it goes on in the caller's process.
/// Every method may fail with any [`ErrorKind`](crate::ErrorKind); those listed are the ones with a meaning of
/// their own there.
#[async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug + 'static {
    /// The volume's name for people and records, as a URL: `s3://bucket`.
    fn url(&self) -> String;

    /// What tells this volume from every other one, whoever opens it and when: two stores that answer the same
    /// here hold the same objects under the same keys. What outlives a process (a cache, a journal) goes by this.
    /// The URL, where that says as much.
    fn volume(&self) -> String {
        self.url()
    }

    /// What this store can do.
    fn capabilities(&self) -> &Capabilities;

    /// Whether answers to an operation (a verb of the port) come from this process, and so say nothing of whether the
    /// volume is there.
    fn answers_from_memory(&self, _operation: &str) -> bool {
        false
    }

    /// Asks whether the volume itself is there and may be used; on a fresh connection where there are any. Asks once: a
    /// failure is not tried again here.
    ///
    /// # Errors
    /// `VolumeGone`, `Forbidden`, `CredentialsRefused`, `CredentialsExpired`, `Unavailable`, `Timeout`.
    async fn probe(&self) -> Result<VolumeInfo>;

    /// What tells this volume from another one that had its name before, or will have it: something that never changes
    /// of one that is not made anew. `None` where the store does not show it. The default is when it was made.
    ///
    /// # Errors
    /// As [`probe`](Self::probe).
    async fn identity(&self) -> Result<Option<String>> {
        let made = self.probe().await?.created;
        let since = made.and_then(|made| made.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(since.map(|since| format!("made at {}.{:09}", since.as_secs(), since.subsec_nanos())))
    }

    /// An object's attributes.
    ///
    /// # Errors
    /// `NotFound`; `VersionMismatch` if a version without id was named and another one is there.
    async fn head(&self, request: HeadRequest) -> Result<ObjectMeta>;

    /// What the store says is the checksum of all bytes of an object; `None` where it says nothing. A question of its
    /// own: some stores ask more of who asks it than of who asks for attributes.
    ///
    /// # Errors
    /// As [`head`](Self::head).
    async fn checksum(&self, request: HeadRequest) -> Result<Option<Crc64Nvme>> {
        self.head(request).await.map(|_| None)
    }

    /// A range of an object's bytes.
    ///
    /// # Errors
    /// As [`head`](Self::head); `Invalid` for a range that begins at or after the end.
    async fn get(&self, request: GetRequest) -> Result<GetResponse>;

    /// One page of the keys.
    async fn list(&self, request: ListRequest) -> Result<ListPage>;

    /// Stores a whole object atomically. What the store says of what it stored is compared with what was sent.
    ///
    /// # Errors
    /// `Corrupt` where it says something else: what stands under the key is to be taken for wrong then.
    /// `AlreadyExists` or `VersionMismatch` when the condition does not hold (`IfMatch` of a missing object is
    /// `VersionMismatch`); `Unsupported` for a condition that this store does not honour.
    async fn put(&self, key: &Key, body: Payload, new: NewObject, condition: PutCondition)
    -> Result<Written>;

    /// Begins a multipart upload.
    async fn create_multipart(&self, key: &Key, new: NewObject) -> Result<MultipartUpload>;

    /// Uploads one part; a second upload of the same number replaces the first.
    ///
    /// # Errors
    /// `NotFound` if the upload is no more; `Corrupt` as of [`put`](Self::put).
    async fn upload_part(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        body: Payload,
    ) -> Result<PartReceipt>;

    /// Makes a part of a range of a stored object, server-side.
    ///
    /// # Errors
    /// `NotFound`, `VersionMismatch` of the source; `Unsupported`.
    async fn upload_part_copy(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        from: &Key,
        version: &Version,
        range: Range<u64>,
    ) -> Result<PartReceipt>;

    /// Makes the object of its parts, in the order given, atomically.
    ///
    /// # Errors
    /// As [`put`](Self::put); `NotFound` if the upload is no more; `Invalid` for parts that are missing, out of
    /// order or too small.
    async fn complete_multipart(
        &self,
        upload: &MultipartUpload,
        parts: &[PartReceipt],
        condition: PutCondition,
    ) -> Result<Written>;

    /// Gives an upload up and frees its parts. Aborting what is not there succeeds.
    async fn abort_multipart(&self, upload: &MultipartUpload) -> Result<()>;

    /// One page of the uploads in progress under a prefix.
    async fn list_multiparts(&self, prefix: &str, token: Option<PageToken>) -> Result<UploadPage>;

    /// Copies an object server-side, atomically. Sources over [`Capabilities::part_size_max`] are `Invalid`:
    /// copy those part by part.
    ///
    /// # Errors
    /// `NotFound`, `VersionMismatch` of the source.
    async fn copy(&self, request: CopyRequest) -> Result<Written>;

    /// Deletes an object, or hides it behind a delete marker on a versioned bucket.
    ///
    /// # Errors
    /// `VersionMismatch` when the condition does not hold; `Unsupported`.
    async fn delete(&self, request: DeleteRequest) -> Result<()>;

    /// Deletes up to [`Capabilities::delete_batch_max`] objects; returns those that it could not.
    async fn delete_batch(&self, keys: &[Key]) -> Result<Vec<DeleteFailure>>;

    /// One page of all versions under a prefix.
    ///
    /// # Errors
    /// `Unsupported` where the bucket keeps none.
    async fn list_versions(&self, prefix: &str, token: Option<PageToken>) -> Result<VersionPage>;
}
