//! The directories of one shard: their generations, their completeness, and the lists of their entries.
//!
//! Invariants:
//! 1. The generation of a directory never decreases, and every local mutation of it raises it to a number that the
//!    shard never gave before. A token that equals the present generation therefore saw no mutation since. One that
//!    does not is still good for every name that none of the mutations since was about, unless one of them was about
//!    all names (`outdated`).
//! 2. A directory without a record has the generation `floor`. A record begins at it. A record that is dropped
//!    lifts the floor to its own generation, so a token from before a mutation stays outdated although the record
//!    that remembered the mutation is gone. The price is that it may outdate tokens of other directories that have
//!    no record: those ask once more.
//! 3. A directory is complete until its deadline, or until a name is dropped from it without being known absent.
//! 4. A record without entries waits in a bounded first-in first-out queue to be used again or dropped.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::{
    recent::{Mutated, Recent},
    shard::KeyHash,
    slots::List,
    ttl::Tick,
};

/// Records without entries that one shard keeps: their generation, or the knowledge that they are empty.
const IDLE_MAX: usize = 256;

/// The state of a directory between two local mutations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation(u64);

/// What the local mutations since a token have left of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Standing<'a> {
    /// There were none.
    Whole,
    /// It is good for all names but these.
    But(Mutated<'a>),
    /// It is good for no name.
    Outdated,
}

impl Standing<'_> {
    /// Whether an answer about this name is one from after its last local mutation.
    pub(crate) fn covers(&self, name: KeyHash) -> bool {
        match self {
            Self::Whole => true,
            Self::But(mutated) => !mutated.has(name),
            Self::Outdated => false,
        }
    }

    pub(crate) fn is_outdated(&self) -> bool {
        matches!(self, Self::Outdated)
    }
}

/// What a lookup compares, apart from the rest of the record so that many lie in few cache lines.
#[derive(Debug, Clone, Copy)]
struct Key {
    id: u64,
    /// Not forgotten. The entries of a record that is not live are on their way out and answer nothing.
    live: bool,
}

/// One directory.
pub(crate) struct Directory {
    pub(crate) generation: Generation,
    /// The generation of the latest change that was about all of its names.
    outdated: Generation,
    /// Until when an absent name is an answer; [`Tick::PASSED`]: not complete.
    pub(crate) complete_until: Tick,
    /// The latest listing, 0 before the first.
    pub(crate) mark: u32,
    /// No entry was evicted since that listing began.
    pub(crate) intact: bool,
    /// Counts the changes of the list, so that a reader who lets go of the lock sees that it moved on.
    pub(crate) edits: u32,
    pub(crate) entries: List,
    /// While it is not live: directories whose names were evicted from it before it was emptied.
    pub(crate) below: Vec<u64>,
    /// Its number in the queue of the idle, 0 while it is not in it.
    idle: u64,
}

impl Directory {
    pub(crate) fn is_complete(&self) -> bool {
        self.complete_until != Tick::PASSED
    }

    /// A name went that may exist: absence is no answer any more.
    pub(crate) fn lose_a_name(&mut self) {
        self.complete_until = Tick::PASSED;
        self.intact = false;
    }
}

/// The records of one shard. The one that every lookup reads comes first.
#[repr(C)]
pub(crate) struct Directories {
    keys: Vec<Key>,
    all: Vec<Directory>,
    free: Vec<u32>,
    by_id: HashMap<u64, u32>,
    idle: VecDeque<(u32, u64)>,
    idled: u64,
    latest: u64,
    recent: Recent,
    floor: Generation,
    marks: u32,
}

impl Directories {
    pub(crate) fn new() -> Self {
        Self {
            keys: Vec::new(),
            all: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            idle: VecDeque::new(),
            idled: 0,
            latest: 0,
            recent: Recent::default(),
            floor: Generation(0),
            marks: 0,
        }
    }

    #[inline]
    pub(crate) fn get(&self, at: u32) -> &Directory {
        &self.all[at as usize]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> &mut Directory {
        &mut self.all[at as usize]
    }

    /// Whether the entries of this record answer for the directory `id`.
    #[inline]
    pub(crate) fn is_live(&self, at: u32, id: u64) -> bool {
        let key = self.keys[at as usize];
        key.id == id && key.live
    }

    pub(crate) fn id(&self, at: u32) -> u64 {
        self.keys[at as usize].id
    }

    #[inline]
    pub(crate) fn find(&self, id: u64) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn generation(&self, id: u64) -> Generation {
        self.find(id).map_or(self.floor, |at| self.get(at).generation)
    }

    /// The record of a directory, made at the floor's generation if there is none.
    pub(crate) fn open(&mut self, id: u64) -> u32 {
        if let Some(at) = self.find(id) {
            return at;
        }
        let mut record = Directory {
            generation: self.floor,
            outdated: self.floor,
            complete_until: Tick::PASSED,
            mark: 0,
            intact: false,
            edits: 0,
            entries: List::EMPTY,
            below: Vec::new(),
            idle: 0,
        };
        let at = if let Some(at) = self.free.pop() {
            // A reader who stopped in the record that was here before must not take this one for it.
            record.edits = self.get(at).edits.wrapping_add(1);
            *self.get_mut(at) = record;
            self.keys[at as usize] = Key { id, live: true };
            at
        } else {
            self.keys.push(Key { id, live: true });
            self.all.push(record);
            (self.all.len() - 1) as u32
        };
        self.by_id.insert(id, at);
        at
    }

    /// A local mutation of this name: no token of the directory is good for it from here on.
    pub(crate) fn raise(&mut self, at: u32, name: KeyHash) {
        self.latest += 1;
        self.recent.push(name);
        self.get_mut(at).generation = Generation(self.latest);
    }

    /// What a token of this generation is still good for. O(1).
    pub(crate) fn standing(&self, id: u64, token: Generation) -> Standing<'_> {
        let (now, outdated) = self
            .find(id)
            .map_or((self.floor, self.floor), |at| (self.get(at).generation, self.get(at).outdated));
        if now == token {
            return Standing::Whole;
        }
        if token < outdated {
            return Standing::Outdated;
        }
        // Those of other directories are among them, and of no importance: a hash is of directory and name.
        self.recent.latest(self.latest - token.0).map_or(Standing::Outdated, Standing::But)
    }

    /// Begins a listing: its number is one that no other listing of the shard has.
    pub(crate) fn begin_listing(&mut self, at: u32) -> u32 {
        // 2^32 listings of one shard while one entry stays untouched in it would confuse two of them; at a
        // thousand a second that entry is seven weeks old.
        self.marks = self.marks.checked_add(1).unwrap_or(1);
        let mark = self.marks;
        let dir = self.get_mut(at);
        dir.mark = mark;
        dir.intact = true;
        mark
    }

    /// To be called after the list of a live directory may have become empty. O(1).
    pub(crate) fn settle(&mut self, at: u32) {
        if self.get(at).entries.len() > 0 || !self.keys[at as usize].live {
            return;
        }
        self.idled += 1;
        let number = self.idled;
        self.get_mut(at).idle = number;
        self.idle.push_back((at, number));
        if self.idle.len() > IDLE_MAX
            && let Some((oldest, number)) = self.idle.pop_front()
        {
            let dir = self.get(oldest);
            if dir.idle == number && self.keys[oldest as usize].live && dir.entries.len() == 0 {
                self.detach(oldest, false);
                self.bury(oldest);
            }
        }
    }

    /// Takes the entries away from a directory at once: its record answers nothing more, and is its caller's to
    /// empty and then to [`bury`](Directories::bury). With `outdate` a fresh record of a new generation takes its
    /// place. O(1).
    pub(crate) fn detach(&mut self, at: u32, outdate: bool) {
        let (id, generation) = (self.id(at), self.get(at).generation);
        self.by_id.remove(&id);
        self.keys[at as usize].live = false;
        if outdate {
            self.outdate(id);
        } else {
            self.floor = self.floor.max(generation);
        }
    }

    /// Outdates every token of a directory, whether it has a record or not.
    pub(crate) fn outdate(&mut self, id: u64) {
        let at = self.open(id);
        self.raise(at, KeyHash::NONE);
        let dir = self.get_mut(at);
        dir.outdated = dir.generation;
        self.settle(at);
    }

    /// Ends a detached record that has no entries any more.
    pub(crate) fn bury(&mut self, at: u32) {
        self.get_mut(at).idle = 0;
        self.free.push(at);
    }
}
