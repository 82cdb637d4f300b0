//! A directory of ours on the local disk: made for its owner only, locked against other processes, of a known format.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::failpoint::{Step, reach};
use crate::{FsError, FsErrorKind, Result};

/// The layout that this version writes, and the newest that it reads, in every such directory.
const FORMAT: u32 = 1;

/// An open directory of ours, locked until it is dropped.
#[derive(Debug)]
pub(crate) struct OwnedDir {
    /// The lock lives as long as this descriptor.
    _lock: File,
}

impl OwnedDir {
    /// Creates the directory and those `below` it if they are missing, and locks it. `what` is its name in
    /// sentences. Blocks on the local disk.
    ///
    /// # Errors
    /// `Invalid` if another process holds it, or a newer version wrote it; `Io` if a part of it is missing; `NoSpace` and
    /// `Io` as the disk answers. Nothing in it is changed then but who holds it.
    pub(crate) fn open(what: &'static str, path: &Path, below: &[&str]) -> Result<Self> {
        let place = Place { what, path };
        create_dir(place)?;
        let lock = lock(place)?;
        refuse_incomplete(place, below)?;
        check_format(place)?;
        for dir in below {
            create_dir(Place { what, path: &path.join(dir) })?;
        }
        Ok(Self { _lock: lock })
    }
}

/// A directory of ours that is only looked at, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    /// The lock lives as long as this descriptor.
    lock: File,
    /// What the file of the lock said before; `None`: it could not be written to, and says that still.
    before: Option<Vec<u8>>,
    /// What is wrong with the directory, in a few words.
    pub(crate) damage: Option<String>,
}

impl Visit {
    /// Locks a directory that is there, on a disk that need not be writable, and changes nothing in it; as long as it is
    /// locked its file says by whom. Blocks on the local disk.
    ///
    /// # Errors
    /// `Invalid` if there is no such directory of ours, another process holds it, or a newer version wrote it; `Io` as the
    /// disk answers.
    pub(crate) fn begin(what: &'static str, path: &Path) -> Result<Self> {
        let place = Place { what, path };
        let file = path.join("lock");
        let opened = match OpenOptions::new().read(true).write(true).open(&file) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(&file),
            opened => opened,
        };
        let mut lock = match opened {
            Ok(lock) => lock,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                let sentence = format!("{} is no {what}: it has no lock", path.display());
                return Err(FsError::new(FsErrorKind::Invalid, sentence));
            }
            Err(error) => return Err(failed("lock", place, error)),
        };
        take(place, &mut lock)?;
        let damage = match is_of_our_format(place) {
            Ok(true) => None,
            Ok(false) => Some(format!("{place} lacks its \"format\"")),
            Err(error) if error.kind() == FsErrorKind::Invalid => return Err(error),
            Err(error) => Some(error.to_string()),
        };
        let mut before = Vec::new();
        let is_said = lock.read_to_end(&mut before).and_then(|_| say_holder(&mut lock)).is_ok();
        Ok(Self { lock, before: is_said.then_some(before), damage })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Some(before) = &self.before else { return };
        // It said who had held it, and what it says now is no worse.
        let _ = self.lock.rewind().and_then(|()| self.lock.write_all(before));
        let _ = self.lock.set_len(before.len() as u64);
    }
}

/// A directory, and what sentences call it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) what: &'static str,
    pub(crate) path: &'a Path,
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the {} {}", self.what, self.path.display())
    }
}

/// Fails for a directory that is there and that another user could have put files into, or still can.
///
/// # Errors
/// `Invalid`; `Io` if the disk does not answer.
pub(crate) fn refuse_foreign(dir: Place<'_>) -> Result<()> {
    let meta = match dir.path.metadata() {
        Ok(meta) => meta,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(failed("examine", dir, error)),
    };
    if !meta.is_dir() || is_ours_alone(&meta) {
        return Ok(());
    }
    let (us, them, mode) = (geteuid().as_raw(), meta.uid(), meta.mode() & 0o7777);
    let sentence = if us == them {
        format!(
            "{dir} can be written to by other users (mode {mode:o}), who could have us serve their bytes: \
             chmod go-w it if all that is in it is yours, or use another"
        )
    } else {
        format!(
            "{dir} belongs to user {them} and this is user {us}, who would serve the other one's bytes: use another"
        )
    };
    Err(FsError::new(FsErrorKind::Invalid, sentence))
}

/// Whether a file or directory is ours, and no other user may write to it (root may).
pub(crate) fn is_ours_alone(meta: &Metadata) -> bool {
    meta.uid() == geteuid().as_raw() && meta.mode() & 0o022 == 0
}

/// Takes the lock and leaves our process id in its file.
fn lock(dir: Place<'_>) -> Result<File> {
    let path = dir.path.join("lock");
    let failed = |error| failed("lock", dir, error);
    let options =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = options.map_err(failed)?;
    take(dir, &mut file)?;
    say_holder(&mut file).map_err(failed)?;
    Ok(file)
}

/// Takes the lock of an open file.
fn take(dir: Place<'_>, file: &mut File) -> Result<()> {
    match flock(&*file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(in_use(dir, file)),
        Err(error) => Err(failed("lock", dir, error.into())),
    }
}

/// Leaves our process id in the file of a lock.
fn say_holder(file: &mut File) -> io::Result<()> {
    let pid = format!("{}\n", std::process::id());
    // Written before it is cut to length: who reads in between sees a process id at its start.
    file.rewind().and_then(|()| file.write_all(pid.as_bytes()))?;
    file.set_len(pid.len() as u64)
}

fn in_use(dir: Place<'_>, lock: &mut File) -> FsError {
    let mut text = String::new();
    let pid = match lock.take(32).read_to_string(&mut text) {
        Ok(_) => text.lines().next().and_then(|line| line.parse::<u32>().ok()),
        Err(_) => None,
    };
    let holder = pid.map_or_else(|| String::from("another process"), |pid| format!("process {pid}"));
    let sentence = format!("{dir} is in use by {holder}: unmount that first, or use another");
    FsError::new(FsErrorKind::Invalid, sentence)
}

/// Fails if a part is missing that was there: the format is made first, then the directories `below` in their order,
/// before anything is put into one of them.
fn refuse_incomplete(dir: Place<'_>, below: &[&str]) -> Result<()> {
    let is_there =
        |name: &str| dir.path.join(name).try_exists().map_err(|error| failed("look into", dir, error));
    let is_filled = |name: &str| match std::fs::read_dir(dir.path.join(name)) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("look into", dir, error)),
    };
    let mut missing = (!is_there("format")?).then_some("format");
    for name in below {
        match missing {
            Some(before) if is_there(name)? => return Err(incomplete(dir, before)),
            None if !is_there(name)? => missing = Some(name),
            _ => {}
        }
    }
    let Some(missing) = missing else { return Ok(()) };
    for name in below {
        if is_filled(name)? {
            return Err(incomplete(dir, missing));
        }
    }
    Ok(())
}

fn incomplete(dir: Place<'_>, missing: &str) -> FsError {
    let sentence = format!(
        "{dir} lacks its {missing:?}, and has more than a new one: put it back, or use another directory"
    );
    FsError::new(FsErrorKind::Io, sentence)
}

/// Refuses a layout that this version does not know; marks a new directory with ours.
fn check_format(dir: Place<'_>) -> Result<()> {
    if is_of_our_format(dir)? { Ok(()) } else { write_whole(dir, "format", &format!("{FORMAT}\n")) }
}

/// Refuses a layout that this version does not know; false if there is no word of any.
fn is_of_our_format(dir: Place<'_>) -> Result<bool> {
    let path = dir.path.join("format");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("read the format of", dir, error)),
    };
    match text.trim().parse::<u32>() {
        Ok(FORMAT) => Ok(true),
        Ok(other) => {
            let sentence = format!(
                "{dir} has format {other} and this version knows {FORMAT}: \
                 use the version that wrote it, or another directory"
            );
            Err(FsError::new(FsErrorKind::Invalid, sentence))
        }
        Err(_) => {
            let sentence = format!("{dir} has an unreadable format file: use another directory");
            Err(FsError::new(FsErrorKind::Io, sentence))
        }
    }
}

/// Writes a small file whole or not at all: a torn one would lock the user out of what the directory holds.
pub(crate) fn write_whole(dir: Place<'_>, name: &str, text: &str) -> Result<()> {
    let fresh = dir.path.join(format!("{name}.new"));
    let written = File::create(&fresh)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .inspect(|()| reach(Step::BeforeClaim))
        .and_then(|()| std::fs::rename(&fresh, dir.path.join(name)))
        .and_then(|()| File::open(dir.path)?.sync_all())
        .inspect(|()| reach(Step::AfterClaim));
    written.map_err(|error| failed("write to", dir, error))
}

fn create_dir(dir: Place<'_>) -> Result<()> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(dir.path);
    created.map_err(|error| failed("create", dir, error))
}

/// An error of the local disk in a directory of ours.
pub(crate) fn failed(what: &str, dir: Place<'_>, error: io::Error) -> FsError {
    FsError::local(&format!("could not {what} {dir}: {error}"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_locks_it_and_leaves_it_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let visit = || Visit::begin("state directory", dir.path());
        assert_eq!(visit().unwrap_err().kind(), FsErrorKind::Invalid);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        let owned = OwnedDir::open("state directory", dir.path(), &["staging"]).unwrap();
        let refused = visit().unwrap_err().to_string();
        assert!(refused.contains(&format!("in use by process {}", std::process::id())), "{refused}");
        drop(owned);
        let lock = dir.path().join("lock");
        std::fs::write(&lock, "4194304\n").unwrap();
        let visiting = visit().unwrap();
        assert_eq!(visiting.damage, None);
        assert_eq!(std::fs::read_to_string(&lock).unwrap(), format!("{}\n", std::process::id()));
        OwnedDir::open("state directory", dir.path(), &["staging"]).unwrap_err();
        drop(visiting);
        assert_eq!(std::fs::read_to_string(&lock).unwrap(), "4194304\n");
        std::fs::write(dir.path().join("format"), "2\n").unwrap();
        assert_eq!(visit().unwrap_err().kind(), FsErrorKind::Invalid);
        std::fs::remove_file(dir.path().join("format")).unwrap();
        assert!(visit().unwrap().damage.is_some() && !dir.path().join("format").exists());
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let place = Place { what: "state directory", path: Path::new("/state") };
        let full = failed("write to", place, Errno::NOSPC.into());
        assert_eq!(full.kind(), FsErrorKind::NoSpace);
        assert!(full.to_string().starts_with("could not write to the state directory /state"), "{full}");
    }
}
