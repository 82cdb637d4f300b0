//! Riding out trouble: every request of the filesystem is tried again, with full jitter, until its deadline.
//!
//! Only what [`StoreError::is_retryable`] says is tried again. A conditional write that is tried again may find
//! its own first try in its way; the caller tells that by the write id (see `commit`).
//! Backoff with full jitter: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use staithe_store::{
    Capabilities, CopyRequest, DeleteFailure, DeleteRequest, GetRequest, GetResponse, HeadRequest, Key,
    ListPage, ListRequest, MultipartUpload, NewObject, ObjectMeta, ObjectStore, PageToken, PartNumber,
    PartReceipt, Payload, PutCondition, Result, StoreError, UploadPage, Version, VersionPage, VolumeInfo,
    Written,
};

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// When to try again, and when to give up.
#[derive(Debug)]
pub(crate) struct Backoff {
    until: Instant,
    ceiling: Duration,
}

impl Backoff {
    /// Gives up `deadline` from now.
    pub(crate) fn new(deadline: Duration) -> Self {
        Self { until: Instant::now() + deadline, ceiling: FIRST_WAIT }
    }

    /// How long to wait before the next try; `None` when the error is final or the deadline too near.
    pub(crate) fn next(&mut self, error: &StoreError) -> Option<Duration> {
        if !error.is_retryable() {
            return None;
        }
        let jittered = self.ceiling.mul_f64(fastrand::f64());
        let wait = error.retry_after().unwrap_or(jittered).max(Duration::from_millis(1));
        self.ceiling = (self.ceiling * 2).min(LONGEST_WAIT);
        (Instant::now() + wait < self.until).then_some(wait)
    }
}

/// A store whose requests are tried again until a deadline, each on its own.
#[derive(Debug)]
pub(crate) struct Patient {
    inner: Arc<dyn ObjectStore>,
    deadline: Duration,
}

impl Patient {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, deadline: Duration) -> Self {
        Self { inner, deadline }
    }
}

macro_rules! patiently {
    ($self:ident, $call:expr) => {{
        let mut backoff = Backoff::new($self.deadline);
        loop {
            match $call.await {
                Ok(answer) => return Ok(answer),
                Err(error) => match backoff.next(&error) {
                    Some(wait) => {
                        tracing::debug!(%error, ?wait, "trying again");
                        tokio::time::sleep(wait).await;
                    }
                    None => return Err(error),
                },
            }
        }
    }};
}

#[async_trait]
impl ObjectStore for Patient {
    fn url(&self) -> String {
        self.inner.url()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn probe(&self) -> Result<VolumeInfo> {
        self.inner.probe().await
    }

    async fn head(&self, request: HeadRequest) -> Result<ObjectMeta> {
        patiently!(self, self.inner.head(request.clone()))
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse> {
        patiently!(self, self.inner.get(request.clone()))
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage> {
        patiently!(self, self.inner.list(request.clone()))
    }

    async fn put(
        &self,
        key: &Key,
        body: Payload,
        new: NewObject,
        condition: PutCondition,
    ) -> Result<Written> {
        patiently!(self, self.inner.put(key, body.clone(), new.clone(), condition.clone()))
    }

    async fn create_multipart(&self, key: &Key, new: NewObject) -> Result<MultipartUpload> {
        patiently!(self, self.inner.create_multipart(key, new.clone()))
    }

    async fn upload_part(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        body: Payload,
    ) -> Result<PartReceipt> {
        patiently!(self, self.inner.upload_part(upload, number, body.clone()))
    }

    async fn upload_part_copy(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        from: &Key,
        version: &Version,
        range: Range<u64>,
    ) -> Result<PartReceipt> {
        patiently!(self, self.inner.upload_part_copy(upload, number, from, version, range.clone()))
    }

    async fn complete_multipart(
        &self,
        upload: &MultipartUpload,
        parts: &[PartReceipt],
        condition: PutCondition,
    ) -> Result<Written> {
        patiently!(self, self.inner.complete_multipart(upload, parts, condition.clone()))
    }

    async fn abort_multipart(&self, upload: &MultipartUpload) -> Result<()> {
        patiently!(self, self.inner.abort_multipart(upload))
    }

    async fn list_multiparts(&self, prefix: &str, token: Option<PageToken>) -> Result<UploadPage> {
        patiently!(self, self.inner.list_multiparts(prefix, token.clone()))
    }

    async fn copy(&self, request: CopyRequest) -> Result<Written> {
        patiently!(self, self.inner.copy(request.clone()))
    }

    async fn delete(&self, request: DeleteRequest) -> Result<()> {
        patiently!(self, self.inner.delete(request.clone()))
    }

    async fn delete_batch(&self, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        patiently!(self, self.inner.delete_batch(keys))
    }

    async fn list_versions(&self, prefix: &str, token: Option<PageToken>) -> Result<VersionPage> {
        patiently!(self, self.inner.list_versions(prefix, token.clone()))
    }
}
