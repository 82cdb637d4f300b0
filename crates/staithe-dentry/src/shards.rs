//! The shards, their locks, and what has to be done between them: totals, room, and freeing what was forgotten.
//!
//! Invariants:
//! 1. Lock order: shards by rising number (only a rename holds two), then nothing. The change queue is entered
//!    after the shards are released.
//! 2. A lock is held for one name or one step ([`STEP`] entries), never for a directory.
//! 3. Before a call returns, the entries and bytes that it brought beyond the bounds have been evicted. While calls
//!    run, each may be one step over.

use std::time::Instant;

use hashbrown::DefaultHashBuilder;

use crate::{
    change::ChangeQueue,
    config::Config,
    entry::{Entry, Lookup, Value},
    evict,
    shard::{Answer, Effects, KeyHash, State},
    slots::Place,
    sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Ordering, RwLock, RwLockWriteGuard},
    ttl::{Deadline, Epoch},
};

/// Entries moved under one hold of a lock.
pub(crate) const STEP: usize = 64;

/// A shard's lock and the numbers read without it, in an order and on cache lines of their own: the numbers and the
/// word of the lock fill the first, what a lookup reads of the state follows in the next.
#[repr(C, align(128))]
pub(crate) struct Shard<V> {
    /// Lookups by outcome, in the order of [`outcome`].
    pub(crate) lookups: [AtomicU64; 5],
    /// Entries when the lock was last released: those in the small queue in the upper half, all in the lower.
    held: AtomicU64,
    /// Bytes when the lock was last released.
    bytes: AtomicUsize,
    pub(crate) state: RwLock<State<V>>,
}

pub(crate) struct Inner<V> {
    pub(crate) shards: Box<[Shard<V>]>,
    shift: u32,
    pub(crate) hasher: DefaultHashBuilder,
    pub(crate) epoch: Epoch,
    config: Config,
    pub(crate) entries: AtomicUsize,
    /// Those of them that are in a small queue of the eviction.
    small: AtomicUsize,
    bytes: AtomicUsize,
    turns: AtomicU64,
    pub(crate) changes: Arc<ChangeQueue>,
    pub(crate) taken: AtomicBool,
}

impl<V> Shard<V> {
    /// Entries in the small queue, and all.
    fn held(&self) -> (usize, usize) {
        let held = self.held.load(Ordering::Relaxed);
        ((held >> 32) as usize, (held & u64::from(u32::MAX)) as usize)
    }

    #[inline]
    pub(crate) fn count(&self, found: &Lookup<V>) {
        let count = &self.lookups[outcome(found)];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

fn outcome<V>(lookup: &Lookup<V>) -> usize {
    match lookup {
        Lookup::Hit(..) => 0,
        Lookup::Negative(_) => 1,
        Lookup::AbsentByListing(_) => 2,
        Lookup::Expired(_) => 3,
        Lookup::Miss => 4,
    }
}

impl<V: Value> Inner<V> {
    pub(crate) fn new(config: Config, epoch: Instant) -> Self {
        let shards = config.shards.clamp(1, 4_096).next_power_of_two();
        let shard = |_| Shard {
            state: RwLock::new(State::new()),
            lookups: std::array::from_fn(|_| AtomicU64::new(0)),
            held: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
        };
        Self {
            shards: (0..shards).map(shard).collect(),
            shift: u64::BITS - shards.trailing_zeros(),
            hasher: DefaultHashBuilder::default(),
            epoch: Epoch(epoch),
            entries: AtomicUsize::new(0),
            small: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            turns: AtomicU64::new(0),
            changes: Arc::new(ChangeQueue::new(config.max_changes)),
            taken: AtomicBool::new(false),
            config,
        }
    }

    #[inline]
    pub(crate) fn shard_index(&self, parent: u64) -> usize {
        // Fibonacci hashing: the top bits of a multiplication by the golden ratio (Knuth, TAOCP volume 3, 6.4).
        parent.wrapping_mul(0x9E37_79B9_7F4A_7C15).checked_shr(self.shift).unwrap_or(0) as usize
    }

    #[inline]
    pub(crate) fn shard(&self, parent: u64) -> &Shard<V> {
        &self.shards[self.shard_index(parent)]
    }

    #[inline]
    pub(crate) fn hash(&self, parent: u64, name: &str) -> KeyHash {
        KeyHash::of(&self.hasher, parent, name)
    }

    pub(crate) fn answer<'a>(
        &self,
        parent: u64,
        name: &'a str,
        entry: Entry<V>,
        deadline: Deadline,
    ) -> Answer<'a, V> {
        Answer { hash: self.hash(parent, name), name, entry, deadline: self.epoch.deadline(deadline) }
    }

    /// One change under the lock of a directory's shard, and what follows from it without the lock.
    pub(crate) fn write<R>(
        &self,
        parent: u64,
        change: impl FnOnce(&mut State<V>, &mut Effects<V>) -> R,
    ) -> R {
        let mut effects = Effects::new();
        let result = self.write_shard(self.shard_index(parent), &mut effects, change);
        self.finish(effects);
        result
    }

    pub(crate) fn write_shard<R>(
        &self,
        index: usize,
        effects: &mut Effects<V>,
        change: impl FnOnce(&mut State<V>, &mut Effects<V>) -> R,
    ) -> R {
        let mut state = self.shards[index].state.write();
        let result = change(&mut state, effects);
        self.settle_totals(index, &state);
        result
    }

    /// Brings the totals up to what the locked shard holds now. Unsigned arithmetic wraps: the sums come out right.
    pub(crate) fn settle_totals(&self, index: usize, state: &RwLockWriteGuard<'_, State<V>>) {
        let shard = &self.shards[index];
        let (before, small, entries) = (shard.held(), state.small(), state.entries());
        if before != (small, entries) {
            shard.held.store((small as u64) << 32 | entries as u64, Ordering::Relaxed);
            self.small.fetch_add(small.wrapping_sub(before.0), Ordering::Relaxed);
            self.entries.fetch_add(entries.wrapping_sub(before.1), Ordering::Relaxed);
        }
        let (before, bytes) = (shard.bytes.load(Ordering::Relaxed), state.bytes());
        if before != bytes {
            shard.bytes.store(bytes, Ordering::Relaxed);
            self.bytes.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// Publishes, makes room, and drops what lost its name, until nothing follows any more.
    pub(crate) fn finish(&self, mut effects: Effects<V>) {
        loop {
            if !effects.changes.is_empty() {
                self.changes.publish(effects.changes.drain(..));
            }
            effects.trash.clear();
            while let Some(orphan) = effects.orphans.pop() {
                let mut below = std::mem::take(&mut effects.orphans);
                self.detach(orphan, false, &mut below, &mut effects);
                effects.orphans.append(&mut below);
            }
            if !self.make_room(&mut effects) {
                return;
            }
        }
    }

    /// Evicts a few entries of one shard if the cache is over a bound; `false` if it is not, or has nothing left.
    fn make_room(&self, effects: &mut Effects<V>) -> bool {
        let entries = self.entries.load(Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed);
        let over = entries.saturating_sub(self.config.max_entries);
        if entries == 0 || (over == 0 && bytes <= self.config.max_bytes) {
            return false;
        }
        let from = evict::turn_of(self.small.load(Ordering::Relaxed), entries);
        let index = self.drawn_by_lot(from);
        self.write_shard(index, effects, |state, effects| {
            for _ in 0..over.clamp(1, STEP) {
                if !state.evict(from, effects) {
                    break;
                }
            }
        });
        true
    }

    /// A shard drawn by lot, each with a chance in proportion to its entries in that queue: together the queues of
    /// the shards then give way as one would, and a directory as big as the cache fits though it lies in one shard.
    /// O(shards).
    fn drawn_by_lot(&self, from: Place) -> usize {
        let held = |shard: &Shard<V>| match (from, shard.held()) {
            (Place::Main, (small, entries)) => entries - small,
            (_, (small, _)) => small,
        };
        let total: usize = self.shards.iter().map(held).sum();
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let lot = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32) % total.max(1) as u64;
        let mut left = lot as usize;
        for (index, shard) in self.shards.iter().enumerate() {
            let held = held(shard);
            if left < held {
                return index;
            }
            left -= held;
        }
        // Others emptied the queues in between: the next look at the totals shows it.
        0
    }

    /// Takes a directory's entries away at once, then frees them step by step. Their number; the directories that
    /// they named are appended to `below`.
    pub(crate) fn detach(
        &self,
        dir: u64,
        outdate: bool,
        below: &mut Vec<u64>,
        effects: &mut Effects<V>,
    ) -> usize {
        let index = self.shard_index(dir);
        let detached = self.write_shard(index, effects, |state, _| {
            let found = state.dirs.find(dir);
            match found {
                Some(at) => state.dirs.detach(at, outdate),
                None if outdate => state.dirs.outdate(dir),
                None => {}
            }
            found.map(|at| (at, state.dirs.get(at).entries.len()))
        });
        let Some((at, gone)) = detached else {
            return 0;
        };
        while self.write_shard(index, effects, |state, effects| state.bury(at, STEP, below, effects)) {
            effects.trash.clear();
        }
        gone
    }
}
