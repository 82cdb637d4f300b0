//! How a file's attributes live in an object's user metadata: the form that s3fs-fuse writes and reads.
//!
//! | entry | value |
//! |---|---|
//! | `mode` | decimal, file type bits included (`33188` is a regular file with 0644) |
//! | `uid`, `gid` | decimal |
//! | `mtime`, `atime`, `ctime` | seconds, and with a fraction a dot and nine digits of nanoseconds |
//! | `xattr` | percent-encoded `{"name":"base64",...}`, names ascending, `/` as it is |
//! | `staithe-write-id` | ours: which write made this version |
//!
//! A time before 1970 is the second *before* it and nanoseconds after that, as in a `timespec`: `-1.500000000` is
//! half a second before the epoch.
//!
//! Kept true: decoding is total (an object that anybody wrote has attributes, by default where need be), what is
//! not ours is carried along unchanged, and encoding what was decoded changes nothing that s3fs would see.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine as _, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use staithe_store::{Metadata, NewObject, ObjectMeta};

use crate::{FsError, FsErrorKind, Kind, Result};

const MODE: &str = "mode";
const UID: &str = "uid";
const GID: &str = "gid";
const MTIME: &str = "mtime";
const ATIME: &str = "atime";
const CTIME: &str = "ctime";
const XATTR: &str = "xattr";
const WRITE_ID: &str = "staithe-write-id";
const OURS: [&str; 8] = [MODE, UID, GID, MTIME, ATIME, CTIME, XATTR, WRITE_ID];

const TYPE_BITS: u32 = 0o170_000;
const DIRECTORY_BITS: u32 = 0o040_000;
const FILE_BITS: u32 = 0o100_000;
const SYMLINK_BITS: u32 = 0o120_000;
const PERMISSION_BITS: u32 = 0o7777;

/// The media type of a directory marker.
const DIRECTORY_TYPE: &str = "application/x-directory";

/// What s3fs leaves bare in the `xattr` entry, besides letters and digits.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~').remove(b'/');

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The attributes of a file, a directory or a symbolic link, as its object's metadata carries them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileMeta {
    /// File, directory or symbolic link. A device, FIFO or socket that s3fs wrote appears as a file, for lack of
    /// anything truer, and becomes one when its metadata is written.
    pub(crate) kind: Kind,
    /// Permission bits, 0 to 0o7777.
    pub(crate) mode: u16,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Last access.
    pub(crate) atime: SystemTime,
    /// Last modification of the bytes.
    pub(crate) mtime: SystemTime,
    /// Last change of bytes or attributes.
    pub(crate) ctime: SystemTime,
    /// Extended attributes of every namespace; which of them are shown is not decided here.
    pub(crate) xattrs: BTreeMap<String, Bytes>,
    /// Which write made this version, if it was one of ours.
    pub(crate) write_id: Option<String>,
    /// Entries of others, verbatim. An `xattr` entry that cannot be read is kept here until attributes are set.
    pub(crate) extra: Metadata,
    /// The media type; `None` for a directory that has the usual one.
    pub(crate) content_type: Option<String>,
}

/// What an object without attributes gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Defaults {
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Permission bits of files and symbolic links.
    pub(crate) file_mode: u16,
    /// Permission bits of directories.
    pub(crate) dir_mode: u16,
}

impl FileMeta {
    /// A new file, directory or link without anything else; all three times are `now`.
    pub(crate) fn new(kind: Kind, mode: u16, uid: u32, gid: u32, now: SystemTime) -> Self {
        Self {
            kind,
            mode: mode & PERMISSION_BITS as u16,
            uid,
            gid,
            atime: now,
            mtime: now,
            ctime: now,
            xattrs: BTreeMap::new(),
            write_id: None,
            extra: Metadata::new(),
            content_type: None,
        }
    }

    /// What an object's metadata says. Never fails: a value that makes no sense counts as missing.
    ///
    /// A marker's key makes it a directory, whatever else is said; then the type bits decide, then the media type.
    pub(crate) fn decode(object: &ObjectMeta, defaults: &Defaults) -> Self {
        let parts =
            NewObject { metadata: object.metadata.clone(), content_type: object.content_type.clone() };
        Self::from_parts(parts, object.key.is_marker(), object.last_modified, defaults)
    }

    /// What [`encode`](Self::encode) made, back; `is_marker` and `stored` as the object's key and time would say.
    pub(crate) fn from_parts(
        NewObject { metadata, content_type }: NewObject,
        is_marker: bool,
        stored: SystemTime,
        defaults: &Defaults,
    ) -> Self {
        let number = |name: &str| metadata.get(name).and_then(|text| text.parse::<u32>().ok());
        let time = |name: &str| metadata.get(name).and_then(|text| parse_time(text)).unwrap_or(stored);
        let mode = number(MODE).filter(|mode| *mode <= TYPE_BITS | PERMISSION_BITS);
        let kind = if is_marker { Kind::Directory } else { kind_of(mode, content_type.as_deref()) };
        let xattrs = metadata.get(XATTR).and_then(|text| parse_xattrs(text));
        let mut extra = metadata.clone();
        extra.retain(|name, _| !OURS.contains(&name.as_str()) || (name == XATTR && xattrs.is_none()));
        let plain = Self::new(kind, defaults.mode(kind), defaults.uid, defaults.gid, stored);
        Self {
            mode: mode.map_or(plain.mode, |mode| (mode & PERMISSION_BITS) as u16),
            uid: number(UID).unwrap_or(plain.uid),
            gid: number(GID).unwrap_or(plain.gid),
            atime: time(ATIME),
            mtime: time(MTIME),
            ctime: time(CTIME),
            xattrs: xattrs.unwrap_or_default(),
            write_id: metadata.get(WRITE_ID).cloned(),
            extra,
            content_type: content_type.filter(|text| kind != Kind::Directory || text != DIRECTORY_TYPE),
            ..plain
        }
    }

    /// The metadata and media type to store. `bytes_max` bounds the metadata, names and values together, in bytes.
    ///
    /// # Errors
    /// `AttributeTooLarge` over that bound.
    pub(crate) fn encode(&self, bytes_max: usize) -> Result<NewObject> {
        let type_bits = match self.kind {
            Kind::File => FILE_BITS,
            Kind::Directory => DIRECTORY_BITS,
            Kind::Symlink => SYMLINK_BITS,
        };
        let mut metadata = self.extra.clone();
        metadata
            .retain(|name, _| !OURS.contains(&name.as_str()) || (name == XATTR && self.xattrs.is_empty()));
        let mut put = |name: &str, value: String| metadata.insert(name.to_owned(), value);
        put(MODE, (type_bits | u32::from(self.mode)).to_string());
        put(UID, self.uid.to_string());
        put(GID, self.gid.to_string());
        put(ATIME, time_text(self.atime));
        put(MTIME, time_text(self.mtime));
        put(CTIME, time_text(self.ctime));
        if !self.xattrs.is_empty() {
            put(XATTR, xattr_text(&self.xattrs));
        }
        if let Some(id) = &self.write_id {
            put(WRITE_ID, id.clone());
        }
        let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > bytes_max {
            let sentence =
                format!("the attributes need {bytes} bytes of metadata, and the store takes {bytes_max}");
            return Err(FsError::new(FsErrorKind::AttributeTooLarge, sentence));
        }
        let directory = (self.kind == Kind::Directory).then(|| DIRECTORY_TYPE.to_owned());
        Ok(NewObject { metadata, content_type: self.content_type.clone().or(directory) })
    }
}

/// The id of the write that made an object, if it was one of ours.
pub(crate) fn write_id(object: &ObjectMeta) -> Option<&str> {
    object.metadata.get(WRITE_ID).map(String::as_str)
}

impl Defaults {
    /// The permission bits of a `kind`.
    pub(crate) fn mode(&self, kind: Kind) -> u16 {
        match kind {
            Kind::Directory => self.dir_mode,
            Kind::File => self.file_mode,
            Kind::Symlink => 0o777,
        }
    }
}

fn kind_of(mode: Option<u32>, content_type: Option<&str>) -> Kind {
    let media_type = content_type.and_then(|text| text.split(';').next()).map(str::trim);
    match mode.unwrap_or(0) & TYPE_BITS {
        DIRECTORY_BITS => Kind::Directory,
        SYMLINK_BITS => Kind::Symlink,
        // Nextcloud marks directories with the second one, and s3fs follows it.
        0 if matches!(media_type, Some(DIRECTORY_TYPE | "httpd/unix-directory")) => Kind::Directory,
        _ => Kind::File,
    }
}

/// A time as s3fs writes it.
fn time_text(time: SystemTime) -> String {
    let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (i128::from(after.as_secs()), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            match before.subsec_nanos() {
                0 => (-i128::from(before.as_secs()), 0),
                nanos => (-i128::from(before.as_secs()) - 1, 1_000_000_000 - nanos),
            }
        }
    };
    if nanos == 0 { seconds.to_string() } else { format!("{seconds}.{nanos:09}") }
}

/// A time as s3fs, or a tool that writes decimal fractions of any length, wrote it.
fn parse_time(text: &str) -> Option<SystemTime> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let nanos: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second?.checked_add(Duration::from_nanos(nanos.into()))
}

/// Extended attributes as s3fs writes them. A name with a quote or a backslash is escaped as JSON wants it.
fn xattr_text(xattrs: &BTreeMap<String, Bytes>) -> String {
    let pair = |(name, value): (&String, &Bytes)| {
        format!("{}:\"{}\"", serde_json::Value::from(name.as_str()), BASE64.encode(value))
    };
    let pairs: Vec<String> = xattrs.iter().map(pair).collect();
    utf8_percent_encode(&format!("{{{}}}", pairs.join(",")), ENCODED).to_string()
}

/// All of the extended attributes, or `None` if any of it cannot be read: half of them would lose the others.
fn parse_xattrs(text: &str) -> Option<BTreeMap<String, Bytes>> {
    let json = percent_decode_str(text).decode_utf8().ok()?;
    let map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).ok()?;
    map.into_iter().map(|(name, value)| Some((name, BASE64.decode(value.as_str()?).ok()?.into()))).collect()
}

#[cfg(test)]
mod tests;
