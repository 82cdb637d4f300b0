//! The staging directory: bytes that nobody has open, and no intent speaks of.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{DifferenceKind, Repair, Run};
use crate::cache::is_map;
use crate::error::{FsError, Result};
use crate::intent::Intent;
use crate::state_dir::may_be_lost;
use crate::upload::blocking;

/// Which file it is, whatever it is called.
type FileId = (u64, u64);

impl Run<'_> {
    pub(super) async fn staged(&self) -> Result<()> {
        if !self.covers_all() {
            // Nobody knows of which path these are.
            return Ok(());
        }
        for path in self.nobodys().await? {
            self.differs(
                path.display().to_string(),
                DifferenceKind::Staged,
                "bytes that no intent speaks of",
                async { self.set_aside(&path).await },
            )
            .await;
        }
        Ok(())
    }

    /// The files that are nobody's.
    async fn nobodys(&self) -> Result<Vec<PathBuf>> {
        let staging = self.fs.state_dir.staging();
        // In this order: what is made meanwhile is not among them, and what is given up for an intent is spoken of.
        let files = blocking(move || {
            let (files, open) = list(&staging)
                .and_then(|files| Ok((files, open_files()?)))
                .map_err(|error| FsError::local("looking through the staging directory", error))?;
            let is_open = |file: &PathBuf| file.metadata().is_ok_and(|meta| open.contains(&id(&meta)));
            Ok(files.into_iter().map(|file| (is_open(&file), file)).collect::<Vec<_>>())
        })
        .await?;
        for _ in &files {
            self.compared();
        }
        let closed: Vec<PathBuf> =
            files.into_iter().filter(|(is_open, _)| !is_open).map(|(_, file)| file).collect();
        if closed.is_empty() {
            return Ok(closed);
        }
        let staging_name = |(_, intent)| match intent {
            Intent::Store(store) => Some(store.staging_name),
            _ => None,
        };
        let spoken_of: HashSet<String> =
            self.fs.pending().await?.into_iter().filter_map(staging_name).collect();
        let is_nobodys = |file: &PathBuf| {
            let name = file.file_name().and_then(|name| name.to_str());
            // It may have been stored, and gone, meanwhile.
            !name.is_some_and(|name| spoken_of.contains(name)) && file.try_exists().unwrap_or(false)
        };
        Ok(closed.into_iter().filter(is_nobodys).collect())
    }

    /// Moves a file to where a person may look for it; one that has nothing which the store has not goes.
    async fn set_aside(&self, file: &Path) -> Result<Repair> {
        let (file, aside) = (file.to_owned(), self.fs.state_dir.lost_and_found());
        let moving = move || {
            let failed = |error| FsError::local("setting unstored bytes aside", error);
            let meta = file.metadata().map_err(failed)?;
            if !may_be_lost(&file, &meta) {
                std::fs::remove_file(&file).map_err(failed)?;
                return Ok(Repair::Done("removed: there is nothing in it that the store has not"));
            }
            let name = file.file_name().unwrap_or_default();
            std::fs::create_dir_all(&aside)
                .and_then(|()| std::fs::rename(&file, aside.join(name)))
                .map_err(failed)?;
            Ok(Repair::Done("moved to lost+found"))
        };
        blocking(moving).await
    }
}

fn list(staging: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = std::fs::read_dir(staging)?.map(|entry| entry.map(|entry| entry.path()));
    let paths = paths.collect::<io::Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| !is_map(path)).collect())
}

/// The files that this process has open: a staging file is open from its making on, for as long as anybody uses it.
pub(super) fn open_files() -> io::Result<HashSet<FileId>> {
    let open = std::fs::read_dir("/proc/self/fd")?.flatten();
    // One that was closed meanwhile is none.
    Ok(open.filter_map(|fd| std::fs::metadata(fd.path()).ok()).map(|meta| id(&meta)).collect())
}

pub(super) fn id(meta: &Metadata) -> FileId {
    (meta.dev(), meta.ino())
}
