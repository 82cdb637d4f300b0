//! Multipart uploads.

use std::ops::Range;

use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use staithe_store::{
    ErrorKind, Key, MultipartUpload, NewObject, PartNumber, PartReceipt, Payload, PutCondition, UploadId,
    Version, Written,
};

use crate::answer::{etag, incomplete};
use crate::classify::Condition;
use crate::config::UploadChecksum;
use crate::confirm::{Told, confirm, hides_md5, length, whole};
use crate::encoding::copy_source;
use crate::failure::Failure;
use crate::link::{Call, Link};
use crate::read::Pin;
use crate::upload::{Sums, decode, stream, sums};
use crate::write::headers;

impl Link {
    pub(crate) async fn create_multipart(
        &self,
        key: &Key,
        new: &NewObject,
    ) -> Result<MultipartUpload, Failure> {
        let call = Call::new("create_multipart", Some(key), self.patience.first_byte);
        let answer = self
            .call(call, || {
                let create = self.client.create_multipart_upload().bucket(&self.bucket).key(key.as_str());
                let create = create
                    .set_metadata(Some(new.metadata.clone().into_iter().collect()))
                    .set_content_type(new.content_type.clone());
                match self.checksum {
                    UploadChecksum::Crc64Nvme => create
                        .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
                        .checksum_type(ChecksumType::FullObject),
                    UploadChecksum::Md5 | UploadChecksum::Off => create,
                }
                .send()
            })
            .await?;
        match answer.upload_id() {
            Some(id) if !id.is_empty() => {
                Ok(MultipartUpload { key: key.clone(), id: UploadId::new(id), initiated: None })
            }
            _ => Err(incomplete("create_multipart", key, "an upload id").into()),
        }
    }

    pub(crate) async fn upload_part(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        body: &Payload,
    ) -> Result<PartReceipt, Failure> {
        let sums = sums(body, self.checksum);
        let call = Call::new("upload_part", Some(&upload.key), self.patience.upload(body.len()));
        let answer = self
            .call(call, || {
                let part = self.client.upload_part().bucket(&self.bucket).key(upload.key.as_str());
                part.upload_id(upload.id.as_str())
                    .part_number(i32::from(number.get()))
                    .body(stream(body))
                    .content_length(body.len() as i64)
                    .set_checksum_crc64_nvme(sums.crc64_header())
                    .set_content_md5(sums.md5_header())
                    .customize()
                    .disable_payload_signing()
                    .send()
            })
            .await?;
        let is_hidden = hides_md5(answer.ssekms_key_id(), answer.sse_customer_algorithm());
        let md5 = answer.e_tag().filter(|_| self.tags_are_md5 && !is_hidden);
        let told = Told { crc64: answer.checksum_crc64_nvme(), tag: md5 };
        let crc64 = confirm("upload_part", &upload.key, &sums, told)?;
        let tag = answer.e_tag().ok_or_else(|| incomplete("upload_part", &upload.key, "an entity tag"))?;
        Ok(PartReceipt { number, etag: etag(tag), size: body.len(), crc64 })
    }

    pub(crate) async fn upload_part_copy(
        &self,
        upload: &MultipartUpload,
        number: PartNumber,
        from: &Key,
        version: &Version,
        range: &Range<u64>,
    ) -> Result<PartReceipt, Failure> {
        let pin = Pin::of(Some(version));
        let source = copy_source(&self.bucket, from, version.id.as_ref());
        let span = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let call =
            Call::new("upload_part_copy", Some(from), self.patience.server_work).on(Condition::Matches);
        let answer = self
            .call(call, || {
                let part = self.client.upload_part_copy().bucket(&self.bucket).key(upload.key.as_str());
                part.upload_id(upload.id.as_str())
                    .part_number(i32::from(number.get()))
                    .copy_source(&source)
                    .copy_source_range(&span)
                    .set_copy_source_if_match(pin.if_match.map(str::to_owned))
                    .send()
            })
            .await?;
        let result = answer.copy_part_result();
        let tag = result.and_then(|result| result.e_tag());
        let tag = tag.ok_or_else(|| incomplete("upload_part_copy", from, "an entity tag"))?;
        // Nobody here has seen these bytes: the server's word is all there is, and it is held to it.
        let crc64 = result.and_then(|result| result.checksum_crc64_nvme()).and_then(decode);
        Ok(PartReceipt { number, etag: etag(tag), size: range.end - range.start, crc64 })
    }

    pub(crate) async fn complete_multipart(
        &self,
        upload: &MultipartUpload,
        parts: &[PartReceipt],
        condition: &PutCondition,
    ) -> Result<Written, Failure> {
        let key = &upload.key;
        let (if_none_match, if_match, meaning) = headers(condition);
        let manifest = manifest(parts);
        let sums = Sums { crc64: whole(parts), ..Sums::default() };
        let kind = sums.crc64.map(|_| ChecksumType::FullObject);
        // S3 asks for a new upload after a conflict: this one cannot be completed any more.
        let call = Call::new("complete_multipart", Some(key), self.patience.server_work)
            .on(meaning)
            .conflicts_are_final();
        let answer = self.call(call, || {
            let complete = self.client.complete_multipart_upload().bucket(&self.bucket).key(key.as_str());
            complete
                .upload_id(upload.id.as_str())
                .multipart_upload(manifest.clone())
                .mpu_object_size(length(parts) as i64)
                .set_checksum_crc64_nvme(sums.crc64_header())
                .set_checksum_type(kind.clone())
                .set_if_none_match(if_none_match.clone())
                .set_if_match(if_match.clone())
                .send()
        });
        let (tag, id, crc64) = match answer.await {
            Ok(answer) => (answer.e_tag, answer.version_id, answer.checksum_crc64_nvme),
            Err(failure) => match &failure.unread {
                Some(done) => {
                    (done.element("ETag"), done.version_id.clone(), done.element("ChecksumCRC64NVME"))
                }
                None => return Err(failure),
            },
        };
        confirm("complete_multipart", key, &sums, Told { crc64: crc64.as_deref(), tag: None })?;
        let version = self.version("complete_multipart", key, tag.as_deref(), id.as_deref())?;
        Ok(Written { version })
    }

    pub(crate) async fn abort_multipart(&self, upload: &MultipartUpload) -> Result<(), Failure> {
        let call = Call::new("abort_multipart", Some(&upload.key), self.patience.first_byte);
        let answer = self.call(call, || {
            let abort = self.client.abort_multipart_upload().bucket(&self.bucket).key(upload.key.as_str());
            abort.upload_id(upload.id.as_str()).send()
        });
        match answer.await {
            Err(failure) if failure.error.kind() != ErrorKind::NotFound => Err(failure),
            _ => Ok(()),
        }
    }
}

fn manifest(parts: &[PartReceipt]) -> CompletedMultipartUpload {
    let parts = parts.iter().map(|part| {
        CompletedPart::builder().part_number(i32::from(part.number.get())).e_tag(part.etag.as_str()).build()
    });
    CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build()
}
