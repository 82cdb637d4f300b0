//! Reading a directory, as far as its entries can be keys.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom};
use rustix::io::Errno;

use super::place;

/// An entry that can be part of a key: a regular file or a directory, with a name in UTF-8.
pub(super) struct Entry<'e> {
    pub(super) name: &'e str,
    pub(super) is_dir: bool,
}

/// Bytes of directory entries fetched at once.
const BUFFER: usize = 32 << 10;

/// Bytes fetched to see whether there is any: a few entries, so that a large directory costs no more.
const PEEK: usize = 1 << 10;

/// Calls `visit` for every entry that can be part of a key, in no order, until it answers false.
pub(super) fn for_each(dir: impl AsFd, visit: impl FnMut(&Entry<'_>) -> bool) -> Result<(), Errno> {
    visible(dir, BUFFER, visit)
}

fn visible(dir: impl AsFd, buffer: usize, mut visit: impl FnMut(&Entry<'_>) -> bool) -> Result<(), Errno> {
    raw(&dir, buffer, |name, kind| {
        let Ok(name) = std::str::from_utf8(name) else { return Ok(true) };
        if !place::is_name(name) {
            return Ok(true);
        }
        let is_dir = match kind {
            FileType::Directory => true,
            FileType::RegularFile => false,
            FileType::Unknown => match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => true,
                    FileType::RegularFile => false,
                    _ => return Ok(true),
                },
                Err(Errno::NOENT) => return Ok(true),
                Err(errno) => return Err(errno),
            },
            _ => return Ok(true), // links, devices, sockets and pipes are no objects
        };
        Ok(visit(&Entry { name, is_dir }))
    })
}

/// Whether no entry can be part of a key.
pub(super) fn is_empty(dir: impl AsFd) -> Result<bool, Errno> {
    let mut empty = true;
    visible(dir, PEEK, |_| {
        empty = false;
        false
    })?;
    Ok(empty)
}

/// Whether the directory has just this one entry, of whatever kind.
pub(super) fn has_only(dir: impl AsFd, name: &str) -> Result<bool, Errno> {
    let (mut found, mut others) = (false, false);
    raw(&dir, PEEK, |entry, _| {
        match entry {
            b"." | b".." => {}
            entry if entry == name.as_bytes() => found = true,
            _ => others = true,
        }
        Ok(!others)
    })?;
    Ok(found && !others)
}

fn raw(
    dir: impl AsFd,
    buffer: usize,
    mut visit: impl FnMut(&[u8], FileType) -> Result<bool, Errno>,
) -> Result<(), Errno> {
    rustix::fs::seek(&dir, SeekFrom::Start(0))?;
    let mut space = vec![MaybeUninit::uninit(); buffer];
    let mut entries = RawDir::new(dir, &mut space);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::NOENT) => break, // the directory itself was removed: it has no entries any more
            Err(errno) => return Err(errno),
        };
        if !visit(entry.file_name().to_bytes(), entry.file_type())? {
            break;
        }
    }
    Ok(())
}
