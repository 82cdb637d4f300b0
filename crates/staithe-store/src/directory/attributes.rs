//! What an object carries beside its bytes: its tag, taken from the inode, and its metadata, kept in one
//! extended attribute so that it is replaced whole.

use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Gid, Mode, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use crate::{ETag, ErrorKind, Key, Metadata, NewObject, Result, checks};

const ATTRIBUTE: &str = "user.staithe.object";

/// Entries of the metadata that say what a file's mode and owner are, in decimal: those of s3fs, as mounts use them.
const MODE: &str = "mode";
const UID: &str = "uid";
const GID: &str = "gid";

/// The bits of a mode that say what kind of file it is.
const TYPE_BITS: u32 = 0o170_000;

/// The first field of the attribute: its form.
const FORM: &str = "1";

/// The most bytes of an attribute that a filesystem in use takes (ext4 keeps them in one block of 4 KiB).
const ATTRIBUTE_MAX: usize = 64 << 10;

/// Refuses what the attribute could not give back: it ends its fields with NUL.
pub(super) fn storable(operation: &'static str, key: &Key, new: &NewObject) -> Result<()> {
    let content_type = new.content_type.as_deref().unwrap_or_default();
    if content_type.contains('\0') || content_type.len() > CONTENT_TYPE_MAX {
        let text = format!("the media type has a NUL or more than {CONTENT_TYPE_MAX} bytes");
        return Err(checks::fail(ErrorKind::Invalid, operation, key, text));
    }
    Ok(())
}

/// The longest media type, in bytes; RFC 6838 allows 255.
const CONTENT_TYPE_MAX: usize = 255;

/// The content of the attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// When a marker was put, in nanoseconds of the epoch, unique in this process; for files the inode tells.
    pub(super) stamp: u64,
    pub(super) new: NewObject,
}

impl Attributes {
    fn encode(&self) -> Vec<u8> {
        let mut text = format!("{FORM}\0{:x}\0", self.stamp);
        if let Some(content_type) = &self.new.content_type {
            text.push('=');
            text.push_str(content_type);
        }
        for (name, value) in &self.new.metadata {
            for field in [name, value] {
                text.push('\0');
                text.push_str(field);
            }
        }
        text.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut fields = text.split('\0');
        if fields.next()? != FORM {
            return None;
        }
        let stamp = u64::from_str_radix(fields.next()?, 16).ok()?;
        let content_type = fields.next()?.strip_prefix('=').map(str::to_owned);
        let mut new = NewObject { content_type, ..NewObject::default() };
        while let Some(name) = fields.next() {
            new.metadata.insert(name.to_owned(), fields.next()?.to_owned());
        }
        Some(Self { stamp, new })
    }

    /// The attribute of a file or directory; `None` if it has none, or one that is not ours to read.
    pub(super) fn read(fd: impl AsFd) -> std::result::Result<Option<Self>, Errno> {
        let mut bytes = Vec::with_capacity(512);
        loop {
            let spare = rustix::buffer::spare_capacity(&mut bytes);
            match rustix::fs::fgetxattr(&fd, ATTRIBUTE, spare) {
                Ok(_) => return Ok(Self::decode(&bytes)),
                Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
                Err(Errno::RANGE) if bytes.capacity() < ATTRIBUTE_MAX => bytes.reserve(bytes.capacity() * 4),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Those of what nobody put here through a store: its own mode and owner, as mounts write them (s3fs's form).
    pub(super) fn foreign(stat: &Stat) -> Self {
        let entries = [(MODE, stat.st_mode), (UID, stat.st_uid), (GID, stat.st_gid)];
        let metadata = entries.map(|(name, value)| (name.to_owned(), value.to_string())).into();
        Self { stamp: 0, new: NewObject { metadata, content_type: None } }
    }

    /// Sets the attribute in one step.
    pub(super) fn write(&self, fd: impl AsFd) -> std::result::Result<(), Errno> {
        rustix::fs::fsetxattr(fd, ATTRIBUTE, &self.encode(), XattrFlags::empty())
    }

    /// Removes the attribute, if it is there.
    pub(super) fn remove(fd: impl AsFd) -> std::result::Result<(), Errno> {
        match rustix::fs::fremovexattr(fd, ATTRIBUTE) {
            Err(Errno::NODATA) => Ok(()),
            result => result,
        }
    }
}

/// The mode and owner that metadata names, as far as a file or a directory of ours is to have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ownership {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Ownership {
    /// Reads the metadata of a `kind`; what is said of another kind (a link, whose mode means nothing) has no mode.
    pub(super) fn of(metadata: &Metadata, kind: FileType) -> Self {
        let number = |name| metadata.get(name).and_then(|text: &String| text.parse::<u32>().ok());
        let is_of_kind = |mode: &u32| mode & TYPE_BITS == 0 || FileType::from_raw_mode(*mode) == kind;
        // The greatest number of all means "nobody" to the system.
        let id = |name| number(name).filter(|id| *id != u32::MAX);
        Self { mode: number(MODE).filter(is_of_kind), uid: id(UID), gid: id(GID) }
    }

    /// Sets the owner where that is allowed, and then the permission bits. Unless we are root, those of the owner
    /// stay: a store must be able to read what it holds.
    pub(super) fn apply(self, fd: impl AsFd, least: Mode) -> std::result::Result<(), Errno> {
        if self.uid.is_some() || self.gid.is_some() {
            // Only root may give files away; what is not, stays ours.
            let _ = rustix::fs::fchown(&fd, self.uid.map(Uid::from_raw), self.gid.map(Gid::from_raw));
        }
        let Some(mode) = self.mode else { return Ok(()) };
        let least = if rustix::process::geteuid().is_root() { Mode::empty() } else { least };
        rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & 0o777) | least)
    }

    /// Takes permissions away that the metadata does not name, and gives none.
    pub(super) fn narrow(self, fd: impl AsFd, now: &Stat) -> std::result::Result<(), Errno> {
        let mode = self.mode.map(|mode| mode & now.st_mode);
        Self { mode, uid: None, gid: None }.apply(fd, Mode::RWXU)
    }
}

/// The tag of a file: which inode, how long, and when it was last written and changed, to the nanosecond.
///
/// A put makes a new inode with a modification time that no other put of this process has; a write in place,
/// a rename over it, a change of mode all move one of the four.
pub(super) fn file_tag(stat: &Stat) -> ETag {
    let (modified, changed) = (modified_ns(stat), changed_ns(stat));
    ETag::new(format!("\"{:x}-{:x}-{modified:x}-{changed:x}\"", stat.st_ino, stat.st_size))
}

/// The tag of a directory as an object. What happens below it must not change it, so it hangs on the mark,
/// and on the inode alone where there is none.
pub(super) fn marker_tag(stat: &Stat, mark: Option<&Attributes>) -> ETag {
    ETag::new(format!("\"{:x}-d-{:x}\"", stat.st_ino, mark.map_or(0, |mark| mark.stamp)))
}

pub(super) fn modified_ns(stat: &Stat) -> i128 {
    i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec)
}

fn changed_ns(stat: &Stat) -> i128 {
    i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec)
}

/// Nanoseconds of the epoch as a time; before the epoch counts as the epoch.
pub(super) fn time_of(nanoseconds: i128) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_their_encoding() {
        let metadata = [("a".into(), String::new()), ("b".into(), "= ,".into())].into();
        let dressed = NewObject { metadata, content_type: Some(String::new()) };
        for new in [NewObject::default(), dressed] {
            let attributes = Attributes { stamp: 77, new };
            assert_eq!(Attributes::decode(&attributes.encode()), Some(attributes));
        }
        assert_eq!(Attributes::decode(b"2\0"), None);
    }
}
