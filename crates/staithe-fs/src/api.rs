//! What crosses the border between the filesystem and its adapter: plain values, no protocol.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::lend::LocalFile;

/// An inode number (FUSE: nodeid). Never reused within the life of a [`Filesystem`](crate::Filesystem).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory.
    pub const ROOT: Self = Self(1);
}

/// An open file or an open directory stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(pub u64);

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What kind of thing an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// The attributes of an inode, as stat(2) shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// File, directory or symbolic link.
    pub kind: Kind,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Link count: 1, 0 once unlinked, 2 for a directory.
    pub nlink: u32,
    /// Last access.
    pub atime: SystemTime,
    /// Last modification of the bytes.
    pub mtime: SystemTime,
    /// Last change of bytes or attributes.
    pub ctime: SystemTime,
}

/// A name's inode, and for how long the kernel may believe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The attributes.
    pub attr: Attr,
    /// For how long the name means this inode.
    pub entry_ttl: Duration,
    /// For how long the attributes hold.
    pub attr_ttl: Duration,
}

/// The answer to a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The name is there; one more kernel reference is counted.
    Found(Entry),
    /// It is not, and will not be for `ttl` (zero: do not cache).
    Absent {
        /// For how long.
        ttl: Duration,
    },
}

/// Attributes, and for how long the kernel may believe them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The attributes.
    pub attr: Attr,
    /// For how long.
    pub ttl: Duration,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The time of the call.
    Now,
    /// This time.
    To(SystemTime),
}

/// What setattr is to change; `None` leaves a field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits (file type bits are ignored).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes: truncate or extend.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last modification.
    pub mtime: Option<SetTime>,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenMode {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Cut to length zero first (`O_TRUNC`).
    pub truncate: bool,
    /// `O_DIRECT` was asked for.
    pub direct: bool,
    /// Each write goes to the end (`O_APPEND`).
    pub append: bool,
    /// Each write is followed by an fsync(2) (`O_SYNC`, `O_DSYNC`).
    pub sync: bool,
}

/// An opened file.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Its handle.
    pub handle: HandleId,
    /// The kernel may keep the pages that it has of this inode.
    pub keep_cache: bool,
    /// This handle neither made nor cut the file, nor can it write to it, so close need not flush.
    pub no_flush: bool,
    /// A local file that holds all of its bytes: read, or write to, that in place of this handle, or say
    /// [`Filesystem::serve`](crate::Filesystem::serve). Every open handle of an inode has the same one, or none.
    pub local: Option<LocalFile>,
    /// With `local`: the writes of this handle must come here all the same. It cannot read.
    pub direct: bool,
}

/// What a read delivers: slices in order, together at most what was asked, short only at the end of the file.
#[derive(Debug, Clone, Default)]
pub struct ReadData(pub Vec<Bytes>);

impl ReadData {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there is nothing: end of file.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Bytes> for ReadData {
    fn from(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() { Vec::new() } else { vec![bytes] })
    }
}

/// One entry of a directory stream.
#[derive(Debug, Clone)]
pub struct DirItem {
    /// The name, `.` and `..` included.
    pub name: String,
    /// Its inode where one is known, else a number for show (never 0).
    pub ino: u64,
    /// What it is; `None` where a listing cannot tell a file from a symbolic link.
    pub kind: Option<Kind>,
    /// Where the stream goes on after this entry.
    pub next: u64,
    /// The full entry where it is known without asking the store. It carries no kernel reference until
    /// [`Filesystem::entry_taken`](crate::Filesystem::entry_taken) is called for it.
    pub entry: Option<Entry>,
}

/// How rename treats an existing target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RenameMode {
    /// Replace it.
    #[default]
    Replace,
    /// Refuse with [`FsErrorKind::Exists`](crate::FsErrorKind::Exists) (`RENAME_NOREPLACE`).
    NoReplace,
    /// Swap the two (`RENAME_EXCHANGE`).
    Exchange,
}

/// How setxattr treats an existing attribute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum XattrMode {
    /// Create or replace.
    #[default]
    Set,
    /// Only create (`XATTR_CREATE`).
    Create,
    /// Only replace (`XATTR_REPLACE`).
    Replace,
}

/// What fallocate is to do with a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocate {
    /// Make sure that writes to it succeed; the file grows to its end.
    Extend,
    /// The same without growing (`FALLOC_FL_KEEP_SIZE`).
    KeepSize,
    /// Make it read as zeros without growing (`PUNCH_HOLE | KEEP_SIZE`).
    PunchHole,
    /// Make it read as zeros (`ZERO_RANGE`); the file grows unless `keep_size`.
    ZeroRange {
        /// Do not grow.
        keep_size: bool,
    },
}

/// Capacity figures for statfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsStats {
    /// Block size in bytes.
    pub block_size: u32,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks free.
    pub blocks_free: u64,
    /// Longest name, in bytes.
    pub name_max: u32,
}

/// What a kernel must forget, because the store changed, or may have, and the kernel could not know.
#[derive(Debug)]
pub enum Invalidation {
    /// The meaning of a name, which has changed.
    Entry {
        /// The directory.
        parent: Ino,
        /// The name.
        name: String,
    },
    /// Attributes and pages of an inode.
    Inode {
        /// The inode.
        ino: Ino,
    },
    /// That it knows the meaning of a name, or its absence: to be asked for again, and if it is the same, whoever is
    /// there stays there.
    Doubt {
        /// The directory.
        parent: Ino,
        /// The name.
        name: String,
        /// Whether it may stand for a directory: a kernel that would take it away, and what is mounted below, must not
        /// be told.
        may_be_directory: bool,
    },
    /// Attributes of an inode; its pages are right.
    Attributes {
        /// The inode.
        ino: Ino,
    },
    /// Nothing: it is dropped by whoever tells the kernel, once that has been told everything before it.
    Fence(Fence),
}

/// Somebody waits until this is dropped.
#[derive(Debug)]
pub struct Fence(
    #[expect(dead_code, reason = "its end is its message")] pub(crate) tokio::sync::oneshot::Sender<()>,
);

/// What a drain left behind.
#[derive(Debug, Clone, Default)]
pub struct DrainReport {
    /// Paths of files whose bytes are not in the store, and what else the journal could not finish; kept in the
    /// state directory. Empty when everything is in the store.
    pub kept: Vec<String>,
}
