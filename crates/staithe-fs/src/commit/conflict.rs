//! A commit that another client was faster than: nobody's bytes are lost.

use std::sync::Arc;
use std::time::SystemTime;

use staithe_store::{DeleteRequest, ErrorKind};

use super::{store_error, with_causes};
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::Inode;
use crate::locks::Scope;
use crate::names::conflict_name;
use crate::staging::Staged;

/// How often ours is stored beside theirs because it was written meanwhile, before writes are refused.
const PATIENCE: u32 = 4;

/// A file of which there are two now: another client's at its name, and ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Its path, from the root.
    pub path: String,
    /// Where ours is: a path beside it, or a local file with what was here of it.
    pub kept_as: String,
}

/// Who wants to hear of conflicts.
pub(crate) struct OnKept(Box<dyn Fn(Conflict) + Send>);

impl std::fmt::Debug for OnKept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OnKept").finish_non_exhaustive()
    }
}

impl Filesystem {
    /// Has `tell` called for each conflict from now on, in place of an earlier one. It must not block, nor call this
    /// filesystem.
    pub fn on_conflict(&self, tell: impl Fn(Conflict) + Send + 'static) {
        *self.on_conflict.lock() = Some(OnKept(Box::new(tell)));
    }

    /// Another client was first. Ours goes beside theirs, or nowhere: never over it.
    pub(super) async fn lost_race(&self, inode: &Arc<Inode>, error: FsError) -> Result<()> {
        let Some(name) = inode.state().link.clone().map(|link| link.name) else { return Ok(()) };
        let path = self.name_of(inode.ino);
        let place = match self.keep_beside(inode).await {
            Ok(Some(place)) => place,
            // Unlinked meanwhile: nobody wants it any more.
            Ok(None) => return Ok(()),
            Err(cause) => {
                inode.state().replaced = false;
                let cause_text = with_causes(&cause);
                tracing::error!(
                    name = &*name,
                    cause = cause_text,
                    "another client was first, and ours could not be kept"
                );
                return Err(cause);
            }
        };
        tracing::warn!(name = &*name, kept_as = place, "another client was first: both are kept");
        if let Some(tell) = &*self.on_conflict.lock() {
            (tell.0)(Conflict { path, kept_as: place.clone() });
        }
        let text = format!("{:?} was changed by another client; ours is kept as {place}", &*name);
        Err(FsError::caused(FsErrorKind::Stale, text, error))
    }

    /// Stores ours beside theirs, or sets aside what is here of it. Where; `None` if it has no name any more.
    async fn keep_beside(&self, inode: &Arc<Inode>) -> Result<Option<String>> {
        for round in 1.. {
            let Some(link) = inode.state().link.clone() else { return Ok(None) };
            if round == PATIENCE {
                // Whoever writes faster than it can be stored is refused from now on.
                inode.state().replaced = true;
            }
            if round > PATIENCE {
                // By a kernel, which cannot be refused: what it goes on writing is there too.
                let staged = self.give_up_name(inode, None);
                return staged.map(|staged| self.set_aside(&staged)).transpose();
            }
            let name = conflict_name(&link.name, &self.config.host, SystemTime::now());
            // Nobody moves its directory away, or removes it, while it is being stored there.
            let (_guard, beside) = self.lock_path(|| self.path_in(link.parent, &name), Scope::Name).await?;
            inode.mark_untold_writes().await;
            match self.store_beside(inode, &beside).await {
                Ok(generation) => {
                    if self.give_up_name(inode, Some(generation)).is_some() {
                        self.outdate_flat(link.parent);
                        self.names.forget(link.parent.0, &name);
                        return Ok(Some(format!("{beside:?}")));
                    }
                    // Written meanwhile: once more, all of it, under the same name or another one.
                    self.store.delete(DeleteRequest::latest(self.key(&beside)?)).await?;
                }
                // What was not fetched of the object that ours was made from is nowhere any more.
                Err(cause) if is_gone(&cause) => {
                    let staged = self.give_up_name(inode, None);
                    return staged.map(|staged| self.set_aside(&staged)).transpose();
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(None)
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
