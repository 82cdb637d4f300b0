//! Names that move: files by a copy and a delete, directories by many of both, each as one journaled intent.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use staithe_persist::Generation;
use staithe_store::{DeleteRequest, ErrorKind, Key};

use crate::api::{Ino, Lookup, RenameMode};
use crate::commit::with_causes;
use crate::error::{FsError, FsErrorKind, Result};
use crate::failpoint::{Step, reach};
use crate::filesystem::Filesystem;
use crate::inode::{Inode, Link, Remote};
use crate::intent::{Intent, OldNameIntent};
use crate::journal::IntentId;
use crate::locks::{PathGuard, Scope, is_below};
use crate::names::check_name;
use crate::refresh::Moment;
use crate::table::Pinned;

/// One end of a rename.
#[derive(Debug, Clone, Copy)]
struct End<'a> {
    parent: Ino,
    name: &'a str,
}

impl Filesystem {
    /// Renames a file or a directory. A file that is not stored yet moves without a request; a stored one costs a
    /// COPY and a DELETE; a directory, that for every object below it, in parallel. This mount sees either all
    /// or nothing of it; a crash in the middle is finished at the next start.
    ///
    /// A rename of a directory may take longer than the deadline of other operations: each request has it.
    ///
    /// # Errors
    /// `NotFound`, `Exists`, `NotEmpty`, `IsDirectory`, `NotDirectory`, `Invalid` (a directory into itself, and an
    /// exchange: a store has no atomic one), `Stale`, `ReadOnly`, the store's errors. `NoSpace` and `Io` from the journal:
    /// nothing is done, or all of it, and a crash would undo it for what is not stored yet.
    pub async fn rename(
        &self,
        parent: Ino,
        name: &str,
        to_parent: Ino,
        to_name: &str,
        mode: RenameMode,
    ) -> Result<()> {
        check_name(name)?;
        check_name(to_name)?;
        self.writable()?;
        if mode == RenameMode::Exchange {
            return Err(FsError::new(
                FsErrorKind::Invalid,
                "an object store cannot exchange two names at once",
            ));
        }
        let (from, to) = (End { parent, name }, End { parent: to_parent, name: to_name });
        let source = self.known(from).await?;
        let Some(source) = source else {
            return Err(FsError::new(FsErrorKind::NotFound, format!("{name:?} does not exist")));
        };
        let target = self.known(to).await?;
        if target.as_ref().is_some_and(|t| t.ino == source.ino) {
            return Ok(());
        }
        if mode == RenameMode::NoReplace && target.is_some() {
            return Err(FsError::new(FsErrorKind::Exists, format!("{to_name:?} exists")));
        }
        if source.is_dir() {
            self.rename_directory(&source, target.as_deref(), from, to).await?;
        } else {
            self.rename_file(&source, target.as_deref(), from, to).await?;
        }
        for directory in [parent, to_parent] {
            if let Ok(directory) = self.inodes.get(directory) {
                directory.touch(SystemTime::now());
            }
        }
        Ok(())
    }

    /// The inode of a name, from memory or the store.
    async fn known(&self, end: End<'_>) -> Result<Option<Pinned<'_>>> {
        if let Some(inode) = self.inodes.child(end.parent, end.name).filter(|c| c.state().is_local()) {
            return Ok(Some(self.inodes.pin(inode)));
        }
        match self.lookup(end.parent, end.name).await? {
            Lookup::Found(entry) => {
                let pinned = self.inodes.get(entry.attr.ino).map(|inode| self.inodes.pin(inode));
                // The lookup's reference was for us, not for a kernel.
                self.forget(entry.attr.ino, 1);
                pinned.map(Some)
            }
            Lookup::Absent { .. } => Ok(None),
        }
    }

    async fn lock_ends(
        &self,
        from: End<'_>,
        to: End<'_>,
        scope: impl Fn(String) -> Scope,
    ) -> Result<(PathGuard<'_>, String, String)> {
        loop {
            let (a, b) = (self.path_in(from.parent, from.name)?, self.path_in(to.parent, to.name)?);
            let guard = self.locks.acquire(vec![scope(a.clone()), scope(b.clone())]).await;
            if (&a, &b) == (&self.path_in(from.parent, from.name)?, &self.path_in(to.parent, to.name)?) {
                return Ok((guard, a, b));
            }
        }
    }

    async fn rename_file(
        &self,
        source: &Arc<Inode>,
        target: Option<&Arc<Inode>>,
        from: End<'_>,
        to: End<'_>,
    ) -> Result<()> {
        if target.is_some_and(|t| t.is_dir()) {
            return Err(FsError::new(FsErrorKind::IsDirectory, format!("{:?} is a directory", to.name)));
        }
        self.begin_again(source);
        let _serial = source.commit.lock().await;
        let (_guard, from_path, to_path) = self.lock_ends(from, to, Scope::Name).await?;
        still_named(source, from)?;
        let to_key = self.key(&to_path)?;
        self.know_tries(source, &self.key(&from_path)?).await?;
        let mut _kept = None;
        if let Some(target) = target {
            self.know_tries(target, &to_key).await?;
            _kept = self.keep_for_open(target).await?;
        }
        let begun = self.refreshes.moment();
        let remote = source.state().remote.clone();
        let gone = target.and_then(|target| target.state().kept);
        let mut old_name = None;
        if let Some(remote) = remote {
            let id = self.journal.reserve();
            let moved = self.move_object(source, &remote, &to_path, id, gone, from).await;
            if moved.is_err() {
                // As it was. That it could not be said is told beside the error.
                let both: Vec<_> = std::iter::once(source).chain(target).cloned().collect();
                let _ = self.keep_anew(&both, vec![(id, None)]);
            }
            moved?;
            old_name = Some(id);
        } else {
            // Not stored yet: its commit will find the new name. What it replaces stays there until then, as what a
            // truncated file replaces does, so that the name is never empty and a lost race is noticed.
            let replaced = target.and_then(|t| t.state().remote.clone());
            let replaced = replaced.map(|r| Remote { key: to_key, ..r });
            if source.state().kept.is_some() {
                // While nothing has changed yet: what the journal refuses is not done.
                let gone = gone.map(|id| (id, None)).into_iter().collect();
                self.say_ahead(source, &to_path, replaced.as_ref(), gone)?;
            }
            source.state().remote = replaced;
        }
        self.restart_streaming(source);
        self.relink(source, from, to, begun);
        reach(Step::AfterRelink);
        // What is replaced goes when the journal knows what replaces it.
        let gone = target.and_then(|target| target.state().kept.take());
        let done = gone.into_iter().chain(old_name).map(|id| (id, None)).collect();
        let said = self.keep_anew(std::slice::from_ref(source), done);
        let forgotten = target.map_or(Ok(()), |target| self.nameless(target));
        if source.state().kept.is_some() {
            // A job of it may have ended, or failed, under the old name.
            self.persist_later(source);
        }
        said.and(forgotten)
    }

    /// A try to store the file that is under way is bound to the name that it began with: it is not waited for.
    fn begin_again(&self, inode: &Inode) {
        let generation = {
            let mut state = inode.state();
            state.touch_meta(SystemTime::now());
            Generation(state.changes)
        };
        self.jobs.retarget(&inode.ino, generation);
    }

    /// An upload ahead is bound to the key that it began with: it begins again under the new one.
    fn restart_streaming(&self, inode: &Inode) {
        let streaming = inode.state().streaming.take();
        if let Some(streaming) = streaming {
            self.abandon(streaming);
        }
    }

    async fn move_object(
        &self,
        source: &Arc<Inode>,
        remote: &Remote,
        to_path: &str,
        old_name: IntentId,
        gone: Option<IntentId>,
        from: End<'_>,
    ) -> Result<()> {
        let to = &self.key(to_path)?;
        let _landing = source.landing.lock().await;
        reach(Step::BeforeRenameCopy);
        let version = match self.copy_object(remote, to, None).await {
            Err(error) if matches!(error.kind(), FsErrorKind::NotFound | FsErrorKind::Stale) => {
                self.supersede(source, &remote.version);
                return Err(FsError::caused(FsErrorKind::Stale, "the object was replaced or removed", error));
            }
            version => version?,
        };
        reach(Step::AfterRenameCopy);
        // From here on the bytes are at the new key; the old one only has to go.
        let moved = Remote { key: to.clone(), version, size: remote.size };
        let directory = self.inodes.get(from.parent)?;
        self.keep_directory(&directory).await?;
        // Before the old name goes: a start after a crash finds neither that, nor what was to be stored over the new one.
        let is_needed = gone.is_some() || source.state().kept.is_some();
        let words = [(old_name, Some(old_name_of(remote, to)))].into_iter().chain(gone.map(|id| (id, None)));
        match self.say_ahead(source, to_path, Some(&moved), words.collect()) {
            Err(error) if is_needed => return Err(error),
            // A crash would leave both names, of the same bytes.
            said => drop(said),
        }
        let conditional = self.store.capabilities().delete_if_match;
        let if_match = conditional.then(|| remote.version.etag.clone());
        let delete = DeleteRequest { key: remote.key.clone(), if_match, version_id: None };
        reach(Step::BeforeRenameDelete);
        match self.store.delete(delete).await {
            Ok(()) => reach(Step::AfterRenameDelete),
            Err(error) if error.kind() == ErrorKind::VersionMismatch => {
                tracing::warn!(
                    key = %remote.key,
                    "replaced in the store while it was renamed: the new one stays"
                );
            }
            Err(error) => {
                // Both names stand; the old one is still what this inode is.
                return Err(error.into());
            }
        }
        source.state().remote = Some(moved);
        Ok(())
    }

    /// Finishes the rename of a file that a crash interrupted: removes what the old name has, if that is what was copied
    /// and the copy is there. Otherwise, or if the store does not answer, both names stay: they are seen from now on, and
    /// nothing that is seen goes later by itself.
    pub(crate) async fn finish_rename(&self, old: OldNameIntent) {
        let text = format!("{} to {}", old.key, old.copy);
        match self.remove_old_name(old).await {
            Ok(true) => reach(Step::RenameFinished),
            Ok(false) => tracing::info!(rename = text, "nothing had to be removed after a rename"),
            Err(error) => {
                let error = with_causes(&error);
                tracing::warn!(rename = text, error, "both names of a file that was renamed stay");
            }
        }
    }

    async fn remove_old_name(&self, old: OldNameIntent) -> Result<bool> {
        if old.boot.is_none() || old.boot != boot_id() {
            return Ok(false);
        }
        let OldNameIntent { key, version, copy, .. } = old;
        let (Some(there), Some(copied)) = (self.head(key.clone()).await?, self.head(copy).await?) else {
            return Ok(false);
        };
        if there.version.etag != version.etag || there.last_modified > copied.last_modified {
            return Ok(false);
        }
        let conditional = self.store.capabilities().delete_if_match;
        let if_match = conditional.then_some(version.etag);
        self.store.delete(DeleteRequest { key, if_match, version_id: None }).await?;
        Ok(true)
    }

    fn relink(&self, source: &Arc<Inode>, from: End<'_>, to: End<'_>, begun: Moment) {
        let link = Link { parent: to.parent, name: Arc::from(to.name) };
        if let Some(loser) = self.inodes.relink(source, &link) {
            self.inodes.let_go(&loser);
        }
        self.remember_since(begun, from.parent, from.name, None);
        if source.state().is_local() {
            self.remember(to.parent, to.name, None);
        } else {
            self.confirm(source, begun);
        }
    }

    async fn rename_directory(
        &self,
        source: &Arc<Inode>,
        target: Option<&Arc<Inode>>,
        from: End<'_>,
        to: End<'_>,
    ) -> Result<()> {
        if target.is_some_and(|t| !t.is_dir()) {
            return Err(FsError::new(FsErrorKind::NotDirectory, format!("{:?} is no directory", to.name)));
        }
        let (_guard, from_path, to_path) = self.lock_ends(from, to, Scope::Subtree).await?;
        still_named(source, from)?;
        if is_below(&to_path, &from_path) {
            return Err(FsError::new(FsErrorKind::Invalid, "a directory cannot move into itself"));
        }
        if is_below(&from_path, &to_path) {
            return Err(FsError::new(FsErrorKind::NotEmpty, format!("{:?} is not empty", to.name)));
        }
        if let Some(target) = target {
            self.refuse_children(Some(target), &to_path, to.name).await?;
        }
        if let Ok(directory) = self.inodes.get(from.parent) {
            self.keep_directory(&directory).await?;
        }
        for inode in self.unstored_below(&from_path) {
            // What the store has is looked at when it is copied.
            let path = self.inodes.path(inode.ino)?;
            self.key(&format!("{to_path}{}", path.strip_prefix(&from_path).unwrap_or_default()))?;
        }
        let meta = source.state().meta.clone();
        let begun = self.refreshes.moment();
        let moved = self.move_tree(&from_path, &to_path, &meta, target.is_some()).await;
        self.doubt_flat();
        let mut forgotten = Ok(());
        if moved.is_ok() {
            forgotten = target.map_or(Ok(()), |target| self.nameless(target));
            source.state().marker = crate::inode::Marker::Present;
            self.relink(source, from, to, begun);
            reach(Step::MoveRelinked);
        } else {
            self.forget_copies(target, to);
        }
        for moved in std::iter::once(source).chain(target) {
            self.forget_listings(moved.ino);
        }
        self.settle_move(moved?, &to_path).and(forgotten)
    }

    /// What is not stored at a path and below.
    pub(crate) fn unstored_below(&self, above: &str) -> Vec<Arc<Inode>> {
        let is_below_it = |inode: &Arc<Inode>| {
            self.inodes.path(inode.ino).is_ok_and(|path| path == above || is_below(&path, above))
        };
        self.inodes.dirty().into_iter().filter(is_below_it).collect()
    }

    /// After a directory could not move: forgets what was learned of its new name while copies were there.
    fn forget_copies(&self, target: Option<&Arc<Inode>>, to: End<'_>) {
        self.names.forget(to.parent.0, to.name);
        let seen = self.inodes.child(to.parent, to.name).filter(|seen| seen.is_dir());
        if let Some(seen) = seen.filter(|seen| target.is_none_or(|target| target.ino != seen.ino)) {
            self.forget_listings(seen.ino);
            // It was a copy: nothing of it is in the journal.
            let _ = self.nameless(&seen);
        }
    }

    /// Outdates what was asked about a directory and those below it while their keys moved: it may show half of them.
    fn forget_listings(&self, dir: Ino) {
        let mut below = vec![dir];
        while let Some(dir) = below.pop() {
            self.names.forget_dir(dir.0);
            let children = self.inodes.children(dir).into_iter();
            below.extend(children.filter(|(_, child)| child.is_dir()).map(|(_, child)| child.ino));
        }
    }

    /// The inode in memory at a path, if all of the path is in memory.
    pub(crate) fn inode_at(&self, path: &str) -> Option<Arc<Inode>> {
        let mut at = self.inodes.get(Ino::ROOT).ok()?;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            at = self.inodes.child(at.ino, name)?;
        }
        Some(at)
    }
}

fn old_name_of(remote: &Remote, copy: &Key) -> Intent {
    let (key, version) = (remote.key.clone(), remote.version.clone());
    Intent::OldName(Box::new(OldNameIntent { key, version, copy: copy.clone(), boot: boot_id() }))
}

/// Which run of the machine this is; the kernel says so until it ends.
fn boot_id() -> Option<String> {
    static BOOT: LazyLock<Option<String>> = LazyLock::new(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(String::from(id.trim())).filter(|id| !id.is_empty())
    });
    BOOT.clone()
}

/// Fails if the inode lost this name while the locks were waited for.
fn still_named(inode: &Inode, end: End<'_>) -> Result<()> {
    let state = inode.state();
    match &state.link {
        Some(link) if link.parent == end.parent && &*link.name == end.name => Ok(()),
        _ => Err(FsError::new(FsErrorKind::NotFound, format!("{:?} does not exist any more", end.name))),
    }
}

#[cfg(test)]
mod tests {
    use staithe_store::{MemoryStore, NewObject, ObjectStore, PutCondition};

    use super::*;
    use crate::config::FsConfig;

    async fn put(bucket: &MemoryStore, key: &str, bytes: &'static str) -> staithe_store::Version {
        let key = Key::new(key).unwrap();
        bucket.put(&key, bytes.into(), NewObject::default(), PutCondition::Always).await.unwrap().version
    }

    #[tokio::test]
    async fn an_old_name_goes_only_if_it_is_what_was_copied_and_the_copy_is_there() {
        let (bucket, state) = (Arc::new(MemoryStore::default()), tempfile::tempdir().unwrap());
        let fs = Filesystem::open(bucket.clone(), FsConfig::new(state.path())).await.unwrap();
        for (name, boot, is_copied, is_replaced, goes) in [
            ("right", boot_id(), true, false, true),
            ("after a power failure", Some(String::from("another")), true, false, false),
            ("of an unknown run", None, true, false, false),
            ("without its copy", boot_id(), false, false, false),
            ("replaced since", boot_id(), true, true, false),
        ] {
            let version = put(&bucket, name, "bytes").await;
            let key = |name: &str| Key::new(name).unwrap();
            let copy = key(&format!("{name}, copied"));
            if is_copied {
                put(&bucket, copy.as_str(), "bytes").await;
            }
            if is_replaced {
                put(&bucket, name, "other bytes").await;
            }
            fs.finish_rename(OldNameIntent { key: key(name), version, copy, boot }).await;
            assert_eq!(fs.head(key(name)).await.unwrap().is_none(), goes, "{name}");
        }
    }
}
