//! `PutObject`, `DeleteObject` and `DeleteObjects`.

use s3s::dto::{
    Checksum, ChecksumType, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput,
    DeletedObject, ETagCondition, Error as WireError, ObjectIdentifier, PutObjectInput, PutObjectOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, s3_error};
use staithe_store::{
    DeleteRequest, ErrorKind, HeadRequest, Key, ObjectStore, PutCondition, StoreError, VersionId,
};

use super::Front;
use super::bucket::{Bucket, Versioning};
use super::checksum::Claims;
use super::conditions;
use super::translate::{
    key as key_in, new_object, object_error, precondition_failed, tag_in, tag_out, version_out,
};
use crate::lie::Lie;

pub(super) async fn put(front: &Front, request: S3Request<PutObjectInput>) -> S3Result<PutObjectOutput> {
    let (announced, lie) = (announced_trailers(&request), Lie::of(&request));
    let input = request.input;
    let bucket = front.buckets.get(&input.bucket)?;
    let key = key_in(&input.key)?;
    let condition = front.write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let claims = Claims {
        md5: input.content_md5,
        checksum: Checksum {
            checksum_crc32: input.checksum_crc32,
            checksum_crc32c: input.checksum_crc32c,
            checksum_crc64nvme: input.checksum_crc64nvme,
            checksum_sha1: input.checksum_sha1,
            checksum_sha256: input.checksum_sha256,
            checksum_type: None,
        },
        algorithm: input.checksum_algorithm,
        trailers: request.trailing_headers,
        announced,
        length: input.content_length,
    };
    let received = claims.receive(input.body).await?.stored(lie);
    let new = new_object(input.metadata, input.content_type);
    let written = match bucket.store.put(&key, received.payload, new, condition.clone()).await {
        Ok(written) => written,
        Err(error) => return Err(explain(&bucket, &key, &condition, error).await),
    };
    let mut sum = received.checksum;
    if sum != Checksum::default() {
        sum.checksum_type = Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT));
    }
    bucket.remember(&key, &written.version, sum.clone());
    let sum = lie.told(sum);
    Ok(PutObjectOutput {
        checksum_crc32: sum.checksum_crc32,
        checksum_crc32c: sum.checksum_crc32c,
        checksum_crc64nvme: sum.checksum_crc64nvme,
        checksum_sha1: sum.checksum_sha1,
        checksum_sha256: sum.checksum_sha256,
        checksum_type: sum.checksum_type,
        e_tag: Some(lie.told_tag(tag_out(&written.version.etag))),
        version_id: version_out(&written.version),
        ..PutObjectOutput::default()
    })
}

/// The names in the `x-amz-trailer` header.
pub(super) fn announced_trailers<T>(request: &S3Request<T>) -> Option<String> {
    Some(request.headers.get("x-amz-trailer")?.to_str().ok()?.to_owned())
}

/// A match condition on an object that is not there is `NoSuchKey`, not a failed precondition.
pub(super) async fn explain(
    bucket: &Bucket,
    key: &Key,
    condition: &PutCondition,
    error: StoreError,
) -> S3Error {
    let match_failed = error.kind() == ErrorKind::VersionMismatch;
    if match_failed && matches!(condition, PutCondition::IfMatch(_)) {
        let head = bucket.store.head(HeadRequest::latest(key.clone())).await;
        if head.is_err_and(|e| e.kind() == ErrorKind::NotFound) {
            return s3_error!(NoSuchKey, "The specified key does not exist.");
        }
    }
    object_error(error)
}

pub(super) async fn delete(front: &Front, input: DeleteObjectInput) -> S3Result<DeleteObjectOutput> {
    let bucket = front.buckets.get(&input.bucket)?;
    let key = key_in(&input.key)?;
    if input.if_match_size.is_some() || input.if_match_last_modified_time.is_some() {
        return Err(s3_error!(NotImplemented, "Only If-Match is known as a condition of a delete"));
    }
    let if_match = input.if_match.filter(|_| !front.modes.now().ignores_conditions);
    let if_match = match if_match {
        None => None,
        Some(ETagCondition::ETag(tag)) => Some(tag_in(&tag)),
        Some(ETagCondition::Any) => {
            let head = bucket.store.head(HeadRequest::latest(key.clone())).await;
            head.map_err(|_| precondition_failed())?;
            None
        }
    };
    remove(&bucket, key, if_match, input.version_id).await
}

async fn remove(
    bucket: &Bucket,
    key: Key,
    if_match: Option<staithe_store::ETag>,
    version_id: Option<String>,
) -> S3Result<DeleteObjectOutput> {
    let named = version_id.filter(|id| id != "null");
    let mut output = DeleteObjectOutput::default();
    if let Some(id) = &named {
        output.delete_marker = is_marker(bucket, &key, id).await.then_some(true);
        output.version_id = Some(id.clone());
    }
    let version = named.as_ref().map(VersionId::new);
    let request = DeleteRequest { key: key.clone(), if_match, version_id: version };
    bucket.store.delete(request).await.map_err(object_error)?;
    bucket.forget(&key, named.as_deref());
    if named.is_none() && bucket.versioning == Versioning::On {
        output.delete_marker = Some(true);
        output.version_id = latest_marker(bucket, &key).await;
    }
    Ok(output)
}

async fn is_marker(bucket: &Bucket, key: &Key, id: &str) -> bool {
    let page = bucket.store.list_versions(key.as_str(), None).await.unwrap_or_default();
    page.entries.iter().any(|e| e.key == *key && e.id.as_str() == id && e.is_delete_marker)
}

async fn latest_marker(bucket: &Bucket, key: &Key) -> Option<String> {
    let page = bucket.store.list_versions(key.as_str(), None).await.ok()?;
    let marker = page.entries.iter().find(|e| e.key == *key && e.is_delete_marker)?;
    Some(marker.id.as_str().to_owned())
}

pub(super) async fn delete_batch(front: &Front, input: DeleteObjectsInput) -> S3Result<DeleteObjectsOutput> {
    const MOST: usize = 1000;
    let bucket = front.buckets.get(&input.bucket)?;
    if input.delete.objects.len() > MOST {
        return Err(s3_error!(MalformedXML, "A batch has at most {MOST} keys"));
    }
    let quiet = input.delete.quiet.unwrap_or_default();
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for object in input.delete.objects {
        match delete_one(front, &bucket, &object).await {
            Ok(_) if quiet => {}
            Ok(output) => deleted.push(deleted_out(object, output)),
            Err(error) => errors.push(WireError {
                code: Some(error.code().as_str().to_owned()),
                key: Some(object.key),
                message: error.message().map(str::to_owned),
                version_id: object.version_id,
            }),
        }
    }
    Ok(DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), ..DeleteObjectsOutput::default() })
}

async fn delete_one(
    front: &Front,
    bucket: &Bucket,
    object: &ObjectIdentifier,
) -> S3Result<DeleteObjectOutput> {
    let tag = object.e_tag.as_ref().filter(|_| !front.modes.now().ignores_conditions);
    remove(bucket, key_in(&object.key)?, tag.map(tag_in), object.version_id.clone()).await
}

fn deleted_out(object: ObjectIdentifier, output: DeleteObjectOutput) -> DeletedObject {
    DeletedObject {
        delete_marker: output.delete_marker,
        delete_marker_version_id: output.version_id.filter(|_| output.delete_marker == Some(true)),
        key: Some(object.key),
        version_id: object.version_id,
    }
}

impl Front {
    /// The condition of a write, unless this server ignores them.
    pub(super) fn write_condition(
        &self,
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<PutCondition> {
        if self.modes.now().ignores_conditions {
            return Ok(PutCondition::Always);
        }
        conditions::of_write(if_match, if_none_match)
    }
}

/// What a missing source of a copy is called.
pub(super) fn missing_source(version_id: Option<&str>) -> S3ErrorCode {
    if version_id.is_some() { S3ErrorCode::NoSuchVersion } else { S3ErrorCode::NoSuchKey }
}
