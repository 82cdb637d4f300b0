//! Showing another view: loaded and checked aside, published at one stroke, and then everything forgotten that was
//! believed of the one before, here and in the kernel.

use std::path::PathBuf;
use std::sync::Arc;

use staithe_snapshot::Kind;

use super::manifest::Manifest;
use super::pinned::{PinnedStore, ViewStatus};
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;

impl Filesystem {
    /// Has `pinned`, which this is the filesystem of, show the manifest in `file`. When it returns, whoever looks sees
    /// the new view; open files, and directory streams that have begun, go on with what they are of. Inodes of objects
    /// that are the same in both views stay.
    ///
    /// # Errors
    /// As [`PinnedStore::open`], and `Exists` while another one is loading. The view is the one before then.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing: what has begun comes to its end.
    pub async fn swap_view(&self, pinned: &Arc<PinnedStore>, file: PathBuf) -> Result<ViewStatus> {
        let pinned = Arc::clone(pinned);
        // Reads a file, builds a large thing, and waits for the kernel.
        self.aside(move |fs| fs.swap_view_blocking(&pinned, &file)).await
    }

    fn swap_view_blocking(&self, pinned: &PinnedStore, file: &std::path::Path) -> Result<ViewStatus> {
        let staging = pinned.views.stage().map_err(refused)?;
        let manifest = Manifest::load(file)?;
        pinned.check(&manifest)?;
        self.refresh_around(|| {
            let published = staging.publish(manifest, |_| Ok::<_, FsError>(())).map_err(refused)?;
            tracing::info!(file = %file.display(), epoch = %published.epoch(), "another view is shown");
            Ok(())
        })?;
        Ok(pinned.status())
    }
}

fn refused(error: staithe_snapshot::Error) -> FsError {
    match error.kind() {
        Kind::Busy => FsError::new(FsErrorKind::Exists, "another view is being loaded; try again later"),
        _ => FsError::caused(FsErrorKind::Io, "the view cannot be shown", error),
    }
}
