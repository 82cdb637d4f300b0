//! The hidden area of a directory store, and what one process keeps in it.
//!
//! ```text
//! .staithe-tmp/open.lock           held while a store opens and sweeps
//! .staithe-tmp/locks/NN            see `locks`
//! .staithe-tmp/uploads/ID/         multipart uploads; they outlive every process
//! .staithe-tmp/session-ID/         files being written, by one store
//! .staithe-tmp/session-ID.lock     flocked as long as that store lives
//! ```
//! A session whose lock can be had belongs to nobody any more: whoever opens the directory next finishes what
//! it was removing, and removes it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::entries;
use super::place::{self, HIDDEN};

#[derive(Debug)]
pub(super) struct Session {
    pub(super) dir: OwnedFd,
    pub(super) uploads: OwnedFd,
    hidden: PathBuf,
    name: String,
    serial: AtomicU64,
    _alive: OwnedFd,
}

pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
pub(super) const NEW_FILE: OFlags =
    OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
const LOCK_FILE: OFlags = OFlags::RDWR.union(OFlags::CREATE).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
const PRIVATE: Mode = Mode::from_raw_mode(0o600);
const PRIVATE_DIR: Mode = Mode::from_raw_mode(0o700);

/// What the name of a file begins with that lists directories to be removed when they are empty.
const PRUNE: &str = "prune-";

impl Session {
    /// Makes the hidden area if need be, sweeps it, and begins a session; also gives the directory of the locks.
    pub(super) fn begin(root: &OwnedFd, path: &Path) -> Result<(Self, OwnedFd), Errno> {
        let hidden = open_or_make(root, HIDDEN)?;
        let opening = rustix::fs::openat(&hidden, "open.lock", LOCK_FILE, PRIVATE)?;
        lenient(rustix::fs::flock(&opening, FlockOperation::LockExclusive))?;
        let area = path.join(HIDDEN);
        sweep(root, &hidden, &area)?;
        let locks = open_or_make(&hidden, "locks")?;
        let uploads = open_or_make(&hidden, "uploads")?;
        let name = format!("session-{}", uuid::Uuid::new_v4().simple());
        let alive = rustix::fs::openat(&hidden, format!("{name}.lock"), LOCK_FILE, PRIVATE)?;
        lenient(rustix::fs::flock(&alive, FlockOperation::LockExclusive))?;
        let dir = open_or_make(&hidden, &name)?;
        let session = Self { dir, uploads, hidden: area, name, serial: AtomicU64::new(0), _alive: alive };
        Ok((session, locks))
    }

    /// A name that nothing in this session has had.
    pub(super) fn fresh(&self, kind: &str) -> String {
        format!("{kind}{}", self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// Where something in this session lies, for the functions that want a path.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.hidden.join(&self.name).join(name)
    }

    /// Notes directories (deepest first) that are about to lose their last entry. Should this process die
    /// between that and their removal, the next one removes them.
    pub(super) fn note_prune(&self, directories: &[String]) -> Result<PruneNote<'_>, Errno> {
        let name = self.fresh(PRUNE);
        let file = rustix::fs::openat(&self.dir, &name, NEW_FILE, PRIVATE)?;
        let note = PruneNote { session: self, name };
        File::from(file).write_all(directories.join("\0").as_bytes()).map_err(|error| errno_of(&error))?;
        Ok(note)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What cannot be removed now is swept by whoever opens the directory next.
        let _ = std::fs::remove_dir_all(self.hidden.join(&self.name));
        let _ = std::fs::remove_file(self.hidden.join(format!("{}.lock", self.name)));
    }
}

/// A note about directories to be removed; dropping it takes it back.
pub(super) struct PruneNote<'s> {
    session: &'s Session,
    name: String,
}

impl Drop for PruneNote<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.session.dir, &self.name, AtFlags::empty());
    }
}

/// The system's number for an error of the standard library.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn open_or_make(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(&parent, name, PRIVATE_DIR) {
        Ok(()) | Err(Errno::EXIST) => rustix::fs::openat(&parent, name, DIRECTORY, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

/// Without flock there is no telling whether a session lives; then none is ever swept.
fn lenient(locked: Result<(), Errno>) -> Result<(), Errno> {
    match locked {
        Err(Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS) => Ok(()),
        result => result,
    }
}

fn sweep(root: &OwnedFd, hidden: &OwnedFd, area: &Path) -> Result<(), Errno> {
    let mut sessions = Vec::new();
    entries::for_each(hidden, |entry| {
        let id = entry.name.strip_prefix("session-").map(|id| id.strip_suffix(".lock").unwrap_or(id));
        sessions.extend(id.map(|id| format!("session-{id}")));
        true
    })?;
    sessions.sort_unstable();
    sessions.dedup();
    for name in sessions {
        let lock = format!("{name}.lock");
        let file = rustix::fs::openat(hidden, &lock, LOCK_FILE, PRIVATE)?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue; // in use, or no telling
        }
        let dir = area.join(&name);
        finish_prunes(root, &dir);
        // A leftover that cannot be removed is only space: the next open tries again.
        if std::fs::remove_dir_all(&dir).is_ok() || !dir.exists() {
            let _ = rustix::fs::unlinkat(hidden, &lock, AtFlags::empty());
        }
    }
    Ok(())
}

fn finish_prunes(root: &OwnedFd, session: &Path) {
    let Ok(files) = std::fs::read_dir(session) else { return };
    for file in files.flatten() {
        if !file.file_name().to_string_lossy().starts_with(PRUNE) {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(file.path()) else { continue };
        for path in text.split('\0').filter(|path| place::is_path(path)) {
            let Ok(dir) = super::root::open_beneath(root, path, OFlags::DIRECTORY) else { continue };
            if !matches!(Attributes::read(&dir), Ok(None)) {
                break; // marked since: an object
            }
            if rustix::fs::unlinkat(root, path, AtFlags::REMOVEDIR).is_err() {
                break;
            }
        }
    }
}
