//! What outlives a run: intents of the journal, bytes in the staging directory.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use staithe_store::MultipartUpload;

use crate::api::{DrainReport, Ino, Kind};
use crate::cache::is_map;
use crate::commit::with_causes;
use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Link, Remote, State};
use crate::intent::{Intent, StoreIntent};
use crate::metadata::{FileMeta, write_id};
use crate::staging::Staged;
use crate::state_dir::may_be_lost;
use crate::tries::{Tries, changes_of};
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
            let (text, staging) = (describe(&intent), staging_name(&intent));
            let done = if self.config.read_only {
                Err(FsError::new(FsErrorKind::ReadOnly, "this mount is read-only"))
            } else {
                self.finish(intent).await
            };
            match done {
                Ok(()) => {
                    tracing::info!(intent = text, "finished what an earlier run had begun");
                    self.forget_intent(id).await;
                }
                Err(error) => {
                    tracing::warn!(
                        intent = text,
                        error = with_causes(&error),
                        "cannot be finished yet; kept"
                    );
                    kept.extend(staging);
                }
            }
        }
        let (staging, aside) = (self.state_dir.staging(), self.state_dir.lost_and_found());
        blocking(move || set_aside_orphans(&staging, &aside, &kept)).await
    }

    async fn finish(&self, intent: Intent) -> Result<()> {
        match intent {
            Intent::RenameTree { from_prefix, to_prefix, switched } => {
                self.resume_move(&from_prefix, &to_prefix, switched).await
            }
            Intent::Upload { key, upload_id } => {
                let upload = MultipartUpload { key, id: upload_id, initiated: None };
                Ok(self.store.abort_multipart(&upload).await?)
            }
            Intent::Store(store) => self.store_kept(*store).await,
        }
    }

    /// Stores a file whose bytes stayed in the staging directory, unless that was done before.
    async fn store_kept(&self, intent: StoreIntent) -> Result<()> {
        let StoreIntent { key, staging_name, state, base, meta } = intent;
        let path = key.as_str().strip_prefix(&self.config.prefix).ok_or_else(|| {
            FsError::new(FsErrorKind::Invalid, format!("{key} is not below the prefix of this mount"))
        })?;
        if !self.state_dir.staging().join(&staging_name).try_exists().unwrap_or(true) {
            // It goes only when the store has the bytes, or a person.
            return Ok(());
        }
        let file = Staged::reopen(&self.state_dir.staging(), &staging_name, &state)?;
        let noted = meta.write_id.as_deref().and_then(changes_of);
        if let (Some(noted), Some(id)) = (noted, &meta.write_id) {
            let stored = self.head(key.clone()).await?;
            let is_newer = stored.as_ref().is_some_and(|object| {
                let theirs = write_id(object).filter(|theirs| Tries::resume(id).has(theirs));
                theirs.and_then(changes_of).is_some_and(|changes| changes >= noted)
            });
            if is_newer {
                return file.remove();
            }
        }
        let size = state.base_size.unwrap_or(0);
        let base = base.map(|version| Remote { key: key.clone(), version, size });
        let inode = self.revive(path, base, meta, file);
        let stored = self.try_commit(&inode).await;
        // Given up to another client, it is stored beside, or set aside.
        let is_done = stored.is_ok() || inode.state().staged.is_none();
        if is_done {
            inode.drop_staged();
        }
        self.nameless_copy(&inode);
        if is_done { Ok(()) } else { stored }
    }

    /// The inode that a kept file was: under its path, with directories in memory only.
    fn revive(&self, path: &str, base: Option<Remote>, meta: FileMeta, file: Staged) -> Arc<Inode> {
        let mut parent = Ino::ROOT;
        let mut parts = path.split('/').peekable();
        while let (Some(name), true) = (parts.next(), parts.peek().is_some()) {
            let directory = self.inodes.child(parent, name).unwrap_or_else(|| {
                let c = &self.config;
                let meta = FileMeta::new(Kind::Directory, c.dir_mode, c.uid, c.gid, SystemTime::now());
                self.inodes.insert(State::new(Some(Link { parent, name: Arc::from(name) }), meta))
            });
            parent = directory.ino;
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        let mut state = State::new(Some(Link { parent, name: Arc::from(name) }), meta);
        if let Some(id) = &state.meta.write_id {
            state.tries = Tries::resume(id);
            state.changes = changes_of(id).unwrap_or(0);
        }
        state.remote = base;
        state.staged = Some(file);
        state.bytes_dirty = true;
        self.inodes.insert(state)
    }

    /// Takes a revived inode out of memory again; its file, if it is still there, stays on the disk.
    fn nameless_copy(&self, inode: &Arc<Inode>) {
        inode.state().staged = None;
        inode.state().bytes_dirty = false;
        inode.state().meta_dirty = false;
        self.inodes.let_go(inode);
    }

    /// Stores what is dirty, for up to `deadline`. What remains is made durable in the state directory, with an
    /// entry in the journal, and stored by the next mount. So is what earlier runs left and could not be finished.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        let until = tokio::time::Instant::now() + deadline;
        let shared = self.inodes.shared();
        for inode in &shared {
            inode.take_in_untold_writes().await;
        }
        let dirty = self.inodes.dirty();
        let all = futures::stream::iter(dirty.iter().map(|inode| self.commit(inode)));
        let stored = all.buffer_unordered(DRAINS_AT_ONCE).collect::<Vec<_>>();
        if tokio::time::timeout_at(until, stored).await.is_err() {
            tracing::warn!("not everything could be stored before the deadline");
        }
        self.end_walks();
        self.end_runs();
        self.tasks.close();
        if tokio::time::timeout_at(until, self.tasks.wait()).await.is_err() {
            tracing::warn!("background work was still under way at the deadline");
        }
        if let Some(cache) = &self.cache
            && tokio::time::timeout_at(until, cache.settle()).await.is_err()
        {
            tracing::info!("the disk cache lacks the last bytes that were fetched");
        }
        if tokio::time::timeout_at(until, self.recall.settle()).await.is_err() {
            tracing::info!("the last attributes that were told are not kept for the next run");
        }
        for inode in &shared {
            inode.end_sharing();
        }
        let mut report = DrainReport::default();
        for inode in self.inodes.dirty() {
            match self.keep(&inode).await {
                Ok(Some(path)) => report.kept.push(path),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(
                        ino = inode.ino.0,
                        error = with_causes(&error),
                        "unstored bytes could not be kept"
                    );
                    report.kept.push(format!("inode {}", inode.ino.0));
                }
            }
        }
        for what in self.unfinished().await {
            if !report.kept.contains(&what) {
                report.kept.push(what);
            }
        }
        report
    }

    /// What the journal still has to finish, from this run or an earlier one: paths of files, or what else it is.
    async fn unfinished(&self) -> Vec<String> {
        let journal = self.journal.clone();
        let pending = match blocking(move || journal.pending()).await {
            Ok(pending) => pending,
            Err(error) => {
                tracing::error!(error = with_causes(&error), "the journal cannot be read");
                return vec![String::from("the journal")];
            }
        };
        let mut unfinished = Vec::new();
        for (id, intent) in pending {
            if self.is_moot(&intent) {
                self.forget_intent(id).await;
                continue;
            }
            unfinished.push(match &intent {
                Intent::Store(store) => {
                    let key = store.key.as_str();
                    key.strip_prefix(&self.config.prefix).unwrap_or(key).to_owned()
                }
                other => describe(other),
            });
        }
        unfinished
    }

    /// Whether an intent is about a staging file that is gone, which goes only when the store has the bytes, or
    /// nobody wants them, or a person took it.
    fn is_moot(&self, intent: &Intent) -> bool {
        let Intent::Store(store) = intent else { return false };
        !self.state_dir.staging().join(&store.staging_name).try_exists().unwrap_or(true)
    }
}

/// Moves the staging files that no intent speaks of to `lost+found`: bytes of files that were being written.
/// Empty ones are removed, and those that are what the store had.
fn set_aside_orphans(staging: &Path, aside: &Path, kept: &HashSet<String>) -> Result<()> {
    let (mut moved, mut maps) = (0, Vec::new());
    let failed = |error| FsError::local("sorting out the staging directory", error);
    for entry in std::fs::read_dir(staging).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (name, path) = (entry.file_name(), entry.path());
        if name.to_str().is_some_and(|n| kept.contains(n)) {
            continue;
        }
        if is_map(&path) {
            maps.push(path);
            continue;
        }
        let metadata = entry.metadata().map_err(failed)?;
        if !may_be_lost(&path, &metadata) {
            std::fs::remove_file(path).map_err(failed)?;
            continue;
        }
        std::fs::create_dir_all(aside).map_err(failed)?;
        std::fs::rename(path, aside.join(&name)).map_err(failed)?;
        moved += 1;
    }
    // Not before what they speak of was looked at.
    maps.iter().try_for_each(std::fs::remove_file).map_err(failed)?;
    if moved > 0 {
        let dir = aside.display();
        tracing::warn!(files = moved, %dir, "bytes of files that were being written at a crash, and were not stored, were set aside");
    }
    Ok(())
}

fn staging_name(intent: &Intent) -> Option<String> {
    match intent {
        Intent::Store(store) => Some(store.staging_name.clone()),
        _ => None,
    }
}

fn describe(intent: &Intent) -> String {
    match intent {
        Intent::RenameTree { from_prefix, to_prefix, .. } => {
            format!("rename {from_prefix:?} to {to_prefix:?}")
        }
        Intent::Upload { key, .. } => format!("abort an upload of {key}"),
        Intent::Store(store) => format!("store {}", store.key),
    }
}
