//! One object of a view, and how it lies in a block and in memory.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use staithe_store::{ETag, Key, ObjectSummary, Version, VersionId};

use super::format::time_since_1970;

/// The largest size that a file can have, in bytes.
pub(super) const SIZE_MAX: u64 = i64::MAX as u64;
/// Longest entity tag and version id, in bytes.
const TEXT_MAX: usize = 1024;
/// The hexadecimal digits of an MD5, which most entity tags are.
const MD5_DIGITS: usize = 32;

/// An entity tag as any text.
const TAG_TEXT: u8 = 0;
/// An MD5 in quotes: of an object stored at once.
const TAG_MD5: u8 = 1;
/// An MD5 and a number of parts, in quotes: of a multipart upload.
const TAG_PARTS: u8 = 2;

/// One object as a view has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewObject {
    /// The object's key.
    pub key: Key,
    /// Its length in bytes.
    pub size: u64,
    /// Which version it is; with an id where the bucket keeps versions.
    pub version: Version,
    /// When the store took it in. Before 1970 is 1970.
    pub modified: SystemTime,
}

impl ViewObject {
    /// What a listing would show of it, the version's id included.
    pub(crate) fn summary(self) -> ObjectSummary {
        let Version { etag, id } = self.version;
        ObjectSummary { key: self.key, size: self.size, etag, id, last_modified: self.modified }
    }
}

impl From<ObjectSummary> for ViewObject {
    fn from(listed: ObjectSummary) -> Self {
        let version = Version { etag: listed.etag, id: listed.id };
        Self { key: listed.key, size: listed.size, version, modified: listed.last_modified }
    }
}

/// Appends what a view knows of an object beside its key. `None`, and nothing is appended, if a text is too long.
pub(super) fn encode(object: &ViewObject, out: &mut Vec<u8>) -> Option<()> {
    let Version { etag, id } = &object.version;
    let id = id.as_ref().map(VersionId::as_str);
    if etag.as_str().len() > TEXT_MAX || id.is_some_and(|id| id.len() > TEXT_MAX) {
        return None;
    }
    let since = object.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    put_number(out, object.size);
    put_number(out, since.as_secs());
    put_number(out, since.subsec_nanos().into());
    put_tag(out, etag.as_str());
    // One more than its length: 0 is none.
    put_number(out, id.map_or(0, |id| id.len() as u64 + 1));
    out.extend_from_slice(id.unwrap_or_default().as_bytes());
    Some(())
}

/// The object of this key, of what [`encode`] made of it, and how long that was. `None` for anything else.
pub(super) fn decode(key: Key, bytes: &[u8]) -> Option<(ViewObject, usize)> {
    let mut rest = bytes;
    let size = take_number(&mut rest).filter(|size| *size <= SIZE_MAX)?;
    let (seconds, nanos) = (take_number(&mut rest)?, take_number(&mut rest)?);
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let modified = time_since_1970(Duration::new(seconds, nanos))?;
    let etag = take_tag(&mut rest)?;
    let id = match take_number(&mut rest)? {
        0 => None,
        len => Some(VersionId::new(take_text(&mut rest, len - 1)?)),
    };
    let len = bytes.len() - rest.len();
    Some((ViewObject { key, size, version: Version { etag, id }, modified }, len))
}

/// Appends a number, seven bits a byte, the low ones first (LEB128).
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes one off the front.
pub(super) fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_text<'b>(rest: &mut &'b [u8], len: u64) -> Option<&'b str> {
    let len = usize::try_from(len).ok().filter(|len| *len <= TEXT_MAX)?;
    let (text, left) = rest.split_at_checked(len)?;
    *rest = left;
    std::str::from_utf8(text).ok()
}

fn put_tag(out: &mut Vec<u8>, tag: &str) {
    match parse_md5(tag) {
        Some((md5, None)) => {
            out.push(TAG_MD5);
            out.extend_from_slice(&md5);
        }
        Some((md5, Some(parts))) => {
            out.push(TAG_PARTS);
            out.extend_from_slice(&md5);
            put_number(out, parts);
        }
        None => {
            out.push(TAG_TEXT);
            put_number(out, tag.len() as u64);
            out.extend_from_slice(tag.as_bytes());
        }
    }
}

fn take_tag(rest: &mut &[u8]) -> Option<ETag> {
    let (form, left) = rest.split_first()?;
    *rest = left;
    if *form == TAG_TEXT {
        let len = take_number(rest)?;
        return take_text(rest, len).map(ETag::new);
    }
    let (md5, left) = rest.split_at_checked(MD5_DIGITS / 2)?;
    *rest = left;
    let mut text = String::with_capacity(MD5_DIGITS + 8);
    text.push('"');
    for byte in md5 {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    match *form {
        TAG_MD5 => {}
        TAG_PARTS => {
            text.push('-');
            text.push_str(&take_number(rest)?.to_string());
        }
        _ => return None,
    }
    text.push('"');
    Some(ETag::new(text))
}

/// The parts of a tag that is written exactly so: `"<md5>"` or `"<md5>-<parts>"`.
fn parse_md5(tag: &str) -> Option<([u8; MD5_DIGITS / 2], Option<u64>)> {
    let bare = tag.strip_prefix('"')?.strip_suffix('"')?;
    let (digits, rest) = bare.split_at_checked(MD5_DIGITS)?;
    let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if !digits.bytes().all(is_hex) {
        return None;
    }
    let mut md5 = [0; MD5_DIGITS / 2];
    for (byte, pair) in md5.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    if rest.is_empty() {
        return Some((md5, None));
    }
    let parts: u64 = rest.strip_prefix('-')?.parse().ok()?;
    // As it will be written back: no sign, no zeros in front.
    (rest[1..] == parts.to_string()).then_some((md5, Some(parts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(etag: &str, id: Option<&str>) -> ViewObject {
        ViewObject {
            key: Key::new("k").unwrap(),
            size: 1 << 40,
            version: Version { etag: ETag::new(etag), id: id.map(VersionId::new) },
            modified: UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789),
        }
    }

    #[test]
    fn what_is_written_is_read_to_the_letter() {
        let md5 = "0123456789abcdef0123456789abcdef";
        for etag in [
            "",
            "\"\"",
            "weak",
            &format!("\"{md5}\""),
            &format!("\"{md5}-17\""),
            &format!("\"{md5}-017\""),
            &format!("\"{md5}-\""),
            &format!("\"{}\"", md5.to_uppercase()),
            &format!("\"{md5}ü\""),
            md5,
        ] {
            for id in [None, Some(""), Some("null"), Some("ZdA9wH2LVyXxw3KzQy")] {
                let (object, mut bytes) = (object(etag, id), vec![]);
                encode(&object, &mut bytes).unwrap();
                let len = bytes.len();
                bytes.push(9);
                assert_eq!(decode(object.key.clone(), &bytes), Some((object.clone(), len)), "{etag}");
                for cut in 0..len {
                    assert_eq!(decode(object.key.clone(), &bytes[..cut]), None, "{etag} cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn numbers_of_every_length_and_none_that_is_too_long() {
        for number in (0..64).map(|bit| 1u64 << bit).chain([0, u64::MAX]) {
            let mut bytes = vec![];
            put_number(&mut bytes, number);
            let mut rest = &bytes[..];
            assert_eq!((take_number(&mut rest), rest.len()), (Some(number), 0));
        }
        for wrong in
            [&[0xff; 11][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], &[0x80], &[]]
        {
            assert_eq!(take_number(&mut &*wrong), None);
        }
    }
}
