//! What goes when the cache is full: S3-FIFO, from "FIFO queues are all you need for cache eviction", Yang, Zhang,
//! Qiu, Yue and Rashmi, SOSP 2023.
//!
//! New entries pass a small queue; only those that were hit there move to the main one, so a walk over a million
//! names pushes out other newcomers and not what is in use. A ghost remembers what went from the small queue, and
//! lets it into the main one when it comes back. Hits write one byte and move nothing.
//!
//! Two things differ from the paper. The queues are linked lists, because names are also removed from their middle.
//! The ghost is a table of 32-bit fingerprints, direct-mapped: a newer one overwrites an older one in its place,
//! which ages them roughly as a queue would, for 4 bytes each.

use crate::slots::{Chain, List, Place, Slots};

/// The small queue's part of the whole is one in this many.
const SMALL_PART: usize = 10;
/// The smallest ghost, in fingerprints.
const GHOST_MIN: usize = 64;

/// From which queue the next entry goes. It is asked of the whole cache, so that a shard in which nothing is new
/// gives up nothing while others have newcomers.
pub(crate) fn turn_of(small: usize, entries: usize) -> Place {
    if small * SMALL_PART >= entries { Place::Small } else { Place::Main }
}

pub(crate) struct Queues {
    small: List,
    main: List,
    ghost: Vec<u32>,
}

impl Queues {
    pub(crate) fn new() -> Self {
        Self { small: List::EMPTY, main: List::EMPTY, ghost: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.small.len() + self.main.len()
    }

    /// Lets a new entry in.
    pub(crate) fn admit<V>(&mut self, slots: &mut Slots<V>, at: u32) {
        let known = self.recall(slots.get(at).hash);
        self.push(slots, at, if known { Place::Main } else { Place::Small });
    }

    /// Takes an entry out that goes for another reason.
    pub(crate) fn remove<V>(&mut self, slots: &mut Slots<V>, at: u32) {
        self.queue(slots.get(at).place).unlink(slots, Chain::Queue, at);
    }

    pub(crate) fn small(&self) -> usize {
        self.small.len()
    }

    /// The entry to evict from one of the two queues, still in it; `None` if there is none. Amortised O(1): each
    /// step either ends, or moves an entry from the small queue, or uses up one of at most three hits of an entry
    /// in the main one.
    pub(crate) fn victim<V>(&mut self, slots: &mut Slots<V>, from: Place) -> Option<u32> {
        loop {
            let at = self.queue(from).first()?;
            let slot = slots.get(at);
            let heat = slot.heat();
            if from == Place::Small && heat > 1 {
                slot.set_heat(0);
                self.requeue(slots, at);
            } else if from == Place::Main && heat > 0 {
                slot.set_heat(heat - 1);
                self.requeue(slots, at);
            } else {
                if from == Place::Small {
                    self.remember(slots.get(at).hash);
                }
                return Some(at);
            }
        }
    }

    fn requeue<V>(&mut self, slots: &mut Slots<V>, at: u32) {
        self.remove(slots, at);
        self.push(slots, at, Place::Main);
    }

    fn push<V>(&mut self, slots: &mut Slots<V>, at: u32, place: Place) {
        slots.get_mut(at).place = place;
        self.queue(place).push_back(slots, Chain::Queue, at);
    }

    fn queue(&mut self, place: Place) -> &mut List {
        if place == Place::Main { &mut self.main } else { &mut self.small }
    }

    fn remember(&mut self, hash: u32) {
        let wanted = self.len().next_power_of_two().max(GHOST_MIN);
        if self.ghost.len() < wanted {
            let old = std::mem::replace(&mut self.ghost, vec![0; wanted]);
            for fingerprint in old {
                *self.ghost_of(fingerprint) = fingerprint;
            }
        }
        *self.ghost_of(hash) = hash;
    }

    fn recall(&mut self, hash: u32) -> bool {
        if self.ghost.is_empty() || hash == 0 {
            return false;
        }
        let place = self.ghost_of(hash);
        let known = *place == hash;
        if known {
            *place = 0;
        }
        known
    }

    /// The ghost has a power of two of places and at least one.
    fn ghost_of(&mut self, hash: u32) -> &mut u32 {
        let mask = self.ghost.len() - 1;
        &mut self.ghost[hash as usize & mask]
    }
}
