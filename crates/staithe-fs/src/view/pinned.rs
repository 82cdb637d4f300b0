//! A store of which only a view is shown: names and attributes from a manifest in memory, bytes from the store behind it,
//! each object in the version that the view has.
//!
//! Invariants:
//! 1. Every answer is of one view: whole the old one or whole the new one, while one takes the other's place.
//! 2. A listing ends in the view that it began in (see `streams`).
//! 3. Bytes are of the version that was asked for, or if none was, of the view's: by its id, else on the condition
//!    that its entity tag matches. An open file, whose version is known, reads on whatever the view is.
//! 4. Nothing is changed behind it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use staithe_snapshot::{Config, SnapshotCell};
use staithe_store::{
    Capabilities, CopyRequest, Crc64Nvme, DeleteFailure, DeleteRequest, ErrorKind, GetRequest, GetResponse,
    HeadRequest, Key, ListPage, ListRequest, Metadata, MultipartUpload, NewObject, ObjectMeta, ObjectStore,
    PageToken, PartNumber, PartReceipt, Payload, PutCondition, StoreError, UploadPage, Version, VersionPage,
    VolumeInfo, Written,
};

use super::manifest::Manifest;
use super::object::ViewObject;
use super::streams::{Mark, Streams, View};
use crate::config::AttributeSource;
use crate::error::{FsError, FsErrorKind, Result};

/// A store of which only a view is shown.
pub struct PinnedStore {
    inner: Arc<dyn ObjectStore>,
    prefix: String,
    attributes: AttributeSource,
    pub(super) views: Arc<SnapshotCell<Manifest>>,
    streams: Streams,
}

/// What a pinned store shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewStatus {
    /// The manifest, by its name when it was loaded.
    pub file: PathBuf,
    /// How many views were shown, this one included.
    pub epoch: u64,
    /// The moment that it shows.
    pub shows: SystemTime,
    /// Its objects.
    pub objects: u64,
    /// What it takes of the memory, in bytes.
    pub memory: u64,
    /// Earlier views that are still in memory: they are being listed, or about to be freed.
    pub old: u64,
}

impl std::fmt::Debug for PinnedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self.status();
        f.debug_struct("PinnedStore")
            .field("inner", &self.inner)
            .field("view", &status)
            .finish_non_exhaustive()
    }
}

impl PinnedStore {
    /// Shows of `inner` what the manifest in `file` lists, which must be of this volume and prefix. Attributes that the
    /// listing does not tell are asked for, if `attributes` is full. Blocks on the disk.
    ///
    /// # Errors
    /// `Invalid` for what is no whole manifest, and for one of another volume or prefix; `Io`.
    pub fn open(
        inner: Arc<dyn ObjectStore>,
        prefix: &str,
        attributes: AttributeSource,
        file: &Path,
    ) -> Result<Self> {
        let manifest = Manifest::load(file)?;
        check(&manifest, &inner.volume(), prefix)?;
        let views = Arc::new(SnapshotCell::with_config(manifest, Config::default()));
        Ok(Self { inner, prefix: prefix.to_owned(), attributes, views, streams: Streams::default() })
    }

    /// Shows the same of `inner`, another way to the same volume: which view that is, is changed for both.
    #[must_use]
    pub fn over(&self, inner: Arc<dyn ObjectStore>) -> Self {
        let (prefix, views, streams) = (self.prefix.clone(), Arc::clone(&self.views), self.streams.clone());
        Self { inner, prefix, attributes: self.attributes, views, streams }
    }

    /// Fails unless `manifest` is of the volume and prefix that are shown.
    pub(super) fn check(&self, manifest: &Manifest) -> Result<()> {
        check(manifest, &self.inner.volume(), &self.prefix)
    }

    /// What it shows, now.
    pub fn status(&self) -> ViewStatus {
        let view = self.views.load();
        ViewStatus {
            file: view.file().to_owned(),
            epoch: view.epoch().0,
            shows: view.header().shows(),
            objects: view.len() as u64,
            memory: view.memory(),
            old: self.views.stats().old as u64,
        }
    }

    /// The view that a listing goes on in; the current one for a new listing.
    fn view_of(&self, mark: Option<&Mark<'_>>) -> staithe_store::Result<View> {
        let current = self.views.load();
        let Some(mark) = mark.filter(|mark| mark.epoch != current.epoch()) else { return Ok(current) };
        self.streams.view(mark.epoch).ok_or_else(|| {
            let what = "the view that this listing began in is not kept any more; begin again";
            StoreError::new(ErrorKind::VersionMismatch, "list", what)
        })
    }

    fn find(&self, operation: &'static str, key: &Key) -> staithe_store::Result<ViewObject> {
        self.views.load().find(key).ok_or_else(|| {
            StoreError::new(ErrorKind::NotFound, operation, "the view has no such object").with_key(key)
        })
    }

    /// The version to ask the store behind for: what was asked for, with the id that the view knows of it.
    fn version_of(
        &self,
        operation: &'static str,
        key: &Key,
        wanted: Option<Version>,
    ) -> staithe_store::Result<Version> {
        match wanted {
            Some(version) if version.id.is_some() => Ok(version),
            Some(version) => match self.views.load().find(key) {
                Some(object) if object.version.etag == version.etag => Ok(object.version),
                _ => Ok(version),
            },
            None => Ok(self.find(operation, key)?.version),
        }
    }
}

fn check(manifest: &Manifest, volume: &str, prefix: &str) -> Result<()> {
    let header = manifest.header();
    let (file, is_of) = (manifest.file().display(), &header.volume);
    if header.volume != volume {
        let why = format!("{file} is a manifest of {is_of}, and this is {volume}");
        return Err(FsError::new(FsErrorKind::Invalid, why));
    }
    if header.prefix != prefix {
        let why = format!("{file} is a manifest of the prefix {:?}, and this is {prefix:?}", header.prefix);
        return Err(FsError::new(FsErrorKind::Invalid, why));
    }
    Ok(())
}

/// The view has it, whatever the store behind says: what is not there is another version.
fn gone(error: StoreError) -> StoreError {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    let what = "the version that the view has is not in the bucket any more";
    StoreError::new(ErrorKind::VersionMismatch, error.operation(), what).with_source(error)
}

/// What answers, with the id of its version also where the store does not tell that: it is known by the next view, too.
fn identified(mut meta: ObjectMeta, version: Version) -> ObjectMeta {
    if meta.version.id.is_none() && meta.version.etag == version.etag {
        meta.version = version;
    }
    meta
}

fn refused<T>(operation: &'static str) -> staithe_store::Result<T> {
    Err(StoreError::new(ErrorKind::Unsupported, operation, "a view is looked at, and never changed"))
}

#[async_trait]
impl ObjectStore for PinnedStore {
    fn url(&self) -> String {
        self.inner.url()
    }

    /// That of the store behind: the same version has the same bytes, whatever is shown.
    fn volume(&self) -> String {
        self.inner.volume()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn answers_from_memory(&self, operation: &str) -> bool {
        operation == "list" || (operation == "head" && self.attributes == AttributeSource::Listing)
    }

    async fn probe(&self) -> staithe_store::Result<VolumeInfo> {
        self.inner.probe().await
    }

    async fn identity(&self) -> staithe_store::Result<Option<String>> {
        self.inner.identity().await
    }

    async fn head(&self, request: HeadRequest) -> staithe_store::Result<ObjectMeta> {
        if self.attributes == AttributeSource::Full {
            let version = self.version_of("head", &request.key, request.version)?;
            let asked = HeadRequest { key: request.key, version: Some(version.clone()) };
            return Ok(identified(self.inner.head(asked).await.map_err(gone)?, version));
        }
        let object = self.find("head", &request.key)?;
        if request.version.is_some_and(|wanted| wanted.etag != object.version.etag) {
            let what = "the view has another version";
            return Err(StoreError::new(ErrorKind::VersionMismatch, "head", what).with_key(&request.key));
        }
        Ok(ObjectMeta {
            key: object.key,
            size: object.size,
            version: object.version,
            last_modified: object.modified,
            metadata: Metadata::new(),
            content_type: None,
        })
    }

    async fn checksum(&self, request: HeadRequest) -> staithe_store::Result<Option<Crc64Nvme>> {
        let version = Some(self.version_of("checksum", &request.key, request.version)?);
        self.inner.checksum(HeadRequest { key: request.key, version }).await.map_err(gone)
    }

    async fn get(&self, request: GetRequest) -> staithe_store::Result<GetResponse> {
        let version = self.version_of("get", &request.key, request.version)?;
        let asked = GetRequest { version: Some(version.clone()), ..request };
        let GetResponse { meta, range, body } = self.inner.get(asked).await.map_err(gone)?;
        Ok(GetResponse { meta: identified(meta, version), range, body })
    }

    async fn list(&self, request: ListRequest) -> staithe_store::Result<ListPage> {
        let foreign =
            || StoreError::new(ErrorKind::Invalid, "list", "the page token is not one of this store");
        let token = request.token.clone();
        let mark = token.as_ref().map(|token| Mark::parse(token).ok_or_else(foreign)).transpose()?;
        let view = self.view_of(mark.as_ref())?;
        let token = mark.as_ref().map(|mark| PageToken::new(mark.rest));
        let mut page = view.list(&ListRequest { token, ..request })?;
        page.next = self.streams.note(&view, mark.as_ref(), page.next.as_ref(), Instant::now());
        Ok(page)
    }

    async fn put(
        &self,
        _: &Key,
        _: Payload,
        _: NewObject,
        _: PutCondition,
    ) -> staithe_store::Result<Written> {
        refused("put")
    }

    async fn create_multipart(&self, _: &Key, _: NewObject) -> staithe_store::Result<MultipartUpload> {
        refused("create_multipart")
    }

    async fn upload_part(
        &self,
        _: &MultipartUpload,
        _: PartNumber,
        _: Payload,
    ) -> staithe_store::Result<PartReceipt> {
        refused("upload_part")
    }

    async fn upload_part_copy(
        &self,
        _: &MultipartUpload,
        _: PartNumber,
        _: &Key,
        _: &Version,
        _: Range<u64>,
    ) -> staithe_store::Result<PartReceipt> {
        refused("upload_part_copy")
    }

    async fn complete_multipart(
        &self,
        _: &MultipartUpload,
        _: &[PartReceipt],
        _: PutCondition,
    ) -> staithe_store::Result<Written> {
        refused("complete_multipart")
    }

    async fn abort_multipart(&self, _: &MultipartUpload) -> staithe_store::Result<()> {
        refused("abort_multipart")
    }

    async fn list_multiparts(
        &self,
        prefix: &str,
        token: Option<PageToken>,
    ) -> staithe_store::Result<UploadPage> {
        self.inner.list_multiparts(prefix, token).await
    }

    async fn copy(&self, _: CopyRequest) -> staithe_store::Result<Written> {
        refused("copy")
    }

    async fn delete(&self, _: DeleteRequest) -> staithe_store::Result<()> {
        refused("delete")
    }

    async fn delete_batch(&self, _: &[Key]) -> staithe_store::Result<Vec<DeleteFailure>> {
        refused("delete_batch")
    }

    async fn list_versions(
        &self,
        prefix: &str,
        token: Option<PageToken>,
    ) -> staithe_store::Result<VersionPage> {
        self.inner.list_versions(prefix, token).await
    }
}
