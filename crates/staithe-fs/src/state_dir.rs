//! The directory that outlives the process: who owns it, which format it has, where things lie in it.
//!
//! ```text
//! lock       held while a process uses the directory; says which
//! format     the number of the layout
//! volume     whose unfinished files these are
//! identity   what tells that volume from one of its name that is made later, where the store shows it
//! staging/   bytes that are not in the store yet; beside a file that came from the disk cache its map, until it changes
//! journal/   what a later start has to finish
//! reserve    the last of the disk, which is the journal's, while kernels write to staging files
//! attributes/  what the store told of objects, for later runs
//! inodes/    which numbers inodes have, likewise
//! ```

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::cache::{is_map, is_untouched};
use crate::owned_dir::{OwnedDir, Place, failed, write_whole};
use crate::{FsError, FsErrorKind, Result};

/// What sentences call it.
const WHAT: &str = "state directory";
/// Where the identity of the volume is.
const IDENTITY: &str = "identity";

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
    /// `Invalid` if another process holds it, or a newer version wrote it; `Io` if a part of it is missing; `NoSpace` and
    /// `Io` as the disk answers. Nothing in it is changed then but who holds it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let owned = OwnedDir::open(WHAT, path, &["staging", "journal"])?;
        Ok(Self { path: path.to_owned(), _owned: owned })
    }

    /// Makes the directory one of `volume`; what it holds may be stored there then. An empty one belongs to whoever
    /// comes. `has_intents` says whether the journal has anything to finish.
    ///
    /// # Errors
    /// `Invalid` if it holds unfinished files of another volume, `Io` if it does not say of which, and nothing is changed;
    /// `NoSpace` and `Io` as the disk answers.
    pub(crate) fn claim(&self, volume: &str, has_intents: bool) -> Result<()> {
        let place = Place { what: WHAT, path: &self.path };
        let before = match std::fs::read_to_string(self.path.join("volume")) {
            Ok(text) => Some(text.trim_end_matches('\n').to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read the volume of", place, error)),
        };
        if before.as_deref() == Some(volume) {
            return Ok(());
        }
        if has_intents || self.has_staged_bytes().map_err(|error| failed("look into", place, error))? {
            // It is written before anything that could be unfinished.
            let known = before.filter(|before| !before.is_empty());
            return Err(if let Some(other) = known {
                let sentence = format!(
                    "{place} has unfinished files of {other}, and this is {volume}: mount the first one again to \
                     finish them, or use another --state-dir"
                );
                FsError::new(FsErrorKind::Invalid, sentence)
            } else {
                let sentence = format!(
                    "{place} has unfinished files, and its \"volume\" does not say of what: put it back, or use \
                     another --state-dir"
                );
                FsError::new(FsErrorKind::Io, sentence)
            });
        }
        write_whole(place, "volume", &format!("{volume}\n"))
    }

    /// Whether an earlier run has written down this `identity` of the volume: what the store shows that tells it from one
    /// that had its name before. One of an earlier volume is forgotten. `accepts_new` is that a person wants what is
    /// unfinished to be stored in the new one.
    ///
    /// # Errors
    /// `Invalid` if the directory holds unfinished files of an earlier one, and nothing is changed; `Io` as the disk answers.
    pub(crate) fn check_identity(
        &self,
        volume: &str,
        identity: Option<&str>,
        has_intents: bool,
        accepts_new: bool,
    ) -> Result<bool> {
        let place = Place { what: WHAT, path: &self.path };
        let Some(identity) = identity else { return Ok(false) };
        let Some(earlier) = self.identity(volume)? else { return Ok(false) };
        if earlier == line_of(volume, identity) {
            return Ok(true);
        }
        let is_unfinished =
            has_intents || self.has_staged_bytes().map_err(|error| failed("look into", place, error))?;
        if is_unfinished && !accepts_new {
            let sentence = format!(
                "{place} has unfinished files of {}, which is not there any more: there is another one of that name \
                 now, {identity}. --accept-new-volume stores them there, `staithe rescue` exports them",
                earlier.trim_end()
            );
            return Err(FsError::new(FsErrorKind::Invalid, sentence));
        }
        let removed = std::fs::remove_file(self.path.join(IDENTITY));
        removed.map_err(|error| failed("forget the earlier volume of", place, error))?;
        Ok(false)
    }

    /// What is written down of the identity of the volume, if anything is.
    ///
    /// # Errors
    /// `Io` as the disk answers.
    pub(crate) fn identity(&self, volume: &str) -> Result<Option<String>> {
        let place = Place { what: WHAT, path: &self.path };
        match std::fs::read_to_string(self.path.join(IDENTITY)) {
            Ok(text) => Ok(Some(text).filter(|text| text.starts_with(&format!("{volume}, ")))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read the identity of the volume of", place, error)),
        }
    }

    fn has_staged_bytes(&self) -> io::Result<bool> {
        for entry in std::fs::read_dir(self.staging())? {
            let entry = entry?;
            if may_be_lost(&entry.path(), &entry.metadata()?) {
                return Ok(true);
            }
        }
        Ok(false)
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

    /// Where attributes lie.
    pub(crate) fn attributes(&self) -> PathBuf {
        self.path.join("attributes")
    }

    /// Where inode numbers lie.
    pub(crate) fn inodes(&self) -> PathBuf {
        self.path.join("inodes")
    }

    /// Where the journal lies.
    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Whether a file can move from `other` to the staging directory without being copied: tried, because one file
    /// system may be mounted twice.
    pub(crate) fn takes_files_from(&self, other: &Path) -> bool {
        let name = format!("probe-{}", Self::new_staging_name());
        let (from, to) = (other.join(&name), self.staging().join(&name));
        let moved = std::fs::write(&from, "").and_then(|()| std::fs::rename(&from, &to));
        // Whichever is there.
        let _ = std::fs::remove_file(&from);
        let _ = std::fs::remove_file(&to);
        moved.is_ok()
    }

    /// A name for a staging file that no other has or had, across restarts too (a random UUID).
    pub(crate) fn new_staging_name() -> String {
        uuid::Uuid::new_v4().simple().to_string()
    }
}

/// Writes down what tells the volume of a state directory from one of its name that is made later.
///
/// # Errors
/// `NoSpace` and `Io` as the disk answers.
pub(crate) fn note_identity(state_dir: &Path, volume: &str, identity: &str) -> Result<()> {
    write_whole(Place { what: WHAT, path: state_dir }, IDENTITY, &line_of(volume, identity))
}

fn line_of(volume: &str, identity: &str) -> String {
    format!("{volume}, {identity}\n")
}

/// Whether a staging file holds anything that the store may not have; a hole is nothing. Reads a file that came from the
/// disk cache.
pub(crate) fn may_be_lost(path: &Path, file: &Metadata) -> bool {
    file.blocks() > 0 && !is_map(path) && !is_untouched(path)
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
    fn a_part_that_is_missing_is_missed_unless_it_was_never_made() {
        let dir = tempfile::tempdir().unwrap();
        let below = |names: &[&str]| {
            let _ = std::fs::remove_dir_all(dir.path().join("staging"));
            let _ = std::fs::remove_dir_all(dir.path().join("journal"));
            let _ = std::fs::remove_file(dir.path().join("format"));
            for name in names {
                match name.strip_suffix('/') {
                    Some(name) => std::fs::create_dir(dir.path().join(name)).unwrap(),
                    None => std::fs::write(dir.path().join(name), "1\n").unwrap(),
                }
            }
            StateDir::open(dir.path()).map(drop).map_err(|error| error.kind())
        };
        // As far as a first start can have come.
        for names in [&[][..], &["format"], &["format", "staging/"], &["format", "staging/", "journal/"]] {
            assert_eq!(below(names), Ok(()), "{names:?}");
        }
        let damaged = [
            &["staging/"][..],
            &["journal/"],
            &["staging/", "journal/"],
            &["format", "journal/"],
            &["format", "staging/", "staging/bytes"],
            &["staging/", "staging/bytes", "journal/"],
        ];
        for names in damaged {
            assert_eq!(below(names), Err(FsErrorKind::Io), "{names:?}");
        }
    }

    #[test]
    fn it_belongs_to_one_volume_while_it_holds_anything() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.claim("s3://b", false).unwrap();
        state.claim("s3://a", false).unwrap();
        state.claim("s3://a", true).unwrap();
        let volume = dir.path().join("volume");
        for damage in
            [&|| std::fs::remove_file(&volume), &|| std::fs::write(&volume, "")] as [&dyn Fn() -> _; 2]
        {
            damage().unwrap();
            let refused = state.claim("s3://a", true).unwrap_err();
            assert_eq!(refused.kind(), FsErrorKind::Io, "{refused}");
        }
        state.claim("s3://a", false).unwrap();
        let refused = state.claim("s3://b", true).unwrap_err();
        assert_eq!(refused.kind(), FsErrorKind::Invalid);
        let sentence = refused.to_string();
        assert!(sentence.contains("s3://a") && sentence.contains("s3://b"), "{sentence}");
        let staged = state.staging().join("bytes");
        std::fs::write(&staged, vec![1; 10_000]).unwrap();
        state.claim("s3://b", false).unwrap_err();
        std::fs::write(&staged, "").unwrap();
        state.claim("s3://b", false).unwrap();
        state.claim("s3://a", true).unwrap_err();
    }

    #[test]
    fn what_is_unfinished_is_not_stored_in_a_volume_that_was_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let check = |identity, has_intents, accepts_new| {
            state.check_identity("s3://a", identity, has_intents, accepts_new).map_err(|error| error.kind())
        };
        assert_eq!(check(Some("made first"), true, false), Ok(false), "nobody knew before");
        note_identity(dir.path(), "s3://a", "made first").unwrap();
        assert_eq!(check(Some("made first"), true, false), Ok(true));
        assert_eq!(check(Some("made later"), true, false), Err(FsErrorKind::Invalid));
        assert_eq!(check(None, true, false), Ok(false), "nobody knows now");
        assert_eq!(check(Some("made first"), true, false), Ok(true), "nothing was changed");
        std::fs::write(state.staging().join("bytes"), vec![1; 10_000]).unwrap();
        assert_eq!(check(Some("made later"), false, false), Err(FsErrorKind::Invalid));
        assert_eq!(check(Some("made later"), true, true), Ok(false));
        assert_eq!(check(Some("made first"), true, false), Ok(false), "the earlier one is forgotten");
        // What the volume is called is looked after by `claim`.
        note_identity(dir.path(), "s3://a", "made first").unwrap();
        assert!(!state.check_identity("s3://b", Some("made last"), true, false).unwrap());
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
