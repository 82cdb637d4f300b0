//! What a server really does with conditions, found out by asking it.
//!
//! Some servers accept `If-None-Match` or `If-Match` and ignore them: a lost update that nobody notices. So a
//! scratch object is made, and then written, copied, completed and deleted under conditions that do not hold.
//! Only a refusal for that reason counts. Fourteen requests in eight round trips; what they made is removed
//! afterwards, every version of it. What the credentials do not allow to ask is taken to be missing, and said so.
//!
//! What the server says of the bytes is looked at too: one that miscomputes a checksum is given another one.
//!
//! Uploads are asked about on an object of their own: a put may end the uploads of its key (garage does that).

use futures::join;
use staithe_store::{
    Capabilities, CopyRequest, DeleteRequest, ETag, ErrorKind, Key, MultipartUpload, NewObject, PartNumber,
    PartReceipt, Payload, PutCondition, Result, StoreError, Version, VersionId, Written,
};

use crate::classify::Meaning;
use crate::config::UploadChecksum;
use crate::confirm::is_md5_of;
use crate::failure::Failure;
use crate::link::Link;
use crate::upload::sums;

/// A tag that no object has: MD5 of nothing that anybody stored.
const WRONG_TAG: &str = "\"00000000000000000000000000000000\"";

/// Bytes of the object that a part is copied from: garage refuses sources that it keeps inline, up to 3 KiB.
const PART_SOURCE: usize = 8 << 10;

/// What a server that was not asked is taken to do.
pub(crate) fn untested(versions: bool) -> Capabilities {
    Capabilities {
        put_if_absent: false,
        put_if_match: false,
        copy_if_match: false,
        delete_if_match: false,
        versions,
        ..Capabilities::S3
    }
}

/// Asks the server, under `prefix`. May lower `link.checksum` to one that the server takes.
///
/// # Errors
/// Those that no other request would escape either: out of reach, refused credentials, no bucket.
///
/// # Cancel safety
/// Leaves the scratch object behind when dropped half way.
pub(crate) async fn probe(link: &mut Link, prefix: &str) -> Result<Capabilities> {
    let versions = link.versions;
    let name = format!("{prefix}.staithe-probe-{}", uuid::Uuid::new_v4().simple());
    let Ok(key) = Key::new(name) else { return Ok(untested(versions)) };
    let (first, if_absent) = match first_write(link, &key).await {
        Ok(first) => first,
        Err(failure) if failure.error.kind() == ErrorKind::Forbidden => {
            tracing::warn!(error = %failure.error, "may not write here: taking no condition to be honoured");
            return Ok(untested(versions));
        }
        Err(failure) => return Err(failure.error),
    };
    link.tags_are_md5 = is_md5_of(first.etag.as_str(), &sums(&scratch(), UploadChecksum::Md5));
    let mut probe = Probe {
        link,
        key,
        first,
        gone: false,
        miscomputes: false,
        leftovers: Vec::new(),
        leftover_parts: Vec::new(),
    };
    let outcome = Box::pin(probe.conditions(if_absent)).await;
    probe.clean_up().await;
    let (found, miscomputes) = (outcome?, probe.miscomputes);
    if miscomputes {
        tracing::warn!("the server miscomputes the checksum of objects made of parts; MD5 is used");
        link.checksum = UploadChecksum::Md5;
    }
    tracing::debug!(
        put_if_absent = found.put_if_absent,
        put_if_match = found.put_if_match,
        copy_if_match = found.copy_if_match,
        delete_if_match = found.delete_if_match,
        part_copy = found.part_copy,
        checksum = ?link.checksum,
        "asked the server what it honours"
    );
    Ok(found)
}

/// Creates the scratch object, on the condition that it is new, with the best checksum that is taken.
async fn first_write(link: &mut Link, key: &Key) -> Result<(Version, bool), Failure> {
    use ErrorKind as K;
    loop {
        let refused = match write(link, key, PutCondition::IfAbsent).await {
            Ok(written) => return Ok((written.version, true)),
            Err(failure) => failure,
        };
        let kind = refused.error.kind();
        if !matches!(kind, K::Unsupported | K::Invalid | K::Corrupt | K::AlreadyExists) {
            return Err(refused);
        }
        // What is there is of a write of ours that was let through, and answered wrongly or not at all.
        let was_let_through = matches!(kind, K::Corrupt | K::AlreadyExists);
        if let Ok(written) = write(link, key, PutCondition::Always).await {
            return Ok((written.version, was_let_through));
        }
        if kind == K::Corrupt {
            tracing::warn!(error = %refused.error, "the server miscomputes this checksum; another one is used");
        }
        link.checksum = match link.checksum {
            UploadChecksum::Crc64Nvme => UploadChecksum::Md5,
            UploadChecksum::Md5 => UploadChecksum::Off,
            UploadChecksum::Off => return Err(refused),
        };
    }
}

async fn write(link: &Link, key: &Key, condition: PutCondition) -> Result<Written, Failure> {
    link.put(key, &scratch(), &NewObject::default(), &condition).await
}

/// What the scratch object holds.
fn scratch() -> Payload {
    Payload::from("staithe")
}

struct Probe<'a> {
    link: &'a Link,
    key: Key,
    first: Version,
    /// Whether it is removed already.
    gone: bool,
    /// Whether the checksum of the object beside was wrong.
    miscomputes: bool,
    /// Versions that were replaced, that should have been refused, and delete markers.
    leftovers: Vec<VersionId>,
    /// The same of the object beside, which is used for uploads.
    leftover_parts: Vec<VersionId>,
}

impl Probe<'_> {
    async fn conditions(&mut self, if_absent: bool) -> Result<Capabilities> {
        let wrong = || PutCondition::IfMatch(ETag::new(WRONG_TAG));
        let (absent, matching, copied, uploads) = join!(
            write(self.link, &self.key, PutCondition::IfAbsent),
            write(self.link, &self.key, wrong()),
            self.wrong_copy(),
            self.uploads(),
        );
        let Uploads { completions, part_copy, miscomputes, versions } = uploads?;
        self.miscomputes = miscomputes;
        self.leftover_parts.extend(versions);
        let absent = told(absent, &mut self.leftovers)?;
        let matching = told(matching, &mut self.leftovers)?;
        let copied = told(copied, &mut self.leftovers)?;
        let [complete_matching, complete_absent] = completions;
        let complete_absent = told(complete_absent, &mut self.leftover_parts)?;
        let complete_matching = told(complete_matching, &mut self.leftover_parts)?;
        let mut found = untested(self.link.versions);
        found.copy_if_match = copied;
        // The source of a part is always pinned: by its id, or by the condition.
        found.part_copy = part_copy && (copied || self.link.versions);
        found.put_if_absent = if_absent && absent && complete_absent;
        found.put_if_match = matching && complete_matching && self.right_write().await?;
        found.delete_if_match = self.deletes().await?;
        Ok(found)
    }

    async fn wrong_copy(&self) -> Result<Written, Failure> {
        let request = CopyRequest {
            from: self.key.clone(),
            from_version: Some(Version { etag: ETag::new(WRONG_TAG), id: None }),
            to: self.key.clone(),
            replace: Some(NewObject::default()),
        };
        self.link.copy(&request).await
    }

    /// The key of the object beside.
    fn beside(&self) -> Result<Key> {
        Key::new(format!("{}-parts", self.key)).map_err(|error| {
            StoreError::new(ErrorKind::Invalid, "connect", "the scratch prefix is too long")
                .with_source(error)
        })
    }

    /// Completes an upload of an existing object twice under conditions that do not hold, and then under none. Its part
    /// is a copy where that works.
    async fn uploads(&self) -> Result<Uploads> {
        let key = self.beside()?;
        let body = Payload::from(vec![b's'; PART_SOURCE]);
        let target = self.link.put(&key, &body, &NewObject::default(), &PutCondition::Always).await?.version;
        let versions: Vec<_> = target.id.clone().into_iter().collect();
        let upload = match self.link.create_multipart(&key, &NewObject::default()).await {
            Ok(upload) => upload,
            Err(failure) => {
                let completions = neither(tolerate(failure)?);
                return Ok(Uploads { completions, part_copy: false, miscomputes: false, versions });
            }
        };
        let Some(number) = PartNumber::new(1) else { unreachable!("1 is a part number") };
        let copied =
            self.link.upload_part_copy(&upload, number, &key, &target, &(0..PART_SOURCE as u64)).await;
        let part_copy = copied.is_ok();
        let part = match copied {
            // What was copied is known here, if not to whom copies else.
            Ok(part) => Ok(PartReceipt { crc64: sums(&body, self.link.checksum).crc64, ..part }),
            Err(failure) => {
                tolerate(failure)?;
                self.link.upload_part(&upload, number, &Payload::from("part")).await
            }
        };
        match part {
            Err(failure) => {
                let completions = neither(tolerate(failure)?);
                self.abort(&upload).await;
                Ok(Uploads { completions, part_copy, miscomputes: false, versions })
            }
            Ok(part) => self.complete(&upload, part, part_copy, versions).await,
        }
    }

    async fn complete(
        &self,
        upload: &MultipartUpload,
        part: PartReceipt,
        part_copy: bool,
        mut versions: Vec<VersionId>,
    ) -> Result<Uploads> {
        use ErrorKind::{Corrupt, Invalid, Unsupported};
        let claims = part.crc64.is_some();
        let (parts, wrong) = ([part], PutCondition::IfMatch(ETag::new(WRONG_TAG)));
        let matching = self.link.complete_multipart(upload, &parts, &wrong).await;
        let absent = self.link.complete_multipart(upload, &parts, &PutCondition::IfAbsent).await;
        let at_last = self.link.complete_multipart(upload, &parts, &PutCondition::Always).await;
        let kind = |outcome: &Result<Written, Failure>| outcome.as_ref().err().map(|f| f.error.kind());
        // Answered with another checksum than the bytes have, or not taken with theirs.
        let is_corrupt = [&matching, &absent, &at_last].into_iter().any(|o| kind(o) == Some(Corrupt));
        let is_refused = matches!(kind(&at_last), Some(Invalid | Unsupported));
        match at_last {
            Ok(written) => versions.extend(written.version.id),
            Err(failure) => {
                tolerate(failure)?;
                self.abort(upload).await;
            }
        }
        let miscomputes = claims && (is_corrupt || is_refused);
        Ok(Uploads { completions: [matching, absent], part_copy, miscomputes, versions })
    }

    async fn abort(&self, upload: &MultipartUpload) {
        if let Err(failure) = self.link.abort_multipart(upload).await {
            tracing::warn!(error = %failure.error, "a scratch upload remains");
        }
    }

    /// Whether a condition that does hold lets a write through.
    async fn right_write(&mut self) -> Result<bool> {
        let condition = PutCondition::IfMatch(self.first.etag.clone());
        match write(self.link, &self.key, condition).await {
            Ok(written) => {
                self.leftovers.extend(self.first.id.take());
                self.first = written.version;
                Ok(true)
            }
            Err(failure) => tolerate(failure).map(|_| false),
        }
    }

    /// Whether a delete is refused under a wrong condition and done under a right one.
    async fn deletes(&mut self) -> Result<bool> {
        let delete =
            |tag: ETag| DeleteRequest { if_match: Some(tag), ..DeleteRequest::latest(self.key.clone()) };
        let (wrong, right) = (delete(ETag::new(WRONG_TAG)), delete(self.first.etag.clone()));
        match self.link.delete(&wrong).await {
            Ok(marker) => {
                self.gone = true;
                self.leftovers.extend(marker.map(VersionId::new));
                return Ok(false);
            }
            Err(failure) if failure.meaning == Meaning::ConditionFailed => {}
            Err(failure) => return tolerate(failure).map(|_| false),
        }
        match self.link.delete(&right).await {
            Ok(marker) => {
                self.gone = true;
                self.leftovers.extend(marker.map(VersionId::new));
                Ok(true)
            }
            Err(failure) => tolerate(failure).map(|_| false),
        }
    }

    async fn clean_up(&mut self) {
        let ids = self.first.id.take().into_iter().chain(self.leftovers.drain(..)).collect();
        if self.link.versions || !self.gone {
            remove(self.link, &self.key, ids).await;
        }
        if let Ok(beside) = self.beside() {
            remove(self.link, &beside, std::mem::take(&mut self.leftover_parts)).await;
        }
    }
}

/// What became of the upload of an existing object.
struct Uploads {
    /// Completed if the object has a wrong tag; if there is no such object.
    completions: [Result<Written, Failure>; 2],
    part_copy: bool,
    /// Whether it was completed with another checksum than its bytes have, or not with theirs.
    miscomputes: bool,
    versions: Vec<VersionId>,
}

/// Neither completion was tried.
fn neither(failure: Failure) -> [Result<Written, Failure>; 2] {
    let again = Failure::from(failure.error.clone());
    [Err(failure), Err(again)]
}

/// Whether a request under a condition that does not hold was refused for that reason.
fn told(outcome: Result<Written, Failure>, leftovers: &mut Vec<VersionId>) -> Result<bool> {
    match outcome {
        Ok(written) => {
            leftovers.extend(written.version.id);
            Ok(false)
        }
        Err(failure) => match failure.meaning {
            Meaning::ConditionFailed | Meaning::ConditionConflict => Ok(true),
            _ => tolerate(failure).map(|_| false),
        },
    }
}

/// Removes these versions of a scratch object, or the object where there are none.
async fn remove(link: &Link, key: &Key, ids: Vec<VersionId>) {
    let plain = DeleteRequest::latest(key.clone());
    let mut deletes: Vec<_> =
        ids.into_iter().map(|id| DeleteRequest { version_id: Some(id), ..plain.clone() }).collect();
    if deletes.is_empty() {
        deletes.push(plain);
    }
    for delete in deletes {
        if let Err(failure) = link.delete(&delete).await {
            tracing::warn!(error = %failure.error, "a scratch object remains");
        }
    }
}

/// Passes on a failure that speaks of the request; the others end the probe.
fn tolerate(failure: Failure) -> Result<Failure> {
    use ErrorKind as K;
    match failure.error.kind() {
        K::VolumeGone | K::CredentialsExpired | K::CredentialsRefused | K::Throttled | K::Timeout => {
            Err(failure.error)
        }
        _ => {
            tracing::debug!(error = %failure.error, "no answer about the condition");
            Ok(failure)
        }
    }
}
