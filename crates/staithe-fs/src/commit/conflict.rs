//! A commit that another client was faster than: nobody's bytes are lost.

use std::sync::Arc;
use std::time::SystemTime;

use staithe_store::ErrorKind;

use super::{store_error, with_causes};
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::Inode;
use crate::staging::Staged;

impl Filesystem {
    /// Another client was first. Ours goes beside theirs, or nowhere: never over it.
    pub(super) async fn lost_race(&self, inode: &Arc<Inode>, error: FsError) -> Result<()> {
        let Some(link) = inode.state().link.clone() else { return Ok(()) };
        let path = self.inodes.path(link.parent)?;
        let name = crate::names::conflict_name(&link.name, &self.config.host, SystemTime::now());
        let beside = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        let place = loop {
            match self.store_beside(inode, &beside).await {
                Ok(generation) => {
                    if self.give_up_name(inode, Some(generation)).is_some() {
                        self.outdate_flat(link.parent);
                        self.names.forget(link.parent.0, &name);
                        break format!("{beside:?}");
                    }
                    // Written meanwhile: once more, all of it.
                }
                Err(cause) if is_gone(&cause) => match self.give_up_name(inode, None) {
                    // What was not fetched of the object that ours was made from is nowhere any more.
                    Some(staged) => break self.set_aside(&staged)?,
                    None => return Err(error),
                },
                Err(cause) => {
                    let (name, cause_text) = (&*link.name, with_causes(&cause));
                    tracing::error!(
                        name,
                        cause = cause_text,
                        "another client was first, and ours could not be kept"
                    );
                    return Err(cause);
                }
            }
        };
        tracing::warn!(name = &*link.name, kept_as = place, "another client was first: both are kept");
        let text = format!("{:?} was changed by another client; ours is kept as {place}", &*link.name);
        Err(FsError::caused(FsErrorKind::Stale, text, error))
    }

    /// Gives the name up to another client, unless bytes were written after `generation`. The staging file.
    fn give_up_name(&self, inode: &Arc<Inode>, generation: Option<u64>) -> Option<Staged> {
        let mut taken = None;
        let link = self.inodes.unlink_if(inode, |state| {
            let now = state.staged.as_ref().map(Staged::generation);
            if generation.is_some() && generation != now {
                return false;
            }
            (state.replaced, state.meta_dirty, state.bytes_dirty) = (true, false, false);
            state.lost = true;
            taken = state.staged.take();
            state.cached = None;
            true
        })?;
        self.lost(inode, &link);
        let stored = taken.as_ref().filter(|_| generation.is_some());
        if let Some(Err(error)) = stored.map(Staged::remove) {
            tracing::warn!(ino = inode.ino.0, %error, "a staging file was left behind");
        }
        taken
    }

    /// Moves a staging file to where a person may look for it.
    fn set_aside(&self, staged: &Staged) -> Result<String> {
        let (name, aside) = (staged.disk_file().name(), self.state_dir.lost_and_found());
        let moved = std::fs::create_dir_all(&aside)
            .and_then(|()| std::fs::rename(self.state_dir.staging().join(&name), aside.join(&name)));
        moved.map_err(|error| FsError::local("setting unstored bytes aside", error))?;
        Ok(format!("{} (without what was never read of the replaced object)", aside.join(&name).display()))
    }
}

/// Whether a read of the base failed because that is not there any more.
fn is_gone(error: &FsError) -> bool {
    store_error(error).is_some_and(|cause| {
        cause.operation() == "get" && matches!(cause.kind(), ErrorKind::VersionMismatch | ErrorKind::NotFound)
    })
}
