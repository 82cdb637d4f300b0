//! What outlives a run: intents of the journal, bytes in the staging directory.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use staithe_store::MultipartUpload;

use crate::api::{Ino, Kind};
use crate::cache::is_map;
use crate::commit::with_causes;
use crate::door::Door;
use crate::error::{FsError, FsErrorKind, Result};
use crate::failpoint::{Step, reach};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Link, Marker, Remote, State};
use crate::intent::{AttributesIntent, Intent, MarkerIntent, StoreIntent};
use crate::journal::{IntentId, Word};
use crate::locks::Scope;
use crate::metadata::{FileMeta, write_id};
use crate::staging::{Staged, copy_if_lent};
use crate::state_dir::{StateDir, may_be_lost};
use crate::tries::Tries;
use crate::upload::blocking;

impl Filesystem {
    /// Goes on with what an earlier run left in the journal: finishes renames, aborts uploads nobody
    /// will complete, and stores files whose bytes stayed here: before it returns (write-through), or later, with
    /// them in their places at once (write-back). What fails stays in the journal for the next start.
    pub(crate) async fn recover(&self) -> Result<()> {
        let journal = self.journal.clone();
        let pending = blocking(move || journal.pending()).await?;
        reach(Step::RecoveryBegun);
        let (moves, mut rest): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|(_, intent)| matches!(intent, Intent::RenameTree { .. }));
        for (id, intent) in moves {
            self.finish_move(id, &intent, &mut rest).await?;
        }
        let mut kept = HashSet::new();
        for (id, mut intent) in rest {
            // Whatever goes wrong on the way: the journal speaks of the one, or of the other.
            let named = staging_name(&intent);
            let parted = self.part_from_writers(id, &mut intent).await;
            let (text, staging) = (describe(&intent), staging_name(&intent).into_iter().chain(named));
            let finished = match parted {
                Ok(()) => self.finish(id, intent).await,
                Err(error) => Err(error),
            };
            match finished {
                Ok(Finished::Done) => {
                    tracing::info!(intent = text, "finished what an earlier run had begun");
                    reach(Step::Recovered);
                    self.forget_intent(id).await;
                }
                Ok(Finished::Resumed) => kept.extend(staging),
                Err(error) => {
                    cannot_finish(&text, &error);
                    kept.extend(staging);
                }
            }
        }
        let (staging, aside) = (self.state_dir.staging(), self.state_dir.lost_and_found());
        blocking(move || set_aside_orphans(&staging, &aside, &kept)).await
    }

    fn may_finish(&self) -> Result<()> {
        if self.config.read_only {
            return Err(FsError::new(FsErrorKind::ReadOnly, "this mount is read-only"));
        }
        Ok(())
    }

    /// Finishes the move of a directory. What else the journal says of keys below its old name moves with it.
    async fn finish_move(
        &self,
        id: IntentId,
        intent: &Intent,
        rest: &mut [(IntentId, Intent)],
    ) -> Result<()> {
        let Intent::RenameTree { from_prefix, to_prefix, switched, settled } = intent else { return Ok(()) };
        let text = describe(intent);
        if let Err(error) = self.may_finish() {
            cannot_finish(&text, &error);
            return Ok(());
        }
        let mut words: Vec<Word> = Vec::new();
        if !settled {
            for (id, intent) in &mut *rest {
                match intent.move_key(from_prefix, to_prefix) {
                    Ok(false) => {}
                    Ok(true) => words.push((*id, Some(intent.clone()))),
                    Err(error) => cannot_finish(&describe(intent), &error),
                }
            }
        }
        match self.resume_move(from_prefix, to_prefix, *switched).await {
            Ok(()) => {
                tracing::info!(intent = text, "finished what an earlier run had begun");
                reach(Step::MoveFinished);
                for word in &mut words {
                    self.rebase_moved(word, rest).await?;
                }
                words.push((id, None));
            }
            Err(error) => {
                cannot_finish(&text, &error);
                // What is said from now on of keys below the old name is not about what moved.
                let remains = Intent::RenameTree {
                    from_prefix: from_prefix.clone(),
                    to_prefix: to_prefix.clone(),
                    switched: *switched,
                    settled: true,
                };
                words.push((id, Some(remains)));
            }
        }
        let journal = self.journal.clone();
        blocking(move || journal.write(&words).and_then(|()| journal.sync())).await
    }

    /// What an intent that moved was made from is a copy now, with a version of its own.
    async fn rebase_moved(&self, word: &mut Word, rest: &mut [(IntentId, Intent)]) -> Result<()> {
        let (id, Some(intent)) = word else { return Ok(()) };
        let (key, base, size) = match intent {
            Intent::Store(store) => match (&mut store.base, store.state.base_size) {
                (Some(base), Some(size)) => (store.key.clone(), base, size),
                _ => return Ok(()),
            },
            Intent::Attributes(attributes) => (attributes.key.clone(), &mut attributes.base, attributes.size),
            _ => return Ok(()),
        };
        // Of another length it is another client's: the commit will find that out.
        let Some(copy) = self.head(key).await?.filter(|copy| copy.size == size) else { return Ok(()) };
        *base = copy.version;
        if let Some((_, moved)) = rest.iter_mut().find(|(other, _)| *other == *id) {
            *moved = intent.clone();
        }
        Ok(())
    }

    /// Strikes out what was said earlier of the name that an intent is about.
    async fn strike_out_rival(&self, intent: &Intent) {
        let key = match intent {
            Intent::Store(store) => &store.key,
            Intent::Attributes(attributes) => &attributes.key,
            Intent::Marker(marker) => &marker.key,
            Intent::RenameTree { .. } | Intent::Upload { .. } | Intent::OldName(_) => return,
        };
        let rival = self.path_of(key).ok().and_then(|path| self.inode_at(path));
        let kept = rival.and_then(|rival| rival.state().kept.take());
        if let Some(id) = kept {
            self.forget_intent(id).await;
        }
    }

    async fn finish(&self, id: IntentId, intent: Intent) -> Result<Finished> {
        self.may_finish()?;
        self.strike_out_rival(&intent).await;
        let inode = match intent {
            Intent::RenameTree { .. } => return Ok(Finished::Resumed),
            Intent::Upload { key, upload_id } => {
                let upload = MultipartUpload { key, id: upload_id, initiated: None };
                self.store.abort_multipart(&upload).await?;
                return Ok(Finished::Done);
            }
            Intent::OldName(old) => {
                self.finish_rename(*old).await;
                return Ok(Finished::Done);
            }
            Intent::Store(store) => {
                let Some(inode) = self.revive_file(&store)? else {
                    self.admit_lost_bytes(&store).await?;
                    return Ok(Finished::Done);
                };
                inode
            }
            Intent::Attributes(attributes) => self.revive_attributes(*attributes)?,
            Intent::Marker(marker) => self.revive_directory(*marker)?,
        };
        {
            let mut state = inode.state();
            (state.kept, state.said) = (Some(id), state.changes);
        }
        reach(Step::Revived);
        if self.writes_back() {
            if let Err(error) = self.know_base(&inode).await {
                // Its commit asks again.
                tracing::warn!(
                    ino = inode.ino.0,
                    error = with_causes(&error),
                    "what it was made from is not known yet"
                );
            }
            if !inode.state().is_dirty() {
                inode.state().kept = None;
                self.inodes.let_go(&inode);
                return Ok(Finished::Done);
            }
            self.persist_later(&inode);
            return Ok(Finished::Resumed);
        }
        let stored = self.try_commit(&inode, &Door::open()).await;
        // Given up to another client, it is stored beside, or set aside.
        let is_done = stored.is_ok() || inode.state().link.is_none();
        if is_done {
            inode.drop_staged();
        }
        self.nameless_copy(&inode);
        if is_done { Ok(Finished::Done) } else { stored.map(|()| Finished::Done) }
    }

    /// Sees to it that nobody writes to the bytes that an intent speaks of: of a file that was lent when the process
    /// ended it is to speak of a copy. A kernel goes on writing to the file for programs that have it open still, and is
    /// told nothing of the end.
    async fn part_from_writers(&self, id: IntentId, intent: &mut Intent) -> Result<()> {
        let Intent::Store(store) = intent else { return Ok(()) };
        if self.config.read_only {
            return Ok(());
        }
        let (dir, from, to) =
            (self.state_dir.staging(), store.staging_name.clone(), StateDir::new_staging_name());
        let (len, copy) = (store.state.size, to.clone());
        let copied = blocking(move || copy_if_lent(&dir, &from, &copy, len)).await?;
        let Some(lent) = copied else { return Ok(()) };
        store.staging_name = to;
        // If that fails, it is not certain which of the two it speaks of: both stay.
        self.renote(id, intent.clone()).await?;
        blocking(move || lent.remove()).await
    }

    /// The path of a key that an intent speaks of.
    pub(crate) fn path_of<'a>(&self, key: &'a staithe_store::Key) -> Result<&'a str> {
        let path = key.as_str().strip_prefix(&self.config.prefix).ok_or_else(|| {
            FsError::new(FsErrorKind::Invalid, format!("{key} is not below the prefix of this mount"))
        })?;
        Ok(path.strip_suffix('/').unwrap_or(path))
    }

    /// The inode that a kept file was; `None` if its staging file is gone, which goes only when the store has the bytes,
    /// or a person took it.
    pub(crate) fn revive_file(&self, intent: &StoreIntent) -> Result<Option<Arc<Inode>>> {
        let StoreIntent { key, staging_name, state, base, meta, is_doubted } = intent.clone();
        let path = self.path_of(&key)?;
        if !self.state_dir.staging().join(&staging_name).try_exists().unwrap_or(true) {
            return Ok(None);
        }
        let file = Staged::reopen(&self.state_dir.staging(), &staging_name, &state)?.counted(&self.room);
        let size = state.base_size.unwrap_or(0);
        let mut revived = self.named(path, meta);
        if let Some(id) = &revived.meta.write_id {
            revived.tries = Tries::resume(id);
            revived.tries.doubted = is_doubted;
            revived.changes = revived.tries.resumed_at();
        }
        revived.remote = base.map(|version| Remote { key, version, size });
        revived.staged = Some(file);
        revived.bytes_dirty = true;
        Ok(Some(self.inodes.insert(revived)))
    }

    /// What a file shows of the object that it was made from may be in another one by now: a try of the earlier run that
    /// nobody had the answer of. Asks, lest readers be sent to an object that is gone.
    async fn know_base(&self, inode: &Arc<Inode>) -> Result<()> {
        let shows_base = {
            let state = inode.state();
            state.staged.as_ref().is_some_and(|staged| !staged.missing(0..staged.size()).is_empty())
        };
        if shows_base {
            let (_guard, path) = self.lock_path(|| self.inodes.path(inode.ino), Scope::Name).await?;
            self.know_tries(inode, &self.key(&path)?).await?;
        }
        Ok(())
    }

    /// The staging file of an intent is gone: says so, unless the store has what was in it.
    async fn admit_lost_bytes(&self, intent: &StoreIntent) -> Result<()> {
        let tries = intent.meta.write_id.as_deref().map(Tries::resume).unwrap_or_default();
        let object = self.head(intent.key.clone()).await?;
        if !object.as_ref().and_then(write_id).is_some_and(|id| tries.has(id)) {
            let (key, staging) = (&intent.key, &intent.staging_name);
            tracing::warn!(%key, staging, "not stored: what was written is not in the staging directory any more");
        }
        Ok(())
    }

    /// The inode of a stored object that is to have other attributes.
    fn revive_attributes(&self, intent: AttributesIntent) -> Result<Arc<Inode>> {
        let AttributesIntent { key, base, size, meta } = intent;
        let mut revived = self.named(self.path_of(&key)?, meta);
        revived.remote = Some(Remote { key: key.clone(), version: base, size });
        revived.meta_dirty = true;
        Ok(self.inodes.insert(revived))
    }

    /// The inode of a directory whose marker is to be stored; that of a child that was revived before, if there was one.
    pub(crate) fn revive_directory(&self, intent: MarkerIntent) -> Result<Arc<Inode>> {
        let path = self.path_of(&intent.key)?;
        let mut revived = self.named(path, intent.meta);
        revived.meta_dirty = true;
        revived.marker = if intent.is_new { Marker::Pending } else { Marker::Present };
        let Some(there) = self.inode_at(path).filter(|there| there.is_dir()) else {
            return Ok(self.inodes.insert(revived));
        };
        {
            let mut state = there.state();
            (state.meta, state.meta_known) = (revived.meta, true);
            (state.meta_dirty, state.marker) = (true, revived.marker);
        }
        Ok(there)
    }

    /// A state under `path`; the directories above are made in memory.
    fn named(&self, path: &str, meta: FileMeta) -> State {
        let mut parent = Ino::ROOT;
        let mut parts = path.split('/').peekable();
        while let (Some(name), true) = (parts.next(), parts.peek().is_some()) {
            let directory = self.inodes.child(parent, name).unwrap_or_else(|| {
                let c = &self.config;
                let meta = FileMeta::new(Kind::Directory, c.dir_mode, c.uid, c.gid, SystemTime::now());
                let mut state = State::new(Some(Link { parent, name: Arc::from(name) }), meta);
                state.meta_known = false;
                self.inodes.insert(state)
            });
            parent = directory.ino;
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        State::new(Some(Link { parent, name: Arc::from(name) }), meta)
    }

    /// Takes a revived inode out of memory again; its file, if it is still there, stays on the disk.
    pub(crate) fn nameless_copy(&self, inode: &Arc<Inode>) {
        inode.state().staged = None;
        inode.state().bytes_dirty = false;
        inode.state().meta_dirty = false;
        self.inodes.let_go(inode);
    }
}

/// What became of an intent.
enum Finished {
    /// It is carried out.
    Done,
    /// It stands; somebody carries it out, or nobody could.
    Resumed,
}

fn cannot_finish(intent: &str, error: &FsError) {
    tracing::warn!(intent, error = with_causes(error), "cannot be finished yet; kept");
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
        reach(Step::BeforeSetAside);
        std::fs::create_dir_all(aside).map_err(failed)?;
        std::fs::rename(path, aside.join(&name)).map_err(failed)?;
        reach(Step::AfterSetAside);
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

pub(crate) fn describe(intent: &Intent) -> String {
    match intent {
        Intent::RenameTree { from_prefix, to_prefix, .. } => {
            format!("rename {from_prefix:?} to {to_prefix:?}")
        }
        Intent::Upload { key, .. } => format!("abort an upload of {key}"),
        Intent::Store(store) => format!("store {}", store.key),
        Intent::Attributes(attributes) => format!("change the attributes of {}", attributes.key),
        Intent::Marker(marker) => format!("make the directory {}", marker.key),
        Intent::OldName(old) => format!("remove {}, which was renamed to {}", old.key, old.copy),
    }
}
