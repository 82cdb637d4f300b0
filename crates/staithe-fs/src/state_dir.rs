//! The directory that outlives the process: who owns it, which format it has, where things lie in it.
//!
//! ```text
//! lock       held while a process uses the directory; says which
//! format     the number of the layout
//! staging/   bytes that are not in the store yet
//! journal/   what a later start has to finish
//! ```

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::{FsError, FsErrorKind, Result};

/// The layout that this version writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// An open state directory, locked against other processes until it is dropped.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// The lock lives as long as this descriptor.
    _lock: File,
}

impl StateDir {
    /// Creates the directory if it is missing (for its owner only) and locks it. Blocks on the local disk.
    ///
    /// # Errors
    /// `Invalid` if another process holds it, or a newer version wrote it; `NoSpace` and `Io` as the disk answers.
    /// Nothing in it is changed then.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        create_dir(path)?;
        let lock = lock(path)?;
        check_format(path)?;
        for dir in ["staging", "journal"] {
            create_dir(&path.join(dir))?;
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where bytes lie that a crash left and nothing speaks of.
    pub(crate) fn lost_and_found(&self) -> PathBuf {
        self.path.join("lost+found")
    }

    /// Where staged bytes lie.
    pub(crate) fn staging(&self) -> PathBuf {
        self.path.join("staging")
    }

    /// Where the journal lies.
    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// A name for a staging file that no other has or had, across restarts too (a random UUID).
    pub(crate) fn new_staging_name() -> String {
        uuid::Uuid::new_v4().simple().to_string()
    }
}

/// Takes the lock and leaves our process id in its file.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let failed = |error| failed("lock", dir, error);
    let options =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = options.map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(in_use(dir, &mut file)),
        Err(error) => return Err(failed(error.into())),
    }
    let pid = format!("{}\n", std::process::id());
    // Written before it is cut to length: who reads in between sees a process id at its start.
    file.rewind().and_then(|()| file.write_all(pid.as_bytes())).map_err(failed)?;
    file.set_len(pid.len() as u64).map_err(failed)?;
    Ok(file)
}

fn in_use(dir: &Path, lock: &mut File) -> FsError {
    let mut text = String::new();
    let pid = match lock.take(32).read_to_string(&mut text) {
        Ok(_) => text.lines().next().and_then(|line| line.parse::<u32>().ok()),
        Err(_) => None,
    };
    let holder = pid.map_or_else(|| String::from("another process"), |pid| format!("process {pid}"));
    let dir = dir.display();
    let sentence =
        format!("the state directory {dir} is in use by {holder}: unmount that first, or use another");
    FsError::new(FsErrorKind::Invalid, sentence)
}

/// Refuses a layout that this version does not know; marks a new directory with ours.
fn check_format(dir: &Path) -> Result<()> {
    let path = dir.join("format");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return write_format(dir, &path),
        Err(error) => return Err(failed("read the format of", dir, error)),
    };
    let dir = dir.display();
    match text.trim().parse::<u32>() {
        Ok(FORMAT) => Ok(()),
        Ok(other) => {
            let sentence = format!(
                "the state directory {dir} has format {other} and this version knows {FORMAT}: \
                 use the version that wrote it, or another directory"
            );
            Err(FsError::new(FsErrorKind::Invalid, sentence))
        }
        Err(_) => {
            let sentence =
                format!("the state directory {dir} has an unreadable format file: use another directory");
            Err(FsError::new(FsErrorKind::Io, sentence))
        }
    }
}

/// Whole or not at all: a torn file would lock the user out of what the directory holds.
fn write_format(dir: &Path, path: &Path) -> Result<()> {
    let fresh = dir.join("format.new");
    let written = File::create(&fresh)
        .and_then(|mut file| file.write_all(format!("{FORMAT}\n").as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&fresh, path))
        .and_then(|()| File::open(dir)?.sync_all());
    written.map_err(|error| failed("write to", dir, error))
}

fn create_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed("create", path, error))
}

fn failed(what: &str, path: &Path, error: io::Error) -> FsError {
    let sentence = format!("could not {what} the state directory {}: {error}", path.display());
    FsError::local(&sentence, error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_created_for_its_owner_only() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/state");
        let state = StateDir::open(&path).unwrap();
        for dir in [path.clone(), state.staging(), state.journal()] {
            assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o7777, 0o700, "{}", dir.display());
        }
        assert_ne!(StateDir::new_staging_name(), StateDir::new_staging_name());
        drop(state);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn a_second_one_is_refused_with_the_first_ones_process_id() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lock"), "4194304\nleft by a longer text\n").unwrap();
        let first = StateDir::open(dir.path()).unwrap();
        let refused = StateDir::open(dir.path()).unwrap_err();
        assert_eq!(refused.kind(), FsErrorKind::Invalid);
        assert!(
            refused.to_string().contains(&format!("in use by process {}:", std::process::id())),
            "{refused}"
        );
        drop(first);
        StateDir::open(dir.path()).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        drop(StateDir::open(dir.path()).unwrap());
        let staged = dir.path().join("staging/bytes");
        std::fs::write(&staged, "precious").unwrap();
        for (format, kind) in [("2\n", FsErrorKind::Invalid), ("", FsErrorKind::Io)] {
            std::fs::write(dir.path().join("format"), format).unwrap();
            assert_eq!(StateDir::open(dir.path()).unwrap_err().kind(), kind);
            assert_eq!(std::fs::read_to_string(&staged).unwrap(), "precious");
            assert_eq!(std::fs::read_to_string(dir.path().join("format")).unwrap(), format);
        }
        std::fs::write(dir.path().join("format"), "1\n").unwrap();
        StateDir::open(dir.path()).unwrap();
    }

    #[test]
    fn what_cannot_be_created_is_said_in_one_sentence() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below")] {
            let refused = StateDir::open(&path).unwrap_err();
            assert_eq!(refused.kind(), FsErrorKind::Io);
            assert!(refused.to_string().starts_with("could not create the state directory"), "{refused}");
        }
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = failed("write to", Path::new("/state"), Errno::NOSPC.into());
        assert_eq!(full.kind(), FsErrorKind::NoSpace);
    }
}
