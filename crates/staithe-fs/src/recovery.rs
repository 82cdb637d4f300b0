//! What outlives a run: intents of the journal, bytes in the staging directory.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use staithe_store::MultipartUpload;

use crate::api::DrainReport;
use crate::commit::with_causes;
use crate::error::Result;
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Remote, State};
use crate::journal::Intent;
use crate::staging::Staged;
use crate::upload::blocking;

/// Files stored at once by a drain.
const DRAINS_AT_ONCE: usize = 8;

impl Filesystem {
    /// Finishes what an earlier run left in the journal: renames of directories, uploads nobody will complete,
    /// files whose bytes stayed here. What fails stays in the journal for the next start.
    pub(crate) async fn recover(&self) -> Result<()> {
        let journal = self.journal.clone();
        let pending = blocking(move || journal.pending()).await?;
        let mut kept = HashSet::new();
        for (id, intent) in pending {
            let text = format!("{intent:?}");
            if let Intent::Store { staging_name, .. } = &intent {
                kept.insert(staging_name.clone());
            }
            if self.config.read_only {
                tracing::warn!(intent = text, "left for a writable mount");
                continue;
            }
            match self.finish(intent).await {
                Ok(()) => {
                    tracing::info!(intent = text, "finished what an earlier run had begun");
                    self.forget_intent(id).await;
                }
                Err(error) => {
                    tracing::warn!(intent = text, error = with_causes(&error), "could not be finished yet");
                }
            }
        }
        self.set_orphans_aside(&kept)
    }

    async fn finish(&self, intent: Intent) -> Result<()> {
        match intent {
            Intent::RenameTree { from_prefix, to_prefix } => self.resume_move(&from_prefix, &to_prefix).await,
            Intent::Upload { key, upload_id } => {
                let upload = MultipartUpload { key, id: upload_id, initiated: None };
                Ok(self.store.abort_multipart(&upload).await?)
            }
            Intent::Store { .. } => self.finish_store(intent).await,
        }
    }

    /// Stores a file whose bytes stayed in the staging directory, as its close would have.
    async fn finish_store(&self, intent: Intent) -> Result<()> {
        let Intent::Store { path, staging_name, staged, base, meta } = intent else { return Ok(()) };
        let file = Staged::reopen(&self.state_dir.staging(), &staging_name, &staged)?;
        let (inode, _) = self.inode_for_recovery(&path, base, meta, file)?;
        let stored = self.commit(&inode).await;
        let left = inode.state().staged.take();
        match stored {
            Ok(()) => left.map_or(Ok(()), |l| l.remove()),
            Err(error) => Err(error),
        }
    }
}
