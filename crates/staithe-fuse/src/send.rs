//! What a filesystem's answer becomes on the wire.

use std::time::Duration;

use fuser::{
    FileHandle, Generation, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr,
    RequestId,
};
use staithe_fs::{Attributes, Entry, FsStats, HandleId, Lookup, ReadData};

use crate::attributes::{absent, file_attr, ttl};
use crate::errno::{ALREADY_ANSWERED, Address, BUFFER_TOO_SMALL, errno};
use crate::kernel::Line;

/// Inode numbers are never reused, so there is one generation.
pub(crate) const GENERATION: Generation = Generation(0);

pub(crate) fn empty(reply: ReplyEmpty, (): ()) {
    reply.ok();
}

pub(crate) fn lookup(reply: ReplyEntry, found: Lookup) {
    match found {
        Lookup::Found(found) => entry(reply, found),
        Lookup::Absent { ttl: Duration::ZERO } => {
            reply.error(errno(staithe_fs::FsErrorKind::NotFound, Address::Name));
        }
        Lookup::Absent { ttl: believed } => {
            reply.entry_with_ttls(&Duration::ZERO, &ttl(believed), &absent(), GENERATION);
        }
    }
}

pub(crate) fn entry(reply: ReplyEntry, entry: Entry) {
    let (attr_ttl, entry_ttl) = (ttl(entry.attr_ttl), ttl(entry.entry_ttl));
    reply.entry_with_ttls(&attr_ttl, &entry_ttl, &file_attr(&entry.attr), GENERATION);
}

pub(crate) fn attributes(reply: ReplyAttr, attributes: Attributes) {
    reply.attr(&ttl(attributes.ttl), &file_attr(&attributes.attr));
}

pub(crate) fn opened_directory(reply: ReplyOpen, handle: HandleId) {
    reply.opened(FileHandle(handle.0), fuser::FopenFlags::empty());
}

/// Slices that one call to the kernel takes: its own limit is 1,024, the header among them.
const SLICES_MOST: usize = 1000;

/// A reply of the session takes one slice. A read across chunks of a body has many, which go to the kernel as they are.
pub(crate) fn data(reply: ReplyData, unique: RequestId, line: &Line, data: &ReadData) {
    match (&*data.0, line.get()) {
        ([], _) => reply.data(&[]),
        ([one], _) => reply.data(one),
        (many, Some(kernel)) if many.len() <= SLICES_MOST => match kernel.answer_slices(unique, many) {
            Ok(()) => reply.error(ALREADY_ANSWERED),
            Err(error) => {
                tracing::debug!(%error, "slices could not be sent; sending them joined");
                reply.data(&many.concat());
            }
        },
        (many, _) => reply.data(&many.concat()),
    }
}

pub(crate) fn link(reply: ReplyData, target: &[u8]) {
    reply.data(target);
}

pub(crate) fn stats(reply: ReplyStatfs, stats: FsStats) {
    let FsStats { block_size, blocks, blocks_free, name_max } = stats;
    reply.statfs(blocks, blocks_free, blocks_free, 0, 0, block_size, name_max, block_size);
}

/// An extended attribute, or its length if `size`, the caller's buffer, is 0.
pub(crate) fn xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    match size {
        0 => reply.size(value.len() as u32),
        room if value.len() > room as usize => reply.error(BUFFER_TOO_SMALL),
        _ => reply.data(value),
    }
}

/// Names of extended attributes, each with a NUL after it, as listxattr(2) gives them.
pub(crate) fn xattr_names(reply: ReplyXattr, size: u32, names: &[String]) {
    let mut list = Vec::with_capacity(names.iter().map(|n| n.len() + 1).sum());
    for name in names {
        list.extend_from_slice(name.as_bytes());
        list.push(0);
    }
    xattr(reply, size, &list);
}
