//! Attributes as the kernel wants them.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};
use staithe_fs::{Attr, Entry, Kind};

/// The kernel counts a time to live in jiffies from now; beyond this it is for ever anyway.
const LONGEST_TTL: Duration = Duration::from_hours(10 * 365 * 24);

/// What `st_blksize` says: applications size their buffers by it.
const BLOCK_SIZE: u32 = 128 << 10;

/// A time to live that the kernel can add to its clock.
pub(crate) fn ttl(ttl: Duration) -> Duration {
    ttl.min(LONGEST_TTL)
}

/// The one time to live of a reply that cannot carry two.
pub(crate) fn common_ttl(entry: &Entry) -> Duration {
    ttl(entry.entry_ttl.min(entry.attr_ttl))
}

/// The kernel's word for a kind.
pub(crate) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
    }
}

/// The attributes of an inode.
pub(crate) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        crtime: attr.ctime,
        kind: file_type(attr.kind),
        perm: attr.mode & 0o7777,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// Attributes of nothing: inode 0 tells the kernel that the name is absent, for as long as the entry lives.
pub(crate) fn absent() -> FileAttr {
    bare(0, Kind::File)
}

/// Attributes that carry only a number and a kind.
pub(crate) fn bare(ino: u64, kind: Kind) -> FileAttr {
    let never = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: never,
        mtime: never,
        ctime: never,
        crtime: never,
        kind: file_type(kind),
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use staithe_fs::Ino;

    use super::*;

    #[test]
    fn blocks_are_of_512_bytes_and_modes_have_no_type() {
        let attr = Attr {
            ino: Ino(9),
            kind: Kind::Symlink,
            size: 513,
            mode: 0o7777,
            uid: 1,
            gid: 2,
            nlink: 1,
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
        };
        let told = file_attr(&attr);
        assert_eq!((told.blocks, told.perm, told.kind), (2, 0o7777, FileType::Symlink));
        let entry = Entry { attr, entry_ttl: Duration::from_secs(2), attr_ttl: Duration::from_secs(1) };
        assert_eq!(common_ttl(&entry), Duration::from_secs(1));
    }

    #[test]
    fn for_ever_does_not_overflow_the_kernels_clock() {
        assert_eq!(ttl(Duration::MAX), LONGEST_TTL);
        assert_eq!(ttl(Duration::from_secs(1)), Duration::from_secs(1));
    }
}
