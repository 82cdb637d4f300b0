//! The files below some paths, found page by page.
//!
//! Memory: the walk holds one page of each directory on the way down to where it stands, whatever these hold.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Meter;
use crate::api::{Ino, Lookup};
use crate::directory::{Final, Progress};
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::lookup::Dent;
use crate::names::topmost;
use crate::table::Pinned;

/// A file that was found.
pub(super) struct Target<'f> {
    pub(super) dir: Arc<Pinned<'f>>,
    pub(super) name: Arc<str>,
    /// From the root.
    pub(super) path: String,
    /// As the listing has it.
    pub(super) size: u64,
}

/// A directory on the way down.
struct Level<'f> {
    dir: Arc<Pinned<'f>>,
    path: String,
    progress: Progress,
    entries: std::vec::IntoIter<(Arc<str>, Dent)>,
    listed: Final,
}

impl<'f> Level<'f> {
    fn new(dir: Pinned<'f>, path: String) -> Self {
        let entries = Vec::new().into_iter();
        Self { dir: Arc::new(dir), path, progress: Progress::Start, entries, listed: Final::default() }
    }

    /// The next entry; `None` at the end.
    async fn next(&mut self, fs: &Filesystem) -> Result<Option<(Arc<str>, Dent)>> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Ok(Some(entry));
            }
            let Some(page) = fs.next_page(&self.dir, &mut self.progress).await? else { return Ok(None) };
            self.entries = self.listed.page(page).into_iter();
        }
    }
}

impl Filesystem {
    /// Sends the files at and below `paths`, each once; tells `meter` of each, and of what fails.
    pub(super) async fn walk<'f>(
        &'f self,
        paths: &[String],
        found: mpsc::Sender<Target<'f>>,
        meter: Meter<'_>,
    ) {
        for path in topmost(paths) {
            if let Err(error) = self.walk_path(path, &found, meter).await {
                meter.failed(path, &error);
            }
        }
    }

    async fn walk_path<'f>(
        &'f self,
        path: &str,
        found: &mpsc::Sender<Target<'f>>,
        meter: Meter<'_>,
    ) -> Result<()> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.find(above).await?;
        if name.is_empty() {
            self.walk_below(Level::new(dir, String::new()), found, meter).await;
            return Ok(());
        }
        let named = self.child(dir.ino, name).await?.ok_or_else(|| absent(path))?;
        if named.is_dir() {
            self.walk_below(Level::new(named, path.to_owned()), found, meter).await;
            return Ok(());
        }
        let size = named.state().size();
        let target = Target { dir: Arc::new(dir), name: Arc::from(name), path: path.to_owned(), size };
        send(found, target, meter).await;
        Ok(())
    }

    async fn walk_below<'f>(&'f self, top: Level<'f>, found: &mpsc::Sender<Target<'f>>, meter: Meter<'_>) {
        let mut way = vec![top];
        while let Some(level) = way.last_mut() {
            let (name, dent) = match level.next(self).await {
                Ok(Some(entry)) => entry,
                Ok(None) => {
                    way.pop();
                    continue;
                }
                Err(error) => {
                    meter.failed(&level.path, &error);
                    way.pop();
                    continue;
                }
            };
            let path =
                if level.path.is_empty() { name.to_string() } else { format!("{}/{name}", level.path) };
            match dent {
                Dent::File { size, .. } => {
                    send(found, Target { dir: Arc::clone(&level.dir), name, path, size }, meter).await;
                }
                Dent::Directory { .. } => match self.child(level.dir.ino, &name).await {
                    Ok(Some(dir)) if dir.is_dir() => way.push(Level::new(dir, path)),
                    // Changed since the listing.
                    Ok(_) => {}
                    Err(error) => meter.failed(&path, &error),
                },
            }
        }
    }

    /// The inode at a path from the root.
    pub(crate) async fn find(&self, path: &str) -> Result<Pinned<'_>> {
        let mut at = self.inodes.pin(self.inodes.get(Ino::ROOT)?);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = self.child(at.ino, name).await?.ok_or_else(|| absent(path))?;
        }
        Ok(at)
    }

    /// The inode of a name, if there is one.
    pub(super) async fn child(&self, dir: Ino, name: &str) -> Result<Option<Pinned<'_>>> {
        let Lookup::Found(entry) = self.lookup(dir, name).await? else { return Ok(None) };
        let ino = entry.attr.ino;
        let pinned = self.inodes.get(ino).map(|inode| self.inodes.pin(inode));
        // The lookup counted one as well, as for the kernel.
        self.inodes.forget(ino, 1);
        pinned.map(Some)
    }
}

async fn send<'f>(found: &mpsc::Sender<Target<'f>>, target: Target<'f>, meter: Meter<'_>) {
    meter.found(target.size);
    // Those who take them go last.
    let _ = found.send(target).await;
}

fn absent(path: &str) -> FsError {
    FsError::new(FsErrorKind::NotFound, format!("there is no {path:?}"))
}
