//! Into another volume, as a mount of it would store it: with attributes, in parts where it is large, and on the condition
//! that nothing has the name.
//!
//! It is what a start does with the intents that an earlier run left, on copies of its staging files, in a state directory
//! that goes at the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use rangemap::RangeSet;
use staithe_store::ObjectStore;

use super::bytes::Bytes;
use crate::api::{Ino, Kind, Lookup};
use crate::config::FsConfig;
use crate::disk_file::DiskFile;
use crate::door::Door;
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::Inode;
use crate::intent::{MarkerIntent, StoreIntent};
use crate::metadata::FileMeta;
use crate::staging::StagedState;
use crate::state_dir::StateDir;
use crate::upload::blocking;

/// A volume that takes what is rescued.
#[derive(Debug)]
pub(super) struct Volume {
    fs: Arc<Filesystem>,
    stop: Arc<AtomicBool>,
    /// Why it takes nothing more.
    given_up: Mutex<Option<FsError>>,
    /// Goes after the filesystem in it.
    _scratch: Scratch,
}

/// A directory of ours, removed with all that is in it.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(dir = %self.0.display(), %error, "not removed");
            }
            _ => {}
        }
    }
}

/// A file on its way to the store.
#[derive(Debug)]
pub(super) struct Sending {
    volume: Arc<Volume>,
    inode: Arc<Inode>,
}

impl Volume {
    /// Opens the volume, with a state directory in `scratch`.
    ///
    /// # Errors
    /// As [`Filesystem::open`].
    pub(super) async fn open(
        store: Arc<dyn ObjectStore>,
        prefix: String,
        scratch: &Path,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let dir = scratch.join(format!("staithe-rescue-{}", StateDir::new_staging_name()));
        let config = FsConfig { prefix, keep_attributes: false, ..FsConfig::new(&dir) };
        let scratch = Scratch(dir);
        let fs = Filesystem::open(store, config).await?;
        Ok(Self { fs, stop, given_up: Mutex::default(), _scratch: scratch })
    }

    /// What is at a path.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn at(&self, path: &str) -> Result<Option<Kind>> {
        self.refuse_given_up()?;
        let mut met = vec![(Ino::ROOT, Kind::Directory)];
        let mut walk = async || {
            for name in path.split('/') {
                let parent = met.last().map_or(Ino::ROOT, |(ino, _)| *ino);
                let Lookup::Found(entry) = self.fs.lookup(parent, name).await? else { return Ok(None) };
                met.push((entry.attr.ino, entry.attr.kind));
            }
            Ok(met.last().map(|(_, kind)| *kind))
        };
        let found = walk().await;
        // Not before: what is referred to stays in memory.
        for (ino, _) in &met[1..] {
            self.fs.forget(*ino, 1);
        }
        found.map_err(|error| self.may_give_up(error))
    }

    /// Makes a directory; what there is to say of it.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn make(&self, path: &str, meta: FileMeta) -> Result<Option<String>> {
        self.refuse_given_up()?;
        let Some(key) = self.fs.marker_key(path)? else { return Ok(None) };
        let made = async {
            if self.fs.head(key.clone()).await?.is_some() {
                return Ok(Some(String::from("it is there already, and stays as it is")));
            }
            let meta = FileMeta { write_id: None, ..meta };
            let inode = self.fs.revive_directory(MarkerIntent { key, meta, is_new: true })?;
            let made = self.fs.try_commit(&inode, &Door::open()).await;
            self.fs.nameless_copy(&inode);
            made.map(|()| None)
        };
        made.await.map_err(|error| self.may_give_up(error))
    }

    /// Copies a file or a link to where it can be sent from.
    ///
    /// # Errors
    /// The local disk's; then nothing of it is there.
    pub(super) async fn begin(self: &Arc<Self>, path: &str, meta: FileMeta, bytes: Bytes) -> Result<Sending> {
        self.refuse_given_up()?;
        let (key, staging_name) = (self.fs.key(path)?, StateDir::new_staging_name());
        let (dir, name, stop, size) =
            (self.fs.state_dir.staging(), staging_name.clone(), self.stop.clone(), bytes.len());
        blocking(move || {
            let copy = DiskFile::create(&dir, &name)?;
            bytes.copy_to(&copy, &stop).or_else(|error| {
                copy.remove()?;
                Err(FsError::local(&format!("could not write {copy}: {error}"), error))
            })
        })
        .await?;
        let state = StagedState { size, base_size: None, base_limit: 0, dirty: RangeSet::new() };
        let meta = FileMeta { write_id: None, ..meta };
        let intent = StoreIntent { key, staging_name, state, base: None, meta, is_doubted: false };
        let gone = || FsError::new(FsErrorKind::Io, "the copy that was to be sent is gone");
        let inode = self.fs.revive_file(&intent)?.ok_or_else(gone)?;
        Ok(Sending { volume: self.clone(), inode })
    }

    fn refuse_given_up(&self) -> Result<()> {
        self.given_up.lock().clone().map_or(Ok(()), Err)
    }

    /// Takes nothing more after an error that every other request would meet, too.
    fn may_give_up(&self, error: FsError) -> FsError {
        use FsErrorKind as K;
        let is_for_all = matches!(
            error.kind(),
            K::TimedOut
                | K::Throttled
                | K::VolumeGone
                | K::Forbidden
                | K::CredentialsExpired
                | K::CredentialsRefused
        );
        if is_for_all {
            self.given_up.lock().get_or_insert_with(|| error.clone());
        }
        error
    }
}

impl Sending {
    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.inode.state().size()
    }

    /// Sends it.
    ///
    /// # Errors
    /// The store's; then there is nothing of it, or it is where the error says.
    ///
    /// # Cancel safety
    /// Dropping the future may leave an upload that nobody completes.
    pub(super) async fn finish(self) -> Result<()> {
        let Self { volume, inode } = self;
        let sent = match volume.refuse_given_up() {
            Ok(()) => volume.fs.try_commit(&inode, &Door::open()).await,
            refused => refused,
        };
        inode.drop_staged();
        volume.fs.nameless_copy(&inode);
        sent.map_err(|error| volume.may_give_up(error))
    }
}
