//! `CopyObject`, and the source of every server-side copy.

use std::sync::Arc;

use futures::TryStreamExt;
use s3s::dto::{CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, MetadataDirective};
use s3s::{S3Result, s3_error};
use staithe_store::{
    CopyRequest, ErrorKind, GetRequest, HeadRequest, Key, NewObject, ObjectMeta, ObjectStore, Payload,
    PutCondition, Result, Written,
};

use super::Front;
use super::bucket::Bucket;
use super::conditions::ReadConditions;
use super::translate::{
    error, key as key_in, new_object, object_error, precondition_failed, tag_out, version_in, version_out,
    whole_seconds,
};
use super::write::missing_source;

/// Where a copy comes from, and on what conditions.
pub(super) struct Source {
    pub(super) bucket: Arc<Bucket>,
    pub(super) key: Key,
    version_id: Option<String>,
    conditions: ReadConditions,
}

impl Source {
    pub(super) fn new(front: &Front, source: &CopySource, conditions: ReadConditions) -> S3Result<Self> {
        let CopySource::Bucket { bucket, key, version_id } = source else {
            return Err(s3_error!(NotImplemented, "A copy source is a bucket and a key"));
        };
        let version_id = version_id.as_deref().map(str::to_owned);
        Ok(Self { bucket: front.buckets.get(bucket)?, key: key_in(key)?, version_id, conditions })
    }

    /// The source as it is now, if it is there and the conditions hold.
    pub(super) async fn resolve(&self) -> S3Result<ObjectMeta> {
        let request = HeadRequest { key: self.key.clone(), version: version_in(self.version_id.as_deref()) };
        let found = self.bucket.store.head(request).await;
        let meta = found.map_err(|e| error(e, missing_source(self.version_id.as_deref())))?;
        self.conditions.check(&meta).map_err(|_| precondition_failed())?;
        Ok(meta)
    }
}

pub(super) async fn copy(front: &Front, input: CopyObjectInput) -> S3Result<CopyObjectOutput> {
    let conditions = ReadConditions {
        matches: input.copy_source_if_match,
        differs_from: input.copy_source_if_none_match,
        modified_since: input.copy_source_if_modified_since,
        unmodified_since: input.copy_source_if_unmodified_since,
    };
    let source = Source::new(front, &input.copy_source, conditions)?;
    let target = front.buckets.get(&input.bucket)?;
    let to = key_in(&input.key)?;
    let replaces = input.metadata_directive.is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
    let replace = replaces.then(|| new_object(input.metadata, input.content_type));
    let (meta, written) = loop {
        let meta = source.resolve().await?;
        match copy_version(&source, &meta, &target, &to, replace.clone()).await {
            Ok(written) => break (meta, written),
            // Replaced since: what is there now decides.
            Err(e) if matches!(e.kind(), ErrorKind::VersionMismatch | ErrorKind::NotFound) => {}
            Err(error) => return Err(object_error(error)),
        }
    };
    let sum = source.bucket.checksum(&source.key, &meta.version).unwrap_or_default();
    target.remember(&to, &written.version, sum.clone());
    Ok(CopyObjectOutput {
        copy_source_version_id: version_out(&meta.version),
        version_id: version_out(&written.version),
        copy_object_result: Some(CopyObjectResult {
            checksum_crc32: sum.checksum_crc32,
            checksum_crc32c: sum.checksum_crc32c,
            checksum_crc64nvme: sum.checksum_crc64nvme,
            checksum_sha1: sum.checksum_sha1,
            checksum_sha256: sum.checksum_sha256,
            checksum_type: sum.checksum_type,
            e_tag: Some(tag_out(&written.version.etag)),
            last_modified: Some(whole_seconds(std::time::SystemTime::now())),
        }),
        ..CopyObjectOutput::default()
    })
}

/// Copies one version: inside its bucket in one step, to another bucket by way of its bytes.
async fn copy_version(
    source: &Source,
    meta: &ObjectMeta,
    target: &Arc<Bucket>,
    to: &Key,
    replace: Option<NewObject>,
) -> Result<Written> {
    let version = Some(meta.version.clone());
    if Arc::ptr_eq(&source.bucket, target) {
        let (from, to) = (source.key.clone(), to.clone());
        return target.store.copy(CopyRequest { from, from_version: version, to, replace }).await;
    }
    let request = GetRequest { key: source.key.clone(), range: None, version };
    let response = source.bucket.store.get(request).await?;
    let payload = Payload::new(response.body.try_collect::<Vec<_>>().await?);
    let new = replace.unwrap_or_else(|| NewObject {
        metadata: meta.metadata.clone(),
        content_type: meta.content_type.clone(),
    });
    target.store.put(to, payload, new, PutCondition::Always).await
}
