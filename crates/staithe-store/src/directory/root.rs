//! The root of a directory store: how paths are opened below it, and whether it is still there.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::Errno;

use super::attributes::{Attributes, file_tag, marker_tag, modified_ns, time_of};
use super::errno;
use super::locks::{Held, Locks};
use super::place::Place;
use super::session::{DIRECTORY, Session};
use super::{DirectoryOptions, Durability, entries};
use crate::{Capabilities, ETag, ErrorKind, Key, NewObject, ObjectMeta, Result, StoreError, Version};

#[derive(Debug)]
pub(super) struct Root {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
    identity: (u64, u64),
    pub(super) locks: Locks,
    pub(super) session: Session,
    pub(super) options: DirectoryOptions,
    pub(super) caps: Capabilities,
    last_stamp: AtomicI64,
}

/// An object that was opened, with what its inode tells.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    pub(super) stat: Stat,
    pub(super) meta: ObjectMeta,
}

/// Opens a path below `root` for reading, following no link; the root itself for the empty path.
pub(super) fn open_beneath(root: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    open_with(root, path, flags, ResolveFlags::empty())
}

fn open_with(root: &OwnedFd, path: &str, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    // Not to block on a pipe, and not to take a terminal.
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let how = how | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), how) {
            Err(Errno::INTR) => {}
            // RESOLVE_BENEATH asks for another try when a rename elsewhere races with it.
            Err(Errno::AGAIN) if !how.contains(ResolveFlags::CACHED) => {}
            result => return result,
        }
    }
}

impl Root {
    pub(super) fn open(path: &Path, options: DirectoryOptions, caps: Capabilities) -> Result<Self> {
        let failed = |what: &str, errno: Errno| errno::error("open", None, what, errno);
        let gone = |error: std::io::Error| {
            let text = format!("there is no directory {}", path.display());
            StoreError::new(ErrorKind::VolumeGone, "open", text).with_source(error)
        };
        let path = path.canonicalize().map_err(gone)?;
        let fd = rustix::fs::open(&path, DIRECTORY, Mode::empty())
            .map_err(|errno| failed(&format!("opening the directory {}", path.display()), errno))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| failed("looking at the directory", errno))?;
        open_beneath(&fd, ".", OFlags::DIRECTORY)
            .map_err(|errno| failed("openat2 (Linux 5.6 or later is needed)", errno))?;
        let (session, locks) = Session::begin(&fd, &path)
            .map_err(|errno| failed(&format!("preparing {}/.staithe-tmp", path.display()), errno))?;
        Attributes::default().write(&session.dir).map_err(|errno| {
            let text = format!(
                "{} is on a filesystem without user extended attributes, where metadata cannot be kept",
                path.display()
            );
            StoreError::new(ErrorKind::Unsupported, "open", text).with_source(errno)
        })?;
        let identity = (stat.st_dev, stat.st_ino);
        let (locks, last_stamp) = (Locks::new(locks), AtomicI64::new(0));
        Ok(Self { fd, path, identity, locks, session, options, caps, last_stamp })
    }

    /// Fails if the root was removed, or another directory stands in its place (which may well have got the
    /// same inode number, so the one that is held is asked too). Two system calls.
    pub(super) fn check_alive(&self, operation: &'static str) -> Result<()> {
        let held = rustix::fs::fstat(&self.fd).is_ok_and(|stat| stat.st_nlink > 0);
        let found = rustix::fs::stat(&self.path);
        if held && found.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.identity) {
            return Ok(());
        }
        let text = format!("the directory {} is no longer there", self.path.display());
        Err(StoreError::new(ErrorKind::VolumeGone, operation, text))
    }

    /// Which directory it is, and since when; `None` on a file system that does not keep that.
    pub(super) fn birth(&self) -> Option<String> {
        let (flags, wanted) = (AtFlags::EMPTY_PATH, StatxFlags::BTIME | StatxFlags::INO);
        let stat = rustix::fs::statx(&self.fd, "", flags, wanted).ok()?;
        let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        let made = stat.stx_btime;
        has_birth.then(|| format!("inode {}, made at {}.{:09}", stat.stx_ino, made.tv_sec, made.tv_nsec))
    }

    pub(super) fn synced(&self) -> bool {
        self.options.durability == Durability::Synced
    }

    pub(super) fn lock<'p>(
        &self,
        operation: &'static str,
        key: &Key,
        directories: impl IntoIterator<Item = &'p str>,
    ) -> Result<Held<'_>> {
        let held = self.locks.lock(directories);
        held.map_err(|errno| errno::error(operation, Some(key), "locking the directory", errno))
    }

    /// The time, in nanoseconds of the epoch, never the same twice: what tells two puts apart on filesystems
    /// whose own clock ticks in milliseconds and whose inode numbers come back.
    #[allow(clippy::disallowed_methods, reason = "a store dates its objects itself")]
    pub(super) fn stamp(&self) -> i64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let later = |last: i64| Some(now.max(last.saturating_add(1)));
        let last = self.last_stamp.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        last.map_or(now, |last| now.max(last.saturating_add(1)))
    }

    /// Opens the object at a place.
    pub(super) fn open_object(&self, operation: &'static str, place: &Place) -> Result<Opened> {
        let fd = open_beneath(&self.fd, place.path(), OFlags::empty());
        self.opened(operation, place, fd)
    }

    /// As `open_object`, but gives up (`None`) where that would have to wait for a disk.
    pub(super) fn open_cached(&self, operation: &'static str, place: &Place) -> Option<Result<Opened>> {
        match open_with(&self.fd, place.path(), OFlags::empty(), ResolveFlags::CACHED) {
            Ok(fd) => Some(self.opened(operation, place, Ok(fd))),
            Err(Errno::NOENT) => Some(self.opened(operation, place, Err(Errno::NOENT))),
            Err(_) => None,
        }
    }

    fn opened(&self, operation: &'static str, place: &Place, fd: Result<OwnedFd, Errno>) -> Result<Opened> {
        let failed = |errno| errno::error(operation, Some(&place.key), "opening the object", errno);
        let missing = || Err(checks_missing(self, operation, &place.key));
        // Links, pipes, sockets and devices are no objects, and neither is what lies below one of them.
        let not_an_object =
            || self.stranger(place).map_or_else(missing, |what| Err(stranger(operation, place, what)));
        let fd = match fd {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::NAMETOOLONG) => return missing(),
            Err(Errno::LOOP | Errno::NXIO) => return not_an_object(),
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let attributes = Attributes::read(&fd).map_err(failed)?;
        match (place.marker, kind) {
            (false, FileType::RegularFile) => {
                let meta = file_meta(
                    &place.key,
                    &stat,
                    attributes.unwrap_or_else(|| Attributes::foreign(&stat)).new,
                );
                Ok(Opened { fd, stat, meta })
            }
            (true, FileType::Directory) => {
                if attributes.is_none() && !self.is_empty_object(operation, place, &fd)? {
                    return missing();
                }
                let meta = marker_meta(&place.key, &stat, attributes);
                Ok(Opened { fd, stat, meta })
            }
            _ => not_an_object(),
        }
    }

    /// What stands at a place and is neither a file nor a directory.
    fn stranger(&self, place: &Place) -> Option<&'static str> {
        let parent = open_beneath(&self.fd, place.parent(), OFlags::DIRECTORY).ok()?;
        let stat = rustix::fs::statat(&parent, place.name(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        strange(FileType::from_raw_mode(stat.st_mode))
    }

    /// Whether an unmarked directory holds nothing and thereby is an object: looked at twice, the second time
    /// under its lock, lest it is one whose last child is just being removed and which will go with it.
    pub(super) fn is_empty_object(
        &self,
        operation: &'static str,
        place: &Place,
        fd: impl AsFd,
    ) -> Result<bool> {
        let failed = |errno| errno::error(operation, Some(&place.key), "reading the directory", errno);
        if !entries::is_empty(&fd).map_err(failed)? {
            return Ok(false);
        }
        let _held = self.lock(operation, &place.key, [place.path()])?;
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        Ok(stat.st_nlink > 0 && entries::is_empty(&fd).map_err(failed)?)
    }

    /// The tag of what is at a place now, without opening a file; `None` if there is no object.
    ///
    /// `parent` is the directory that holds it. To be called under the lock of the parent (and, for a marker,
    /// of the directory itself).
    pub(super) fn current(&self, parent: &OwnedFd, place: &Place) -> Result<Current, Errno> {
        let stat = match rustix::fs::statat(parent, place.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Current::Nothing),
            Err(errno) => return Err(errno),
        };
        match (place.marker, FileType::from_raw_mode(stat.st_mode)) {
            (false, FileType::RegularFile) => Ok(Current::File(file_tag(&stat))),
            (true, FileType::Directory) => {
                let fd = open_beneath(&self.fd, place.path(), OFlags::DIRECTORY)?;
                let mark = Attributes::read(&fd)?;
                let empty = entries::is_empty(&fd)?;
                let is_object = mark.is_some() || empty;
                let tag = is_object.then(|| marker_tag(&stat, mark.as_ref()));
                Ok(Current::Directory { fd, tag, empty })
            }
            (_, kind) => Ok(strange(kind).map_or(Current::Other, Current::Stranger)),
        }
    }
}

/// What stands at a place.
#[derive(Debug)]
pub(super) enum Current {
    Nothing,
    /// The file that the key names.
    File(ETag),
    /// The directory that the marker names; without a tag it is only a prefix.
    Directory {
        fd: OwnedFd,
        tag: Option<ETag>,
        empty: bool,
    },
    /// Something of the same name that is not what the key names: a directory for a file, or the reverse.
    Other,
    /// What is neither a file nor a directory, in words.
    Stranger(&'static str),
}

impl Current {
    pub(super) fn tag(&self) -> Option<&ETag> {
        match self {
            Self::File(tag) => Some(tag),
            Self::Directory { tag, .. } => tag.as_ref(),
            Self::Nothing | Self::Other | Self::Stranger(_) => None,
        }
    }
}

/// A kind of file that is no object, in words.
fn strange(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::Symlink => Some("a symbolic link"),
        FileType::Fifo => Some("a FIFO"),
        FileType::Socket => Some("a socket"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("a device"),
        _ => None,
    }
}

/// The answer to every request for a key where something strange stands.
pub(super) fn stranger(operation: &'static str, place: &Place, what: &str) -> StoreError {
    let text =
        format!("{:?} is {what} in the directory, which is neither followed nor replaced", place.path());
    crate::checks::fail(ErrorKind::Forbidden, operation, &place.key, text)
}

fn checks_missing(root: &Root, operation: &'static str, key: &Key) -> StoreError {
    match root.check_alive(operation) {
        Ok(()) => crate::checks::missing(operation, key),
        Err(gone) => gone.with_key(key),
    }
}

pub(super) fn file_meta(key: &Key, stat: &Stat, new: NewObject) -> ObjectMeta {
    ObjectMeta {
        key: key.clone(),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        version: Version { etag: file_tag(stat), id: None },
        last_modified: time_of(modified_ns(stat)),
        metadata: new.metadata,
        content_type: new.content_type,
    }
}

pub(super) fn marker_meta(key: &Key, stat: &Stat, mark: Option<Attributes>) -> ObjectMeta {
    let etag = marker_tag(stat, mark.as_ref());
    let time = mark.as_ref().map_or_else(|| modified_ns(stat), |mark| i128::from(mark.stamp));
    let new = mark.unwrap_or_else(|| Attributes::foreign(stat)).new;
    ObjectMeta {
        key: key.clone(),
        size: 0,
        version: Version { etag, id: None },
        last_modified: time_of(time),
        metadata: new.metadata,
        content_type: new.content_type,
    }
}
