//! What the decorators share: hooks before and after every request, and around every body.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use super::Operation;
use crate::{
    Body, Capabilities, CopyRequest, Crc64Nvme, DeleteFailure, DeleteRequest, GetRequest, GetResponse,
    HeadRequest, Key, ListPage, ListRequest, MultipartUpload, NewObject, ObjectMeta, ObjectStore, PageToken,
    PartNumber, PartReceipt, Payload, PutCondition, Result, StoreError, UploadPage, Version, VersionPage,
    VolumeInfo, Written,
};

/// A request as the hooks of a [`Layer`] see it.
#[derive(Debug, Clone)]
pub struct Request<'r> {
    /// Which method.
    pub operation: Operation,
    /// The object, the prefix of a listing, or the first key of a batch; empty for a probe.
    pub key: &'r str,
    /// The byte range, for the methods that take one.
    pub range: Option<Range<u64>>,
    /// Bytes of the request body.
    pub sent: u64,
}

/// A decorator that acts around requests. Whatever implements this is an [`ObjectStore`].
#[async_trait]
pub trait Layer: Send + Sync + fmt::Debug + 'static {
    /// What `before` remembers of a request for the other hooks.
    type Ticket: Send + Sync;

    /// The store that does the work.
    fn inner(&self) -> &Arc<dyn ObjectStore>;

    /// Runs before the request; an error is the answer, and the request is not made.
    ///
    /// # Errors
    /// Whatever the decorator wants the caller to see.
    async fn before(&self, request: &Request<'_>) -> Result<Self::Ticket>;

    /// Runs after the request; an error replaces the answer.
    ///
    /// # Errors
    /// Whatever the decorator wants the caller to see.
    async fn after(&self, ticket: &Self::Ticket, error: Option<&StoreError>) -> Result<()>;

    /// Wraps the body of a GET.
    fn body(&self, ticket: &Self::Ticket, body: Body) -> Body;
}

impl<'r> Request<'r> {
    fn new(operation: Operation, key: &'r str) -> Self {
        Self { operation, key, range: None, sent: 0 }
    }

    fn sending(self, body: &Payload) -> Self {
        Self { sent: body.len(), ..self }
    }
}

async fn around<L: Layer, T>(
    layer: &L,
    request: Request<'_>,
    call: impl Future<Output = Result<T>> + Send,
) -> Result<(T, L::Ticket)> {
    let ticket = layer.before(&request).await?;
    let result = call.await;
    layer.after(&ticket, result.as_ref().err()).await?;
    result.map(|answer| (answer, ticket))
}

/// As `around`, for answers without a body.
async fn plain<L: Layer, T>(
    layer: &L,
    request: Request<'_>,
    call: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    around(layer, request, call).await.map(|(answer, _)| answer)
}

#[async_trait]
impl<L: Layer> ObjectStore for L {
    fn url(&self) -> String {
        self.inner().url()
    }

    fn volume(&self) -> String {
        self.inner().volume()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner().capabilities()
    }

    async fn probe(&self) -> Result<VolumeInfo> {
        plain(self, Request::new(Operation::Probe, ""), self.inner().probe()).await
    }

    async fn identity(&self) -> Result<Option<String>> {
        plain(self, Request::new(Operation::Probe, ""), self.inner().identity()).await
    }

    async fn head(&self, request: HeadRequest) -> Result<ObjectMeta> {
        let key = request.key.clone();
        plain(self, Request::new(Operation::Head, key.as_str()), self.inner().head(request)).await
    }

    async fn checksum(&self, request: HeadRequest) -> Result<Option<Crc64Nvme>> {
        let key = request.key.clone();
        plain(self, Request::new(Operation::Head, key.as_str()), self.inner().checksum(request)).await
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse> {
        let key = request.key.clone();
        let seen = Request { range: request.range.clone(), ..Request::new(Operation::Get, key.as_str()) };
        let (mut response, ticket) = around(self, seen, self.inner().get(request)).await?;
        response.body = self.body(&ticket, response.body);
        Ok(response)
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage> {
        let prefix = request.prefix.clone();
        plain(self, Request::new(Operation::List, &prefix), self.inner().list(request)).await
    }

    async fn put(
        &self,
        key: &Key,
        body: Payload,
        new: NewObject,
        condition: PutCondition,
    ) -> Result<Written> {
        let seen = Request::new(Operation::Put, key.as_str()).sending(&body);
        plain(self, seen, self.inner().put(key, body, new, condition)).await
    }

    async fn create_multipart(&self, key: &Key, new: NewObject) -> Result<MultipartUpload> {
        let seen = Request::new(Operation::CreateMultipart, key.as_str());
        plain(self, seen, self.inner().create_multipart(key, new)).await
    }

    async fn upload_part(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        body: Payload,
    ) -> Result<PartReceipt> {
        let seen = Request::new(Operation::UploadPart, upload.key.as_str()).sending(&body);
        plain(self, seen, self.inner().upload_part(upload, number, body)).await
    }

    async fn upload_part_copy(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        from: &Key,
        version: &Version,
        range: Range<u64>,
    ) -> Result<PartReceipt> {
        let seen = Request::new(Operation::UploadPartCopy, upload.key.as_str());
        let seen = Request { range: Some(range.clone()), ..seen };
        plain(self, seen, self.inner().upload_part_copy(upload, number, from, version, range)).await
    }

    async fn complete_multipart(
        &self,
        upload: &MultipartUpload,
        parts: &[PartReceipt],
        condition: PutCondition,
    ) -> Result<Written> {
        let seen = Request::new(Operation::CompleteMultipart, upload.key.as_str());
        plain(self, seen, self.inner().complete_multipart(upload, parts, condition)).await
    }

    async fn abort_multipart(&self, upload: &MultipartUpload) -> Result<()> {
        let seen = Request::new(Operation::AbortMultipart, upload.key.as_str());
        plain(self, seen, self.inner().abort_multipart(upload)).await
    }

    async fn list_multiparts(&self, prefix: &str, token: Option<PageToken>) -> Result<UploadPage> {
        let seen = Request::new(Operation::ListMultiparts, prefix);
        plain(self, seen, self.inner().list_multiparts(prefix, token)).await
    }

    async fn copy(&self, request: CopyRequest) -> Result<Written> {
        let key = request.to.clone();
        plain(self, Request::new(Operation::Copy, key.as_str()), self.inner().copy(request)).await
    }

    async fn delete(&self, request: DeleteRequest) -> Result<()> {
        let key = request.key.clone();
        plain(self, Request::new(Operation::Delete, key.as_str()), self.inner().delete(request)).await
    }

    async fn delete_batch(&self, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        let first = keys.first().map_or("", Key::as_str);
        plain(self, Request::new(Operation::DeleteBatch, first), self.inner().delete_batch(keys)).await
    }

    async fn list_versions(&self, prefix: &str, token: Option<PageToken>) -> Result<VersionPage> {
        let seen = Request::new(Operation::ListVersions, prefix);
        plain(self, seen, self.inner().list_versions(prefix, token)).await
    }
}
