//! What has to be finished if the process ends in between, and the bytes that say so in the journal.
//!
//! A record is one byte of version and then JSON: small, readable in a hex dump, and checked field by field when
//! it is read. A record that is cut short, broken, or of a newer version is an error; nothing is guessed.

use std::time::UNIX_EPOCH;

use rangemap::RangeSet;
use serde_json::{Map, Value, json};
use staithe_store::{ETag, Key, Metadata, NewObject, UploadId, Version, VersionId};

use crate::metadata::{Defaults, FileMeta};
use crate::staging::StagedState;
use crate::{FsError, FsErrorKind, Result};

/// The version that is written, and the newest that is read.
const VERSION: u8 = 1;

/// Something that a later start has to finish or undo. Doing so twice must do no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Intent {
    /// Every key under one prefix is to move under another.
    RenameTree {
        /// The old prefix, ending in `/`.
        from_prefix: String,
        /// The new one, likewise.
        to_prefix: String,
        /// Whether all of them are under the new prefix, and the old ones only have to go.
        switched: bool,
        /// Whether what else the journal says of keys under the old prefix was said after the move, and is not about
        /// what moved.
        settled: bool,
    },
    /// Bytes in the staging directory are to be stored.
    Store(Box<StoreIntent>),
    /// A stored object is to have other attributes.
    Attributes(Box<AttributesIntent>),
    /// A directory's marker is to be stored.
    Marker(Box<MarkerIntent>),
    /// A multipart upload is in progress: abort it if nobody completed it.
    Upload {
        /// The object that it would become.
        key: Key,
        /// The upload.
        upload_id: UploadId,
    },
    /// A file has a new name, and what the store has under the old one is to go.
    OldName(Box<OldNameIntent>),
}

/// All that is needed to store a staged file without the process that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreIntent {
    /// Where to.
    pub(crate) key: Key,
    /// The file's name in the staging directory.
    pub(crate) staging_name: String,
    /// Its size, what of it is dirty, and how far the base shows.
    pub(crate) state: StagedState,
    /// The version of the base object; `None` if there is none.
    pub(crate) base: Option<Version>,
    /// The attributes to store with it.
    pub(crate) meta: FileMeta,
    /// Whether the store spoke wrongly of what a try of it made: that is no base, unless all of the file is here.
    pub(crate) is_doubted: bool,
}

/// Attributes that an object does not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttributesIntent {
    /// The object.
    pub(crate) key: Key,
    /// The version whose attributes change.
    pub(crate) base: Version,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// What they are to be.
    pub(crate) meta: FileMeta,
}

/// A directory whose marker is not stored, or has other attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MarkerIntent {
    /// The marker's key.
    pub(crate) key: Key,
    /// The attributes of the directory.
    pub(crate) meta: FileMeta,
    /// Whether there was none when this was said.
    pub(crate) is_new: bool,
}

/// An object that was copied to another name, and is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OldNameIntent {
    /// The object.
    pub(crate) key: Key,
    /// The version that was copied.
    pub(crate) version: Version,
    /// Where its copy is.
    pub(crate) copy: Key,
    /// Which run of the machine says so; `None`: it could not be asked. A power failure may bring back what was struck
    /// out, and a file of the same bytes may have the name by then.
    pub(crate) boot: Option<String>,
}

impl Intent {
    /// Follows the move of a directory: a key below the prefix `from` is below `to` from now on. Whether it was one.
    ///
    /// # Errors
    /// `NameTooLong` for a key that does not fit any more.
    pub(crate) fn move_key(&mut self, from: &str, to: &str) -> Result<bool> {
        let key = match self {
            Self::Store(store) => &mut store.key,
            Self::Attributes(attributes) => &mut attributes.key,
            Self::Marker(marker) => &mut marker.key,
            Self::RenameTree { .. } | Self::Upload { .. } | Self::OldName(_) => return Ok(false),
        };
        let Some(rest) = key.as_str().strip_prefix(from) else { return Ok(false) };
        let moved = Key::new(format!("{to}{rest}"));
        *key =
            moved.map_err(|e| FsError::caused(FsErrorKind::NameTooLong, "a moved path makes no key", e))?;
        Ok(true)
    }

    /// The record.
    ///
    /// # Errors
    /// None today: attributes of any size fit.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let body = match self {
            Self::RenameTree { from_prefix, to_prefix, switched, settled } => json!({
                "intent": "rename-tree",
                "from": from_prefix,
                "to": to_prefix,
                "switched": switched,
                "settled": settled,
            }),
            Self::Upload { key, upload_id } => {
                json!({ "intent": "upload", "key": key.as_str(), "upload": upload_id.as_str() })
            }
            Self::Store(store) => store.to_json()?,
            Self::Attributes(attributes) => attributes.to_json()?,
            Self::Marker(marker) => marker.to_json()?,
            Self::OldName(old) => old.to_json(),
        };
        let mut record = vec![VERSION];
        record.extend_from_slice(body.to_string().as_bytes());
        Ok(record)
    }

    /// The intent that a record says.
    ///
    /// # Errors
    /// `Invalid` for a record of a newer version, `Io` for a broken one.
    pub(crate) fn decode(record: &[u8]) -> Result<Self> {
        let body = match record {
            [VERSION, body @ ..] => body,
            [] => return Err(broken("it is empty")),
            [version, ..] => {
                let sentence = format!(
                    "the journal has a record of version {version} and this version knows {VERSION}: \
                     finish it with the version that wrote it"
                );
                return Err(FsError::new(FsErrorKind::Invalid, sentence));
            }
        };
        let body: Value = serde_json::from_slice(body).map_err(|_| broken("it is cut short or not JSON"))?;
        let fields = Fields(body.as_object().ok_or_else(|| broken("it is not an object"))?);
        match fields.text("intent")? {
            "rename-tree" => Ok(Self::RenameTree {
                from_prefix: fields.text("from")?.to_owned(),
                to_prefix: fields.text("to")?.to_owned(),
                switched: fields.get("switched", Value::as_bool)?,
                settled: fields.get("settled", Value::as_bool)?,
            }),
            "upload" => {
                Ok(Self::Upload { key: fields.key()?, upload_id: UploadId::new(fields.text("upload")?) })
            }
            "store" => Ok(Self::Store(Box::new(StoreIntent::from_json(&fields)?))),
            "attributes" => Ok(Self::Attributes(Box::new(AttributesIntent::from_json(&fields)?))),
            "marker" => Ok(Self::Marker(Box::new(MarkerIntent::from_json(&fields)?))),
            "old-name" => Ok(Self::OldName(Box::new(OldNameIntent::from_json(&fields)?))),
            _ => Err(broken("its intent is unknown")),
        }
    }
}

impl StoreIntent {
    fn to_json(&self) -> Result<Value> {
        let (metadata, content_type) = meta_to_json(&self.meta)?;
        let dirty: Vec<_> = self.state.dirty.iter().map(|range| [range.start, range.end]).collect();
        let base = self.base.as_ref().map(version_to_json);
        Ok(json!({
            "intent": "store",
            "key": self.key.as_str(),
            "staging": self.staging_name,
            "size": self.state.size,
            "base-size": self.state.base_size,
            "base-limit": self.state.base_limit,
            "dirty": dirty,
            "base": base,
            "metadata": metadata,
            "content-type": content_type,
            "doubted": self.is_doubted,
        }))
    }

    fn from_json(fields: &Fields<'_>) -> Result<Self> {
        let key = fields.key()?;
        Ok(Self {
            meta: fields.meta(&key)?,
            is_doubted: fields.get("doubted", Value::as_bool)?,
            staging_name: fields.staging_name()?,
            state: StagedState {
                size: fields.number("size")?,
                base_size: fields.optional("base-size", Value::as_u64)?,
                base_limit: fields.number("base-limit")?,
                dirty: fields.ranges("dirty")?,
            },
            base: fields
                .optional("base", Value::as_object)?
                .map(|base| Fields(base).version())
                .transpose()?,
            key,
        })
    }
}

impl AttributesIntent {
    fn to_json(&self) -> Result<Value> {
        let (metadata, content_type) = meta_to_json(&self.meta)?;
        Ok(json!({
            "intent": "attributes",
            "key": self.key.as_str(),
            "base": version_to_json(&self.base),
            "size": self.size,
            "metadata": metadata,
            "content-type": content_type,
        }))
    }

    fn from_json(fields: &Fields<'_>) -> Result<Self> {
        let key = fields.key()?;
        let base = Fields(fields.get("base", Value::as_object)?).version()?;
        Ok(Self { meta: fields.meta(&key)?, base, size: fields.number("size")?, key })
    }
}

impl MarkerIntent {
    fn to_json(&self) -> Result<Value> {
        let (metadata, content_type) = meta_to_json(&self.meta)?;
        Ok(json!({
            "intent": "marker",
            "key": self.key.as_str(),
            "new": self.is_new,
            "metadata": metadata,
            "content-type": content_type,
        }))
    }

    fn from_json(fields: &Fields<'_>) -> Result<Self> {
        let key = fields.key()?;
        if !key.is_marker() {
            return Err(broken("its key is no directory's"));
        }
        Ok(Self { meta: fields.meta(&key)?, is_new: fields.get("new", Value::as_bool)?, key })
    }
}

impl OldNameIntent {
    fn to_json(&self) -> Value {
        json!({
            "intent": "old-name",
            "key": self.key.as_str(),
            "version": version_to_json(&self.version),
            "copy": self.copy.as_str(),
            "boot": self.boot,
        })
    }

    fn from_json(fields: &Fields<'_>) -> Result<Self> {
        Ok(Self {
            key: fields.key()?,
            version: Fields(fields.get("version", Value::as_object)?).version()?,
            copy: fields.get("copy", |value| Key::new(value.as_str()?).ok())?,
            boot: fields.optional("boot", Value::as_str)?.map(str::to_owned),
        })
    }
}

fn meta_to_json(meta: &FileMeta) -> Result<(Value, Value)> {
    let NewObject { metadata, content_type } = meta.encode(usize::MAX)?;
    Ok((json!(metadata), json!(content_type)))
}

fn version_to_json(version: &Version) -> Value {
    json!({ "etag": version.etag.as_str(), "id": version.id.as_ref().map(VersionId::as_str) })
}

/// The fields of a record, each checked as it is taken.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get<T>(&self, name: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<T> {
        self.0.get(name).and_then(read).ok_or_else(|| broken(&format!("{name:?} is missing or unreadable")))
    }

    fn optional<T>(&self, name: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<Option<T>> {
        self.get(name, |value| if value.is_null() { Some(None) } else { read(value).map(Some) })
    }

    fn text(&self, name: &str) -> Result<&'a str> {
        self.get(name, Value::as_str)
    }

    fn number(&self, name: &str) -> Result<u64> {
        self.get(name, Value::as_u64)
    }

    fn key(&self) -> Result<Key> {
        self.get("key", |value| Key::new(value.as_str()?).ok())
    }

    /// One path component: a broken record must not lead out of the staging directory.
    fn staging_name(&self) -> Result<String> {
        self.get("staging", |value| {
            value.as_str().filter(|name| crate::names::check_name(name).is_ok()).map(str::to_owned)
        })
    }

    fn version(&self) -> Result<Version> {
        let id = self.optional("id", Value::as_str)?.map(VersionId::new);
        Ok(Version { etag: ETag::new(self.text("etag")?), id })
    }

    fn ranges(&self, name: &str) -> Result<RangeSet<u64>> {
        let range = |pair: &Value| {
            let (start, end) = (pair.get(0)?.as_u64()?, pair.get(1)?.as_u64()?);
            (start < end).then_some(start..end)
        };
        self.get(name, |value| value.as_array()?.iter().map(range).collect())
    }

    fn meta(&self, key: &Key) -> Result<FileMeta> {
        let metadata = self.metadata()?;
        let content_type = self.optional("content-type", Value::as_str)?.map(str::to_owned);
        // Never used: whatever we encoded says everything itself.
        let defaults = Defaults { uid: 0, gid: 0, file_mode: 0o600, dir_mode: 0o700 };
        let parts = NewObject { metadata, content_type };
        Ok(FileMeta::from_parts(parts, key.is_marker(), UNIX_EPOCH, &defaults))
    }

    fn metadata(&self) -> Result<Metadata> {
        let entry = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        self.get("metadata", |value| value.as_object()?.iter().map(entry).collect())
    }
}

fn broken(why: &str) -> FsError {
    let sentence = format!("the journal has a record that cannot be read ({why}); it was left as it is");
    FsError::new(FsErrorKind::Io, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn intents() -> Vec<Intent> {
        let mut meta = FileMeta::new(Kind::File, 0o4755, 1, u32::MAX, UNIX_EPOCH);
        meta.xattrs.insert("user.\"a\u{e9}".to_owned(), vec![0, 255].into());
        meta.extra.insert("owner".to_owned(), "harbour".to_owned());
        meta.write_id = Some("w".to_owned());
        let state = StagedState {
            size: u64::MAX / 2,
            base_size: Some(1 << 60),
            base_limit: 3,
            dirty: [0..1, 5..(1 << 53) + 1].into_iter().collect(),
        };
        let store = StoreIntent {
            key: Key::new("a/\u{e9}\n").unwrap(),
            staging_name: "0123".to_owned(),
            state: state.clone(),
            base: Some(Version { etag: ETag::new("\"e\""), id: Some(VersionId::new("v")) }),
            meta: meta.clone(),
            is_doubted: true,
        };
        let fresh = StoreIntent {
            key: Key::new("dir/").unwrap(),
            state: StagedState { base_size: None, base_limit: 0, dirty: RangeSet::new(), ..state },
            base: None,
            meta: FileMeta { kind: Kind::Directory, ..meta.clone() },
            ..store.clone()
        };
        vec![
            Intent::RenameTree {
                from_prefix: "a/".to_owned(),
                to_prefix: "b/\"c/".to_owned(),
                switched: true,
                settled: false,
            },
            Intent::Attributes(Box::new(AttributesIntent {
                key: store.key.clone(),
                base: Version { etag: ETag::new("\"e\""), id: None },
                size: 7,
                meta: meta.clone(),
            })),
            Intent::Marker(Box::new(MarkerIntent {
                key: Key::new("dir/").unwrap(),
                meta: FileMeta { kind: Kind::Directory, ..meta.clone() },
                is_new: true,
            })),
            Intent::Upload { key: Key::new("a").unwrap(), upload_id: UploadId::new("u") },
            Intent::OldName(Box::new(OldNameIntent {
                key: Key::new("old").unwrap(),
                version: Version { etag: ETag::new("\"e\""), id: None },
                copy: Key::new("new").unwrap(),
                boot: Some(String::from("6f1c")),
            })),
            Intent::Store(Box::new(store)),
            Intent::Store(Box::new(fresh)),
        ]
    }

    #[test]
    fn records_say_the_intent_again() {
        for intent in intents() {
            assert_eq!(Intent::decode(&intent.encode().unwrap()).unwrap(), intent);
        }
    }

    #[test]
    fn a_record_cut_short_anywhere_is_an_error() {
        for intent in intents() {
            let record = intent.encode().unwrap();
            for end in 0..record.len() {
                assert_eq!(Intent::decode(&record[..end]).unwrap_err().kind(), FsErrorKind::Io);
            }
        }
    }

    #[test]
    fn a_newer_record_is_told_from_a_broken_one() {
        let mut record = intents()[0].encode().unwrap();
        record[0] = 2;
        let newer = Intent::decode(&record).unwrap_err();
        assert_eq!(newer.kind(), FsErrorKind::Invalid);
        assert!(newer.to_string().contains("version 2"), "{newer}");
        for body in ["[]", "{}", r#"{"intent":"dance"}"#, r#"{"intent":"upload","key":"","upload":"u"}"#] {
            let record = [&[VERSION], body.as_bytes()].concat();
            assert_eq!(Intent::decode(&record).unwrap_err().kind(), FsErrorKind::Io, "{body}");
        }
    }

    #[test]
    fn a_record_cannot_lead_out_of_the_staging_directory() {
        let record = String::from_utf8(intents().last().unwrap().encode().unwrap()).unwrap();
        assert!(record.contains("\"0123\""), "{record}");
        for name in ["../x", "/etc/x", ".."] {
            let turned = record.replace("\"0123\"", &format!("\"{name}\""));
            assert_eq!(Intent::decode(turned.as_bytes()).unwrap_err().kind(), FsErrorKind::Io);
        }
    }
}
