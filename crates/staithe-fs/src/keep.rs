//! What the journal says of files that could not be stored: the next start stores them.
//!
//! Invariants:
//! 1. An intent describes bytes that were all there at one moment: before they change it is void.
//! 2. A file has one intent at most, under the number that its inode knows.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::commit::with_causes;
use crate::error::Result;
use crate::filesystem::Filesystem;
use crate::inode::{Inode, State};
use crate::intent::{Intent, StoreIntent};
use crate::journal::IntentId;
use crate::metadata::FileMeta;
use crate::upload::blocking;

impl Filesystem {
    /// Makes the staged bytes of a file durable, and its storing an intent of the journal. Its path; `None` if it has
    /// none any more, or nothing staged.
    pub(crate) async fn keep(&self, inode: &Arc<Inode>) -> Result<Option<String>> {
        let Ok(path) = self.inodes.path(inode.ino) else { return Ok(None) };
        let staged = {
            let mut state = inode.state();
            self.stage(inode, &mut state)?;
            state.staged.as_ref().map(|s| (s.disk_file().clone(), s.generation()))
        };
        let Some((disk, synced)) = staged else { return Ok(None) };
        // Not while the state is locked: it may take long.
        blocking(move || disk.sync()).await?;
        let Some((id, intent)) = self.intent_of(inode, &path, synced)? else { return Ok(None) };
        let recorded = self.renote(id, intent).await;
        let is_void = {
            let mut state = inode.state();
            if recorded.is_err() && state.kept == Some(id) {
                state.kept = None;
            }
            state.kept != Some(id)
        };
        if is_void {
            self.forget_intent(id).await;
        }
        recorded.map(|()| Some(path))
    }

    /// What the journal is to say of a file, and under which number. `synced` is the generation that is durable.
    fn intent_of(&self, inode: &Inode, path: &str, synced: u64) -> Result<Option<(IntentId, Intent)>> {
        let mut state = inode.state();
        if let Some(streaming) = state.streaming.take() {
            self.abandon(streaming);
        }
        let changes = state.changes;
        let write_id = Some(state.tries.id(changes));
        let (base, meta) = (state.remote.as_ref().map(|r| r.version.clone()), state.meta.clone());
        let Some(staged) = state.staged.as_ref() else { return Ok(None) };
        if staged.generation() != synced {
            staged.sync()?;
        }
        let intent = StoreIntent {
            key: self.key(path)?,
            staging_name: staged.disk_file().name(),
            state: staged.state(),
            base,
            meta: FileMeta { write_id, ..meta },
        };
        let id = *state.kept.get_or_insert_with(|| self.journal.reserve());
        Ok(Some((id, Intent::Store(Box::new(intent)))))
    }

    /// As [`keep`](Self::keep), for a file whose store is out of reach while the mount goes on.
    pub(crate) async fn keep_for_a_crash(&self, inode: &Arc<Inode>) {
        // What a kernel writes by itself makes no intent void: it is kept when the last writer is gone.
        let may_change = inode.is_shared() && inode.writers.load(Ordering::Acquire) > 0;
        if may_change || !inode.state().bytes_dirty {
            return;
        }
        if let Err(error) = self.keep(inode).await {
            let (ino, error) = (inode.ino.0, with_causes(&error));
            tracing::warn!(ino, error, "not stored, and a crash would leave its bytes in lost+found");
        }
    }

    /// After a change of name or attributes: the journal is to know of it.
    pub(crate) async fn keep_anew(&self, inode: &Arc<Inode>) {
        let is_kept = inode.state().kept.is_some();
        if is_kept {
            self.keep_for_a_crash(inode).await;
        }
    }

    /// Before the bytes of a file change: else a start after a crash would store a mixture of old and new.
    pub(crate) fn unkeep(&self, state: &mut State) {
        if let Some(id) = state.kept.take()
            && let Err(error) = self.journal.complete(id)
        {
            tracing::warn!(%error, "an entry of the journal could not be struck out");
        }
    }

    /// The store has the file, or never will: strikes its intent out.
    pub(crate) async fn strike_out(&self, inode: &Inode) {
        let kept = {
            let state = inode.state();
            // What is dirty by now changed after that, and may be kept by now too.
            if state.is_dirty() { None } else { state.kept }
        };
        let Some(id) = kept else { return };
        self.forget_intent(id).await;
        // Only now: until then, who closes the file waits for this as well.
        let mut state = inode.state();
        if state.kept == Some(id) {
            state.kept = None;
        }
    }
}
