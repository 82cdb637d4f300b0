//! A set of bytes of one object, kept as sorted, disjoint, non-adjacent ranges.

use std::ops::Range;

/// A set of byte offsets. Empty ranges are accepted everywhere and mean nothing.
///
/// Held as a sorted vector: a queue has a handful of spans, and a vector beats a tree there. Every operation
/// is O(log n) to find its place, plus the spans that it moves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    spans: Vec<Range<u64>>,
}

impl Spans {
    /// The empty set.
    pub const fn new() -> Self {
        Self { spans: Vec::new() }
    }

    /// Adds every offset of `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // Neighbours that merely touch are merged too, so that the set stays canonical.
        let from = self.spans.partition_point(|s| s.end < range.start);
        let to = from + self.spans[from..].partition_point(|s| s.start <= range.end);
        if from == to {
            self.spans.insert(from, range);
            return;
        }
        let merged = range.start.min(self.spans[from].start)..range.end.max(self.spans[to - 1].end);
        self.spans[from] = merged;
        self.spans.drain(from + 1..to);
    }

    /// Removes every offset of `range`.
    pub fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (from, to) = self.touched(range);
        if from == to {
            return;
        }
        let left = self.spans[from].start..range.start;
        let right = range.end..self.spans[to - 1].end;
        match (left.is_empty(), right.is_empty()) {
            (true, true) => drop(self.spans.drain(from..to)),
            (false, true) => {
                self.spans[from] = left;
                self.spans.drain(from + 1..to);
            }
            (true, false) => {
                self.spans[to - 1] = right;
                self.spans.drain(from..to - 1);
            }
            (false, false) if to - from == 1 => {
                self.spans[from] = right;
                self.spans.insert(from, left);
            }
            (false, false) => {
                self.spans[from] = left;
                self.spans[to - 1] = right;
                self.spans.drain(from + 1..to - 1);
            }
        }
    }

    /// The parts of `range` that are not in the set, ascending.
    pub fn gaps(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for held in self.overlaps(range) {
            if held.start > at {
                gaps.push(at..held.start);
            }
            at = held.end;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// The parts of `range` that are in the set, ascending.
    pub fn overlaps(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let (from, to) = if range.is_empty() { (0, 0) } else { self.touched(range) };
        let range = range.clone();
        self.spans[from..to].iter().map(move |s| s.start.max(range.start)..s.end.min(range.end))
    }

    /// Whether every offset of `range` is in the set. True of an empty range.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        if range.is_empty() {
            return true;
        }
        let (from, to) = self.touched(range);
        from != to && self.spans[from].start <= range.start && self.spans[from].end >= range.end
    }

    /// Whether any offset of `range` is in the set.
    pub fn intersects(&self, range: &Range<u64>) -> bool {
        !range.is_empty() && {
            let (from, to) = self.touched(range);
            from != to
        }
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &Range<u64>> + '_ {
        self.spans.iter()
    }

    /// The lowest range, if any.
    pub fn first(&self) -> Option<&Range<u64>> {
        self.spans.first()
    }

    /// How many bytes are in the set.
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|s| s.end - s.start).sum()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.spans.clear();
    }

    /// The indices `[from, to)` of the spans that share an offset with the non-empty `range`.
    fn touched(&self, range: &Range<u64>) -> (usize, usize) {
        let from = self.spans.partition_point(|s| s.end <= range.start);
        let to = from + self.spans[from..].partition_point(|s| s.start < range.end);
        (from, to)
    }
}

impl FromIterator<Range<u64>> for Spans {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut spans = Self::new();
        for range in ranges {
            spans.insert(range);
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::Spans;
    use proptest::prelude::*;

    #[test]
    fn touching_ranges_become_one() {
        let spans: Spans = [0..4, 8..12, 4..8].into_iter().collect();
        assert!(spans.iter().eq([&(0..12)]));
    }

    proptest! {
        #[test]
        fn agrees_with_a_bitmap(ops in prop::collection::vec((any::<bool>(), 0u64..64, 0u64..20), 0..60)) {
            let (mut spans, mut bits) = (Spans::new(), [false; 96]);
            for (add, at, len) in ops {
                let range = at..at + len;
                if add { spans.insert(range.clone()) } else { spans.remove(&range) }
                bits[at as usize..(at + len) as usize].fill(add);
                prop_assert_eq!(spans.bytes(), bits.iter().filter(|b| **b).count() as u64);
                for probe in 0..90u64 {
                    let window = probe..probe + 5;
                    let held = (probe..probe + 5).filter(|o| bits[*o as usize]).count();
                    prop_assert_eq!(spans.contains(&window), held == 5);
                    prop_assert_eq!(spans.intersects(&window), held > 0);
                    let gaps: u64 = spans.gaps(&window).iter().map(|g| g.end - g.start).sum();
                    prop_assert_eq!(gaps, 5 - held as u64);
                    prop_assert_eq!(spans.overlaps(&window).map(|g| g.end - g.start).sum::<u64>(), held as u64);
                }
                prop_assert!(spans.spans.windows(2).all(|w| w[0].end < w[1].start));
            }
        }
    }
}
