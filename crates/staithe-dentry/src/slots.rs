//! The slab of entries, and the two doubly linked lists that run through it.
//!
//! An entry is in the list of its directory and in one queue of the eviction at once. The links are slot numbers,
//! so moving and removing is O(1), and no entry owns an allocation for them.

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

/// One entry.
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
    links: [Link; 2],
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
            links: [UNLINKED; 2],
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

    pub(crate) fn next(&self, chain: Chain) -> Option<u32> {
        let next = self.links[chain as usize].next;
        (next != NIL).then_some(next)
    }
}

/// The slab: slot numbers stay valid until they are freed, and are then used again.
pub(crate) struct Slots<V> {
    all: Vec<Slot<V>>,
    free: u32,
}

impl<V> Slots<V> {
    pub(crate) fn new() -> Self {
        Self { all: Vec::new(), free: NIL }
    }

    #[inline]
    pub(crate) fn get(&self, at: u32) -> &Slot<V> {
        &self.all[at as usize]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> &mut Slot<V> {
        &mut self.all[at as usize]
    }

    pub(crate) fn as_slice(&self) -> &[Slot<V>] {
        &self.all
    }

    /// O(1), but for growing by an eighth, which the allocator does by remapping where the slab is large.
    pub(crate) fn take(&mut self, slot: Slot<V>) -> u32 {
        if self.free != NIL {
            let at = self.free;
            self.free = self.get(at).links[Chain::Queue as usize].next;
            *self.get_mut(at) = slot;
            return at;
        }
        if self.all.len() == self.all.capacity() {
            self.all.reserve_exact(self.all.len() / 8 + 8);
        }
        self.all.push(slot);
        (self.all.len() - 1) as u32
    }

    /// Frees an unlinked slot and hands back its value.
    pub(crate) fn free(&mut self, at: u32) -> Option<V> {
        let next = self.free;
        let slot = self.get_mut(at);
        slot.place = Place::Free;
        slot.name = Name::EMPTY;
        slot.links[Chain::Queue as usize].next = next;
        let value = slot.value.take();
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
        slots.get_mut(at).links[chain as usize] = Link { prev: tail, next: NIL };
        if tail == NIL {
            self.head = at;
        } else {
            slots.get_mut(tail).links[chain as usize].next = at;
        }
        self.tail = at;
        self.len += 1;
    }

    /// `at` must be in this list.
    pub(crate) fn unlink<V>(&mut self, slots: &mut Slots<V>, chain: Chain, at: u32) {
        let Link { prev, next } = std::mem::replace(&mut slots.get_mut(at).links[chain as usize], UNLINKED);
        match prev {
            NIL => self.head = next,
            prev => slots.get_mut(prev).links[chain as usize].next = next,
        }
        match next {
            NIL => self.tail = prev,
            next => slots.get_mut(next).links[chain as usize].prev = prev,
        }
        self.len -= 1;
    }
}
