//! Into a local directory.
//!
//! Invariants:
//! 1. Nothing that is there is written over.
//! 2. A file has its name when it is whole; until then it is [`ASIDE`], one at a time.
//! 3. Directories get their attributes at the end: making names in them would change their times, or be forbidden.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, RenameFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fsetxattr, futimens, renameat, renameat_with, statvfs, utimensat,
};
use rustix::io::Errno;

use super::bytes::Bytes;
use super::report::RescuedKind;
use crate::api::Kind;
use crate::error::{FsError, FsErrorKind, Result};
use crate::metadata::FileMeta;

/// What a file is called before it is whole.
const ASIDE: &str = ".rescue-under-way";

/// The longest target of a symbolic link, in bytes.
const LINK_TARGET_MAX: usize = 4095;

/// A directory that takes what is rescued.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    stop: Arc<AtomicBool>,
    /// Those that get their attributes at the end.
    dressed: Mutex<Vec<(String, FileMeta)>>,
    /// Whether files should have had other owners, and could not.
    lacks_owners: AtomicBool,
    /// Whether the disk was full once.
    was_full: AtomicBool,
}

/// What was not possible in a directory.
#[derive(Debug)]
pub(super) struct Finished {
    /// The attributes that directories could not be given, by path.
    pub(super) unlike: BTreeMap<String, String>,
    /// Whether files should have had other owners.
    pub(super) lacks_owners: bool,
}

impl Directory {
    /// Makes the directory if it is missing.
    ///
    /// # Errors
    /// `Invalid` if there is anything in it, or it lies in `state_dir`; the disk's.
    pub(super) fn open(path: &Path, state_dir: &Path, stop: Arc<AtomicBool>) -> Result<Self> {
        let failed = |what: &str, error| {
            FsError::local(&format!("could not {what} the directory {}: {error}", path.display()), error)
        };
        let (root, state_dir) = (real(path), real(state_dir));
        if root.starts_with(&state_dir) {
            let sentence = format!(
                "{} lies in the state directory {}, which stays as it is: name another",
                path.display(),
                state_dir.display()
            );
            return Err(FsError::new(FsErrorKind::Invalid, sentence));
        }
        std::fs::create_dir_all(&root).map_err(|error| failed("make", error))?;
        if std::fs::read_dir(&root).map_err(|error| failed("look into", error))?.next().is_some() {
            let sentence =
                format!("{} is not empty; name a directory that is empty, or missing", path.display());
            return Err(FsError::new(FsErrorKind::Invalid, sentence));
        }
        Ok(Self {
            root,
            stop,
            dressed: Mutex::default(),
            lacks_owners: AtomicBool::new(false),
            was_full: AtomicBool::new(false),
        })
    }

    /// What is at a path.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn at(&self, path: &str) -> Result<Option<Kind>> {
        if path == ASIDE {
            return Ok(Some(Kind::File));
        }
        match self.root.join(path).symlink_metadata() {
            Ok(meta) if meta.is_dir() => Ok(Some(Kind::Directory)),
            Ok(meta) if meta.is_symlink() => Ok(Some(Kind::Symlink)),
            Ok(_) => Ok(Some(Kind::File)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("look at", path, error)),
        }
    }

    /// Makes a directory, unless it is there.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn make(&self, path: &str, meta: FileMeta) -> Result<()> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(self.root.join(path));
        made.map_err(|error| failed("make the directory", path, error))?;
        self.dressed.lock().push((path.to_owned(), meta));
        Ok(())
    }

    /// Writes a file or a link where nothing is; what of its attributes it could not be given.
    ///
    /// # Errors
    /// The disk's; then there is nothing of it.
    pub(super) fn put(
        &self,
        path: &str,
        kind: RescuedKind,
        meta: &FileMeta,
        bytes: &Bytes,
    ) -> Result<Option<String>> {
        let aside = self.root.join(ASIDE);
        self.refuse_full(path, bytes)?;
        let put = || {
            if let Some(parent) = self.root.join(path).parent() {
                std::fs::create_dir_all(parent)?;
            }
            let unlike = if kind == RescuedKind::Symlink {
                self.link(&aside, meta, bytes)?
            } else {
                self.file(&aside, meta, bytes)?
            };
            give_name(&aside, &self.root.join(path))?;
            Ok(unlike)
        };
        put().map_err(|error| {
            // It has its name, or nothing of it is to be there.
            let _ = std::fs::remove_file(&aside);
            let error = failed("write", path, error);
            if error.kind() == FsErrorKind::NoSpace {
                self.was_full.store(true, Ordering::Relaxed);
            }
            error
        })
    }

    /// On a disk that was full already, refuses what it has no room for without trying.
    fn refuse_full(&self, path: &str, bytes: &Bytes) -> Result<()> {
        if !self.was_full.load(Ordering::Relaxed) {
            return Ok(());
        }
        let free = statvfs(&self.root).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        if free >= bytes.room() { Ok(()) } else { Err(failed("write", path, Errno::NOSPC.into())) }
    }

    fn file(&self, aside: &Path, meta: &FileMeta, bytes: &Bytes) -> io::Result<Option<String>> {
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(aside)?;
        bytes.copy_to(&file, &self.stop)?;
        Ok(self.dress(&file, meta))
    }

    fn link(&self, aside: &Path, meta: &FileMeta, bytes: &Bytes) -> io::Result<Option<String>> {
        use std::os::unix::ffi::OsStringExt as _;
        if bytes.len() > LINK_TARGET_MAX as u64 {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        let target = std::ffi::OsString::from_vec(bytes.start(LINK_TARGET_MAX)?);
        std::os::unix::fs::symlink(target, aside)?;
        let made = aside.symlink_metadata()?;
        let mut unlike = Vec::new();
        if (made.uid(), made.gid()) != (meta.uid, meta.gid) {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let owned = chownat(CWD, aside, Some(uid(meta)), Some(gid(meta)), flags);
            self.note_owner(owned, &mut unlike);
        }
        note("times", utimensat(CWD, aside, &times(meta), AtFlags::SYMLINK_NOFOLLOW), &mut unlike);
        Ok(told(&unlike))
    }

    /// Gives a file or a directory its attributes; what it could not be given.
    fn dress(&self, file: &File, meta: &FileMeta) -> Option<String> {
        let mut unlike = Vec::new();
        // First, since its mode may forbid it.
        for (name, value) in meta.xattrs.iter().filter(|(name, _)| name.starts_with("user.")) {
            note(name, fsetxattr(file, name, value, XattrFlags::empty()), &mut unlike);
        }
        let is_theirs = |made: std::fs::Metadata| (made.uid(), made.gid()) != (meta.uid, meta.gid);
        if file.metadata().is_ok_and(is_theirs) {
            self.note_owner(fchown(file, Some(uid(meta)), Some(gid(meta))), &mut unlike);
        }
        note("mode", fchmod(file, Mode::from_raw_mode(meta.mode.into())), &mut unlike);
        note("times", futimens(file, &times(meta)), &mut unlike);
        told(&unlike)
    }

    /// Only root gives files away, which is said once.
    fn note_owner(&self, owned: rustix::io::Result<()>, unlike: &mut Vec<String>) {
        match owned {
            Err(Errno::PERM) => self.lacks_owners.store(true, Ordering::Relaxed),
            owned => note("owner", owned, unlike),
        }
    }

    /// Gives directories their attributes, and makes all of it durable.
    ///
    /// # Errors
    /// The disk's; then nothing is certain to be durable.
    pub(super) fn finish(&self) -> Result<Finished> {
        let mut dressed = std::mem::take(&mut *self.dressed.lock());
        // What is below can be opened yet.
        dressed.sort_by(|(one, _), (other, _)| other.cmp(one));
        let mut unlike = BTreeMap::new();
        for (path, meta) in dressed {
            let lacks = match File::open(self.root.join(&path)) {
                Ok(dir) => self.dress(&dir, &meta),
                Err(error) => Some(format!("all of them ({error})")),
            };
            unlike.extend(lacks.map(|lacks| (path, lacks)));
        }
        let synced = File::open(&self.root).and_then(|root| Ok(rustix::fs::syncfs(root)?));
        let root = self.root.display().to_string();
        synced.map_err(|error| failed("make durable what is in", &root, error))?;
        Ok(Finished { unlike, lacks_owners: self.lacks_owners.load(Ordering::Relaxed) })
    }
}

/// A path without links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut below = Vec::new();
    let mut above = absolute.as_path();
    loop {
        if let Ok(real) = above.canonicalize() {
            return below.iter().rev().fold(real, |path, name| path.join(name));
        }
        let (Some(name), Some(parent)) = (above.file_name(), above.parent()) else { return absolute };
        below.push(name);
        above = parent;
    }
}

/// Renames what is whole to where nothing is.
fn give_name(aside: &Path, target: &Path) -> io::Result<()> {
    match renameat_with(CWD, aside, CWD, target, RenameFlags::NOREPLACE) {
        // There are disks that know of no such thing; that nothing is there was seen before.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(renameat(CWD, aside, CWD, target)?),
        renamed => Ok(renamed?),
    }
}

fn note(what: &str, done: rustix::io::Result<()>, unlike: &mut Vec<String>) {
    if let Err(error) = done {
        unlike.push(format!("{what} ({error})"));
    }
}

fn told(unlike: &[String]) -> Option<String> {
    (!unlike.is_empty()).then(|| unlike.join(", "))
}

fn uid(meta: &FileMeta) -> Uid {
    Uid::from_raw(meta.uid)
}

fn gid(meta: &FileMeta) -> Gid {
    Gid::from_raw(meta.gid)
}

fn times(meta: &FileMeta) -> Timestamps {
    Timestamps { last_access: timespec(meta.atime), last_modification: timespec(meta.mtime) }
}

fn timespec(time: SystemTime) -> Timespec {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timespec { tv_sec: after.as_secs() as i64, tv_nsec: after.subsec_nanos().into() },
        Err(before) => {
            let before = before.duration();
            match before.subsec_nanos() {
                0 => Timespec { tv_sec: -(before.as_secs() as i64), tv_nsec: 0 },
                nanos => Timespec {
                    tv_sec: -(before.as_secs() as i64) - 1,
                    tv_nsec: (1_000_000_000 - nanos).into(),
                },
            }
        }
    }
}

fn failed(what: &str, path: &str, error: io::Error) -> FsError {
    FsError::local(&format!("could not {what} {path:?}: {error}"), error)
}
