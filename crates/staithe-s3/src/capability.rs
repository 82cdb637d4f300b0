//! What a server really does with conditions, found out by asking it.
//!
//! Some servers accept `If-None-Match` or `If-Match` and ignore them: a lost update that nobody notices. So a
//! scratch object is made, and then written, copied, completed and deleted under conditions that do not hold.
//! Only a refusal for that reason counts. Twelve requests in six steps; the object is removed afterwards, with
//! every version of it. What the credentials do not allow to ask is taken to be missing, and said so.

use futures::join;
use staithe_store::{
    Capabilities, CopyRequest, DeleteRequest, ETag, ErrorKind, Key, NewObject, PartNumber, Payload,
    PutCondition, Result, Version, VersionId, Written,
};

use crate::classify::Meaning;
use crate::config::UploadChecksum;
use crate::failure::Failure;
use crate::link::Link;

/// A tag that no object has: MD5 of nothing that anybody stored.
const WRONG_TAG: &str = "\"00000000000000000000000000000000\"";

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
    let mut probe = Probe { link, key, first, leftovers: Vec::new() };
    let outcome = Box::pin(probe.conditions(if_absent)).await;
    probe.clean_up().await;
    let found = outcome?;
    tracing::info!(
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
    loop {
        let refused = match write(link, key, PutCondition::IfAbsent).await {
            Ok(written) => return Ok((written.version, true)),
            Err(failure) => failure,
        };
        let may_lower = matches!(refused.error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid);
        if !may_lower {
            return Err(refused);
        }
        if let Ok(written) = write(link, key, PutCondition::Always).await {
            return Ok((written.version, false));
        }
        link.checksum = match link.checksum {
            UploadChecksum::Crc64Nvme => UploadChecksum::Md5,
            UploadChecksum::Md5 => UploadChecksum::Off,
            UploadChecksum::Off => return Err(refused),
        };
    }
}

async fn write(link: &Link, key: &Key, condition: PutCondition) -> Result<Written, Failure> {
    link.put(key, &Payload::from("staithe"), &NewObject::default(), &condition).await
}

/// What a request under a condition that does not hold told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Refused for that reason.
    Honoured,
    /// Done all the same, or refused for another reason: no condition to build on.
    Not,
}

struct Probe<'a> {
    link: &'a Link,
    key: Key,
    first: Version,
    /// Versions that requests made which should have been refused, and delete markers.
    leftovers: Vec<VersionId>,
}

impl Probe<'_> {
    async fn conditions(&mut self, if_absent: bool) -> Result<Capabilities> {
        let wrong = || PutCondition::IfMatch(ETag::new(WRONG_TAG));
        let (absent, matching, copied, multipart) = join!(
            write(self.link, &self.key, PutCondition::IfAbsent),
            write(self.link, &self.key, wrong()),
            self.wrong_copy(),
            self.multipart(),
        );
        let (parts, part_copy) = multipart?;
        let mut found = untested(self.link.versions);
        found.part_copy = part_copy;
        let absent = self.told(absent)?;
        let absent_parts = self.told(parts.absent)?;
        found.put_if_absent = if_absent && both(absent, absent_parts);
        let matching = self.told(matching)?;
        let matching_parts = self.told(parts.matching)?;
        found.put_if_match = both(matching, matching_parts);
        found.copy_if_match = self.told(copied)? == Told::Honoured;
        if found.put_if_match {
            found.put_if_match = self.right_write().await?;
        }
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

    /// Completes an upload twice under conditions that do not hold; its part is a copy where that works.
    async fn multipart(&self) -> Result<(Completions, bool)> {
        let upload = match self.link.create_multipart(&self.key, &NewObject::default()).await {
            Ok(upload) => upload,
            Err(failure) => return Ok((Completions::refused(tolerate(failure)?), false)),
        };
        let number = PartNumber::new(1).unwrap_or_else(|| unreachable!("1 is a part number"));
        let copied = self.link.upload_part_copy(&upload, number, &self.key, &self.first, &(0..1)).await;
        // A mismatch is an answer, too: another probe was let through, and the copy noticed.
        let part_copy = copied.as_ref().err().is_none_or(|f| f.meaning == Meaning::ConditionFailed);
        let part = match copied {
            Ok(part) => Ok(part),
            Err(_) => self.link.upload_part(&upload, number, &Payload::from("part")).await,
        };
        let completions = match part {
            Err(failure) => Completions::refused(tolerate(failure)?),
            Ok(part) => {
                let wrong = PutCondition::IfMatch(ETag::new(WRONG_TAG));
                let parts = [part];
                let matching = self.link.complete_multipart(&upload, &parts, &wrong).await;
                let absent = PutCondition::IfAbsent;
                let absent = self.link.complete_multipart(&upload, &parts, &absent).await;
                Completions { matching, absent }
            }
        };
        if let Err(failure) = self.link.abort_multipart(&upload).await {
            tracing::warn!(error = %failure.error, "a scratch upload remains");
        }
        Ok((completions, part_copy))
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
                self.leftovers.extend(marker.map(VersionId::new));
                return Ok(false);
            }
            Err(failure) if failure.meaning == Meaning::ConditionFailed => {}
            Err(failure) => return tolerate(failure).map(|_| false),
        }
        match self.link.delete(&right).await {
            Ok(marker) => {
                self.leftovers.extend(marker.map(VersionId::new));
                Ok(true)
            }
            Err(failure) => tolerate(failure).map(|_| false),
        }
    }

    fn told(&mut self, outcome: Result<Written, Failure>) -> Result<Told> {
        match outcome {
            Ok(written) => {
                self.leftovers.extend(written.version.id);
                Ok(Told::Not)
            }
            Err(failure) => match failure.meaning {
                Meaning::ConditionFailed | Meaning::ConditionConflict => Ok(Told::Honoured),
                _ => tolerate(failure).map(|_| Told::Not),
            },
        }
    }

    async fn clean_up(&mut self) {
        let ids = self.first.id.take().into_iter().chain(self.leftovers.drain(..));
        let deletes: Vec<_> = ids
            .map(|id| DeleteRequest { version_id: Some(id), ..DeleteRequest::latest(self.key.clone()) })
            .collect();
        let plain = [DeleteRequest::latest(self.key.clone())];
        for delete in if deletes.is_empty() { &plain[..] } else { &deletes } {
            if let Err(failure) = self.link.delete(delete).await {
                tracing::warn!(error = %failure.error, "a scratch object remains");
            }
        }
    }
}

/// How two conditional completions of one upload ended.
struct Completions {
    matching: Result<Written, Failure>,
    absent: Result<Written, Failure>,
}

impl Completions {
    /// Neither was tried.
    fn refused(failure: Failure) -> Self {
        let again = Failure::from(failure.error.clone());
        Self { matching: Err(failure), absent: Err(again) }
    }
}

fn both(put: Told, complete: Told) -> bool {
    put == Told::Honoured && complete == Told::Honoured
}

/// Passes on a failure that speaks of the request; the others end the probe.
fn tolerate(failure: Failure) -> Result<Failure> {
    use ErrorKind as K;
    match failure.error.kind() {
        K::VolumeGone | K::CredentialsExpired | K::CredentialsRefused | K::Throttled | K::Timeout => {
            Err(failure.error)
        }
        _ => Ok(failure),
    }
}
