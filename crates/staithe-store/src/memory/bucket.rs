//! The bucket itself: keys, their versions, and what a request does to them. Pure: no lock, no clock.
//!
//! Invariants: the versions of a key stand oldest first and are never empty; without versioning there is
//! exactly one and it is no delete marker.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use md5::{Digest, Md5};

use super::Stamp;
use super::multipart::Uploads;
use crate::listing::{self, Entry};
use crate::{
    Capabilities, CopyRequest, DeleteRequest, ETag, ErrorKind, Key, ListPage, ListRequest, NewObject,
    ObjectMeta, ObjectSummary, PageToken, Payload, PutCondition, Result, Version, VersionEntry, VersionId,
    VersionPage, Written, checks,
};

#[derive(Debug)]
pub(super) struct Bucket {
    created: SystemTime,
    objects: BTreeMap<Key, Vec<Stored>>,
    pub(super) uploads: Uploads,
}

/// The bytes of an object and what they carry; shared by copies.
#[derive(Debug, Clone)]
pub(super) struct Content {
    payload: Payload,
    etag: ETag,
    new: Arc<NewObject>,
}

impl Content {
    /// What a single put stores: its tag is the MD5 of the bytes.
    pub(super) fn single(payload: Payload, new: NewObject) -> Self {
        let etag = md5_tag(&payload);
        Self { payload, etag, new: Arc::new(new) }
    }

    /// What a copy stores. It is never multipart, so its tag is the MD5 of the bytes.
    fn copied(&self, new: Arc<NewObject>) -> Self {
        let multipart = self.etag.as_str().contains('-');
        let etag = if multipart { md5_tag(&self.payload) } else { self.etag.clone() };
        Self { payload: self.payload.clone(), etag, new }
    }

    /// What a multipart upload stores, with the tag that the parts made.
    pub(super) fn assembled(payload: Payload, etag: ETag, new: Arc<NewObject>) -> Self {
        Self { payload, etag, new }
    }
}

fn md5_tag(payload: &Payload) -> ETag {
    ETag::new(format!("\"{}\"", hex(&md5_of(payload))))
}

pub(super) fn md5_of(payload: &Payload) -> [u8; 16] {
    let mut hash = Md5::new();
    for chunk in payload.chunks() {
        hash.update(chunk);
    }
    hash.finalize().into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

/// One version of an object, or a delete marker.
#[derive(Debug)]
struct Stored {
    id: Option<VersionId>,
    modified: SystemTime,
    content: Option<Content>,
}

/// A version that has bytes.
#[derive(Debug)]
pub(super) struct Found<'b> {
    stored: &'b Stored,
    content: &'b Content,
}

impl Found<'_> {
    pub(super) fn payload(&self) -> &Payload {
        &self.content.payload
    }

    pub(super) fn meta(&self, key: &Key) -> ObjectMeta {
        ObjectMeta {
            key: key.clone(),
            size: self.content.payload.len(),
            version: Version { etag: self.content.etag.clone(), id: self.stored.id.clone() },
            last_modified: self.stored.modified,
            metadata: self.content.new.metadata.clone(),
            content_type: self.content.new.content_type.clone(),
        }
    }

    fn summary(&self, key: &Key) -> ObjectSummary {
        ObjectSummary {
            key: key.clone(),
            size: self.content.payload.len(),
            etag: self.content.etag.clone(),
            id: None,
            last_modified: self.stored.modified,
        }
    }
}

impl Bucket {
    pub(super) fn new(created: SystemTime) -> Self {
        Self { created, objects: BTreeMap::new(), uploads: Uploads::default() }
    }

    pub(super) fn created(&self) -> SystemTime {
        self.created
    }

    pub(super) fn live_objects(&self) -> usize {
        self.objects.values().filter(|versions| latest(versions).is_some()).count()
    }

    /// The version asked for; a delete marker counts as nothing.
    pub(super) fn find(
        &self,
        operation: &'static str,
        key: &Key,
        version: Option<&Version>,
    ) -> Result<Found<'_>> {
        let missing = || checks::missing(operation, key);
        let versions = self.objects.get(key).ok_or_else(missing)?;
        if let Some(id) = version.and_then(|version| version.id.as_ref()) {
            let stored = versions.iter().find(|stored| stored.id.as_ref() == Some(id));
            return stored.and_then(with_content).ok_or_else(|| {
                let text = format!("there is no version {id} of this object");
                checks::fail(ErrorKind::NotFound, operation, key, text)
            });
        }
        let found = latest(versions).ok_or_else(missing)?;
        if let Some(version) = version {
            checks::tag_matches(operation, key, &version.etag, Some(&found.content.etag))?;
        }
        Ok(found)
    }

    fn latest_tag(&self, key: &Key) -> Option<&ETag> {
        latest(self.objects.get(key)?).map(|found| &found.content.etag)
    }

    pub(super) fn store(
        &mut self,
        operation: &'static str,
        key: &Key,
        content: Content,
        condition: &PutCondition,
        stamp: Stamp,
    ) -> Result<Written> {
        checks::condition_holds(operation, key, condition, self.latest_tag(key))?;
        let etag = content.etag.clone();
        let id = self.push(key, Some(content), stamp);
        Ok(Written { version: Version { etag, id } })
    }

    fn push(&mut self, key: &Key, content: Option<Content>, stamp: Stamp) -> Option<VersionId> {
        let id = stamp.versioned.then(|| version_id(stamp.serial));
        let versions = self.objects.entry(key.clone()).or_default();
        if !stamp.versioned {
            versions.clear();
        }
        versions.push(Stored { id: id.clone(), modified: stamp.now, content });
        id
    }

    pub(super) fn copy(
        &mut self,
        caps: &Capabilities,
        request: &CopyRequest,
        stamp: Stamp,
    ) -> Result<Written> {
        let source = self.find("copy", &request.from, request.from_version.as_ref())?;
        if source.payload().len() > caps.part_size_max {
            let text = format!("more than {} bytes are to be copied part by part", caps.part_size_max);
            return Err(checks::fail(ErrorKind::Invalid, "copy", &request.from, text));
        }
        let new = request.replace.clone().map_or_else(|| source.content.new.clone(), Arc::new);
        let content = source.content.copied(new);
        self.store("copy", &request.to, content, &PutCondition::Always, stamp)
    }

    pub(super) fn delete(&mut self, request: &DeleteRequest, stamp: Stamp) -> Result<()> {
        let key = &request.key;
        if let Some(wanted) = &request.if_match {
            checks::tag_matches("delete", key, wanted, self.latest_tag(key))?;
        }
        if let Some(id) = &request.version_id {
            if let Some(versions) = self.objects.get_mut(key) {
                versions.retain(|stored| stored.id.as_ref() != Some(id));
                if versions.is_empty() {
                    self.objects.remove(key);
                }
            }
        } else if stamp.versioned {
            self.push(key, None, stamp);
        } else {
            self.objects.remove(key);
        }
        Ok(())
    }

    pub(super) fn list(&self, request: &ListRequest, page_max: u16) -> Result<ListPage> {
        listing::page(request, page_max, |from| {
            let rest = self.objects.range::<str, _>((Bound::Included(from), Bound::Unbounded));
            let mut live = rest.filter_map(|(key, versions)| Some(latest(versions)?.summary(key)));
            Ok(live.next().map(Entry::Object))
        })
    }

    pub(super) fn list_versions(
        &self,
        prefix: &str,
        token: Option<&PageToken>,
        page_max: u16,
    ) -> Result<VersionPage> {
        let (key, older_than) = token.map(version_position).transpose()?.unwrap_or((prefix, None));
        let mut page = VersionPage::default();
        let rest = self.objects.range::<str, _>((Bound::Included(key), Bound::Unbounded));
        for (found, versions) in rest.take_while(|(found, _)| found.as_str().starts_with(prefix)) {
            for (age, stored) in versions.iter().rev().enumerate() {
                let Some(id) = &stored.id else { continue };
                let seen = older_than.is_some_and(|last| found.as_str() == key && id.as_str() >= last);
                if seen {
                    continue;
                }
                if page.entries.len() == usize::from(page_max) {
                    page.next = page.entries.last().map(|last| {
                        PageToken::new(format!("{}/{}", last.id, last.key)) // an id has no slash
                    });
                    return Ok(page);
                }
                page.entries.push(version_entry(found, id, stored, age == 0));
            }
        }
        Ok(page)
    }
}

/// Ids sort as they were given, so that a page can go on after one that was removed meanwhile.
fn version_id(serial: u64) -> VersionId {
    VersionId::new(format!("v{serial:016x}"))
}

fn version_position(token: &PageToken) -> Result<(&str, Option<&str>)> {
    let position = token.as_str().split_once('/').map(|(id, key)| (key, Some(id)));
    position.ok_or_else(|| checks::foreign_token("list_versions", token))
}

fn version_entry(key: &Key, id: &VersionId, stored: &Stored, is_latest: bool) -> VersionEntry {
    VersionEntry {
        key: key.clone(),
        id: id.clone(),
        is_latest,
        is_delete_marker: stored.content.is_none(),
        size: stored.content.as_ref().map_or(0, |content| content.payload.len()),
        etag: stored.content.as_ref().map(|content| content.etag.clone()),
        last_modified: stored.modified,
    }
}

fn latest(versions: &[Stored]) -> Option<Found<'_>> {
    versions.last().and_then(with_content)
}

fn with_content(stored: &Stored) -> Option<Found<'_>> {
    stored.content.as_ref().map(|content| Found { stored, content })
}
