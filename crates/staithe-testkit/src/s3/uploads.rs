//! `ListParts` and `ListMultipartUploads`.

use s3s::dto::{
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput,
    MultipartUpload as WireUpload, Part as WirePart, StorageClass,
};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use staithe_store::{MultipartUpload, ObjectStore};

use super::Front;
use super::bucket::{Bucket, Part};
use super::list::{Names, page_size};
use super::translate::{object_error, tag_out, whole_seconds};

pub(super) fn parts(front: &Front, input: ListPartsInput) -> S3Result<ListPartsOutput> {
    let bucket = front.buckets.get(&input.bucket)?;
    let known = bucket.upload(&input.upload_id).ok_or_else(|| S3Error::new(S3ErrorCode::NoSuchUpload))?;
    let most = usize::from(page_size(input.max_parts)?);
    let marker = input.part_number_marker.unwrap_or(0);
    let mut rest = known.parts.iter().filter(|(number, _)| i32::from(**number) > marker);
    let page: Vec<WirePart> =
        rest.by_ref().take(most).map(|(number, part)| part_out(*number, part)).collect();
    let is_truncated = rest.next().is_some();
    Ok(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        checksum_algorithm: known.algorithm.clone(),
        checksum_type: known.kind.clone(),
        max_parts: Some(most as i32),
        part_number_marker: Some(marker),
        next_part_number_marker: page.last().and_then(|part| part.part_number),
        is_truncated: Some(is_truncated),
        parts: Some(page),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        ..ListPartsOutput::default()
    })
}

fn part_out(number: u16, part: &Part) -> WirePart {
    WirePart {
        part_number: Some(i32::from(number)),
        e_tag: Some(tag_out(&part.etag)),
        size: Some(part.size as i64),
        last_modified: Some(whole_seconds(part.modified)),
        checksum_crc32: part.checksum.checksum_crc32.clone(),
        checksum_crc32c: part.checksum.checksum_crc32c.clone(),
        checksum_crc64nvme: part.checksum.checksum_crc64nvme.clone(),
        checksum_sha1: part.checksum.checksum_sha1.clone(),
        checksum_sha256: part.checksum.checksum_sha256.clone(),
    }
}

pub(super) async fn uploads(
    front: &Front,
    input: ListMultipartUploadsInput,
) -> S3Result<ListMultipartUploadsOutput> {
    if input.delimiter.as_ref().is_some_and(|d| !d.is_empty()) {
        return Err(s3_error!(NotImplemented, "Uploads are listed without a delimiter here"));
    }
    let names = Names::of(input.encoding_type.as_ref())?;
    let most = usize::from(page_size(input.max_uploads)?);
    let bucket = front.buckets.get(&input.bucket)?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let key_marker = input.key_marker.clone().unwrap_or_default();
    let id_marker = input.upload_id_marker.clone().unwrap_or_default();
    let is_past = |upload: &MultipartUpload| {
        let key = upload.key.as_str();
        let later = !id_marker.is_empty() && key == key_marker && upload.id.as_str() > id_marker.as_str();
        key_marker.is_empty() || key > key_marker.as_str() || later
    };
    let mut found = collect(&bucket, &prefix).await?;
    found.retain(is_past);
    let is_truncated = most > 0 && found.len() > most;
    found.truncate(most);
    let last = found.last().filter(|_| is_truncated);
    Ok(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: Some(names.write(prefix)),
        key_marker: Some(names.write(key_marker)),
        upload_id_marker: Some(id_marker),
        next_key_marker: last.map(|upload| names.write(&upload.key)),
        next_upload_id_marker: last.map(|upload| upload.id.as_str().to_owned()),
        max_uploads: Some(most as i32),
        is_truncated: Some(is_truncated),
        uploads: Some(found.iter().map(|upload| upload_out(upload, names)).collect()),
        encoding_type: names.encoding(),
        ..ListMultipartUploadsOutput::default()
    })
}

/// Every upload under a prefix, by key and then by id.
async fn collect(bucket: &Bucket, prefix: &str) -> S3Result<Vec<MultipartUpload>> {
    let mut found = Vec::new();
    let mut token = None;
    loop {
        let page = bucket.store.list_multiparts(prefix, token).await.map_err(object_error)?;
        found.extend(page.uploads);
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    found.sort_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
    Ok(found)
}

fn upload_out(upload: &MultipartUpload, names: Names) -> WireUpload {
    WireUpload {
        key: Some(names.write(&upload.key)),
        upload_id: Some(upload.id.as_str().to_owned()),
        initiated: upload.initiated.map(whole_seconds),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        ..WireUpload::default()
    }
}
