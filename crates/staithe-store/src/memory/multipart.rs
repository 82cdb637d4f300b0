//! Multipart uploads in progress. Pure: no lock, no clock.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use md5::{Digest, Md5};

use super::Stamp;
use super::bucket::{Content, hex, md5_of};
use crate::{
    Capabilities, ETag, ErrorKind, Key, MultipartUpload, NewObject, PageToken, PartNumber, PartReceipt,
    Payload, Result, StoreError, UploadId, UploadPage, checks,
};

/// All uploads of a bucket, by key and then by id.
#[derive(Debug, Default)]
pub(super) struct Uploads(BTreeMap<(Key, UploadId), Upload>);

#[derive(Debug)]
struct Upload {
    new: Arc<NewObject>,
    initiated: SystemTime,
    parts: BTreeMap<PartNumber, Part>,
}

/// The bytes of a part and their MD5.
#[derive(Debug)]
pub(super) struct Part {
    payload: Payload,
    md5: [u8; 16],
}

impl Part {
    pub(super) fn new(payload: Payload) -> Self {
        let md5 = md5_of(&payload);
        Self { payload, md5 }
    }

    fn etag(&self) -> ETag {
        ETag::new(format!("\"{}\"", hex(&self.md5)))
    }
}

/// The bytes `range` of `payload`, which must lie within it, without copying them.
pub(super) fn slice(payload: &Payload, range: &Range<u64>) -> Payload {
    let mut offset = 0;
    Payload::new(payload.chunks().iter().map(|chunk| {
        let len = chunk.len() as u64;
        let start = range.start.clamp(offset, offset + len) - offset;
        let end = range.end.clamp(offset, offset + len) - offset;
        offset += len;
        if start < end { chunk.slice(start as usize..end as usize) } else { Bytes::new() }
    }))
}

impl Uploads {
    pub(super) fn create(&mut self, key: &Key, new: NewObject, stamp: Stamp) -> MultipartUpload {
        let id = UploadId::new(format!("u{:016x}", stamp.serial));
        let upload = Upload { new: Arc::new(new), initiated: stamp.now, parts: BTreeMap::new() };
        self.0.insert((key.clone(), id.clone()), upload);
        MultipartUpload { key: key.clone(), id, initiated: Some(stamp.now) }
    }

    pub(super) fn add(
        &mut self,
        operation: &'static str,
        upload: &MultipartUpload,
        number: PartNumber,
        part: Part,
    ) -> Result<PartReceipt> {
        let found = self.0.get_mut(&id_of(upload)).ok_or_else(|| missing(operation, upload))?;
        let (etag, size) = (part.etag(), part.payload.len());
        found.parts.insert(number, part);
        Ok(PartReceipt { number, etag, size, crc64: None })
    }

    /// The object that the parts make, tagged as S3 does: the MD5 of their MD5s, and how many they are.
    pub(super) fn assemble(
        &self,
        caps: &Capabilities,
        upload: &MultipartUpload,
        receipts: &[PartReceipt],
    ) -> Result<Content> {
        const OP: &str = "complete_multipart";
        let found = self.0.get(&id_of(upload)).ok_or_else(|| missing(OP, upload))?;
        checks::parts_ascend(&upload.key, receipts)?;
        let mut parts = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            let part = found.parts.get(&receipt.number).filter(|part| part.etag() == receipt.etag);
            parts.push(part.ok_or_else(|| checks::part_missing(&upload.key, receipt))?);
        }
        let sizes: Vec<u64> = parts.iter().map(|part| part.payload.len()).collect();
        checks::part_sizes(caps, &upload.key, &sizes)?;
        let mut hash = Md5::new();
        for part in &parts {
            hash.update(part.md5);
        }
        let etag = ETag::new(format!("\"{}-{}\"", hex(&hash.finalize()), parts.len()));
        let chunks = parts.iter().flat_map(|part| part.payload.chunks().iter().cloned());
        Ok(Content::assembled(Payload::new(chunks), etag, found.new.clone()))
    }

    pub(super) fn remove(&mut self, upload: &MultipartUpload) {
        self.0.remove(&id_of(upload));
    }

    pub(super) fn list(&self, prefix: &str, token: Option<&PageToken>, page_max: u16) -> Result<UploadPage> {
        let first = match token {
            Some(token) => Bound::Excluded(position(token)?),
            None => match Key::new(prefix) {
                Ok(key) => Bound::Included((key, UploadId::new(""))),
                Err(_) if prefix.is_empty() => Bound::Unbounded,
                Err(_) => return Ok(UploadPage::default()), // no key has a prefix that is too long for one
            },
        };
        let mut page = UploadPage::default();
        let rest = self.0.range((first, Bound::Unbounded));
        for ((key, id), upload) in rest.take_while(|((key, _), _)| key.as_str().starts_with(prefix)) {
            if page.uploads.len() == usize::from(page_max) {
                let last = page.uploads.last();
                page.next = last.map(|last| PageToken::new(format!("{}/{}", last.id, last.key)));
                break;
            }
            page.uploads.push(MultipartUpload {
                key: key.clone(),
                id: id.clone(),
                initiated: Some(upload.initiated),
            });
        }
        Ok(page)
    }
}

fn id_of(upload: &MultipartUpload) -> (Key, UploadId) {
    (upload.key.clone(), upload.id.clone())
}

fn missing(operation: &'static str, upload: &MultipartUpload) -> StoreError {
    let text = format!("there is no upload {} of this object", upload.id);
    checks::fail(ErrorKind::NotFound, operation, &upload.key, text)
}

fn position(token: &PageToken) -> Result<(Key, UploadId)> {
    let parts = token.as_str().split_once('/');
    let position = parts.and_then(|(id, key)| Some((Key::new(key).ok()?, UploadId::new(id))));
    position.ok_or_else(|| checks::foreign_token("list_multiparts", token))
}
