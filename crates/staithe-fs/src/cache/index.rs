//! Which files are in the cache, how large they are, and which go first. Pure: no file is touched here.
//!
//! Least recently used first, but never one that is open: its bytes would not be free before it is closed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};

use super::cached::CachedFile;
use super::identity::Name;
use super::survey::Survey;
use crate::disk_file::Stamp;

#[derive(Debug)]
struct Slot {
    bytes: u64,
    turn: i64,
    open: Weak<CachedFile>,
    /// What the file looked like when all of it was seen to be right, in this process.
    trusted: Option<Stamp>,
}

/// The files of the cache.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: HashMap<Name, Slot>,
    by_use: BTreeMap<i64, Name>,
    /// Bytes of the files.
    used: u64,
    /// Bytes of what is around them and never goes.
    around: u64,
    /// What of these is the directories that files lie in, by number.
    directories: HashMap<u8, u64>,
    clock: i64,
    /// Taken out, and not yet off the disk.
    leaving: HashSet<Name>,
    /// Whether all that earlier processes left is known.
    pub(super) is_complete: bool,
}

impl Index {
    /// No file; what is around them takes this many bytes.
    pub(super) fn new(around: u64) -> Self {
        Self { around, ..Self::default() }
    }

    /// Bytes of the disk in use.
    pub(super) fn used(&self) -> u64 {
        self.used + self.around
    }

    /// Those of them that no eviction gives back.
    pub(super) fn around(&self) -> u64 {
        self.around
    }

    /// How many files there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether the disk may have it.
    pub(super) fn may_have(&self, name: Name) -> bool {
        !self.is_complete || self.has(name)
    }

    /// Whether it has something of a file.
    pub(super) fn has(&self, name: Name) -> bool {
        self.slots.get(&name).is_some_and(|slot| slot.bytes > 0)
    }

    /// The file, open, and used last of all; made by `make` if it is not open. `None` while it is on its way out.
    pub(super) fn open(
        &mut self,
        name: Name,
        make: impl FnOnce() -> Arc<CachedFile>,
    ) -> Option<Arc<CachedFile>> {
        if self.leaving.contains(&name) {
            return None;
        }
        self.clock += 1;
        let turn = self.clock;
        let slot = self.slots.entry(name).or_insert_with(|| Slot {
            bytes: 0,
            turn,
            open: Weak::new(),
            trusted: None,
        });
        let before = std::mem::replace(&mut slot.turn, turn);
        self.by_use.remove(&before);
        self.by_use.insert(turn, name);
        let file = slot.open.upgrade().unwrap_or_else(make);
        slot.open = Arc::downgrade(&file);
        Some(file)
    }

    /// Whether a file is open.
    pub(super) fn is_open(&self, name: Name) -> bool {
        self.slots.get(&name).is_some_and(|slot| slot.open.strong_count() > 0)
    }

    /// The file, if it is open; it counts as used as before.
    pub(super) fn if_open(&self, name: Name) -> Option<Arc<CachedFile>> {
        self.slots.get(&name)?.open.upgrade()
    }

    /// Takes in what earlier processes left.
    pub(super) fn found(&mut self, Survey { files, directories }: Survey) {
        for (number, bytes) in directories {
            self.count_directory(number, bytes);
        }
        let before_all = i64::try_from(files.len()).unwrap_or(i64::MAX);
        for (turn, (name, bytes)) in (-before_all..).zip(files) {
            if self.slots.contains_key(&name) || self.leaving.contains(&name) {
                // Opened meanwhile, and counted then.
                continue;
            }
            self.slots.insert(name, Slot { bytes, turn, open: Weak::new(), trusted: None });
            self.by_use.insert(turn, name);
            self.used += bytes;
        }
        self.is_complete = true;
    }

    /// What a file looked like when it was seen to be right.
    pub(super) fn trusted(&self, name: Name) -> Option<Stamp> {
        self.slots.get(&name)?.trusted
    }

    /// All of a file was seen to be right, and it looked like this.
    pub(super) fn trust(&mut self, name: Name, stamp: Stamp) {
        if let Some(slot) = self.slots.get_mut(&name) {
            slot.trusted = Some(stamp);
        }
    }

    /// Says how many bytes a file has.
    pub(super) fn count(&mut self, name: Name, bytes: u64) {
        if let Some(slot) = self.slots.get_mut(&name) {
            self.used = self.used - slot.bytes + bytes;
            slot.bytes = bytes;
        }
    }

    /// Says how many bytes a directory takes.
    pub(super) fn count_directory(&mut self, number: u8, bytes: u64) {
        let before = self.directories.insert(number, bytes).unwrap_or(0);
        self.around = self.around - before + bytes;
    }

    /// Makes room for `bytes` more of a file among `most`: those that must go for it. `None`, and nothing changes,
    /// if even all that may go would not be enough.
    pub(super) fn reserve(&mut self, name: Name, bytes: u64, most: u64) -> Option<Vec<Name>> {
        if !self.slots.contains_key(&name) {
            return None;
        }
        let victims = self.victims((self.used() + bytes).saturating_sub(most), Some(name), true)?;
        if let Some(slot) = self.slots.get_mut(&name) {
            slot.bytes += bytes;
            self.used += bytes;
        }
        Some(victims)
    }

    /// Those that must go so that no more than `most` bytes are in use: as many as may.
    pub(super) fn shrink(&mut self, most: u64) -> Vec<Name> {
        let excess = self.used().saturating_sub(most);
        self.victims(excess, None, false).unwrap_or_default()
    }

    fn victims(&mut self, excess: u64, except: Option<Name>, all_or_none: bool) -> Option<Vec<Name>> {
        let mut freed = 0;
        let mut victims = Vec::new();
        for name in self.by_use.values() {
            if freed >= excess {
                break;
            }
            let Some(slot) = self.slots.get(name) else { continue };
            if Some(*name) != except && slot.open.strong_count() == 0 {
                freed += slot.bytes;
                victims.push(*name);
            }
        }
        if all_or_none && freed < excess {
            return None;
        }
        for name in &victims {
            self.leave(*name);
        }
        Some(victims)
    }

    /// Takes a file out that is still on the disk: it is not opened until it has [left](Self::left).
    pub(super) fn leave(&mut self, name: Name) {
        self.remove(name);
        self.leaving.insert(name);
    }

    /// Takes a file out.
    fn remove(&mut self, name: Name) {
        if let Some(slot) = self.slots.remove(&name) {
            self.by_use.remove(&slot.turn);
            self.used -= slot.bytes;
        }
    }

    /// Takes a file out that has no bytes and is not open.
    pub(super) fn remove_if_empty(&mut self, name: Name) {
        if self.slots.get(&name).is_some_and(|slot| slot.bytes == 0 && slot.open.strong_count() == 0) {
            self.remove(name);
        }
    }

    /// One that was leaving is off the disk.
    pub(super) fn left(&mut self, name: Name) {
        self.leaving.remove(&name);
    }
}
