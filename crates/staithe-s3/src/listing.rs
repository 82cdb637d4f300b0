//! Listings: of keys, of versions, of uploads in progress.

use std::time::SystemTime;

use aws_sdk_s3::types::{CommonPrefix, EncodingType, Object};
use staithe_store::{
    ETag, ErrorKind, Key, ListPage, ListRequest, MultipartUpload, ObjectSummary, PageToken, Result,
    StoreError, UploadId, UploadPage, VersionEntry, VersionId, VersionPage,
};

use crate::answer::{self, etag};
use crate::encoding::{decode_listed, join_markers, split_markers};
use crate::link::{Call, Link};

impl Link {
    pub(crate) async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        if request.max_keys == Some(0) {
            // Nothing was asked for; some servers would answer with a full page.
            return Ok(ListPage::default());
        }
        let call = Call::new("list", None, self.patience.first_byte);
        let answer = self
            .call(call, || {
                let list = self.client.list_objects_v2().bucket(&self.bucket);
                let token = request.token.as_ref().map(|token| token.as_str().to_owned());
                let start_after = request.start_after.clone().filter(|_| token.is_none());
                list.encoding_type(EncodingType::Url)
                    .set_prefix(some_text(&request.prefix))
                    .set_delimiter(request.delimiter.map(String::from))
                    .set_max_keys(request.max_keys.map(i32::from))
                    .set_start_after(start_after)
                    .set_continuation_token(token)
                    .send()
            })
            .await?;
        let text = Decoder::new("list", answer.encoding_type());
        let next = match (answer.is_truncated(), answer.next_continuation_token()) {
            (Some(true), None) => return Err(text.unreadable("a truncated page without a token")),
            (_, next) => next.map(PageToken::new),
        };
        let objects = answer.contents().iter().map(|o| summary(text, o)).collect::<Result<_>>()?;
        let prefixes = prefixes(text, answer.common_prefixes())?;
        Ok(ListPage { objects, prefixes, next })
    }

    pub(crate) async fn list_versions(&self, prefix: &str, token: Option<&PageToken>) -> Result<VersionPage> {
        let call = Call::new("list_versions", None, self.patience.first_byte);
        let (key_marker, id_marker) = markers("list_versions", token)?;
        let answer = self
            .call(call, || {
                let list = self.client.list_object_versions().bucket(&self.bucket);
                list.encoding_type(EncodingType::Url)
                    .set_prefix(some_text(prefix))
                    .set_key_marker(key_marker.clone())
                    .set_version_id_marker(id_marker.clone())
                    .send()
            })
            .await?;
        let text = Decoder::new("list_versions", answer.encoding_type());
        let mut entries = Vec::with_capacity(answer.versions().len() + answer.delete_markers().len());
        for version in answer.versions() {
            entries.push(VersionEntry {
                size: answer::size(version.size()).unwrap_or(0),
                etag: version.e_tag().map(etag),
                is_delete_marker: false,
                ..text.version(version.key(), version.version_id(), version.is_latest())?
            });
            set_time(&mut entries, version.last_modified());
        }
        for marker in answer.delete_markers() {
            entries.push(text.version(marker.key(), marker.version_id(), marker.is_latest())?);
            set_time(&mut entries, marker.last_modified());
        }
        by_key_then_newest(&mut entries);
        let more = answer.is_truncated().unwrap_or(false);
        let next = text.next(more, answer.next_key_marker(), answer.next_version_id_marker())?;
        Ok(VersionPage { entries, next })
    }

    pub(crate) async fn list_multiparts(
        &self,
        prefix: &str,
        token: Option<&PageToken>,
    ) -> Result<UploadPage> {
        let call = Call::new("list_multiparts", None, self.patience.first_byte);
        let (key_marker, id_marker) = markers("list_multiparts", token)?;
        let answer = self
            .call(call, || {
                let list = self.client.list_multipart_uploads().bucket(&self.bucket);
                list.encoding_type(EncodingType::Url)
                    .set_prefix(some_text(prefix))
                    .set_key_marker(key_marker.clone())
                    .set_upload_id_marker(id_marker.clone())
                    .send()
            })
            .await?;
        let text = Decoder::new("list_multiparts", answer.encoding_type());
        let mut uploads = Vec::with_capacity(answer.uploads().len());
        for upload in answer.uploads() {
            let id = upload.upload_id().ok_or_else(|| text.unreadable("an upload without an id"))?;
            uploads.push(MultipartUpload {
                key: text.key(upload.key())?,
                id: UploadId::new(id),
                initiated: upload.initiated().and_then(answer::exact_time),
            });
        }
        // Some servers list uploads by their ids.
        uploads.sort_by(|a, b| a.key.cmp(&b.key));
        let more = answer.is_truncated().unwrap_or(false);
        let next = text.next(more, answer.next_key_marker(), answer.next_upload_id_marker())?;
        Ok(UploadPage { uploads, next })
    }
}

/// Reads the names of one answer: encoded only where the answer says so.
#[derive(Debug, Clone, Copy)]
struct Decoder {
    operation: &'static str,
    encoded: bool,
}

impl Decoder {
    fn new(operation: &'static str, encoding: Option<&EncodingType>) -> Self {
        Self { operation, encoded: encoding == Some(&EncodingType::Url) }
    }

    fn unreadable(self, what: &str) -> StoreError {
        StoreError::new(ErrorKind::Corrupt, self.operation, format!("the listing holds {what}"))
    }

    fn text(self, text: &str) -> Result<String> {
        if self.encoded {
            decode_listed(text).ok_or_else(|| self.unreadable("a name that is not UTF-8"))
        } else {
            Ok(text.to_owned())
        }
    }

    fn key(self, text: Option<&str>) -> Result<Key> {
        let text = text.ok_or_else(|| self.unreadable("an entry without a key"))?;
        Key::new(self.text(text)?).map_err(|error| self.unreadable("a bad key").with_source(error))
    }

    /// A delete marker, to be made a version of where it is one.
    fn version(self, key: Option<&str>, id: Option<&str>, is_latest: Option<bool>) -> Result<VersionEntry> {
        Ok(VersionEntry {
            key: self.key(key)?,
            id: VersionId::new(id.ok_or_else(|| self.unreadable("a version without an id"))?),
            is_latest: is_latest.unwrap_or(false),
            is_delete_marker: true,
            size: 0,
            etag: None,
            last_modified: SystemTime::UNIX_EPOCH,
        })
    }

    fn next(self, more: bool, key: Option<&str>, id: Option<&str>) -> Result<Option<PageToken>> {
        match (more, key) {
            (false, _) => Ok(None),
            (true, None) => Err(self.unreadable("a truncated page without a marker")),
            (true, Some(key)) => Ok(Some(join_markers(&self.text(key)?, id.filter(|id| !id.is_empty())))),
        }
    }
}

fn summary(text: Decoder, object: &Object) -> Result<ObjectSummary> {
    Ok(ObjectSummary {
        key: text.key(object.key())?,
        size: answer::size(object.size()).ok_or_else(|| text.unreadable("an object without a size"))?,
        etag: object.e_tag().map_or_else(|| ETag::new(""), etag),
        id: None,
        last_modified: answer::time(object.last_modified()),
    })
}

fn prefixes(text: Decoder, listed: &[CommonPrefix]) -> Result<Vec<String>> {
    listed.iter().filter_map(CommonPrefix::prefix).map(|prefix| text.text(prefix)).collect()
}

fn set_time(entries: &mut [VersionEntry], time: Option<&aws_smithy_types::DateTime>) {
    if let Some(entry) = entries.last_mut() {
        entry.last_modified = answer::time(time);
    }
}

/// Versions and delete markers come in two lists, each by key and newest first; their common order within one
/// key is only told by the times (whole seconds on some servers) and by which one is the latest.
fn by_key_then_newest(entries: &mut [VersionEntry]) {
    entries.sort_by(|a, b| {
        let newest = (b.is_latest, b.last_modified).cmp(&(a.is_latest, a.last_modified));
        a.key.cmp(&b.key).then(newest)
    });
}

fn markers(operation: &'static str, token: Option<&PageToken>) -> Result<(Option<String>, Option<String>)> {
    let Some(token) = token else { return Ok((None, None)) };
    let wrong = || StoreError::new(ErrorKind::Invalid, operation, "the page token is not one of this store");
    split_markers(token).map(|(key, id)| (Some(key), id)).ok_or_else(wrong)
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn two_lists_become_one_by_key_and_age() {
        let text = Decoder::new("list_versions", None);
        let entry = |key: &str, id: &str, latest, seconds| VersionEntry {
            last_modified: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            ..text.version(Some(key), Some(id), Some(latest)).unwrap()
        };
        let mut entries = vec![
            entry("b", "1", true, 9),
            entry("a", "2", false, 5),
            entry("a", "1", false, 4),
            entry("a", "3", true, 5),
        ];
        by_key_then_newest(&mut entries);
        let order: Vec<_> = entries.iter().map(|e| format!("{}{}", e.key, e.id)).collect();
        assert_eq!(order, ["a3", "a2", "a1", "b1"]);
    }

    #[test]
    fn names_are_decoded_only_where_the_answer_says_so() {
        assert_eq!(Decoder::new("list", None).text("a%20+").unwrap(), "a%20+");
        assert_eq!(Decoder::new("list", Some(&EncodingType::Url)).text("a%20%2B").unwrap(), "a +");
    }
}
