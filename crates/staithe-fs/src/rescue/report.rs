//! What a rescue says, as it goes on and at its end.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use staithe_store::{ObjectStore, Version};

/// Where what was never stored is to go.
#[derive(Debug)]
pub enum RescueTo {
    /// A local directory: made if it is missing, and empty.
    Directory(PathBuf),
    /// Another volume; nothing that is there is replaced.
    Store {
        /// The store.
        store: Arc<dyn ObjectStore>,
        /// What every key begins with there: empty, or ending in `/`.
        prefix: String,
        /// A directory on the local disk, with room for the largest file: in a directory of its own there, which goes at
        /// the end, lies what is on its way.
        scratch: PathBuf,
    },
}

/// What sort of thing something is that a rescue speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RescuedKind {
    /// A file.
    File,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// Bytes that nothing says the name of.
    Lost,
    /// Attributes of an object that the store has.
    Attributes,
    /// Something in the store that was not finished, and has no bytes here.
    Note,
    /// A part of the state directory that cannot be read.
    Damage,
}

/// Bytes of a file that nothing says are here: they were those of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingBytes {
    /// Where in the file, in bytes: ascending, disjoint. The same places of the object have them.
    pub ranges: Vec<Range<u64>>,
    /// Those of them that were fetched and are there all the same, as far as it can be told from how they lie on the disk;
    /// nothing vouches for them.
    pub fetched: Vec<Range<u64>>,
    /// The key of the object.
    pub key: String,
    /// The version of it, if that is known.
    pub version: Option<Version>,
}

/// What became of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescued {
    /// What sort of thing.
    pub kind: RescuedKind,
    /// Its key in its bucket, the prefix of its mount included; of what has none, where it is in the state directory. Empty
    /// if it is about no single thing.
    pub key: String,
    /// Where it is now, in the directory or below the prefix; `None`: nowhere.
    pub path: Option<String>,
    /// How many bytes of it are there.
    pub bytes: u64,
    /// What of it is not, if anything.
    pub missing: Option<MissingBytes>,
    /// Why it is not rescued.
    pub failure: Option<String>,
    /// Attributes that it should have, and has not.
    pub unlike: Option<String>,
    /// What else there is to say of it.
    pub remark: Option<String>,
}

impl Rescued {
    pub(super) fn new(kind: RescuedKind, key: impl Into<String>) -> Self {
        Self {
            kind,
            key: key.into(),
            path: None,
            bytes: 0,
            missing: None,
            failure: None,
            unlike: None,
            remark: None,
        }
    }

    pub(super) fn failed(kind: RescuedKind, key: impl Into<String>, why: impl Into<String>) -> Self {
        Self { failure: Some(why.into()), ..Self::new(kind, key) }
    }

    pub(super) fn note(key: impl Into<String>, remark: impl Into<String>) -> Self {
        Self { remark: Some(remark.into()), ..Self::new(RescuedKind::Note, key) }
    }
}

/// What became of all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RescueReport {
    /// Files and symbolic links that are rescued, those of which not all was here among them.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files of which not all was here.
    pub partial: u64,
    /// Objects whose attributes were to change: it is written down how.
    pub attributes: u64,
    /// Files and directories that do not have all of their attributes.
    pub unlike: u64,
    /// What is not rescued.
    pub failed: u64,
    /// Parts of the state directory that cannot be read.
    pub damaged: u64,
}

impl RescueReport {
    /// Whether everything that was not stored is rescued, whole.
    pub fn is_whole(&self) -> bool {
        (self.partial, self.unlike, self.failed, self.damaged) == (0, 0, 0, 0)
    }

    /// Whether there was nothing that was not stored.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn count(&mut self, rescued: &Rescued) {
        self.unlike += u64::from(rescued.unlike.is_some());
        if rescued.failure.is_some() {
            let is_damage = rescued.kind == RescuedKind::Damage;
            *(if is_damage { &mut self.damaged } else { &mut self.failed }) += 1;
            return;
        }
        let of_its_kind = match rescued.kind {
            RescuedKind::File | RescuedKind::Symlink | RescuedKind::Lost => &mut self.files,
            RescuedKind::Directory => &mut self.directories,
            RescuedKind::Attributes => &mut self.attributes,
            RescuedKind::Note | RescuedKind::Damage => return,
        };
        *of_its_kind += 1;
        self.bytes += rescued.bytes;
        self.partial += u64::from(rescued.missing.is_some());
    }
}
