//! What the journal says of files and directories: what of them the store does not have, so that a later start
//! stores it.
//!
//! Invariants:
//! 1. An inode has one intent at most, under the number that it knows.
//! 2. Of two who say what an inode lacks, the later one says the newer: it is said under [`Sayings`], and under the
//!    inode's state.
//! 3. Write-through: an intent describes bytes that were all there at one moment; before they change it is void.
//!    Write-back: it stands while they change, as a local file system's inode does; after a crash the file has what was
//!    closed or synced last, and of what was written since, anything. A truncation is said at once: what it cut must
//!    not come back.
//!
//! Lock order: sayings, then an inode's state.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::commit::with_causes;
use crate::config::WriteMode;
use crate::error::Result;
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Marker, Remote, State};
use crate::intent::{AttributesIntent, Intent, MarkerIntent, StoreIntent};
use crate::journal::Word;
use crate::metadata::FileMeta;
use crate::upload::blocking;

/// Puts what is said of inodes in order.
#[derive(Debug, Default)]
pub(crate) struct Sayings(Mutex<()>);

impl Filesystem {
    /// Whether close(2) returns before the store has the file.
    pub(crate) fn writes_back(&self) -> bool {
        self.config.write_mode == WriteMode::Back
    }

    /// Says in the journal what the store does not have of an inode, in place of what was said before. It survives the
    /// end of the process at once, a power failure after the journal is synced. Its path; `None` if there is
    /// nothing to say: everything is stored, or it has no name any more. Blocks for a buffered write.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: what was said before may stand.
    pub(crate) fn say(&self, inode: &Inode) -> Result<Option<String>> {
        self.say_synced(inode, None)
    }

    /// As [`say`](Self::say); if the staged bytes are not those of the generation `synced`, they are synced first.
    fn say_synced(&self, inode: &Inode, synced: Option<u64>) -> Result<Option<String>> {
        let _order = self.sayings.0.lock();
        let Ok(path) = self.inodes.path(inode.ino) else { return Ok(None) };
        let mut state = inode.state();
        if state.link.is_none() {
            // Unlinked since the path was asked for: nobody would strike this out.
            return Ok(None);
        }
        if let (Some(staged), Some(synced)) = (&state.staged, synced)
            && staged.generation() != synced
        {
            staged.sync()?;
        }
        let Some(intent) = self.intent_of(&mut state, &path)? else { return Ok(None) };
        let (before, changes) = (state.kept, state.changes);
        let id = *state.kept.get_or_insert_with(|| self.journal.reserve());
        match self.journal.write(&[(id, Some(intent))]) {
            Ok(()) => state.said = changes,
            Err(error) => {
                state.kept = before;
                return Err(error);
            }
        }
        Ok(Some(path))
    }

    /// Says it of many inodes, beside other `words`: all of it or nothing survives. To be called while no name of theirs
    /// can go.
    fn say_all(&self, inodes: &[Arc<Inode>], mut words: Vec<Word>) -> Result<()> {
        // Before anybody is asked whether the journal has a word of them: who says the first one now is waited for.
        let _order = self.sayings.0.lock();
        let mut said = Vec::new();
        for inode in inodes {
            let Ok(path) = self.inodes.path(inode.ino) else { continue };
            let mut state = inode.state();
            let Some(id) = state.kept else { continue };
            match self.intent_of(&mut state, &path) {
                Ok(Some(intent)) => {
                    words.push((id, Some(intent)));
                    said.push((inode, id));
                }
                Ok(None) => {}
                // The others are to be said all the same.
                Err(error) => {
                    tracing::error!(path, error = with_causes(&error), "the journal keeps its old name");
                }
            }
        }
        if words.is_empty() {
            return Ok(());
        }
        self.journal.write(&words)?;
        for (inode, id) in said {
            // Void by now: its bytes changed, or the store has them.
            if inode.state().kept != Some(id) {
                self.journal.complete(id)?;
            }
        }
        Ok(())
    }

    /// Says of an inode that it is at `path`, where its object is `remote`, before anything else knows that, and the other
    /// `words` with it.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: what was said before may stand.
    pub(crate) fn say_ahead(
        &self,
        inode: &Inode,
        path: &str,
        remote: Option<&Remote>,
        mut words: Vec<Word>,
    ) -> Result<()> {
        let _order = self.sayings.0.lock();
        let mut state = inode.state();
        if let Some(id) = state.kept {
            let before = std::mem::replace(&mut state.remote, remote.cloned());
            let intent = self.intent_of(&mut state, path);
            state.remote = before;
            words.extend(intent?.map(|intent| (id, Some(intent))));
        }
        if words.is_empty() { Ok(()) } else { self.journal.write(&words) }
    }

    /// What the journal is to say of an inode; `None` if the store has all of it.
    fn intent_of(&self, state: &mut State, path: &str) -> Result<Option<Intent>> {
        if state.meta.kind == crate::Kind::Directory {
            let Some(key) = self.marker_key(path)?.filter(|_| state.meta_dirty) else { return Ok(None) };
            let is_new = state.marker == Marker::Pending;
            return Ok(Some(Intent::Marker(Box::new(MarkerIntent {
                key,
                meta: state.meta.clone(),
                is_new,
            }))));
        }
        let key = self.key(path)?;
        let changes = state.changes;
        let (Some(staged), true) = (state.staged.as_ref(), state.bytes_dirty) else {
            let Some(remote) = state.remote.clone().filter(|_| state.meta_dirty) else { return Ok(None) };
            let meta = state.meta.clone();
            let (base, size) = (remote.version, remote.size);
            return Ok(Some(Intent::Attributes(Box::new(AttributesIntent { key, base, size, meta }))));
        };
        let intent = StoreIntent {
            key,
            staging_name: staged.disk_file().name(),
            state: if state.tries.doubted { staged.state_of_all_local() } else { staged.state() },
            is_doubted: state.tries.doubted,
            base: state.remote.as_ref().map(|r| r.version.clone()),
            meta: FileMeta { write_id: Some(state.tries.id(changes)), ..state.meta.clone() },
        };
        Ok(Some(Intent::Store(Box::new(intent))))
    }

    /// Makes what is not stored of an inode durable here, with an intent of the journal. Its path; `None` if it has none
    /// any more, or nothing that is not stored.
    pub(crate) async fn keep(&self, inode: &Arc<Inode>) -> Result<Option<String>> {
        let staged = {
            let mut state = inode.state();
            if let Some(streaming) = state.streaming.take() {
                self.abandon(streaming);
            }
            state.staged.as_ref().map(|s| (s.disk_file().clone(), s.generation()))
        };
        let mut synced = None;
        if let Some((disk, generation)) = staged {
            // Not while the state is locked: it may take long.
            blocking(move || disk.sync()).await?;
            synced = Some(generation);
        }
        let said = self.say_synced(inode, synced)?;
        let journal = self.journal.clone();
        blocking(move || journal.sync()).await?;
        Ok(said)
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

    /// After a change of names or attributes: what the journal says of these inodes it is to say as it is now, and the
    /// other `words` with it.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: the change is done, and a crash would undo it.
    pub(crate) fn keep_anew(&self, inodes: &[Arc<Inode>], words: Vec<Word>) -> Result<()> {
        self.say_all(inodes, words).inspect_err(|error| {
            let error = with_causes(error);
            tracing::error!(error, "the journal does not know of a change; a crash would undo it");
        })
    }

    /// Before the bytes of a file change.
    pub(crate) fn unkeep(&self, state: &mut State) {
        if !self.writes_back() {
            // The bytes change all the same: a start after a crash may store what is neither.
            let _ = self.void(state);
        }
    }

    /// Strikes the intent of an inode out.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: it may stand.
    pub(crate) fn void(&self, state: &mut State) -> Result<()> {
        let Some(id) = state.kept.take() else { return Ok(()) };
        self.journal.complete(id).inspect_err(|error| {
            tracing::warn!(%error, "an entry of the journal could not be struck out");
        })
    }

    /// The store has the file, or never will: strikes its intent out. Of what has changed meanwhile, and was said, it is
    /// said anew what it was made from.
    pub(crate) fn strike_out(&self, inode: &Inode) {
        {
            let mut state = inode.state();
            if state.kept.is_none() {
                return;
            }
            if !state.is_dirty() {
                // While the state is locked: what is said of a change from now on must not be struck out with this.
                // Standing, it is found to be carried out by the next start.
                let _ = self.void(&mut state);
                return;
            }
        }
        if self.writes_back()
            && let Err(error) = self.say(inode)
        {
            tracing::warn!(
                ino = inode.ino.0,
                error = with_causes(&error),
                "the journal says what was before"
            );
        }
    }
}
