use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use staithe_store::{
    Capabilities, CopyRequest, Crc64Nvme, DeleteFailure, DeleteRequest, ErrorKind, GetRequest, GetResponse,
    HeadRequest, Key, ListPage, ListRequest, MultipartUpload, NewObject, ObjectMeta, ObjectStore, PageToken,
    PartNumber, PartReceipt, Payload, PutCondition, Result, StoreError, UploadPage, Version, VersionPage,
    VolumeInfo, Written,
};

use crate::batch::Batches;
use crate::config::{S3Config, UploadChecksum};
use crate::connect;
use crate::link::Link;

/// A bucket of Amazon S3, or of a server that speaks its protocol. Cloning is a reference count.
///
/// Requests that failed for a passing reason are tried again, a bounded number of times, with random pauses.
/// **A try whose answer was lost may have taken effect**: a conditional put, complete or delete that is tried
/// again can then meet its own result and report `AlreadyExists`, `VersionMismatch` or (complete) `NotFound`.
/// A caller that needs to know puts an id of its own into the metadata, and recognises it with a HEAD.
///
/// A response body whose connection breaks ends in `Unavailable`, one that stalls in `Timeout`, one of the
/// wrong length or checksum in `Corrupt`; all are worth another GET of the same version.
#[derive(Clone)]
pub struct S3Store(Arc<Inner>);

struct Inner {
    /// With endpoint and region decided.
    config: S3Config,
    link: Link,
    capabilities: Capabilities,
    batches: Batches,
}

impl S3Store {
    /// Opens a bucket: finds credentials and region, asks whether the bucket is there and keeps versions, and
    /// which conditions the server honours (see [`S3Config::probe_conditions`]).
    ///
    /// Amazon S3 itself is not asked about conditions: it documents them.
    ///
    /// # Errors
    /// `Invalid` for a wrong setting; `VolumeGone` for a missing bucket; `CredentialsRefused` for missing and
    /// for wrong credentials; `Forbidden` where the bucket may not be listed; `Unavailable` or `Timeout` where
    /// the server cannot be reached. Each says in one sentence what to do.
    ///
    /// # Cancel safety
    /// Dropping the future ends its requests; a scratch object of the probe may remain.
    pub async fn connect(mut config: S3Config) -> Result<Self> {
        let (link, capabilities) = Box::pin(connect::connect(&mut config)).await?;
        Ok(Self(Arc::new(Inner { config, link, capabilities, batches: Batches::default() })))
    }

    /// The same bucket with credentials that are looked for anew, in the files as they are now: those of `profile`, or
    /// of the profile that this one was opened with. The bucket is asked with them.
    ///
    /// Endpoint and region stay, whatever the profile says, and so does what was found out about the server: nothing is
    /// written. This one goes on with its own.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// Dropping the future ends its requests.
    pub async fn renewed(&self, profile: Option<String>) -> Result<Self> {
        let mut config = self.0.config.clone();
        config.profile = profile.or(config.profile);
        let link = Box::pin(connect::reconnect(&config, self.link())).await?;
        let (capabilities, batches) = (self.0.capabilities.clone(), Batches::default());
        Ok(Self(Arc::new(Inner { config, link, capabilities, batches })))
    }

    /// Whether other credentials are found now than those that this one was opened with: in the files as they are, for
    /// `profile`, or the profile that this one was opened with. Asks nothing of the server. False if none are found.
    ///
    /// # Cancel safety
    /// Safe: it only looks.
    pub async fn finds_other_credentials(&self, profile: Option<String>) -> bool {
        let mut config = self.0.config.clone();
        config.profile = profile.or(config.profile);
        Box::pin(connect::finds_others(&config, self.link())).await
    }

    /// The checksum that goes with uploads: the configured one, or what the server takes of it.
    pub fn upload_checksum(&self) -> UploadChecksum {
        self.0.link.checksum
    }

    fn link(&self) -> &Link {
        &self.0.link
    }

    fn may_put(&self, operation: &'static str, key: &Key, condition: &PutCondition) -> Result<()> {
        let can = &self.0.capabilities;
        match condition {
            PutCondition::Always => Ok(()),
            PutCondition::IfAbsent => honoured(can.put_if_absent, operation, key, "If-None-Match"),
            PutCondition::IfMatch(_) => honoured(can.put_if_match, operation, key, "If-Match"),
        }
    }

    /// Refuses more metadata than S3 takes, also where a server would store it.
    fn may_carry(&self, operation: &'static str, key: &Key, new: &NewObject) -> Result<()> {
        let bytes: usize = new.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        let most = self.0.capabilities.metadata_bytes_max;
        if bytes <= most {
            return Ok(());
        }
        let message = format!("{bytes} bytes of metadata, where {most} are allowed");
        Err(StoreError::new(ErrorKind::Invalid, operation, message).with_key(key))
    }

    /// A source that is named by its tag alone needs the condition; an id names a version by itself.
    fn may_copy(&self, operation: &'static str, from: &Key, version: Option<&Version>) -> Result<()> {
        let by_tag = version.is_some_and(|v| v.id.is_none());
        honoured(self.0.capabilities.copy_if_match || !by_tag, operation, from, "x-amz-copy-source-if-match")
    }
}

/// Refuses a condition that the server would ignore.
fn honoured(honoured: bool, operation: &'static str, key: &Key, header: &str) -> Result<()> {
    if honoured {
        return Ok(());
    }
    let message = format!("this server does not honour {header}");
    Err(StoreError::new(ErrorKind::Unsupported, operation, message).with_key(key))
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store").field("bucket", &self.0.link.bucket).finish_non_exhaustive()
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    fn url(&self) -> String {
        format!("s3://{}", self.0.link.bucket)
    }

    fn volume(&self) -> String {
        self.0.link.volume.clone()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    async fn probe(&self) -> Result<VolumeInfo> {
        Ok(self.link().probe_bucket().await?)
    }

    async fn identity(&self) -> Result<Option<String>> {
        let made = self.link().made().await?;
        Ok(made.map(|made| format!("made at {}.{:09}", made.secs(), made.subsec_nanos())))
    }

    async fn head(&self, request: HeadRequest) -> Result<ObjectMeta> {
        self.link().head(&request).await
    }

    async fn checksum(&self, request: HeadRequest) -> Result<Option<Crc64Nvme>> {
        // A server that computes another one, and calls it this, was found out.
        if self.0.link.checksum != UploadChecksum::Crc64Nvme {
            return self.link().head(&request).await.map(|_| None);
        }
        self.link().checksum(&request).await
    }

    async fn get(&self, request: GetRequest) -> Result<GetResponse> {
        self.link().get(&request).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage> {
        self.link().list(&request).await
    }

    async fn put(
        &self,
        key: &Key,
        body: Payload,
        new: NewObject,
        condition: PutCondition,
    ) -> Result<Written> {
        self.may_put("put", key, &condition)?;
        self.may_carry("put", key, &new)?;
        Ok(self.link().put(key, &body, &new, &condition).await?)
    }

    async fn create_multipart(&self, key: &Key, new: NewObject) -> Result<MultipartUpload> {
        self.may_carry("create_multipart", key, &new)?;
        Ok(self.link().create_multipart(key, &new).await?)
    }

    async fn upload_part(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        body: Payload,
    ) -> Result<PartReceipt> {
        Ok(self.link().upload_part(upload, number, &body).await?)
    }

    async fn upload_part_copy(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        from: &Key,
        version: &Version,
        range: Range<u64>,
    ) -> Result<PartReceipt> {
        const OPERATION: &str = "upload_part_copy";
        honoured(self.0.capabilities.part_copy, OPERATION, from, "UploadPartCopy")?;
        self.may_copy(OPERATION, from, Some(version))?;
        if range.is_empty() {
            let message = format!("the range {range:?} holds no byte");
            return Err(StoreError::new(ErrorKind::Invalid, OPERATION, message).with_key(from));
        }
        Ok(self.link().upload_part_copy(upload, number, from, version, &range).await?)
    }

    async fn complete_multipart(
        &self,
        upload: &MultipartUpload,
        parts: &[PartReceipt],
        condition: PutCondition,
    ) -> Result<Written> {
        self.may_put("complete_multipart", &upload.key, &condition)?;
        Ok(self.link().complete_multipart(upload, parts, &condition).await?)
    }

    async fn abort_multipart(&self, upload: &MultipartUpload) -> Result<()> {
        Ok(self.link().abort_multipart(upload).await?)
    }

    async fn list_multiparts(&self, prefix: &str, token: Option<PageToken>) -> Result<UploadPage> {
        self.link().list_multiparts(prefix, token.as_ref()).await
    }

    async fn copy(&self, request: CopyRequest) -> Result<Written> {
        self.may_copy("copy", &request.from, request.from_version.as_ref())?;
        match &request.replace {
            Some(new) => self.may_carry("copy", &request.to, new)?,
            None if request.from == request.to => {
                let message = "a copy onto itself must replace the metadata";
                return Err(StoreError::new(ErrorKind::Invalid, "copy", message).with_key(&request.to));
            }
            None => {}
        }
        Ok(self.link().copy(&request).await?)
    }

    async fn delete(&self, request: DeleteRequest) -> Result<()> {
        if request.if_match.is_some() {
            honoured(self.0.capabilities.delete_if_match, "delete", &request.key, "If-Match")?;
        }
        self.link().delete(&request).await?;
        Ok(())
    }

    async fn delete_batch(&self, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        let most = self.0.capabilities.delete_batch_max;
        if keys.len() > most {
            let message = format!("{} keys in one batch, where {most} are allowed", keys.len());
            return Err(StoreError::new(ErrorKind::Invalid, "delete_batch", message));
        }
        self.link().delete_batch(&self.0.batches, keys).await
    }

    async fn list_versions(&self, prefix: &str, token: Option<PageToken>) -> Result<VersionPage> {
        if !self.0.capabilities.versions {
            let message = "the bucket keeps no versions";
            return Err(StoreError::new(ErrorKind::Unsupported, "list_versions", message));
        }
        self.link().list_versions(prefix, token.as_ref()).await
    }
}
