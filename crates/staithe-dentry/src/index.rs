//! From the hash of a key to the slots that may hold it.
//!
//! Open addressing with linear probing, and deletion by shifting back (Knuth, TAOCP volume 3, section 6.4,
//! algorithm R). A cell is eight bytes, so one cache line holds eight of them and a lookup mostly reads one line,
//! where a table with control bytes apart reads two. The hash lies beside the slot number: growing reads no entry.

/// In the place of a slot number: none.
const EMPTY: u32 = u32::MAX;
const CELLS_MIN: usize = 8;

#[derive(Debug, Clone, Copy)]
struct Cell {
    hash: u32,
    slot: u32,
}

const VACANT: Cell = Cell { hash: 0, slot: EMPTY };

/// The index. It has a power of two of cells, of which three in sixteen stay vacant.
pub(crate) struct Index {
    cells: Box<[Cell]>,
    len: usize,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { cells: vec![VACANT; CELLS_MIN].into(), len: 0 }
    }

    #[inline]
    fn mask(&self) -> usize {
        self.cells.len() - 1
    }

    /// The slot that has this hash and that `is_it` accepts. O(1) expected; `is_it` is seldom asked in vain.
    #[inline]
    pub(crate) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mask = self.mask();
        let mut at = hash as usize & mask;
        // There is a vacant cell.
        loop {
            let cell = self.cells[at];
            if cell.slot == EMPTY {
                return None;
            }
            if cell.hash == hash && is_it(cell.slot) {
                return Some(cell.slot);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a slot that is not in. O(1) amortised: growing copies every cell, and reads no entry.
    pub(crate) fn insert(&mut self, hash: u32, slot: u32) {
        if (self.len + 1) * 16 > self.cells.len() * 13 {
            let twice = vec![VACANT; self.cells.len() * 2].into();
            for cell in std::mem::replace(&mut self.cells, twice) {
                if cell.slot != EMPTY {
                    self.place(cell);
                }
            }
        }
        self.place(Cell { hash, slot });
        self.len += 1;
    }

    fn place(&mut self, cell: Cell) {
        let mask = self.mask();
        let mut at = cell.hash as usize & mask;
        while self.cells[at].slot != EMPTY {
            at = (at + 1) & mask;
        }
        self.cells[at] = cell;
    }

    /// Takes a slot out. O(1) expected.
    pub(crate) fn remove(&mut self, hash: u32, slot: u32) {
        let mask = self.mask();
        let mut gap = hash as usize & mask;
        while self.cells[gap].slot != slot {
            if self.cells[gap].slot == EMPTY {
                return;
            }
            gap = (gap + 1) & mask;
        }
        let mut next = gap;
        loop {
            next = (next + 1) & mask;
            let cell = self.cells[next];
            if cell.slot == EMPTY {
                break;
            }
            // A cell may move back to the gap if that is no further back than its own place.
            let home = cell.hash as usize & mask;
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(gap) & mask) {
                self.cells[gap] = cell;
                gap = next;
            }
        }
        self.cells[gap] = VACANT;
        self.len -= 1;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeMap;

    proptest! {
        /// Few distinct hashes at both ends of the range: long runs, wrapping around the end.
        #[test]
        fn it_is_a_map(steps in vec((any::<bool>(), 0_u32..40, 0_u32..6), 1..200)) {
            let (mut index, mut truth) = (Index::new(), BTreeMap::new());
            for (adds, slot, spread) in steps {
                let hash = spread.wrapping_sub(3);
                if adds && !truth.contains_key(&slot) {
                    index.insert(hash, slot);
                    truth.insert(slot, hash);
                } else if let Some(hash) = truth.remove(&slot) {
                    index.remove(hash, slot);
                }
                prop_assert_eq!(index.len, truth.len());
                for slot in 0..40 {
                    let hash = truth.get(&slot).copied();
                    for candidate in (0..6_u32).map(|spread| spread.wrapping_sub(3)) {
                        let found = index.find(candidate, |at| at == slot);
                        prop_assert_eq!(found, (hash == Some(candidate)).then_some(slot));
                    }
                }
            }
        }
    }
}
