//! Successes, counted without a lock: a ring of buckets for each shard, which the state machine gathers when it needs to
//! know.
//!
//! A cell has the number of a bucket and the count for it in one word, so that both change in one step. A success is
//! counted when its operation began. One that meets a cell which a later bucket has taken over is counted with that: it
//! began longer ago than the window is long.

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicU64, Ordering, most_shards, shard};

/// Cells in a ring; a window spans no more.
#[cfg(not(loom))]
const CELLS: usize = 64;
#[cfg(loom)]
const CELLS: usize = 1;

/// The low half of a cell counts, the high half has the low half of the bucket's number.
const COUNT: u64 = u32::MAX as u64;

type Ring = CachePadded<[AtomicU64; CELLS]>;

pub(super) struct Counts(Box<[Ring]>);

impl Counts {
    pub(super) fn new() -> Self {
        let ring = |_| CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0)));
        Self((0..most_shards()).map(ring).collect())
    }

    /// Counts one success in this bucket.
    #[inline]
    pub(super) fn add(&self, bucket: u64) {
        let ring = &self.0[shard() & (self.0.len() - 1)];
        let cell = &ring[bucket as usize % CELLS];
        // It would take four thousand million in one bucket to carry over.
        let seen = cell.fetch_add(1, Ordering::Relaxed);
        if seen >> 32 != bucket & COUNT {
            Self::first(cell, seen + 1, bucket);
        }
    }

    /// The first of a bucket takes the cell over. If a later one has it, that has counted it already.
    #[cold]
    fn first(cell: &AtomicU64, mut seen: u64, bucket: u64) {
        let tag = bucket & COUNT;
        while seen >> 32 <= tag {
            let new = if seen >> 32 == tag { seen + 1 } else { tag << 32 | 1 };
            match cell.compare_exchange(seen, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Takes what was counted: the buckets' numbers, and so many. O(shards × cells).
    pub(super) fn take(&self, mut each: impl FnMut(u64, u64)) {
        for cell in self.0.iter().flat_map(|ring| ring.iter()) {
            let seen = cell.load(Ordering::Relaxed);
            if seen & COUNT > 0 {
                // What comes between the two is taken the next time.
                let taken = seen & COUNT;
                let left = |now: u64| (now >> 32 == seen >> 32).then(|| now - taken);
                if cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok() {
                    each(seen >> 32, taken);
                }
            }
        }
    }
}
