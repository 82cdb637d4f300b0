//! The slab of entries, and the two doubly linked lists that run through it.
//!
//! An entry is in the list of its directory and in one queue of the eviction at once. The links are slot numbers,
//! so moving and removing is O(1), and no entry owns an allocation for them. They lie apart from the entries, which
//! lookups read.

use crate::{
    name::Name,
    sync::{AtomicU8, Ordering},
    ttl::Tick,
};

/// No slot.
const NIL: u32 = u32::MAX;

/// Which of an entry's two lists.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Chain {
    /// The entries of one directory, the longest untouched first.
    Directory = 0,
    /// A queue of the eviction, the oldest first.
    Queue = 1,
}

/// In which queue of the eviction an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Free,
    Small,
    Main,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
}

const UNLINKED: Link = Link { prev: NIL, next: NIL };

/// One entry, without its links. A hit reads nothing else, and with a value of eight bytes it is one cache line.
#[repr(align(64))]
pub(crate) struct Slot<V> {
    pub(crate) name: Name,
    /// `None`: the name does not exist.
    pub(crate) value: Option<V>,
    pub(crate) deadline: Tick,
    /// Of parent and name.
    pub(crate) hash: u32,
    /// The slot of its directory's record.
    pub(crate) dir: u32,
    /// The directory's listing during which it was last written.
    pub(crate) mark: u32,
    /// Hits since it was queued, up to [`HOT`].
    heat: AtomicU8,
    pub(crate) place: Place,
}

/// Where the count of hits stops, as in the paper of the eviction.
const HOT: u8 = 3;

impl<V> Slot<V> {
    pub(crate) fn new(name: Name, dir: u32, hash: u32) -> Self {
        Self {
            name,
            value: None,
            deadline: Tick::PASSED,
            hash,
            dir,
            mark: 0,
            heat: AtomicU8::new(0),
            place: Place::Free,
        }
    }

    /// Counts a hit. Two at once may count as one; a hot entry is not written to, so its line stays shared.
    #[inline]
    pub(crate) fn touch(&self) {
        let heat = self.heat.load(Ordering::Relaxed);
        if heat < HOT {
            self.heat.store(heat + 1, Ordering::Relaxed);
        }
    }

    pub(crate) fn heat(&self) -> u8 {
        self.heat.load(Ordering::Relaxed)
    }

    pub(crate) fn set_heat(&self, heat: u8) {
        self.heat.store(heat, Ordering::Relaxed);
    }

    pub(crate) fn is_free(&self) -> bool {
        self.place == Place::Free
    }
}

/// Slots in one piece of the slab.
const CHUNK: usize = 128;

/// The slab: slot numbers stay valid until they are freed, and are then used again. It grows by a piece at a time, so
/// that growing moves no entry beyond the first piece.
pub(crate) struct Slots<V> {
    chunks: Vec<Vec<Slot<V>>>,
    /// Of each slot, apart from it: only changes follow them.
    links: Vec<[Link; 2]>,
    free: u32,
}

impl<V> Slots<V> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), links: Vec::new(), free: NIL }
    }

    #[inline]
    pub(crate) fn get(&self, at: u32) -> &Slot<V> {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> &mut Slot<V> {
        &mut self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    /// How many slots there are, free ones included.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    pub(crate) fn next(&self, chain: Chain, at: u32) -> Option<u32> {
        let next = self.link(chain, at).next;
        (next != NIL).then_some(next)
    }

    fn link(&self, chain: Chain, at: u32) -> Link {
        self.links[at as usize][chain as usize]
    }

    fn link_mut(&mut self, chain: Chain, at: u32) -> &mut Link {
        &mut self.links[at as usize][chain as usize]
    }

    /// O(1), but for the growth of the links by an eighth.
    pub(crate) fn take(&mut self, slot: Slot<V>) -> u32 {
        if self.free != NIL {
            let at = self.free;
            self.free = self.link(Chain::Queue, at).next;
            *self.get_mut(at) = slot;
            return at;
        }
        let at = self.len();
        if at == self.links.capacity() {
            self.links.reserve_exact(at / 8 + 8);
        }
        self.links.push([UNLINKED; 2]);
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(slot),
            _ => {
                // The first piece of a shard grows: most shards of a small cache hold little.
                let room = if self.chunks.is_empty() { 4 } else { CHUNK };
                let mut chunk = Vec::with_capacity(room);
                chunk.push(slot);
                self.chunks.push(chunk);
            }
        }
        at as u32
    }

    /// Frees an unlinked slot and hands back its value.
    pub(crate) fn free(&mut self, at: u32) -> Option<V> {
        let slot = self.get_mut(at);
        slot.place = Place::Free;
        slot.name = Name::EMPTY;
        let value = slot.value.take();
        self.link_mut(Chain::Queue, at).next = self.free;
        self.free = at;
        value
    }
}

/// The ends of one list through a slab.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List {
    head: u32,
    tail: u32,
    len: u32,
}

impl List {
    pub(crate) const EMPTY: List = List { head: NIL, tail: NIL, len: 0 };

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn first(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }

    pub(crate) fn push_back<V>(&mut self, slots: &mut Slots<V>, chain: Chain, at: u32) {
        let tail = self.tail;
        *slots.link_mut(chain, at) = Link { prev: tail, next: NIL };
        if tail == NIL {
            self.head = at;
        } else {
            slots.link_mut(chain, tail).next = at;
        }
        self.tail = at;
        self.len += 1;
    }

    /// `at` must be in this list.
    pub(crate) fn unlink<V>(&mut self, slots: &mut Slots<V>, chain: Chain, at: u32) {
        let Link { prev, next } = std::mem::replace(slots.link_mut(chain, at), UNLINKED);
        match prev {
            NIL => self.head = next,
            prev => slots.link_mut(chain, prev).next = next,
        }
        match next {
            NIL => self.tail = prev,
            next => slots.link_mut(chain, next).prev = prev,
        }
        self.len -= 1;
    }
}
