//! Between the words of the port and those of S3.

use s3s::dto::{ContentType, ETag as WireTag, Timestamp};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use staithe_store::{ETag, ErrorKind, Key, Metadata, NewObject, StoreError, Version, VersionId};

/// A key of a request.
pub(super) fn key(text: &str) -> S3Result<Key> {
    Key::new(text).map_err(|error| S3Error::with_source(S3ErrorCode::KeyTooLongError, Box::new(error)))
}

/// A tag as the port has it, from one off the wire.
pub(super) fn tag_in(tag: &WireTag) -> ETag {
    match tag {
        WireTag::Strong(value) => ETag::new(format!("\"{value}\"")),
        WireTag::Weak(value) => ETag::new(format!("W/\"{value}\"")),
    }
}

/// A tag for the wire, from one of the port.
pub(super) fn tag_out(tag: &ETag) -> WireTag {
    let bare = || WireTag::Strong(tag.as_str().trim_matches('"').to_owned());
    WireTag::parse_http_header(tag.as_str().as_bytes()).unwrap_or_else(|_| bare())
}

/// The version that a request names by its id. `null` is what an unversioned bucket calls its only one.
pub(super) fn version_in(id: Option<&str>) -> Option<Version> {
    let id = id.filter(|id| *id != "null")?;
    Some(Version { etag: ETag::new(""), id: Some(VersionId::new(id)) })
}

/// A version id for the wire.
pub(super) fn version_out(version: &Version) -> Option<String> {
    version.id.as_ref().map(|id| id.as_str().to_owned())
}

/// What a new object carries, from the fields of a request.
pub(super) fn new_object(
    metadata: Option<s3s::dto::Metadata>,
    content_type: Option<ContentType>,
) -> NewObject {
    NewObject { metadata: metadata.unwrap_or_default().into_iter().collect(), content_type }
}

/// User metadata for the wire.
pub(super) fn metadata_out(metadata: Metadata) -> Option<s3s::dto::Metadata> {
    (!metadata.is_empty()).then(|| metadata.into_iter().collect())
}

/// The moment as HTTP tells it: in whole seconds.
pub(super) fn whole_seconds(time: std::time::SystemTime) -> Timestamp {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(since.as_secs()))
}

/// The S3 error for one of the store; what is not there is told by `missing`.
pub(super) fn error(error: StoreError, missing: S3ErrorCode) -> S3Error {
    let code = match error.kind() {
        ErrorKind::NotFound => missing,
        ErrorKind::VolumeGone => S3ErrorCode::NoSuchBucket,
        ErrorKind::VersionMismatch | ErrorKind::AlreadyExists => S3ErrorCode::PreconditionFailed,
        ErrorKind::Forbidden => S3ErrorCode::AccessDenied,
        ErrorKind::CredentialsExpired => S3ErrorCode::ExpiredToken,
        ErrorKind::CredentialsRefused => S3ErrorCode::InvalidAccessKeyId,
        ErrorKind::Throttled => S3ErrorCode::SlowDown,
        ErrorKind::Unavailable => S3ErrorCode::ServiceUnavailable,
        ErrorKind::Timeout => S3ErrorCode::RequestTimeout,
        ErrorKind::Unsupported => S3ErrorCode::NotImplemented,
        ErrorKind::Invalid => S3ErrorCode::InvalidRequest,
        _ => S3ErrorCode::InternalError,
    };
    let mut answer = S3Error::with_message(code, error.to_string());
    answer.set_source(Box::new(error));
    answer
}

/// [`error`] where what is missing is an object.
pub(super) fn object_error(cause: StoreError) -> S3Error {
    error(cause, S3ErrorCode::NoSuchKey)
}

/// [`error`] where what is missing is an upload.
pub(super) fn upload_error(cause: StoreError) -> S3Error {
    error(cause, S3ErrorCode::NoSuchUpload)
}

/// The answer to a condition that does not hold.
pub(super) fn precondition_failed() -> S3Error {
    s3_error!(PreconditionFailed, "At least one of the preconditions you specified did not hold")
}
