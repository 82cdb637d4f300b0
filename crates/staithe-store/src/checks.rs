//! What every store checks of a request before it acts: sizes, metadata, conditions, part lists.

use std::ops::Range;

use crate::{
    Capabilities, CopyRequest, ETag, ErrorKind, Key, NewObject, PageToken, PartReceipt, PutCondition, Result,
    StoreError,
};

/// An error that names its key.
pub(crate) fn fail(
    kind: ErrorKind,
    operation: &'static str,
    key: &Key,
    message: impl Into<String>,
) -> StoreError {
    StoreError::new(kind, operation, message).with_key(key)
}

/// Refuses a body or metadata that the store does not take.
pub(crate) fn new_object(
    caps: &Capabilities,
    operation: &'static str,
    key: &Key,
    new: &NewObject,
    size: u64,
) -> Result<()> {
    let invalid = |text: String| Err(fail(ErrorKind::Invalid, operation, key, text));
    if size > caps.part_size_max {
        return invalid(format!(
            "{size} bytes exceed the {} of one request; use a multipart upload",
            caps.part_size_max
        ));
    }
    let bytes: usize = new.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > caps.metadata_bytes_max {
        return invalid(format!("{bytes} bytes of metadata exceed the {} allowed", caps.metadata_bytes_max));
    }
    for (name, value) in &new.metadata {
        let name_ok =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase());
        if !name_ok || !value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            return invalid(format!(
                "the metadata entry {name:?} is not printable ASCII with a lower-case name"
            ));
        }
    }
    Ok(())
}

/// Refuses a condition that the store does not honour.
pub(crate) fn condition_supported(
    caps: &Capabilities,
    operation: &'static str,
    key: &Key,
    condition: &PutCondition,
) -> Result<()> {
    let (name, supported) = match condition {
        PutCondition::Always => return Ok(()),
        PutCondition::IfAbsent => ("If-None-Match", caps.put_if_absent),
        PutCondition::IfMatch(_) => ("If-Match", caps.put_if_match),
    };
    supported.then_some(()).ok_or_else(|| {
        fail(ErrorKind::Unsupported, operation, key, format!("this store does not honour {name} here"))
    })
}

/// Whether a write may replace what is there now.
pub(crate) fn condition_holds(
    operation: &'static str,
    key: &Key,
    condition: &PutCondition,
    current: Option<&ETag>,
) -> Result<()> {
    match (condition, current) {
        (PutCondition::IfAbsent, Some(tag)) => {
            let text = format!("an object with tag {tag} is there already");
            Err(fail(ErrorKind::AlreadyExists, operation, key, text))
        }
        (PutCondition::IfMatch(wanted), found) => tag_matches(operation, key, wanted, found),
        (PutCondition::Always | PutCondition::IfAbsent, _) => Ok(()),
    }
}

/// Whether what is there now is the version with the tag `wanted`.
pub(crate) fn tag_matches(
    operation: &'static str,
    key: &Key,
    wanted: &ETag,
    found: Option<&ETag>,
) -> Result<()> {
    match found {
        Some(found) if found == wanted => Ok(()),
        Some(found) => {
            let text = format!("the object has tag {found}, not {wanted}; read it anew");
            Err(fail(ErrorKind::VersionMismatch, operation, key, text))
        }
        None => {
            let text = format!("there is no object any more that could have tag {wanted}");
            Err(fail(ErrorKind::VersionMismatch, operation, key, text))
        }
    }
}

/// The bytes that a GET of `range` delivers of an object of `size` bytes.
pub(crate) fn resolve_range(key: &Key, range: Option<&Range<u64>>, size: u64) -> Result<Range<u64>> {
    let Some(range) = range else { return Ok(0..size) };
    if range.start >= range.end || range.start >= size {
        let text = format!("the range {range:?} holds no byte of an object of {size} bytes");
        return Err(fail(ErrorKind::Invalid, "get", key, text));
    }
    Ok(range.start..range.end.min(size))
}

/// The source range of a part copy, which unlike that of a GET must lie within the object.
pub(crate) fn part_copy_range(caps: &Capabilities, from: &Key, range: &Range<u64>, size: u64) -> Result<()> {
    let invalid = |text: String| Err(fail(ErrorKind::Invalid, "upload_part_copy", from, text));
    if range.start >= range.end || range.end > size {
        return invalid(format!("the range {range:?} does not lie within an object of {size} bytes"));
    }
    if range.end - range.start > caps.part_size_max {
        return invalid(format!(
            "the range {range:?} exceeds the largest part, {} bytes",
            caps.part_size_max
        ));
    }
    Ok(())
}

/// Refuses a part list that is empty or out of order.
pub(crate) fn parts_ascend(key: &Key, parts: &[PartReceipt]) -> Result<()> {
    let ascending = parts.windows(2).all(|pair| match pair {
        [a, b] => a.number < b.number,
        _ => true,
    });
    if parts.is_empty() || !ascending {
        let text = "the parts must be at least one, in ascending order";
        return Err(fail(ErrorKind::Invalid, "complete_multipart", key, text));
    }
    Ok(())
}

/// Refuses sizes of parts that S3 would refuse, and adds them up.
pub(crate) fn part_sizes(caps: &Capabilities, key: &Key, sizes: &[u64]) -> Result<u64> {
    let invalid = |text: String| Err(fail(ErrorKind::Invalid, "complete_multipart", key, text));
    let all_but_last = sizes.split_last().map_or(&[][..], |(_, rest)| rest);
    if let Some(small) = all_but_last.iter().find(|size| **size < caps.part_size_min) {
        return invalid(format!("a part of {small} bytes is below the least size, {}", caps.part_size_min));
    }
    let total = sizes.iter().sum();
    if total > caps.object_size_max {
        return invalid(format!("{total} bytes exceed the largest object, {}", caps.object_size_max));
    }
    Ok(total)
}

/// Refuses a copy that changes nothing.
pub(crate) fn copy_changes_something(request: &CopyRequest) -> Result<()> {
    if request.from == request.to && request.replace.is_none() {
        let text = "a copy onto itself must replace the metadata";
        return Err(fail(ErrorKind::Invalid, "copy", &request.to, text));
    }
    Ok(())
}

/// Refuses a batch delete of more keys than the store takes at once.
pub(crate) fn batch_size(caps: &Capabilities, keys: &[Key]) -> Result<()> {
    if keys.len() > caps.delete_batch_max {
        let text = format!("{} keys exceed the {} of one batch", keys.len(), caps.delete_batch_max);
        return Err(StoreError::new(ErrorKind::Invalid, "delete_batch", text));
    }
    Ok(())
}

/// The error for a part that was never uploaded, or replaced since.
pub(crate) fn part_missing(key: &Key, receipt: &PartReceipt) -> StoreError {
    let text = format!("there is no part {} with tag {}", receipt.number.get(), receipt.etag);
    fail(ErrorKind::Invalid, "complete_multipart", key, text)
}

/// The error for a page token of another store or another listing.
pub(crate) fn foreign_token(operation: &'static str, token: &PageToken) -> StoreError {
    let text = format!("the page token {token:?} is none that this store gave");
    StoreError::new(ErrorKind::Invalid, operation, text)
}

/// The error for an object that is not there.
pub(crate) fn missing(operation: &'static str, key: &Key) -> StoreError {
    fail(ErrorKind::NotFound, operation, key, "there is no such object")
}
