//! `ListObjectVersions`.

use s3s::dto::{
    DeleteMarkerEntry, ListObjectVersionsInput, ListObjectVersionsOutput, ObjectVersion,
    ObjectVersionStorageClass,
};
use s3s::{S3Result, s3_error};
use staithe_store::{ListRequest, ObjectStore, VersionEntry, VersionId};

use super::Front;
use super::bucket::{Bucket, Versioning};
use super::list::{Names, page_size};
use super::translate::{object_error, tag_out, whole_seconds};

/// Where a client's page begins: after a key, or after one version of it.
struct Marker<'m> {
    key: &'m str,
    version: Option<&'m str>,
    /// The marked version has been passed.
    passed: bool,
}

impl Marker<'_> {
    /// Whether an entry lies behind the marker. Entries come by key, newest first.
    fn is_past(&mut self, entry: &VersionEntry) -> bool {
        match entry.key.as_str().cmp(self.key) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => {
                let Some(version) = self.version else { return false };
                let was_passed = self.passed;
                self.passed |= entry.id.as_str() == version;
                was_passed
            }
        }
    }
}

pub(super) async fn list(
    front: &Front,
    input: ListObjectVersionsInput,
) -> S3Result<ListObjectVersionsOutput> {
    if input.delimiter.as_ref().is_some_and(|d| !d.is_empty()) {
        return Err(s3_error!(NotImplemented, "Versions are listed without a delimiter here"));
    }
    let names = Names::of(input.encoding_type.as_ref())?;
    let max_keys = usize::from(page_size(input.max_keys)?);
    let bucket = front.buckets.get(&input.bucket)?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let marker = Marker {
        key: input.key_marker.as_deref().unwrap_or(""),
        version: input.version_id_marker.as_deref().filter(|id| !id.is_empty()),
        passed: false,
    };
    let mut entries = collect(&bucket, &prefix, marker, max_keys + 1).await?;
    let is_truncated = max_keys > 0 && entries.len() > max_keys;
    entries.truncate(max_keys);
    let last = entries.last().filter(|_| is_truncated);
    Ok(ListObjectVersionsOutput {
        name: Some(input.bucket),
        prefix: Some(names.write(prefix)),
        key_marker: input.key_marker.as_ref().map(|text| names.write(text)),
        version_id_marker: input.version_id_marker.clone(),
        max_keys: Some(max_keys as i32),
        is_truncated: Some(is_truncated),
        next_key_marker: last.map(|entry| names.write(&entry.key)),
        next_version_id_marker: last.map(|entry| entry.id.as_str().to_owned()),
        versions: Some(entries.iter().filter(|e| !e.is_delete_marker).map(|e| version(e, names)).collect()),
        delete_markers: Some(
            entries.iter().filter(|e| e.is_delete_marker).map(|e| delete_marker(e, names)).collect(),
        ),
        encoding_type: names.encoding(),
        ..ListObjectVersionsOutput::default()
    })
}

/// Up to `most` entries behind the marker. O(all entries before it): the port's own marks are opaque.
async fn collect(
    bucket: &Bucket,
    prefix: &str,
    mut marker: Marker<'_>,
    most: usize,
) -> S3Result<Vec<VersionEntry>> {
    let mut found = Vec::new();
    let mut token = None;
    loop {
        let (entries, next) = match bucket.versioning {
            Versioning::On => {
                let page = bucket.store.list_versions(prefix, token).await.map_err(object_error)?;
                (page.entries, page.next)
            }
            Versioning::Off => {
                let request = ListRequest { prefix: prefix.to_owned(), token, ..ListRequest::default() };
                let page = bucket.store.list(request).await.map_err(object_error)?;
                (page.objects.into_iter().map(only_version).collect(), page.next)
            }
        };
        found.extend(entries.into_iter().filter(|entry| marker.is_past(entry)));
        found.truncate(most);
        token = next;
        if token.is_none() || found.len() == most {
            return Ok(found);
        }
    }
}

/// An object of an unversioned bucket is its own only version, named `null`.
fn only_version(object: staithe_store::ObjectSummary) -> VersionEntry {
    VersionEntry {
        key: object.key,
        id: VersionId::new("null"),
        is_latest: true,
        is_delete_marker: false,
        size: object.size,
        etag: Some(object.etag),
        last_modified: object.last_modified,
    }
}

fn version(entry: &VersionEntry, names: Names) -> ObjectVersion {
    ObjectVersion {
        key: Some(names.write(&entry.key)),
        version_id: Some(entry.id.as_str().to_owned()),
        is_latest: Some(entry.is_latest),
        size: Some(entry.size as i64),
        e_tag: entry.etag.as_ref().map(tag_out),
        last_modified: Some(whole_seconds(entry.last_modified)),
        storage_class: Some(ObjectVersionStorageClass::from_static(ObjectVersionStorageClass::STANDARD)),
        ..ObjectVersion::default()
    }
}

fn delete_marker(entry: &VersionEntry, names: Names) -> DeleteMarkerEntry {
    DeleteMarkerEntry {
        key: Some(names.write(&entry.key)),
        version_id: Some(entry.id.as_str().to_owned()),
        is_latest: Some(entry.is_latest),
        last_modified: Some(whole_seconds(entry.last_modified)),
        owner: None,
    }
}
