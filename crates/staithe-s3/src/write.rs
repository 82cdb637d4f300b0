//! PUT, COPY and DELETE of single objects.

use aws_sdk_s3::types::MetadataDirective;
use staithe_store::{CopyRequest, DeleteRequest, ErrorKind, Key, NewObject, Payload, PutCondition, Written};

use crate::classify::Condition;
use crate::confirm::{Told, confirm, hides_md5};
use crate::encoding::copy_source;
use crate::failure::Failure;
use crate::link::{Call, Link};
use crate::read::Pin;
use crate::upload::{stream, sums};

/// The headers of a condition: `If-None-Match`, `If-Match`, and what their refusal means.
pub(crate) fn headers(condition: &PutCondition) -> (Option<String>, Option<String>, Condition) {
    match condition {
        PutCondition::Always => (None, None, Condition::Unconditional),
        PutCondition::IfAbsent => (Some("*".to_owned()), None, Condition::Absent),
        PutCondition::IfMatch(tag) => (None, Some(tag.as_str().to_owned()), Condition::Replaces),
    }
}

impl Link {
    pub(crate) async fn put(
        &self,
        key: &Key,
        body: &Payload,
        new: &NewObject,
        condition: &PutCondition,
    ) -> Result<Written, Failure> {
        let (if_none_match, if_match, meaning) = headers(condition);
        let sums = sums(body, self.checksum);
        let call = Call::new("put", Some(key), self.patience.upload(body.len())).on(meaning);
        let answer = self
            .call(call, || {
                let put = self.client.put_object().bucket(&self.bucket).key(key.as_str());
                put.body(stream(body))
                    .content_length(body.len() as i64)
                    .set_checksum_crc64_nvme(sums.crc64_header())
                    .set_content_md5(sums.md5_header())
                    .set_metadata(Some(new.metadata.clone().into_iter().collect()))
                    .set_content_type(new.content_type.clone())
                    .set_if_none_match(if_none_match.clone())
                    .set_if_match(if_match.clone())
                    .customize()
                    .disable_payload_signing()
                    .send()
            })
            .await?;
        let is_hidden = hides_md5(answer.ssekms_key_id(), answer.sse_customer_algorithm());
        let tag = answer.e_tag().filter(|_| self.tags_are_md5 && !is_hidden);
        confirm("put", key, &sums, Told { crc64: answer.checksum_crc64_nvme(), tag })?;
        Ok(Written { version: self.version("put", key, answer.e_tag(), answer.version_id())? })
    }

    pub(crate) async fn copy(&self, request: &CopyRequest) -> Result<Written, Failure> {
        let CopyRequest { from, from_version, to, replace } = request;
        let pin = Pin::of(from_version.as_ref());
        let source = copy_source(&self.bucket, from, from_version.as_ref().and_then(|v| v.id.as_ref()));
        let call = Call::new("copy", Some(from), self.patience.server_work).on(Condition::Matches);
        let answer = self
            .call(call, || {
                let copy = self.client.copy_object().bucket(&self.bucket).key(to.as_str());
                let copy =
                    copy.copy_source(&source).set_copy_source_if_match(pin.if_match.map(str::to_owned));
                match replace {
                    None => copy.metadata_directive(MetadataDirective::Copy),
                    Some(new) => copy
                        .metadata_directive(MetadataDirective::Replace)
                        .set_metadata(Some(new.metadata.clone().into_iter().collect()))
                        .set_content_type(new.content_type.clone()),
                }
                .send()
            })
            .await?;
        let tag = answer.copy_object_result().and_then(|result| result.e_tag());
        Ok(Written { version: self.version("copy", to, tag, answer.version_id())? })
    }

    /// Deletes; answers the id of the delete marker that this made, or of the version that it removed.
    pub(crate) async fn delete(&self, request: &DeleteRequest) -> Result<Option<String>, Failure> {
        let key = &request.key;
        let if_match = request.if_match.as_ref().map(|tag| tag.as_str().to_owned());
        let version_id = request.version_id.as_ref().map(|id| id.as_str().to_owned());
        let condition = if if_match.is_some() { Condition::Replaces } else { Condition::Unconditional };
        let call = Call::new("delete", Some(key), self.patience.first_byte).on(condition);
        let answer = self.call(call, || {
            let delete = self.client.delete_object().bucket(&self.bucket).key(key.as_str());
            delete.set_if_match(if_match.clone()).set_version_id(version_id.clone()).send()
        });
        match answer.await {
            Ok(answer) => Ok(answer.version_id),
            Err(failure) if failure.error.kind() == ErrorKind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}
