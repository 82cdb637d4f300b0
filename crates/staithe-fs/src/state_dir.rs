//! The directory that outlives the process: who owns it, which format it has, where things lie in it.
//!
//! ```text
//! lock       held while a process uses the directory; says which
//! format     the number of the layout
//! staging/   bytes that are not in the store yet
//! journal/   what a later start has to finish
//! ```

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::owned_dir::OwnedDir;

/// An open state directory, locked against other processes until it is dropped.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _owned: OwnedDir,
}

impl StateDir {
    /// Creates the directory if it is missing (for its owner only) and locks it. Blocks on the local disk.
    ///
    /// # Errors
    /// `Invalid` if another process holds it, or a newer version wrote it; `NoSpace` and `Io` as the disk answers.
    /// Nothing in it is changed then.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let owned = OwnedDir::open("state directory", path, &["staging", "journal"])?;
        Ok(Self { path: path.to_owned(), _owned: owned })
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

    /// Whether a file can move from `other` to the staging directory without being copied.
    pub(crate) fn is_on_one_file_system_with(&self, other: &Path) -> bool {
        let device = |path: &Path| path.metadata().map(|meta| meta.dev()).ok();
        device(&self.staging()).is_some_and(|ours| device(other) == Some(ours))
    }

    /// A name for a staging file that no other has or had, across restarts too (a random UUID).
    pub(crate) fn new_staging_name() -> String {
        uuid::Uuid::new_v4().simple().to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::FsErrorKind;

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
}
