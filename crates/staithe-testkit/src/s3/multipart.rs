//! Multipart uploads: create, upload, copy, complete, abort.

use std::ops::Range;
use std::time::SystemTime;

use futures::TryStreamExt;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, Checksum, ChecksumAlgorithm, ChecksumType,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart, CopyPartResult,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, UploadPartCopyInput, UploadPartCopyOutput,
    UploadPartInput, UploadPartOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, s3_error};
use staithe_store::{
    ErrorKind, GetRequest, Key, MultipartUpload, NewObject, ObjectMeta, ObjectStore, PartNumber, PartReceipt,
    Payload, PutCondition, UploadId, Version,
};

use super::Front;
use super::bucket::{Bucket, Part, Upload};
use super::checksum::{self, Claims};
use super::conditions::ReadConditions;
use super::copy::Source;
use super::translate::{
    key as key_in, new_object, object_error, tag_in, tag_out, upload_error, version_out, whole_seconds,
};
use super::write::{announced_trailers, explain};
use crate::lie::Lie;

pub(super) fn handle(key: &str, id: &str) -> S3Result<MultipartUpload> {
    Ok(MultipartUpload { key: key_in(key)?, id: UploadId::new(id), initiated: None })
}

fn part_number(number: i32) -> S3Result<PartNumber> {
    u16::try_from(number).ok().and_then(PartNumber::new).ok_or_else(|| {
        s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive")
    })
}

pub(super) async fn create(
    front: &Front,
    input: CreateMultipartUploadInput,
) -> S3Result<CreateMultipartUploadOutput> {
    let bucket = front.buckets.get(&input.bucket)?;
    let new = new_object(input.metadata, input.content_type);
    let upload = bucket.store.create_multipart(&key_in(&input.key)?, new).await.map_err(object_error)?;
    let id = upload.id.as_str().to_owned();
    let kind = input.checksum_type.clone().or_else(|| default_type(input.checksum_algorithm.as_ref()));
    let algorithm = input.checksum_algorithm.clone();
    bucket.begin_upload(&id, Upload { algorithm, kind: kind.clone(), ..Upload::default() });
    Ok(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(id),
        checksum_algorithm: input.checksum_algorithm,
        checksum_type: kind,
        ..CreateMultipartUploadOutput::default()
    })
}

/// CRC64NVME can only cover the whole object; the others cover the parts unless asked otherwise.
fn default_type(algorithm: Option<&ChecksumAlgorithm>) -> Option<ChecksumType> {
    Some(ChecksumType::from_static(match algorithm?.as_str() {
        ChecksumAlgorithm::CRC64NVME => ChecksumType::FULL_OBJECT,
        _ => ChecksumType::COMPOSITE,
    }))
}

pub(super) async fn upload_part(
    front: &Front,
    request: S3Request<UploadPartInput>,
) -> S3Result<UploadPartOutput> {
    let (announced, lie) = (announced_trailers(&request), Lie::of(&request));
    let input = request.input;
    let bucket = front.buckets.get(&input.bucket)?;
    let upload = handle(&input.key, &input.upload_id)?;
    let number = part_number(input.part_number)?;
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
    let size = received.payload.len();
    let receipt = bucket.store.upload_part(&upload, number, received.payload).await.map_err(upload_error)?;
    let sum = received.checksum;
    keep_part(&bucket, &input.upload_id, &receipt, size, sum.clone());
    let sum = lie.told(sum);
    Ok(UploadPartOutput {
        checksum_crc32: sum.checksum_crc32,
        checksum_crc32c: sum.checksum_crc32c,
        checksum_crc64nvme: sum.checksum_crc64nvme,
        checksum_sha1: sum.checksum_sha1,
        checksum_sha256: sum.checksum_sha256,
        e_tag: Some(lie.told_tag(tag_out(&receipt.etag))),
        ..UploadPartOutput::default()
    })
}

fn keep_part(bucket: &Bucket, upload_id: &str, receipt: &PartReceipt, size: u64, checksum: Checksum) {
    let part = Part { etag: receipt.etag.clone(), size, modified: SystemTime::now(), checksum };
    bucket.add_part(upload_id, receipt.number.get(), part);
}

pub(super) async fn upload_part_copy(
    front: &Front,
    input: UploadPartCopyInput,
) -> S3Result<UploadPartCopyOutput> {
    let bucket = front.buckets.get(&input.bucket)?;
    let upload = handle(&input.key, &input.upload_id)?;
    let number = part_number(input.part_number)?;
    let conditions = ReadConditions {
        matches: input.copy_source_if_match,
        differs_from: input.copy_source_if_none_match,
        modified_since: input.copy_source_if_modified_since,
        unmodified_since: input.copy_source_if_unmodified_since,
    };
    let source = Source::new(front, &input.copy_source, conditions)?;
    let (meta, range, receipt) = loop {
        let meta = source.resolve().await?;
        let range = copy_range(input.copy_source_range.as_deref(), &meta)?;
        match copy_part(&source, &meta, &range, &bucket, &upload, number).await {
            Ok(receipt) => break (meta, range, receipt),
            // The source was replaced since: what is there now decides.
            Err(e) if e.kind() == ErrorKind::VersionMismatch => {}
            Err(error) => return Err(upload_error(error)),
        }
    };
    let size = range.end - range.start;
    let algorithm = bucket.upload(&input.upload_id).and_then(|known| known.algorithm);
    let sum = match algorithm {
        Some(algorithm) => {
            checksum_of(&source.bucket, &source.key, &meta.version, range, algorithm.as_str()).await?
        }
        None => Checksum::default(),
    };
    keep_part(&bucket, &input.upload_id, &receipt, size, sum.clone());
    Ok(UploadPartCopyOutput {
        copy_source_version_id: version_out(&meta.version),
        copy_part_result: Some(CopyPartResult {
            e_tag: Some(tag_out(&receipt.etag)),
            last_modified: Some(whole_seconds(SystemTime::now())),
            checksum_crc32: sum.checksum_crc32,
            checksum_crc32c: sum.checksum_crc32c,
            checksum_crc64nvme: sum.checksum_crc64nvme,
            checksum_sha1: sum.checksum_sha1,
            checksum_sha256: sum.checksum_sha256,
        }),
        ..UploadPartCopyOutput::default()
    })
}

/// Inside a bucket the store copies; from another bucket the bytes take the way round.
async fn copy_part(
    source: &Source,
    meta: &ObjectMeta,
    range: &Range<u64>,
    bucket: &std::sync::Arc<Bucket>,
    upload: &MultipartUpload,
    number: PartNumber,
) -> staithe_store::Result<PartReceipt> {
    let range = range.clone();
    if std::sync::Arc::ptr_eq(&source.bucket, bucket) {
        return bucket.store.upload_part_copy(upload, number, &source.key, &meta.version, range).await;
    }
    let request =
        GetRequest { key: source.key.clone(), range: Some(range), version: Some(meta.version.clone()) };
    let chunks: Vec<_> = source.bucket.store.get(request).await?.body.try_collect().await?;
    bucket.store.upload_part(upload, number, staithe_store::Payload::new(chunks)).await
}

/// `bytes=first-last`, both there and both inside the object.
fn copy_range(text: Option<&str>, meta: &ObjectMeta) -> S3Result<Range<u64>> {
    let wrong = || {
        s3_error!(InvalidArgument, "The x-amz-copy-source-range value must be of the form bytes=first-last")
    };
    let Some(text) = text else { return Ok(0..meta.size) };
    let (first, last) = text.strip_prefix("bytes=").and_then(|t| t.split_once('-')).ok_or_else(wrong)?;
    let first: u64 = first.parse().map_err(|_| wrong())?;
    let last: u64 = last.parse().map_err(|_| wrong())?;
    if first > last {
        return Err(wrong());
    }
    if last >= meta.size {
        return Err(s3_error!(
            InvalidArgument,
            "The range specified is not valid for source object of size: {}",
            meta.size
        ));
    }
    Ok(first..last + 1)
}

pub(super) async fn complete(
    front: &Front,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<CompleteMultipartUploadOutput> {
    let lie = Lie::of(&request);
    let input = request.input;
    let bucket = front.buckets.get(&input.bucket)?;
    let upload = handle(&input.key, &input.upload_id)?;
    let condition = front.write_condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let known = bucket.upload(&input.upload_id).ok_or_else(|| {
        s3_error!(
            NoSuchUpload,
            "The specified multipart upload does not exist. It may have been completed or aborted."
        )
    })?;
    let parts = input.multipart_upload.and_then(|list| list.parts).unwrap_or_default();
    let receipts = check_parts(&known, &parts, bucket.store.capabilities().part_size_min)?;
    check_whole(&known, &receipts, input.mpu_object_size, input.checksum_crc64nvme.as_deref())?;
    let written = match bucket.store.complete_multipart(&upload, &receipts, condition.clone()).await {
        Ok(written) => written,
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(upload_error(e)),
        Err(error) => return Err(explain(&bucket, &upload.key, &condition, error).await),
    };
    bucket.end_upload(&input.upload_id);
    let written = if lie.is_of_bytes() { store_otherwise(&bucket, &upload.key, lie).await? } else { written };
    let sum = object_checksum(&bucket, &upload.key, &written.version, &known, &receipts).await?;
    bucket.remember(&upload.key, &written.version, sum.clone());
    let sum = lie.told(sum);
    Ok(CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", input.bucket, input.key)),
        bucket: Some(input.bucket),
        key: Some(input.key),
        checksum_crc32: sum.checksum_crc32,
        checksum_crc32c: sum.checksum_crc32c,
        checksum_crc64nvme: sum.checksum_crc64nvme,
        checksum_sha1: sum.checksum_sha1,
        checksum_sha256: sum.checksum_sha256,
        checksum_type: sum.checksum_type,
        e_tag: Some(lie.told_tag(tag_out(&written.version.etag))),
        version_id: version_out(&written.version),
        ..CompleteMultipartUploadOutput::default()
    })
}

/// The parts that are named, if they are the ones that were uploaded, in order, and large enough.
fn check_parts(known: &Upload, parts: &[CompletedPart], size_min: u64) -> S3Result<Vec<PartReceipt>> {
    let mut receipts: Vec<PartReceipt> = Vec::with_capacity(parts.len());
    if parts.is_empty() {
        return Err(s3_error!(MalformedXML, "You must specify at least one part"));
    }
    for (place, part) in parts.iter().enumerate() {
        let number = part_number(part.part_number.unwrap_or_default())?;
        if receipts.last().is_some_and(|last| last.number >= number) {
            return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."));
        }
        let stored = known.parts.get(&number.get()).ok_or_else(invalid_part)?;
        let etag = part.e_tag.as_ref().map(tag_in).ok_or_else(invalid_part)?;
        if etag != stored.etag {
            return Err(invalid_part());
        }
        if place + 1 < parts.len() && stored.size < size_min {
            return Err(s3_error!(
                EntityTooSmall,
                "Your proposed upload is smaller than the minimum allowed size"
            ));
        }
        receipts.push(PartReceipt { number, etag, size: stored.size, crc64: None });
    }
    Ok(receipts)
}

/// Refuses a whole that is not what the request says it is.
fn check_whole(
    known: &Upload,
    receipts: &[PartReceipt],
    size: Option<i64>,
    checksum: Option<&str>,
) -> S3Result<()> {
    let parts = || receipts.iter().filter_map(|receipt| known.parts.get(&receipt.number.get()));
    let actual: u64 = parts().map(|part| part.size).sum();
    if size.is_some_and(|size| size as u64 != actual) {
        return Err(s3_error!(InvalidRequest, "The object has {actual} bytes, not as many as were expected"));
    }
    let computed = checksum::joined(parts().map(|part| (part.size, &part.checksum)));
    match (checksum, computed) {
        (Some(claimed), Some(computed)) if claimed != computed => {
            Err(s3_error!(BadDigest, "The CRC64NVME you specified did not match the calculated checksum."))
        }
        _ => Ok(()),
    }
}

/// Puts something else in the place of what was stored.
async fn store_otherwise(bucket: &Bucket, key: &Key, lie: Lie) -> S3Result<staithe_store::Written> {
    let request = GetRequest { key: key.clone(), range: None, version: None };
    let found = bucket.store.get(request).await.map_err(object_error)?;
    let chunks: Vec<_> = found.body.try_collect().await.map_err(object_error)?;
    let new = NewObject { metadata: found.meta.metadata, content_type: found.meta.content_type };
    let other = lie.stored(&Payload::new(chunks));
    bucket.store.put(key, other, new, PutCondition::Always).await.map_err(object_error)
}

fn invalid_part() -> S3Error {
    s3_error!(InvalidPart, "One or more of the specified parts could not be found.")
}

/// The checksum of the new object: of the checksums of its parts, or of its bytes.
async fn object_checksum(
    bucket: &Bucket,
    key: &Key,
    version: &Version,
    known: &Upload,
    receipts: &[PartReceipt],
) -> S3Result<Checksum> {
    let Some(algorithm) = known.algorithm.as_ref().map(ChecksumAlgorithm::as_str) else {
        return Ok(Checksum::default());
    };
    if known.kind.as_ref().is_some_and(|kind| kind.as_str() == ChecksumType::FULL_OBJECT) {
        let size = receipts.iter().filter_map(|r| known.parts.get(&r.number.get())).map(|p| p.size).sum();
        let mut sum = checksum_of(bucket, key, version, 0..size, algorithm).await?;
        sum.checksum_type = Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT));
        return Ok(sum);
    }
    let parts = receipts.iter().map(|receipt| {
        known.parts.get(&receipt.number.get()).and_then(|part| checksum::field(&part.checksum, algorithm))
    });
    Ok(checksum::composite(algorithm, parts).unwrap_or_default())
}

async fn checksum_of(
    bucket: &Bucket,
    key: &Key,
    version: &Version,
    range: Range<u64>,
    algorithm: &str,
) -> S3Result<Checksum> {
    let mut hasher = checksum::hasher(algorithm);
    if !range.is_empty() {
        let request = GetRequest { key: key.clone(), range: Some(range), version: Some(version.clone()) };
        let mut body = bucket.store.get(request).await.map_err(object_error)?.body;
        while let Some(chunk) = body.try_next().await.map_err(object_error)? {
            hasher.update(&chunk);
        }
    }
    Ok(hasher.finalize())
}

pub(super) async fn abort(
    front: &Front,
    input: AbortMultipartUploadInput,
) -> S3Result<AbortMultipartUploadOutput> {
    let bucket = front.buckets.get(&input.bucket)?;
    let upload = handle(&input.key, &input.upload_id)?;
    if bucket.upload(&input.upload_id).is_none() {
        return Err(S3Error::new(S3ErrorCode::NoSuchUpload));
    }
    bucket.store.abort_multipart(&upload).await.map_err(upload_error)?;
    bucket.end_upload(&input.upload_id);
    Ok(AbortMultipartUploadOutput::default())
}
