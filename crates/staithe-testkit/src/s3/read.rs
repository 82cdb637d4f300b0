//! `HeadObject` and `GetObject`.

use std::ops::Range;
use std::sync::Arc;

use futures::TryStreamExt;
use http_body::Frame;
use http_body_util::StreamBody;
use s3s::dto::{
    Checksum, ChecksumMode, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, StreamingBlob,
};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use staithe_store::{
    Body, ErrorKind, GetRequest, HeadRequest, Key, ObjectMeta, ObjectStore, StoreError, VersionId,
};

use super::Front;
use super::bucket::{Bucket, Versioning};
use super::conditions::ReadConditions;
use super::translate::{
    key as key_in, metadata_out, object_error, tag_out, version_in, version_out, whole_seconds,
};

/// What S3 says an object is when nobody said it.
const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// The parts of a read request that HEAD and GET share.
struct Wanted {
    bucket: Arc<Bucket>,
    key: Key,
    version_id: Option<String>,
    conditions: ReadConditions,
    range: Option<s3s::dto::Range>,
    checksums: bool,
}

impl Wanted {
    /// The object, if it is there and the conditions hold, and the bytes of it that are asked for.
    async fn resolve(&self) -> S3Result<(ObjectMeta, Range<u64>)> {
        let version = version_in(self.version_id.as_deref());
        let request = HeadRequest { key: self.key.clone(), version };
        let meta = match self.bucket.store.head(request).await {
            Ok(meta) => meta,
            Err(error) => return Err(self.explain(error).await),
        };
        self.conditions.check(&meta).map_err(super::conditions::Unmet::on_read)?;
        let range = match self.range {
            Some(_) if meta.size == 0 => {
                return Err(s3_error!(InvalidRange, "The requested range is not satisfiable"));
            }
            Some(range) => range.check(meta.size)?,
            None => 0..meta.size,
        };
        Ok((meta, range))
    }

    /// A delete marker has an answer of its own where its id was named.
    async fn explain(&self, error: StoreError) -> S3Error {
        let Some(id) = self.version_id.as_deref() else { return object_error(error) };
        if error.kind() != ErrorKind::NotFound || self.bucket.versioning == Versioning::Off {
            return super::translate::error(error, S3ErrorCode::NoSuchVersion);
        }
        let id = VersionId::new(id);
        let page = self.bucket.store.list_versions(self.key.as_str(), None).await.unwrap_or_default();
        let marker = page.entries.iter().any(|e| e.key == self.key && e.id == id && e.is_delete_marker);
        if marker {
            s3_error!(MethodNotAllowed, "The specified method is not allowed against this resource.")
        } else {
            s3_error!(NoSuchVersion, "The specified version does not exist")
        }
    }

    fn checksum(&self, meta: &ObjectMeta) -> Checksum {
        let whole = self.checksums && self.range.is_none();
        let known = || self.bucket.checksum(&self.key, &meta.version);
        if whole { known().unwrap_or_default() } else { Checksum::default() }
    }

    fn content_range(&self, meta: &ObjectMeta, range: &Range<u64>) -> Option<String> {
        self.range?;
        Some(format!("bytes {}-{}/{}", range.start, range.end - 1, meta.size))
    }
}

fn enabled(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED)
}

fn content_type(meta: &ObjectMeta) -> String {
    meta.content_type.clone().unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned())
}

pub(super) async fn head(front: &Front, input: HeadObjectInput) -> S3Result<HeadObjectOutput> {
    let wanted = Wanted {
        bucket: front.buckets.get(&input.bucket)?,
        key: key_in(&input.key)?,
        version_id: input.version_id,
        conditions: ReadConditions {
            matches: input.if_match,
            differs_from: input.if_none_match,
            modified_since: input.if_modified_since,
            unmodified_since: input.if_unmodified_since,
        },
        range: input.range,
        checksums: enabled(input.checksum_mode.as_ref()),
    };
    let (meta, range) = wanted.resolve().await?;
    let sum = wanted.checksum(&meta);
    Ok(HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        checksum_crc32: sum.checksum_crc32,
        checksum_crc32c: sum.checksum_crc32c,
        checksum_crc64nvme: sum.checksum_crc64nvme,
        checksum_sha1: sum.checksum_sha1,
        checksum_sha256: sum.checksum_sha256,
        checksum_type: sum.checksum_type,
        content_length: Some((range.end - range.start) as i64),
        content_range: wanted.content_range(&meta, &range),
        content_type: Some(content_type(&meta)),
        e_tag: Some(tag_out(&meta.version.etag)),
        last_modified: Some(whole_seconds(meta.last_modified)),
        version_id: version_out(&meta.version),
        metadata: metadata_out(meta.metadata),
        ..HeadObjectOutput::default()
    })
}

pub(super) async fn get(front: &Front, input: GetObjectInput) -> S3Result<GetObjectOutput> {
    let wanted = Wanted {
        bucket: front.buckets.get(&input.bucket)?,
        key: key_in(&input.key)?,
        version_id: input.version_id,
        conditions: ReadConditions {
            matches: input.if_match,
            differs_from: input.if_none_match,
            modified_since: input.if_modified_since,
            unmodified_since: input.if_unmodified_since,
        },
        range: input.range,
        checksums: enabled(input.checksum_mode.as_ref()),
    };
    let (meta, range, body) = open(&wanted).await?;
    let sum = wanted.checksum(&meta);
    Ok(GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        body: Some(body),
        checksum_crc32: sum.checksum_crc32,
        checksum_crc32c: sum.checksum_crc32c,
        checksum_crc64nvme: sum.checksum_crc64nvme,
        checksum_sha1: sum.checksum_sha1,
        checksum_sha256: sum.checksum_sha256,
        checksum_type: sum.checksum_type,
        content_length: Some((range.end - range.start) as i64),
        content_range: wanted.content_range(&meta, &range),
        content_type: Some(content_type(&meta)),
        e_tag: Some(tag_out(&meta.version.etag)),
        last_modified: Some(whole_seconds(meta.last_modified)),
        version_id: version_out(&meta.version),
        metadata: metadata_out(meta.metadata),
        ..GetObjectOutput::default()
    })
}

/// Opens the body of the very version that the conditions and the range were checked on.
async fn open(wanted: &Wanted) -> S3Result<(ObjectMeta, Range<u64>, StreamingBlob)> {
    loop {
        let (meta, range) = wanted.resolve().await?;
        if range.is_empty() {
            return Ok((meta, range, StreamingBlob::from(s3s::Body::empty())));
        }
        let request = GetRequest {
            key: wanted.key.clone(),
            range: Some(range.clone()),
            version: Some(meta.version.clone()),
        };
        match wanted.bucket.store.get(request).await {
            Ok(response) => return Ok((meta, range, stream(response.body))),
            // Replaced or removed since: what is there now decides.
            Err(e) if matches!(e.kind(), ErrorKind::VersionMismatch | ErrorKind::NotFound) => {}
            Err(error) => return Err(object_error(error)),
        }
    }
}

pub(super) fn stream(body: Body) -> StreamingBlob {
    let frames = body.map_ok(Frame::data);
    StreamingBlob::from(s3s::Body::http_body_unsync(StreamBody::new(frames)))
}
