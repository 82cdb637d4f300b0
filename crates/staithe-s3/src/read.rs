//! HEAD and GET: attributes and bytes, pinned to a version where the caller names one.

use std::ops::Range;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::ChecksumMode;
use staithe_store::{
    Crc64Nvme, ErrorKind, GetRequest, GetResponse, HeadRequest, Key, ObjectMeta, Result, StoreError, Version,
};

use crate::answer::{self, NULL_VERSION, incomplete};
use crate::body::checked;
use crate::classify::Condition;
use crate::link::{Call, Link};
use crate::upload::decode;

/// How a version is named in a request: by its id, else by a condition on its tag. The id `null` can be taken
/// over by a later write, so that one needs both.
pub(crate) struct Pin<'a> {
    pub(crate) id: Option<&'a str>,
    pub(crate) if_match: Option<&'a str>,
}

impl<'a> Pin<'a> {
    pub(crate) fn of(version: Option<&'a Version>) -> Self {
        let id = version.and_then(|v| v.id.as_ref()).map(staithe_store::VersionId::as_str);
        let tag = version.map(|v| v.etag.as_str());
        Self { id, if_match: tag.filter(|_| id.is_none_or(|id| id == NULL_VERSION)) }
    }
}

impl Link {
    pub(crate) async fn head(&self, request: &HeadRequest) -> Result<ObjectMeta> {
        let (key, pin) = (&request.key, Pin::of(request.version.as_ref()));
        let call = Call::new("head", Some(key), self.patience.first_byte).on(Condition::Matches);
        let answer = self.call(call, || {
            let head = self.client.head_object().bucket(&self.bucket).key(key.as_str());
            head.set_version_id(owned(pin.id)).set_if_match(owned(pin.if_match)).send()
        });
        let mut answer = match answer.await {
            Ok(answer) => answer,
            Err(failure) if failure.is_refusal() => return Err(self.reason(failure, Some(key)).await),
            Err(failure) => return Err(failure.error),
        };
        let version = self.version("head", key, answer.e_tag(), answer.version_id())?;
        same_tag("head", key, request.version.as_ref(), &version)?;
        let size = answer::size(answer.content_length());
        Ok(ObjectMeta {
            key: key.clone(),
            size: size.ok_or_else(|| incomplete("head", key, "a content length"))?,
            version,
            last_modified: answer::time(answer.last_modified()),
            metadata: answer::metadata(answer.metadata.take()),
            content_type: answer.content_type.take(),
        })
    }

    /// The checksum that the server keeps of the whole object.
    pub(crate) async fn checksum(&self, request: &HeadRequest) -> Result<Option<Crc64Nvme>> {
        let (key, pin) = (&request.key, Pin::of(request.version.as_ref()));
        let call = Call::new("checksum", Some(key), self.patience.first_byte).on(Condition::Matches);
        let answer = self.call(call, || {
            let head = self.client.head_object().bucket(&self.bucket).key(key.as_str());
            let head = head.set_version_id(owned(pin.id)).set_if_match(owned(pin.if_match));
            head.checksum_mode(ChecksumMode::Enabled).send()
        });
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(failure) if failure.is_refusal() => return Err(self.reason(failure, Some(key)).await),
            Err(failure) => return Err(failure.error),
        };
        let version = self.version("checksum", key, answer.e_tag(), answer.version_id())?;
        same_tag("checksum", key, request.version.as_ref(), &version)?;
        Ok(answer.checksum_crc64_nvme().and_then(decode))
    }

    pub(crate) async fn get(&self, request: &GetRequest) -> Result<GetResponse> {
        let (key, pin) = (&request.key, Pin::of(request.version.as_ref()));
        let asked = request.range.as_ref();
        if let Some(empty) = asked.filter(|range| range.is_empty()) {
            let message = format!("the range {empty:?} holds no byte");
            return Err(StoreError::new(ErrorKind::Invalid, "get", message).with_key(key));
        }
        let call = Call::new("get", Some(key), self.patience.first_byte).on(Condition::Matches);
        let mut answer = self
            .call(call, || {
                let get = self.client.get_object().bucket(&self.bucket).key(key.as_str());
                let get = get.set_version_id(owned(pin.id)).set_if_match(owned(pin.if_match));
                match asked {
                    Some(range) => get.range(format!("bytes={}-{}", range.start, range.end - 1)),
                    // Checksums belong to whole objects; some servers send them with ranges, too.
                    None => get.checksum_mode(ChecksumMode::Enabled),
                }
                .send()
            })
            .await?;
        let version = self.version("get", key, answer.e_tag(), answer.version_id())?;
        same_tag("get", key, request.version.as_ref(), &version)?;
        let (range, size) = delivered(key, asked, &answer)?;
        let meta = ObjectMeta {
            key: key.clone(),
            size,
            version,
            last_modified: answer::time(answer.last_modified()),
            metadata: answer::metadata(answer.metadata.take()),
            content_type: answer.content_type.take(),
        };
        let body = checked(key.clone(), answer.body, range.end - range.start, self.patience.stall);
        Ok(GetResponse { meta, range, body })
    }

    /// The version that an answer names.
    pub(crate) fn version(
        &self,
        operation: &'static str,
        key: &Key,
        tag: Option<&str>,
        id: Option<&str>,
    ) -> Result<Version> {
        answer::version(operation, key, tag, id, self.versions)
    }
}

/// Which bytes an answer delivers, and the object's full size.
fn delivered(key: &Key, asked: Option<&Range<u64>>, answer: &GetObjectOutput) -> Result<(Range<u64>, u64)> {
    let length = answer::size(answer.content_length());
    let wrong = |text: String| StoreError::new(ErrorKind::Corrupt, "get", text).with_key(key);
    let (range, size) = if let Some(header) = answer.content_range() {
        let (first, last, size) = answer::content_range(header)
            .ok_or_else(|| wrong(format!("the answer's range {header:?} cannot be read")))?;
        (first..last + 1, size)
    } else {
        let size = length.ok_or_else(|| incomplete("get", key, "a content length"))?;
        (0..size, size)
    };
    let due = asked.map_or(0..size, |r| r.start..r.end.min(size));
    if range != due {
        return Err(wrong(format!("the answer delivers bytes {range:?} where {due:?} were asked for")));
    }
    if length.is_some_and(|n| n != range.end - range.start) {
        return Err(wrong(format!("the answer's length {length:?} is not that of its range {range:?}")));
    }
    Ok((range, size))
}

/// Refuses an answer about another version than was named: a server may have ignored the condition.
fn same_tag(operation: &'static str, key: &Key, named: Option<&Version>, found: &Version) -> Result<()> {
    match named {
        Some(named) if named.etag != found.etag => {
            let message = format!("the object is {}, no longer {}", found.etag, named.etag);
            Err(StoreError::new(ErrorKind::VersionMismatch, operation, message).with_key(key))
        }
        _ => Ok(()),
    }
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}
