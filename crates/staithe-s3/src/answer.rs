//! Pieces of answers, in the port's words.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;
use staithe_store::{ETag, ErrorKind, Key, Metadata, StoreError, Version, VersionId};

/// An entity tag, quoted: verbatim where the server quotes it, as RFC 9110 (8.8.3) has it.
pub(crate) fn etag(text: &str) -> ETag {
    if text.starts_with('"') || text.starts_with("W/") {
        ETag::new(text)
    } else {
        ETag::new(format!("\"{text}\""))
    }
}

/// The version that an answer names.
///
/// # Errors
/// `Corrupt` where the answer carries no tag.
pub(crate) fn version(
    operation: &'static str,
    key: &Key,
    tag: Option<&str>,
    id: Option<&str>,
    versions: bool,
) -> Result<Version, StoreError> {
    let tag = tag.ok_or_else(|| incomplete(operation, key, "an entity tag"))?;
    Ok(Version { etag: etag(tag), id: version_id(id, versions) })
}

/// A version id, in a bucket that keeps versions. Elsewhere it names nothing that can be read later: `null` is
/// taken over by each write, and some servers make ids up.
pub(crate) fn version_id(id: Option<&str>, versions: bool) -> Option<VersionId> {
    id.filter(|id| versions && !id.is_empty()).map(VersionId::new)
}

/// The id of the version that was written while the bucket kept none.
pub(crate) const NULL_VERSION: &str = "null";

/// An answer without something that every server gives.
pub(crate) fn incomplete(operation: &'static str, key: &Key, what: &str) -> StoreError {
    StoreError::new(ErrorKind::Corrupt, operation, format!("the answer lacks {what}")).with_key(key)
}

/// A time; the epoch where the server gives none or one out of range.
pub(crate) fn time(given: Option<&DateTime>) -> SystemTime {
    given.and_then(exact_time).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A time, where the server gives one that can be told.
pub(crate) fn exact_time(given: &DateTime) -> Option<SystemTime> {
    let seconds = Duration::from_secs(given.secs().unsigned_abs());
    let whole = if given.secs() < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    whole?.checked_add(Duration::from_nanos(u64::from(given.subsec_nanos())))
}

/// User metadata, names in lower case.
pub(crate) fn metadata(given: Option<HashMap<String, String>>) -> Metadata {
    given.into_iter().flatten().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
}

/// A count of bytes; `None` for a negative one.
pub(crate) fn size(given: Option<i64>) -> Option<u64> {
    given.and_then(|n| u64::try_from(n).ok())
}

/// First byte, last byte and full size of a `Content-Range`.
pub(crate) fn content_range(header: &str) -> Option<(u64, u64, u64)> {
    let (span, total) = header.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (first, last) = span.split_once('-')?;
    let (first, last, total) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (first <= last && last < total).then_some((first, last, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_quoted_once() {
        assert_eq!(etag("\"a\"").as_str(), "\"a\"");
        assert_eq!(etag("W/\"a\"").as_str(), "W/\"a\"");
        assert_eq!(etag("a-2").as_str(), "\"a-2\"");
    }

    #[test]
    fn ranges() {
        assert_eq!(content_range("bytes 0-9/100"), Some((0, 9, 100)));
        assert_eq!(content_range("bytes 9-9/10"), Some((9, 9, 10)));
        for wrong in ["bytes 0-10/10", "bytes 5-4/10", "bytes */10", "bytes 0-1/*", "0-1/2", ""] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ids_are_versions_only_where_versions_are_kept() {
        assert_eq!(version_id(Some("null"), false), None);
        assert_eq!(version_id(Some("null"), true), Some(VersionId::new("null")));
        assert_eq!(version_id(Some("v"), true), Some(VersionId::new("v")));
        assert_eq!(version_id(Some(""), true), None);
        assert_eq!(version_id(Some("v"), false), None);
    }

    #[test]
    fn times_out_of_range_are_no_panic() {
        assert_eq!(time(None), SystemTime::UNIX_EPOCH);
        let second = exact_time(&DateTime::from_secs(1));
        assert_eq!(second, SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(1)));
        let _ = time(Some(&DateTime::from_secs(i64::MAX)));
        let _ = time(Some(&DateTime::from_secs(i64::MIN)));
    }
}
