//! The inodes in memory, by number and by name.
//!
//! Invariants:
//! 1. A name leads to at most one inode, and that inode's link says the same name.
//! 2. An inode stays while the kernel holds references, a handle is open, it has unstored changes, or a child
//!    of it stays.
//! 3. Numbers are never reused in a run; what an earlier one numbered keeps its number (`numbers`).
//!
//! Lock order: this table, then an inode's state.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{RwLock, RwLockWriteGuard};

use crate::api::Ino;
use crate::error::{FsError, FsErrorKind, Result};
use crate::inode::{Inode, Link, State};
use crate::numbers::{Identity, Numbers};

#[derive(Debug, Default)]
struct Maps {
    by_ino: HashMap<Ino, Arc<Inode>>,
    children: HashMap<Ino, BTreeMap<Arc<str>, Ino>>,
}

/// All inodes in memory.
#[derive(Debug)]
pub(crate) struct InodeTable {
    next: AtomicU64,
    numbers: Numbers,
    maps: RwLock<Maps>,
}

/// An inode with a reference of ours, as the kernel's, so that it stays.
#[derive(Debug)]
pub(crate) struct Pinned<'a> {
    table: &'a InodeTable,
    inode: Arc<Inode>,
}

impl Deref for Pinned<'_> {
    type Target = Arc<Inode>;

    fn deref(&self) -> &Arc<Inode> {
        &self.inode
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.table.forget(self.inode.ino, 1);
    }
}

impl InodeTable {
    /// A table with its root; what an earlier run numbered gets the same number.
    pub(crate) fn new(root: State, numbers: Numbers) -> Self {
        let mut maps = Maps::default();
        maps.by_ino.insert(Ino::ROOT, Inode::new(Ino::ROOT, root));
        let next = numbers.first_fresh(Ino::ROOT.0 + 1);
        Self { next: AtomicU64::new(next), numbers, maps: RwLock::new(maps) }
    }

    /// Writes down for the next run which numbers inodes have. Blocks on the local disk. O(inodes).
    pub(crate) fn save_numbers(&self) {
        let all: Vec<Ino> = self.maps.read().by_ino.keys().copied().collect();
        let live = all.into_iter().filter_map(|ino| self.get(ino).ok());
        self.numbers.save(|| self.next.load(Ordering::Relaxed), live);
    }

    /// The inode with this number.
    ///
    /// # Errors
    /// `Stale` when it is no more.
    pub(crate) fn get(&self, ino: Ino) -> Result<Arc<Inode>> {
        self.maps
            .read()
            .by_ino
            .get(&ino)
            .cloned()
            .ok_or_else(|| FsError::new(FsErrorKind::Stale, format!("inode {} is no more", ino.0)))
    }

    /// The inode in memory under this name.
    pub(crate) fn child(&self, parent: Ino, name: &str) -> Option<Arc<Inode>> {
        let maps = self.maps.read();
        let ino = maps.children.get(&parent)?.get(name)?;
        maps.by_ino.get(ino).cloned()
    }

    /// The inodes in memory directly below a directory, by name.
    pub(crate) fn children(&self, parent: Ino) -> Vec<(Arc<str>, Arc<Inode>)> {
        let maps = self.maps.read();
        let Some(names) = maps.children.get(&parent) else { return Vec::new() };
        names.iter().filter_map(|(n, i)| Some((n.clone(), maps.by_ino.get(i)?.clone()))).collect()
    }

    /// Whether anything in memory below a directory is not stored. O(inodes below).
    pub(crate) fn has_local_below(&self, dir: Ino) -> bool {
        let mut below = vec![dir];
        while let Some(dir) = below.pop() {
            for (_, child) in self.children(dir) {
                if child.state().is_local() {
                    return true;
                }
                if child.is_dir() {
                    below.push(child.ino);
                }
            }
        }
        false
    }

    /// Makes an inode of `state` and, if it is linked, gives it its name; who had that name before loses it.
    pub(crate) fn insert(&self, state: State) -> Arc<Inode> {
        let maps = self.maps.write();
        self.insert_in(maps, state)
    }

    /// As [`insert`](Self::insert), for what the store says of a name: nothing is made if somebody here has
    /// changed what has the name, or if that is the same version, as when two learned it at once; it is returned
    /// then, with the attributes of `state` if it had none.
    pub(crate) fn adopt(&self, state: State) -> Arc<Inode> {
        let maps = self.maps.write();
        let holder = state.link.as_ref().and_then(|link| maps.at(link)).cloned();
        match holder.filter(|h| h.state().is_local() || h.is_as(&state)) {
            Some(holder) => {
                drop(maps);
                holder.fill(state);
                holder
            }
            None => self.insert_in(maps, state),
        }
    }

    fn insert_in(&self, mut maps: RwLockWriteGuard<'_, Maps>, state: State) -> Arc<Inode> {
        let former = state.link.as_ref().and_then(|link| self.numbers.recall(Identity::of(link, &state)));
        let fresh = || Ino(self.next.fetch_add(1, Ordering::Relaxed));
        let inode = Inode::new(former.unwrap_or_else(fresh), state);
        maps.by_ino.insert(inode.ino, inode.clone());
        let link = inode.state().link.clone();
        let loser = link.and_then(|link| maps.take_name(&link, inode.ino));
        drop(maps);
        if let Some(loser) = loser {
            loser.state().replaced = true;
            self.let_go(&loser);
        }
        inode
    }

    /// Moves an inode to another name; who had that name before loses it and is returned.
    pub(crate) fn relink(&self, inode: &Arc<Inode>, to: &Link) -> Option<Arc<Inode>> {
        let mut maps = self.maps.write();
        let from = inode.state().link.replace(to.clone());
        if let Some(from) = from {
            maps.drop_name(&from, inode.ino);
        }
        maps.by_ino.entry(inode.ino).or_insert_with(|| inode.clone());
        maps.take_name(to, inode.ino)
    }

    /// Takes an inode's name away.
    pub(crate) fn unlink(&self, inode: &Inode) -> Option<Link> {
        self.unlink_if(inode, |_| true)
    }

    /// Takes an inode's name away if `agrees` does, which may change the rest of it in the same step.
    pub(crate) fn unlink_if(&self, inode: &Inode, agrees: impl FnOnce(&mut State) -> bool) -> Option<Link> {
        let mut maps = self.maps.write();
        let link = {
            let mut state = inode.state();
            if state.link.is_none() || !agrees(&mut state) {
                return None;
            }
            state.link.take()?
        };
        maps.drop_name(&link, inode.ino);
        Some(link)
    }

    /// Keeps an inode in memory while the value lives.
    pub(crate) fn pin(&self, inode: Arc<Inode>) -> Pinned<'_> {
        self.reference(&inode);
        Pinned { table: self, inode }
    }

    /// Counts one kernel reference.
    pub(crate) fn reference(&self, inode: &Arc<Inode>) {
        let maps = self.maps.read();
        inode.lookups.fetch_add(1, Ordering::AcqRel);
        if maps.by_ino.contains_key(&inode.ino) {
            return;
        }
        drop(maps);
        let mut maps = self.maps.write();
        maps.by_ino.entry(inode.ino).or_insert_with(|| inode.clone());
        let link = inode.state().link.clone();
        if let Some(link) = link {
            let holder = *maps.children.entry(link.parent).or_default().entry(link.name).or_insert(inode.ino);
            if holder != inode.ino {
                // Somebody else has its name by now.
                let mut state = inode.state();
                (state.link, state.replaced) = (None, true);
            }
        }
    }

    /// Takes `count` kernel references back, and lets the inode go if nobody needs it.
    pub(crate) fn forget(&self, ino: Ino, count: u64) {
        let Ok(inode) = self.get(ino) else { return };
        let before = inode
            .lookups
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| Some(n.saturating_sub(count)));
        if before.is_ok_and(|n| n <= count) {
            self.let_go(&inode);
        }
    }

    /// Drops an inode that nobody needs, and its parents that nobody needs then.
    pub(crate) fn let_go(&self, inode: &Arc<Inode>) {
        let mut maps = self.maps.write();
        let mut next = Some(inode.clone());
        while let Some(inode) = next.take() {
            let has_children = maps.children.get(&inode.ino).is_some_and(|c| !c.is_empty());
            if inode.ino == Ino::ROOT || has_children || !inode.is_idle() {
                return;
            }
            maps.by_ino.remove(&inode.ino);
            self.numbers.retire(&inode);
            let link = inode.state().link.clone();
            if let Some(link) = link {
                maps.drop_name(&link, inode.ino);
                next = maps.by_ino.get(&link.parent).cloned();
            }
        }
    }

    /// The path of a directory or file from the root, without a leading slash; the root's is empty.
    ///
    /// # Errors
    /// `Stale` when the name, or that of a directory above, is gone.
    pub(crate) fn path(&self, ino: Ino) -> Result<String> {
        let maps = self.maps.read();
        let mut parts: Vec<Arc<str>> = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let link = maps.by_ino.get(&at).and_then(|i| i.state().link.clone());
            let link = link.ok_or_else(|| {
                FsError::new(FsErrorKind::Stale, format!("inode {} has no name any more", ino.0))
            })?;
            at = link.parent;
            parts.push(link.name);
        }
        parts.reverse();
        Ok(parts.join("/"))
    }

    /// Every inode.
    pub(crate) fn all(&self) -> Vec<Arc<Inode>> {
        self.maps.read().by_ino.values().cloned().collect()
    }

    /// Every inode that has unstored changes.
    pub(crate) fn dirty(&self) -> Vec<Arc<Inode>> {
        self.all().into_iter().filter(|i| i.state().is_dirty()).collect()
    }

    /// Every inode whose staging file others may write to, too.
    pub(crate) fn shared(&self) -> Vec<Arc<Inode>> {
        let all: Vec<_> = self.maps.read().by_ino.values().cloned().collect();
        all.into_iter().filter(|i| i.is_shared()).collect()
    }

    /// What the staging files of all inodes take of their disk, in bytes.
    pub(crate) fn staging_used(&self) -> u64 {
        let all: Vec<_> = self.maps.read().by_ino.values().cloned().collect();
        // Not while states are locked: each is a question to the disk.
        let disk_file = |inode: &Arc<Inode>| inode.state().staged.as_ref().map(|s| s.disk_file().clone());
        all.iter().filter_map(disk_file).map(|file| file.allocated().unwrap_or_default()).sum()
    }

    /// How many inodes are in memory.
    pub(crate) fn len(&self) -> usize {
        self.maps.read().by_ino.len()
    }
}

impl Maps {
    fn at(&self, link: &Link) -> Option<&Arc<Inode>> {
        self.by_ino.get(self.children.get(&link.parent)?.get(&link.name)?)
    }

    fn take_name(&mut self, link: &Link, ino: Ino) -> Option<Arc<Inode>> {
        let before = self.children.entry(link.parent).or_default().insert(link.name.clone(), ino)?;
        let loser = self.by_ino.get(&before).filter(|l| l.ino != ino)?.clone();
        loser.state().link = None;
        Some(loser)
    }

    fn drop_name(&mut self, link: &Link, ino: Ino) {
        let Some(names) = self.children.get_mut(&link.parent) else { return };
        if names.get(&link.name) == Some(&ino) {
            names.remove(&link.name);
        }
        if names.is_empty() {
            self.children.remove(&link.parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use staithe_store::{ETag, Key, Version};

    use super::*;
    use crate::api::Kind;
    use crate::inode::Remote;
    use crate::metadata::FileMeta;

    fn learned(kind: Kind, etag: Option<&str>, mode: u16, known: bool) -> State {
        let link = Link { parent: Ino::ROOT, name: Arc::from("f") };
        let mut state = State::new(Some(link), FileMeta::new(kind, mode, 0, 0, SystemTime::UNIX_EPOCH));
        let version = |etag| Version { etag: ETag::new(etag), id: None };
        state.remote =
            etag.map(|etag| Remote { key: Key::new("f").unwrap(), version: version(etag), size: 1 });
        state.meta_known = known;
        state
    }

    #[test]
    fn two_who_learn_of_the_same_version_get_one_inode() {
        let table = InodeTable::new(learned(Kind::Directory, None, 0o755, true), Numbers::none());
        let first = table.adopt(learned(Kind::File, Some("a"), 0o644, false));
        let second = table.adopt(learned(Kind::File, Some("a"), 0o600, true));
        let third = table.adopt(learned(Kind::File, Some("a"), 0o644, false));
        assert_eq!((first.ino, first.ino), (second.ino, third.ino));
        assert!(first.state().meta_known && first.state().meta.mode == 0o600);
        let other = table.adopt(learned(Kind::File, Some("b"), 0o644, true));
        assert!(other.ino != first.ino && first.state().replaced && first.state().link.is_none());
        let dir = table.adopt(learned(Kind::Directory, None, 0o755, true));
        assert!(other.state().replaced);
        assert_eq!(table.adopt(learned(Kind::Directory, None, 0o755, true)).ino, dir.ino);
    }
}
