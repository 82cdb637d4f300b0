//! One shard: the entries of some directories, under one lock, and every change that can be made to them.
//!
//! Invariants:
//! 1. An entry of a live directory is in the index, in the list of its directory, and in one queue of the eviction.
//! 2. An entry whose directory is not live answers nothing, whatever its deadline.
//! 3. Nothing here calls the caller's code but `Value`'s methods; values are dropped after the lock is released.

use hashbrown::DefaultHashBuilder;
use std::hash::{BuildHasher, Hasher};

use crate::{
    change::{Cause, Change},
    directory::{Directories, Directory},
    entry::{Entry, Lookup, Value},
    evict::Queues,
    index::Index,
    name::Name,
    slots::{Chain, Place, Slot, Slots},
    ttl::Tick,
};

/// Bytes beside its slot that an entry is charged with: two links, a cell at the index's usual load, and its share of
/// the fingerprints.
const INDEX_BYTES: usize = 40;
/// Bytes a directory is charged with: its record and its place in the index.
const DIRECTORY_BYTES: usize = size_of::<Directory>() + 32;

/// The hash of an entry's key: all of it that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyHash(u32);

impl KeyHash {
    /// Of no name in particular; that one may have it is no harm.
    pub(crate) const NONE: Self = Self(0);

    #[inline]
    pub(crate) fn of(hasher: &DefaultHashBuilder, parent: u64, name: &str) -> Self {
        let mut state = hasher.build_hasher();
        state.write_u64(parent);
        state.write(name.as_bytes());
        let hash = state.finish();
        Self((hash ^ (hash >> 32)) as u32)
    }
}

/// What a change leaves to do once the lock is released.
pub(crate) struct Effects<V> {
    pub(crate) changes: Vec<Change>,
    /// Directories that no cached name leads to any more: what is cached below them goes too.
    pub(crate) orphans: Vec<u64>,
    /// Values to drop.
    pub(crate) trash: Vec<V>,
}

impl<V> Effects<V> {
    pub(crate) fn new() -> Self {
        Self { changes: Vec::new(), orphans: Vec::new(), trash: Vec::new() }
    }

    pub(crate) fn discard(&mut self, entry: Entry<V>) {
        if let Entry::Positive(value) = entry {
            self.trash.push(value);
        }
    }
}

/// An answer on its way in.
pub(crate) struct Answer<'a, V> {
    pub(crate) hash: KeyHash,
    pub(crate) name: &'a str,
    pub(crate) entry: Entry<V>,
    pub(crate) deadline: Tick,
}

/// Whose word an answer is. What the store says is news to a kernel; what was done here is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Store,
    Here,
}

/// Exact counts of one shard, kept under its lock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) inserts: u64,
    pub(crate) mutations: u64,
    pub(crate) refused: u64,
    pub(crate) evictions: u64,
    pub(crate) completed: u64,
    pub(crate) swept: u64,
}

/// What a lookup reads comes first, and in this order: it then fills two cache lines and not four.
#[repr(C)]
pub(crate) struct State<V> {
    index: Index,
    pub(crate) slots: Slots<V>,
    pub(crate) dirs: Directories,
    queues: Queues,
    entry_bytes: usize,
    pub(crate) counts: Counts,
    /// Where the next sweep goes on.
    pub(crate) swept_to: usize,
}

impl<V: Value> State<V> {
    pub(crate) fn new() -> Self {
        Self {
            index: Index::new(),
            slots: Slots::new(),
            dirs: Directories::new(),
            queues: Queues::new(),
            entry_bytes: 0,
            counts: Counts::default(),
            swept_to: 0,
        }
    }

    /// Entries that take room, those of forgotten directories included.
    pub(crate) fn entries(&self) -> usize {
        self.queues.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.entry_bytes + self.dirs.len() * DIRECTORY_BYTES
    }

    #[inline]
    fn find(&self, hash: KeyHash, parent: u64, name: &str) -> Option<u32> {
        self.index.find(hash.0, |at| {
            let slot = self.slots.get(at);
            self.dirs.is_live(slot.dir, parent) && slot.name.as_bytes() == name.as_bytes()
        })
    }

    #[inline]
    pub(crate) fn lookup(&self, hash: KeyHash, parent: u64, name: &str, now: Tick) -> Lookup<V> {
        if let Some(at) = self.find(hash, parent, name) {
            let slot = self.slots.get(at);
            slot.touch();
            match (&slot.value, slot.deadline.remaining(now)) {
                (Some(value), Some(left)) => return Lookup::Hit(value.clone(), left),
                (Some(value), None) => return Lookup::Expired(value.clone()),
                (None, Some(left)) => return Lookup::Negative(left),
                (None, None) => {}
            }
        }
        match self.dirs.find(parent).and_then(|at| self.dirs.get(at).complete_until.remaining(now)) {
            Some(left) => Lookup::AbsentByListing(left),
            None => Lookup::Miss,
        }
    }

    /// A local mutation: outdates what the directory's tokens are worth for this name, and applies it.
    pub(crate) fn mutate(
        &mut self,
        parent: u64,
        answer: Answer<'_, V>,
        effects: &mut Effects<V>,
    ) -> Option<V> {
        let dir = self.dirs.open(parent);
        self.dirs.raise(dir, answer.hash);
        let before = self.record(dir, answer, Source::Here, effects);
        self.dirs.settle(dir);
        self.counts.mutations += 1;
        before
    }

    /// Takes an answer in; returns what the name stood for. O(1), amortised over the growth of the index.
    pub(crate) fn record(
        &mut self,
        dir: u32,
        answer: Answer<'_, V>,
        source: Source,
        effects: &mut Effects<V>,
    ) -> Option<V> {
        let complete = self.dirs.get(dir).is_complete();
        let found = self.find(answer.hash, self.dirs.id(dir), answer.name);
        let known_absent = complete || found.is_some();
        let value = match answer.entry {
            Entry::Positive(value) => Some(value),
            Entry::Negative => None,
        };
        // A complete directory keeps the name of what exists even if its value may not be used.
        let kept = answer.deadline != Tick::PASSED || (complete && value.is_some());
        let before = match found {
            Some(at) => self.slots.get_mut(at).value.take(),
            None => None,
        };
        self.entry_bytes -= before.as_ref().map_or(0, Value::heap_bytes);
        if source == Source::Store {
            let parent = self.dirs.id(dir);
            note_news(parent, answer.name, before.as_ref(), value.as_ref(), known_absent, effects);
        }
        if kept {
            let at = found.unwrap_or_else(|| self.make(dir, answer.hash, answer.name));
            self.entry_bytes += value.as_ref().map_or(0, Value::heap_bytes);
            let slot = self.slots.get_mut(at);
            slot.value = value;
            slot.deadline = answer.deadline;
            self.refresh(dir, at);
        } else {
            if value.is_some() {
                // It exists, and nothing will say so: a listing under way may have passed it already.
                self.dirs.get_mut(dir).intact = false;
                effects.trash.extend(value);
            }
            if let Some(at) = found {
                self.remove(at, effects);
            }
        }
        before
    }

    /// Marks an entry as written during the latest listing and moves it to the end of its directory.
    fn refresh(&mut self, dir: u32, at: u32) {
        let record = self.dirs.get_mut(dir);
        record.entries.unlink(&mut self.slots, Chain::Directory, at);
        record.entries.push_back(&mut self.slots, Chain::Directory, at);
        record.edits = record.edits.wrapping_add(1);
        self.slots.get_mut(at).mark = record.mark;
    }

    fn make(&mut self, dir: u32, hash: KeyHash, name: &str) -> u32 {
        let name = Name::new(name);
        self.entry_bytes += size_of::<Slot<V>>() + INDEX_BYTES + name.heap_bytes();
        let at = self.slots.take(Slot::new(name, dir, hash.0));
        self.index.insert(hash.0, at);
        self.queues.admit(&mut self.slots, at);
        self.dirs.get_mut(dir).entries.push_back(&mut self.slots, Chain::Directory, at);
        at
    }

    /// Takes an entry out of everything. What that means for its directory's completeness is the caller's to say.
    fn remove(&mut self, at: u32, effects: &mut Effects<V>) {
        let slot = self.slots.get(at);
        let (hash, dir) = (slot.hash, slot.dir);
        self.entry_bytes -= size_of::<Slot<V>>()
            + INDEX_BYTES
            + slot.name.heap_bytes()
            + slot.value.as_ref().map_or(0, Value::heap_bytes);
        self.index.remove(hash, at);
        self.queues.remove(&mut self.slots, at);
        let record = self.dirs.get_mut(dir);
        record.entries.unlink(&mut self.slots, Chain::Directory, at);
        record.edits = record.edits.wrapping_add(1);
        effects.trash.extend(self.slots.free(at));
    }

    /// Entries in the eviction's small queue.
    pub(crate) fn small(&self) -> usize {
        self.queues.small()
    }

    /// Evicts one entry from a queue of the eviction; `false` if it has none to give.
    pub(crate) fn evict(&mut self, from: Place, effects: &mut Effects<V>) -> bool {
        let Some(at) = self.queues.victim(&mut self.slots, from) else {
            return false;
        };
        self.counts.evictions += 1;
        self.drop_unknowing(at, effects);
        true
    }

    /// Drops an entry although what it says may still be true.
    fn drop_unknowing(&mut self, at: u32, effects: &mut Effects<V>) {
        let slot = self.slots.get(at);
        let dir = slot.dir;
        if let Some(value) = &slot.value {
            let live = self.dirs.is_live(dir, self.dirs.id(dir));
            let record = self.dirs.get_mut(dir);
            let below = if live { &mut effects.orphans } else { &mut record.below };
            below.extend(value.directory());
            record.lose_a_name();
        }
        self.remove(at, effects);
        self.dirs.settle(dir);
    }

    /// Forgets one name without a word about whether it exists.
    pub(crate) fn forget(
        &mut self,
        hash: KeyHash,
        parent: u64,
        name: &str,
        effects: &mut Effects<V>,
    ) -> bool {
        let dir = self.dirs.open(parent);
        self.dirs.raise(dir, hash);
        self.dirs.get_mut(dir).lose_a_name();
        let found = self.find(hash, parent, name);
        if let Some(at) = found {
            self.drop_unknowing(at, effects);
        } else {
            self.dirs.settle(dir);
        }
        found.is_some()
    }

    /// Removes up to `budget` entries of a detached directory, and tells the directories that they named. `false`
    /// once there are none left and its record is gone.
    pub(crate) fn bury(
        &mut self,
        dir: u32,
        budget: usize,
        below: &mut Vec<u64>,
        effects: &mut Effects<V>,
    ) -> bool {
        for _ in 0..budget {
            let Some(at) = self.dirs.get(dir).entries.first() else {
                below.append(&mut self.dirs.get_mut(dir).below);
                self.dirs.bury(dir);
                return false;
            };
            below.extend(self.slots.get(at).value.as_ref().and_then(Value::directory));
            self.remove(at, effects);
        }
        true
    }

    /// Removes, from the front of a directory, up to `budget` entries that its latest listing has not written.
    /// `false` once there are none left.
    pub(crate) fn drop_unlisted(&mut self, dir: u32, budget: usize, effects: &mut Effects<V>) -> bool {
        for _ in 0..budget {
            let record = self.dirs.get(dir);
            let (parent, mark) = (self.dirs.id(dir), record.mark);
            let Some(at) = record.entries.first().filter(|&at| self.slots.get(at).mark != mark) else {
                return false;
            };
            let slot = self.slots.get(at);
            note_news(parent, slot.name.as_str(), slot.value.as_ref(), None, false, effects);
            self.remove(at, effects);
        }
        true
    }

    /// Looks at up to `budget` slots from where the last sweep stopped, and frees those that answer nothing at
    /// `now`. Returns how many it freed; the round is over once `swept_to` is back at 0.
    pub(crate) fn sweep(&mut self, now: Tick, budget: usize, effects: &mut Effects<V>) -> usize {
        let end = self.slots.len().min(self.swept_to.saturating_add(budget));
        let mut freed = 0;
        for at in self.swept_to..end {
            let slot = self.slots.get(at as u32);
            if slot.is_free() || !slot.deadline.is_past(now) {
                continue;
            }
            let in_force = !self.dirs.get(slot.dir).complete_until.is_past(now);
            if slot.value.is_some() && in_force {
                continue;
            }
            self.drop_unknowing(at as u32, effects);
            freed += 1;
        }
        self.swept_to = if end == self.slots.len() { 0 } else { end };
        self.counts.swept += freed as u64;
        freed
    }
}

/// What the store's word about a name makes invalid.
fn note_news<V: Value>(
    parent: u64,
    name: &str,
    before: Option<&V>,
    after: Option<&V>,
    known_absent: bool,
    effects: &mut Effects<V>,
) {
    let cause = match (before, after) {
        (Some(before), Some(after)) if after.same(before) => None,
        (Some(_), Some(_)) => Some(Cause::Replaced),
        (Some(_), None) => Some(Cause::Removed),
        (None, Some(_)) if known_absent => Some(Cause::Appeared),
        (None, _) => None,
    };
    if let Some(cause) = cause {
        effects.changes.push(Change::Name { parent, name: name.into(), cause });
    }
    if let Some(child) = before.and_then(Value::directory)
        && after.and_then(Value::directory) != Some(child)
    {
        effects.orphans.push(child);
    }
}
