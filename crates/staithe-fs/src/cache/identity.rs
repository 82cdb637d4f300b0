//! Whose bytes a cached file holds: one version of one object of one volume.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use staithe_store::{ETag, Key};

/// What every map file begins with; the number is the layout's.
const MAGIC: &str = "staithe cached object 1\n";

/// One version of one object of one volume. Equal entity tags of one key mean equal bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The store's URL.
    pub(crate) volume: Arc<str>,
    /// The object.
    pub(crate) key: Key,
    /// Its version.
    pub(crate) etag: ETag,
    /// Its length in bytes.
    pub(crate) size: u64,
}

/// What the files of an identity are called: a hash of it, so that any key fits into a file name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name(u128);

impl Identity {
    /// The name of its files.
    pub(super) fn name(&self) -> Name {
        let digest = Sha256::digest(self.header());
        let mut head = [0; 16];
        head.copy_from_slice(&digest[..16]);
        Name(u128::from_be_bytes(head))
    }

    /// What its map file begins with. The same identity has the same header, to the byte, so a file is known by
    /// comparing; it is text for the sake of people.
    pub(super) fn header(&self) -> Vec<u8> {
        let fields = serde_json::json!({
            "volume": &*self.volume,
            "key": self.key.as_str(),
            "etag": self.etag.as_str(),
            "size": self.size,
            "block": super::blocks::BLOCK,
        });
        let mut header = format!("{MAGIC}{fields}\n").into_bytes();
        header.resize(header.len().next_multiple_of(super::blocks::RECORD), b'\n');
        header
    }

    /// What a whole map file is about, and its records; `None` if it is none of this layout.
    pub(super) fn read(map: &[u8]) -> Option<(Self, &[u8])> {
        let fields = map.strip_prefix(MAGIC.as_bytes())?.split(|byte| *byte == b'\n').next()?;
        let fields: serde_json::Value = serde_json::from_slice(fields).ok()?;
        let identity = Self {
            volume: fields["volume"].as_str()?.into(),
            key: Key::new(fields["key"].as_str()?).ok()?,
            etag: ETag::new(fields["etag"].as_str()?),
            size: fields["size"].as_u64()?,
        };
        let records = map.strip_prefix(&identity.header()[..])?;
        Some((identity, records))
    }
}

impl Name {
    /// Reads a name as it is written.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_ours =
            text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        is_ours.then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// The directory that it lies in: one of 256.
    pub(super) fn directory(self) -> String {
        format!("{:02x}", self.directory_number())
    }

    /// Which one of them that is.
    pub(super) fn directory_number(self) -> u8 {
        (self.0 >> 120) as u8
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(volume: &str, key: &str, etag: &str, size: u64) -> Identity {
        Identity { volume: volume.into(), key: Key::new(key).unwrap(), etag: ETag::new(etag), size }
    }

    #[test]
    fn every_part_counts() {
        let base = identity("s3://b", "k", "\"e\"", 5);
        let others = [
            identity("s3://c", "k", "\"e\"", 5),
            identity("s3://b", "l", "\"e\"", 5),
            identity("s3://b", "k", "\"f\"", 5),
            identity("s3://b", "k", "\"e\"", 6),
        ];
        for other in others {
            assert_ne!(base.name(), other.name());
        }
        assert_eq!(base.name(), base.clone().name());
        assert_eq!(Name::parse(&base.name().to_string()), Some(base.name()));
        assert!(base.name().to_string().starts_with(&base.name().directory()));
        assert_eq!(base.header().len() % 8, 0);
    }

    #[test]
    fn a_header_is_read_as_it_is_written() {
        for key in ["k", "a \n\"key\"/é", "kk"] {
            let identity = identity("s3://b", key, "\"e\"", 5);
            let map = [&identity.header()[..], b"records"].concat();
            assert_eq!(Identity::read(&map), Some((identity, &b"records"[..])));
            assert_eq!(Identity::read(&map[1..]), None);
            assert_eq!(Identity::read(&map[..map.len() - 8]), None);
        }
    }

    #[test]
    fn what_is_no_name() {
        for text in ["", "lock", "+0000000000000000000000000000000", "0000000000000000000000000000000G"] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }
}
