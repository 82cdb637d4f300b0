//! What is kept of one object: the store's word, as it was told, and of which state of the object it is.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use staithe_store::{ETag, Key, Metadata, ObjectMeta, Version};

/// The version of the records that this version writes, their first byte.
const VERSION: u8 = 2;

/// The metadata of an object that had this tag and size and was stored at this time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) etag: ETag,
    pub(super) size: u64,
    pub(super) stored: SystemTime,
    pub(super) metadata: Metadata,
    pub(super) content_type: Option<String>,
    /// The target of a symbolic link, if it was asked for.
    pub(super) target: Option<String>,
}

impl Record {
    pub(super) fn of(object: &ObjectMeta, target: Option<String>) -> Self {
        Self {
            etag: object.version.etag.clone(),
            size: object.size,
            stored: object.last_modified,
            metadata: object.metadata.clone(),
            content_type: object.content_type.clone(),
            target,
        }
    }

    /// Whether it is of the object that a listing shows so. A store that tells whole seconds of an object may list it
    /// with a fraction.
    pub(super) fn is_of(&self, etag: &ETag, size: u64, listed: SystemTime) -> bool {
        let is_same_time = self.stored == listed
            || listed
                .duration_since(self.stored)
                .is_ok_and(|after| after < Duration::from_secs(1) && fraction(self.stored) == Some(0));
        self.etag == *etag && self.size == size && is_same_time
    }

    /// Whether `newer`, of the same object, says nothing that is not known.
    pub(super) fn says_all_of(&self, newer: &Self) -> bool {
        let with_target =
            Self { target: newer.target.clone().or_else(|| self.target.clone()), ..newer.clone() };
        *self == with_target
    }

    /// How much memory it takes, about, in bytes.
    pub(super) fn weight(&self) -> usize {
        const ENTRY: usize = 64;
        let metadata: usize = self.metadata.iter().map(|(k, v)| k.len() + v.len() + ENTRY).sum();
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let texts = self.etag.as_str().len() + optional(&self.content_type) + optional(&self.target);
        size_of::<Self>() + metadata + texts
    }

    /// The object that a listing shows so.
    pub(super) fn object(self, key: Key, version: Version, last_modified: SystemTime) -> ObjectMeta {
        let (size, metadata, content_type) = (self.size, self.metadata, self.content_type);
        ObjectMeta { key, size, version, last_modified, metadata, content_type }
    }

    /// The bytes to keep; `None` for a time before 1970, which no store tells.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let since = self.stored.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let body = json!({
            "etag": self.etag.as_str(),
            "size": self.size,
            "stored": [since.as_secs(), since.subsec_nanos()],
            "metadata": self.metadata,
            "type": self.content_type,
            "target": self.target,
        });
        let mut record = vec![VERSION];
        record.extend_from_slice(body.to_string().as_bytes());
        Some(record)
    }

    /// What was kept; `None` for what is no record of ours.
    pub(super) fn decode(record: &[u8]) -> Option<Self> {
        let [VERSION, body @ ..] = record else { return None };
        let body: Value = serde_json::from_slice(body).ok()?;
        let time = |at: usize| body.get("stored")?.get(at)?.as_u64();
        let since = Duration::from_secs(time(0)?).checked_add(Duration::from_nanos(time(1)?))?;
        let optional = |name: &str| match body.get(name)? {
            Value::Null => Some(None),
            value => Some(Some(value.as_str()?.to_owned())),
        };
        let metadata = body.get("metadata")?.as_object()?.iter();
        Some(Self {
            etag: ETag::new(body.get("etag")?.as_str()?),
            size: body.get("size")?.as_u64()?,
            stored: SystemTime::UNIX_EPOCH.checked_add(since)?,
            metadata: metadata
                .map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                .collect::<Option<_>>()?,
            content_type: optional("type")?,
            target: optional("target")?,
        })
    }
}

fn fraction(time: SystemTime) -> Option<u32> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn at(nanos: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
    }

    fn record(etag: &str, nanos: u64) -> Record {
        let (etag, stored) = (ETag::new(etag), at(nanos));
        Record { etag, size: 3, stored, metadata: Metadata::default(), content_type: None, target: None }
    }

    #[test]
    fn it_is_of_what_a_listing_shows_with_the_same_tag_and_time() {
        const SECOND: u64 = 1_000_000_000;
        let whole = record("a", 7 * SECOND);
        assert!(whole.is_of(&ETag::new("a"), 3, at(7 * SECOND)));
        assert!(whole.is_of(&ETag::new("a"), 3, at(7 * SECOND + 1)));
        assert!(!whole.is_of(&ETag::new("a"), 3, at(8 * SECOND)));
        assert!(!whole.is_of(&ETag::new("a"), 3, at(7 * SECOND - 1)));
        assert!(!whole.is_of(&ETag::new("b"), 3, at(7 * SECOND)));
        assert!(!whole.is_of(&ETag::new("a"), 4, at(7 * SECOND)));
        let precise = record("a", 7 * SECOND + 5);
        assert!(precise.is_of(&ETag::new("a"), 3, at(7 * SECOND + 5)));
        assert!(!precise.is_of(&ETag::new("a"), 3, at(7 * SECOND + 6)));
        assert!(!precise.is_of(&ETag::new("a"), 3, at(7 * SECOND)));
    }

    #[test]
    fn a_target_that_is_known_is_not_forgotten_for_an_answer_without_it() {
        let without = record("a", 1);
        let with = Record { target: Some("t".to_owned()), ..record("a", 1) };
        assert!(with.says_all_of(&without) && with.says_all_of(&with) && !without.says_all_of(&with));
        assert!(!with.says_all_of(&record("a", 2)));
    }

    proptest! {
        #[test]
        fn a_record_says_what_was_kept(
            etag in "\\PC{0,40}",
            size in any::<u64>(),
            nanos in any::<u64>(),
            metadata in btree_map("\\PC{0,20}", "\\PC{0,40}", 0..8),
            content_type in option::of("\\PC{0,20}"),
            target in option::of("\\PC{0,60}"),
        ) {
            let metadata = metadata.into_iter().collect();
            let kept = Record { etag: ETag::new(etag), size, stored: at(nanos), metadata, content_type, target };
            prop_assert_eq!(Record::decode(&kept.encode().unwrap()), Some(kept));
        }

        #[test]
        fn what_is_no_record_is_none_and_no_panic(bytes in vec(any::<u8>(), 0..200), cut in 0..100_usize) {
            let _ = Record::decode(&bytes);
            let _ = Record::decode(&[&[VERSION], &bytes[..]].concat());
            let whole = record("a", 1).encode().unwrap();
            let cut = cut.min(whole.len() - 1);
            prop_assert_eq!(Record::decode(&whole[..cut]), None);
        }
    }
}
