//! What is in a manifest, byte by byte, and what may be wrong with one. Numbers are little-endian.
//!
//! ```text
//! magic    16 bytes
//! version  u32                       readers refuse what is newer than they know
//! header   u32 length, JSON, u32 CRC32C of the JSON     unknown fields are ignored
//! block    u8 1, u32 packed length, u32 length, u32 objects, packed bytes, u32 CRC32C of all of that
//! ...
//! footer   u8 2, u64 objects, u64 bytes that they take in memory, u64 CRC64 of all before it,
//!          u32 CRC32C of the footer
//! ```
//! A block is packed with LZ4, by `lz4_flex`: pure Rust, without `unsafe` as it is used here, and so fast that unpacking is
//! not what loading ten million objects takes its time for. In it each object is: how
//! many bytes of its key the one before it has too, the length of the rest, the rest, and what `object` says. The first
//! key of a block is whole.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::error::{FsError, FsErrorKind};

pub(super) const MAGIC: [u8; 16] = *b"staithe manifest";
/// The version that is written, and the newest that is read.
pub(super) const VERSION: u32 = 1;
/// The longest header, in bytes.
pub(super) const HEADER_MAX: u32 = 64 << 10;
/// A block is closed when it has this many bytes.
pub(super) const BLOCK: usize = 256 << 10;
/// The longest block: one object more than [`BLOCK`] fits.
pub(super) const BLOCK_MAX: u32 = (BLOCK + (8 << 10)) as u32;
pub(super) const BLOCK_TAG: u8 = 1;
pub(super) const FOOTER_TAG: u8 = 2;
/// Bytes of a block before its packed bytes, tag included.
pub(super) const FRAME: usize = 13;
/// Bytes of a footer, tag included.
pub(super) const FOOTER: usize = 1 + 8 + 8 + 8 + 4;
/// Bytes of a footer that the checksum of the whole covers, too.
pub(super) const FOOTER_SUMMED: usize = 1 + 8 + 8;

/// What a manifest is a listing of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHeader {
    /// What tells the volume from every other one; see `ObjectStore::volume`.
    pub volume: String,
    /// Its name for people.
    pub url: String,
    /// What all keys begin with; empty, or ending in `/`.
    pub prefix: String,
    /// When it was taken.
    pub created: SystemTime,
    /// Of which moment it is, if not of that one.
    pub as_of: Option<SystemTime>,
}

impl ManifestHeader {
    /// Of what belongs to no volume.
    pub(super) fn nowhere() -> Self {
        let (volume, url, prefix) = (String::new(), String::new(), String::new());
        Self { volume, url, prefix, created: UNIX_EPOCH, as_of: None }
    }

    /// The moment that it shows.
    pub fn shows(&self) -> SystemTime {
        self.as_of.unwrap_or(self.created)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let header = json!({
            "volume": self.volume,
            "url": self.url,
            "prefix": self.prefix,
            "created_ms": millis(self.created),
            "as_of_ms": self.as_of.map(millis),
        });
        header.to_string().into_bytes()
    }

    pub(super) fn from_json(text: &[u8]) -> Option<Self> {
        let header: Value = serde_json::from_slice(text).ok()?;
        let text = |name: &str| header[name].as_str().map(str::to_owned);
        let as_of = &header["as_of_ms"];
        Some(Self {
            volume: text("volume")?,
            url: text("url")?,
            prefix: text("prefix")?,
            created: time(header["created_ms"].as_u64()?)?,
            as_of: if as_of.is_null() { None } else { Some(time(as_of.as_u64()?)?) },
        })
    }
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn time(millis: u64) -> Option<SystemTime> {
    time_since_1970(Duration::from_millis(millis))
}

/// A time that can be written down; `None` after the year 9999.
pub(super) fn time_since_1970(since: Duration) -> Option<SystemTime> {
    const YEAR_10000: u64 = 253_402_300_800;
    if since.as_secs() < YEAR_10000 { UNIX_EPOCH.checked_add(since) } else { None }
}

/// Why a file is no manifest to go by.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("it is no manifest of staithe")]
    Foreign,
    #[error("it is a manifest of version {0}, which is newer than this staithe, which reads up to {VERSION}")]
    Newer(u32),
    #[error("it ends early; its writing or copying was cut off")]
    Truncated,
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    #[error("it cannot be read")]
    Io(#[source] std::io::Error),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Io(error),
        }
    }
}

impl Fault {
    /// The sentence about a file.
    pub(super) fn of(self, file: &Path) -> FsError {
        let kind = if matches!(self, Self::Io(_)) { FsErrorKind::Io } else { FsErrorKind::Invalid };
        FsError::caused(kind, format!("{} cannot be used", file.display()), self)
    }
}
