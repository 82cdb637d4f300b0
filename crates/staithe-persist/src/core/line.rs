//! The two lines of jobs that may start, linked through their chains: every move is O(1), and nothing is left over.

use crate::job::Key;
use crate::order::Priority;

use super::chain::NONE;
use super::slab::Slab;

#[derive(Clone, Copy, Debug)]
struct Line {
    head: u32,
    tail: u32,
}

/// Who starts next: the waited-for first, with a turn for the background after every so many of them.
#[derive(Debug)]
pub(super) struct Lines {
    ends: [Line; 2],
    /// Starts of waited-for jobs since the background had its turn.
    passed: u32,
    share: u32,
}

const fn of(priority: Priority) -> usize {
    match priority {
        Priority::Background => 0,
        Priority::Waited => 1,
    }
}

impl Lines {
    pub(super) fn new(share: u32) -> Self {
        let empty = Line { head: NONE, tail: NONE };
        Self { ends: [empty; 2], passed: 0, share }
    }

    /// The next to start. A job that does not fit keeps its turn: nobody overtakes it.
    pub(super) fn first(&self) -> Option<u32> {
        let [background, waited] = self.ends.map(|line| line.head);
        let turn = waited == NONE || (self.passed >= self.share && background != NONE);
        let slot = if turn { background } else { waited };
        (slot != NONE).then_some(slot)
    }

    /// The first has started.
    pub(super) fn started(&mut self, priority: Priority) {
        self.passed = match priority {
            Priority::Background => 0,
            Priority::Waited => self.passed.saturating_add(1),
        };
    }

    pub(super) fn push<K: Key>(&mut self, slab: &mut Slab<K>, slot: u32) {
        let Some(chain) = slab.get_mut(slot) else { return };
        let line = &mut self.ends[of(chain.priority)];
        (chain.previous, chain.following, chain.lined) = (line.tail, NONE, true);
        let last = std::mem::replace(&mut line.tail, slot);
        match slab.get_mut(last) {
            Some(chain) => chain.following = slot,
            None => line.head = slot,
        }
    }

    /// Takes it out of its line, if it is in one.
    pub(super) fn remove<K: Key>(&mut self, slab: &mut Slab<K>, slot: u32) {
        let Some(chain) = slab.get_mut(slot).filter(|chain| chain.lined) else { return };
        chain.lined = false;
        let (previous, following) = (chain.previous, chain.following);
        let line = &mut self.ends[of(chain.priority)];
        match slab.get_mut(previous) {
            Some(chain) => chain.following = following,
            None => line.head = following,
        }
        match slab.get_mut(following) {
            Some(chain) => chain.previous = previous,
            None => line.tail = previous,
        }
    }
}
