//! A store rooted at a prefix of another.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Capabilities, CopyRequest, Crc64Nvme, DeleteFailure, DeleteRequest, ErrorKind, GetRequest, GetResponse,
    HeadRequest, Key, ListPage, ListRequest, MultipartUpload, NewObject, ObjectMeta, ObjectStore, PageToken,
    PartNumber, PartReceipt, Payload, PutCondition, Result, StoreError, UploadPage, Version, VersionPage,
    VolumeInfo, Written,
};

/// A view of the objects whose keys begin with a prefix, which neither requests nor answers name.
///
/// It is done here and not in the filesystem, so that nothing above the port ever joins a prefix to a path.
/// The object whose key *is* the prefix (the marker of the root) has no name in this view and is not shown.
/// Errors name keys as the caller knows them.
#[derive(Debug)]
pub struct Prefixed {
    inner: Arc<dyn ObjectStore>,
    prefix: String,
}

impl Prefixed {
    /// Shows of `inner` what begins with `prefix`. To show a directory, end it in `/`.
    pub fn new(inner: Arc<dyn ObjectStore>, prefix: impl Into<String>) -> Self {
        Self { inner, prefix: prefix.into() }
    }

    fn full(&self, operation: &'static str, key: &Key) -> Result<Key> {
        Key::new(format!("{}{key}", self.prefix)).map_err(|why| {
            let text = format!("with the prefix {:?}, {why}", self.prefix);
            StoreError::new(ErrorKind::Invalid, operation, text).with_key(key)
        })
    }

    /// The key as seen here; `None` for the prefix itself.
    fn relative(&self, key: &Key) -> Option<Key> {
        Key::new(key.as_str().strip_prefix(self.prefix.as_str())?).ok()
    }

    fn rename_error(&self, error: StoreError) -> StoreError {
        match error.key().and_then(|key| self.relative(key)) {
            Some(key) => error.with_key(&key),
            None => error,
        }
    }

    fn full_upload(&self, operation: &'static str, upload: &MultipartUpload) -> Result<MultipartUpload> {
        Ok(MultipartUpload { key: self.full(operation, &upload.key)?, ..upload.clone() })
    }
}

fn below(inner: String, prefix: &str) -> String {
    let slash = if inner.ends_with("://") || !inner.ends_with('/') { "/" } else { "" };
    inner + slash + prefix
}

#[async_trait]
impl ObjectStore for Prefixed {
    fn url(&self) -> String {
        below(self.inner.url(), &self.prefix)
    }

    /// With the prefix: the same key is another object below another one.
    fn volume(&self) -> String {
        below(self.inner.volume(), &self.prefix)
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn probe(&self) -> Result<VolumeInfo> {
        self.inner.probe().await
    }

    async fn identity(&self) -> Result<Option<String>> {
        self.inner.identity().await
    }

    async fn head(&self, request: HeadRequest) -> Result<ObjectMeta> {
        let key = self.full("head", &request.key)?;
        let answer = self.inner.head(HeadRequest { key, ..request.clone() }).await;
        let meta = answer.map_err(|error| self.rename_error(error))?;
        Ok(ObjectMeta { key: request.key, ..meta })
    }

    async fn checksum(&self, request: HeadRequest) -> Result<Option<Crc64Nvme>> {
        let key = self.full("checksum", &request.key)?;
        let answer = self.inner.checksum(HeadRequest { key, ..request }).await;
        answer.map_err(|error| self.rename_error(error))
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse> {
        let key = self.full("get", &request.key)?;
        let answer = self.inner.get(GetRequest { key, ..request.clone() }).await;
        let mut response = answer.map_err(|error| self.rename_error(error))?;
        response.meta.key = request.key;
        Ok(response)
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage> {
        let full = |text: &str| format!("{}{text}", self.prefix);
        let start_after = request.start_after.as_deref().map(full);
        let prefix = full(&request.prefix);
        let mut page = self.inner.list(ListRequest { prefix, start_after, ..request }).await?;
        page.objects.retain_mut(|object| {
            let key = self.relative(&object.key);
            key.map(|key| object.key = key).is_some()
        });
        for prefix in &mut page.prefixes {
            prefix.drain(..self.prefix.len());
        }
        Ok(page)
    }

    async fn put(
        &self,
        key: &Key,
        body: Payload,
        new: NewObject,
        condition: PutCondition,
    ) -> Result<Written> {
        let answer = self.inner.put(&self.full("put", key)?, body, new, condition).await;
        answer.map_err(|error| self.rename_error(error))
    }

    async fn create_multipart(&self, key: &Key, new: NewObject) -> Result<MultipartUpload> {
        let answer = self.inner.create_multipart(&self.full("create_multipart", key)?, new).await;
        let upload = answer.map_err(|error| self.rename_error(error))?;
        Ok(MultipartUpload { key: key.clone(), ..upload })
    }

    async fn upload_part(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        body: Payload,
    ) -> Result<PartReceipt> {
        let upload = self.full_upload("upload_part", upload)?;
        let answer = self.inner.upload_part(&upload, number, body).await;
        answer.map_err(|error| self.rename_error(error))
    }

    async fn upload_part_copy(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        from: &Key,
        version: &Version,
        range: Range<u64>,
    ) -> Result<PartReceipt> {
        let upload = self.full_upload("upload_part_copy", upload)?;
        let from = self.full("upload_part_copy", from)?;
        let answer = self.inner.upload_part_copy(&upload, number, &from, version, range).await;
        answer.map_err(|error| self.rename_error(error))
    }

    async fn complete_multipart(
        &self,
        upload: &MultipartUpload,
        parts: &[PartReceipt],
        condition: PutCondition,
    ) -> Result<Written> {
        let upload = self.full_upload("complete_multipart", upload)?;
        let answer = self.inner.complete_multipart(&upload, parts, condition).await;
        answer.map_err(|error| self.rename_error(error))
    }

    async fn abort_multipart(&self, upload: &MultipartUpload) -> Result<()> {
        let upload = self.full_upload("abort_multipart", upload)?;
        self.inner.abort_multipart(&upload).await.map_err(|error| self.rename_error(error))
    }

    async fn list_multiparts(&self, prefix: &str, token: Option<PageToken>) -> Result<UploadPage> {
        let mut page = self.inner.list_multiparts(&format!("{}{prefix}", self.prefix), token).await?;
        page.uploads.retain_mut(|upload| {
            let key = self.relative(&upload.key);
            key.map(|key| upload.key = key).is_some()
        });
        Ok(page)
    }

    async fn copy(&self, request: CopyRequest) -> Result<Written> {
        let (from, to) = (self.full("copy", &request.from)?, self.full("copy", &request.to)?);
        let answer = self.inner.copy(CopyRequest { from, to, ..request }).await;
        answer.map_err(|error| self.rename_error(error))
    }

    async fn delete(&self, request: DeleteRequest) -> Result<()> {
        let key = self.full("delete", &request.key)?;
        let answer = self.inner.delete(DeleteRequest { key, ..request }).await;
        answer.map_err(|error| self.rename_error(error))
    }

    async fn delete_batch(&self, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        let keys: Vec<Key> = keys.iter().map(|key| self.full("delete_batch", key)).collect::<Result<_>>()?;
        let failures = self.inner.delete_batch(&keys).await?;
        let relative = failures.into_iter().map(|failure| DeleteFailure {
            key: self.relative(&failure.key).unwrap_or(failure.key),
            error: self.rename_error(failure.error),
        });
        Ok(relative.collect())
    }

    async fn list_versions(&self, prefix: &str, token: Option<PageToken>) -> Result<VersionPage> {
        let mut page = self.inner.list_versions(&format!("{}{prefix}", self.prefix), token).await?;
        page.entries.retain_mut(|entry| {
            let key = self.relative(&entry.key);
            key.map(|key| entry.key = key).is_some()
        });
        Ok(page)
    }
}
