//! How an object is cut into the parts of a multipart upload.
//!
//! Two cuts, both pure. While a file is still being written its final size is unknown: [`PartLayout::range`] gives
//! every part number a fixed range, sizes doubling every 1,000 parts, so that small files have small parts and the
//! 10,000 parts that S3 allows still reach 5 TiB. Once the size and what changed are known, [`PartLayout::plan`]
//! cuts anew: clean stretches of the base object are copied inside the store, the rest is sent.
//!
//! Kept true: the ranges of either cut tile the object exactly, in ascending order; every part but the last is at
//! least the store's minimum and at most its maximum.

use std::ops::Range;

use rangemap::RangeSet;
use staithe_store::PartNumber;

use crate::{FsError, FsErrorKind, Result};

/// Size of the first streaming parts, and of the parts that a changed region becomes, in bytes.
pub(crate) const FIRST_PART: u64 = 8 << 20;

/// Objects below this are stored by one PUT.
pub(crate) const WHOLE_BELOW: u64 = 16 << 20;

/// Copied parts stay at or below this (bigger only for objects over 4.88 TiB, which have no parts to spare): the
/// store copies parts side by side, and one that fails costs little.
const COPY_MAX: u64 = 512 << 20;

/// Parts of one size, before the size doubles.
const PARTS_PER_SIZE: u64 = 1000;

/// How many sizes there are.
const SIZES: usize = PartNumber::MAX as usize / PARTS_PER_SIZE as usize;

/// The cut into parts that a store allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartLayout {
    part_max: u64,
    /// Part size of each group of 1,000, ascending.
    sizes: [u64; SIZES],
    /// Offset at which each group begins.
    starts: [u64; SIZES],
}

/// How to store an object of known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UploadPlan {
    /// By one PUT of all bytes.
    Whole,
    /// By these parts: numbers from 1, ranges tiling the object.
    Parts(Vec<PlannedPart>),
}

/// One part of a planned upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedPart {
    /// Its number in the upload.
    pub(crate) number: PartNumber,
    /// Its bytes, in the object; for a copied part the same range of the base.
    pub(crate) range: Range<u64>,
    /// Where they come from.
    pub(crate) from: PartSource,
}

/// Where the bytes of a planned part come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartSource {
    /// The local file. Clean bytes inside such a part may have to be fetched from the base first.
    Local,
    /// The base object, copied by the store.
    Base,
}

impl PartLayout {
    /// The layout for a store whose parts have `part_min` to `part_max` bytes; `first` is the wanted size of the
    /// first parts, taken into those bounds.
    pub(crate) fn new(part_min: u64, part_max: u64, first: u64) -> Self {
        let part_max = part_max.max(1);
        let first = first.clamp(part_min.clamp(1, part_max), part_max);
        let mut layout = Self { part_max, sizes: [0; SIZES], starts: [0; SIZES] };
        let mut size = first;
        let mut start = 0_u64;
        for group in 0..SIZES {
            layout.sizes[group] = size;
            layout.starts[group] = start;
            start = start.saturating_add(size.saturating_mul(PARTS_PER_SIZE));
            size = size.saturating_mul(2).min(part_max);
        }
        layout
    }

    /// The end of the last streaming part: the largest object that can be uploaded while it is written.
    pub(crate) fn capacity(&self) -> u64 {
        self.starts[SIZES - 1].saturating_add(self.sizes[SIZES - 1].saturating_mul(PARTS_PER_SIZE))
    }

    /// The streaming part that holds the byte at `offset`; `None` from [`capacity`](Self::capacity) on.
    pub(crate) fn part_of(&self, offset: u64) -> Option<PartNumber> {
        let group = self.starts.partition_point(|start| *start <= offset) - 1;
        let index = (offset - self.starts[group]) / self.sizes[group];
        let number = group as u64 * PARTS_PER_SIZE + index + 1;
        (offset < self.capacity()).then_some(number).and_then(|n| PartNumber::new(u16::try_from(n).ok()?))
    }

    /// The bytes that a streaming part holds (of a file that reaches so far).
    pub(crate) fn range(&self, number: PartNumber) -> Range<u64> {
        let index = u64::from(number.get()) - 1;
        let group = (index / PARTS_PER_SIZE) as usize;
        let start = self.starts[group].saturating_add(index % PARTS_PER_SIZE * self.sizes[group]);
        start..start.saturating_add(self.sizes[group])
    }

    /// How to store `size` bytes of which `dirty` differ from a base object of `base_size` bytes (`None`: there is
    /// no base, or the store cannot copy parts).
    ///
    /// A changed byte costs at most one part of the first size, which grows only when the parts would run out.
    /// O(dirty ranges + parts), at most ten times.
    ///
    /// # Errors
    /// `TooLarge` if 10,000 parts of the largest size do not reach `size`.
    pub(crate) fn plan(
        &self,
        size: u64,
        base_size: Option<u64>,
        dirty: &RangeSet<u64>,
    ) -> Result<UploadPlan> {
        if size < WHOLE_BELOW.min(self.part_max) {
            return Ok(UploadPlan::Whole);
        }
        let mut cell = self.sizes[0];
        loop {
            if let Some(parts) = self.parts(size, base_size.unwrap_or(0), dirty, cell) {
                return Ok(UploadPlan::Parts(parts));
            }
            if cell == self.part_max {
                let sentence = format!("{size} bytes do not fit into the parts of one upload");
                return Err(FsError::new(FsErrorKind::TooLarge, sentence));
            }
            cell = cell.saturating_mul(2).min(self.part_max);
        }
    }

    /// The parts on a grid of `cell` bytes, or `None` if there are too many. On the grid every part but the last
    /// has at least `cell` bytes, whatever the pattern of changes.
    fn parts(&self, size: u64, base: u64, dirty: &RangeSet<u64>, cell: u64) -> Option<Vec<PlannedPart>> {
        let local = local_cells(size, base, dirty, cell);
        let copied = (COPY_MAX.min(self.part_max) / cell).max(1) * cell;
        let whole = 0..size;
        let clean = local.gaps(&whole).map(|run| (run, PartSource::Base, copied));
        let mut runs: Vec<_> =
            local.iter().cloned().map(|run| (run, PartSource::Local, cell)).chain(clean).collect();
        runs.sort_unstable_by_key(|(run, ..)| run.start);

        let count = runs.iter().map(|(run, _, step)| (run.end - run.start).div_ceil(*step)).sum::<u64>();
        if count > u64::from(PartNumber::MAX) {
            return None;
        }
        let ranges = runs.into_iter().flat_map(|(run, from, step)| {
            let end = run.end;
            (run.start..end)
                .step_by(step as usize)
                .map(move |start| (start..start.saturating_add(step).min(end), from))
        });
        (1..)
            .zip(ranges)
            .map(|(n, (range, from))| Some(PlannedPart { number: PartNumber::new(n)?, range, from }))
            .collect()
    }
}

/// The grid cells of `0..size` that cannot be copied: those with a changed byte, or one that the base lacks.
fn local_cells(size: u64, base: u64, dirty: &RangeSet<u64>, cell: u64) -> RangeSet<u64> {
    let outward = |range: Range<u64>| {
        let end = range.end.div_ceil(cell).saturating_mul(cell).min(size);
        (range.start / cell * cell, end)
    };
    let beyond_base = (base < size).then_some(base..size);
    let mut cells = RangeSet::new();
    for range in dirty.overlapping(0..size).cloned().chain(beyond_base) {
        let (start, end) = outward(range.start..range.end.min(size));
        if start < end {
            cells.insert(start..end);
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const TIB: u64 = 1 << 40;

    fn s3() -> PartLayout {
        PartLayout::new(5 * MIB, 5 * GIB, FIRST_PART)
    }

    fn number(n: u16) -> PartNumber {
        PartNumber::new(n).unwrap()
    }

    fn set(range: Range<u64>) -> RangeSet<u64> {
        std::iter::once(range).collect()
    }

    fn parts(size: u64, base: Option<u64>, dirty: &RangeSet<u64>) -> Vec<PlannedPart> {
        match s3().plan(size, base, dirty).unwrap() {
            UploadPlan::Parts(parts) => parts,
            UploadPlan::Whole => panic!("parts were expected for {size} bytes"),
        }
    }

    fn sent(parts: &[PlannedPart]) -> u64 {
        parts.iter().filter(|p| p.from == PartSource::Local).map(|p| p.range.end - p.range.start).sum()
    }

    #[test]
    fn streaming_parts_double_every_thousand() {
        let layout = s3();
        assert_eq!(layout.range(number(1)), 0..8 * MIB);
        assert_eq!(layout.range(number(1000)), 7992 * MIB..8000 * MIB);
        assert_eq!(layout.range(number(1001)), 8000 * MIB..8016 * MIB);
        assert_eq!(layout.part_of(8000 * MIB - 1), Some(number(1000)));
        assert_eq!(layout.part_of(8000 * MIB), Some(number(1001)));
        assert!(layout.capacity() >= 5 * TIB);
        assert_eq!(layout.part_of(layout.capacity() - 1), Some(number(10_000)));
        assert_eq!(layout.part_of(layout.capacity()), None);
        assert_eq!(layout.part_of(u64::MAX), None);
    }

    #[test]
    fn bounds_of_the_store_are_kept() {
        let layout = PartLayout::new(64 * MIB, 100 * MIB, FIRST_PART);
        assert_eq!(layout.range(number(1)), 0..64 * MIB);
        let last = layout.range(number(10_000));
        assert_eq!(last.end - last.start, 100 * MIB);
    }

    #[test]
    fn a_small_change_in_a_large_object_sends_little() {
        let dirty = set(100 * MIB..100 * MIB + 4096);
        let planned = parts(GIB, Some(GIB), &dirty);
        assert!(sent(&planned) <= 16 * MIB);
        assert!(planned.len() <= 5, "{planned:?}");
        let straddling = set(104 * MIB - 2048..104 * MIB + 2048);
        assert!(sent(&parts(GIB, Some(GIB), &straddling)) <= 16 * MIB);
        assert!(sent(&parts(TIB, Some(TIB), &dirty)) <= 16 * MIB);
    }

    #[test]
    fn small_objects_go_whole_and_new_ones_local() {
        let none = RangeSet::new();
        assert_eq!(s3().plan(0, None, &none).unwrap(), UploadPlan::Whole);
        assert_eq!(s3().plan(WHOLE_BELOW - 1, Some(GIB), &none).unwrap(), UploadPlan::Whole);
        let planned = parts(100 * MIB, None, &none);
        assert!(planned.iter().all(|p| p.from == PartSource::Local));
        assert_eq!(planned.len(), 13);
        let all = set(0..100 * MIB);
        assert_eq!(parts(100 * MIB, Some(100 * MIB), &all), planned);
    }

    #[test]
    fn a_cut_object_is_copied_and_a_grown_one_sends_its_tail() {
        assert_eq!(sent(&parts(GIB, Some(2 * GIB), &RangeSet::new())), 0);
        let grown = set(GIB..GIB + 10);
        assert!(sent(&parts(GIB + 10, Some(GIB), &grown)) <= 8 * MIB);
    }

    #[test]
    fn the_largest_object_fits_and_a_larger_one_is_refused() {
        assert!(parts(5 * TIB, None, &RangeSet::new()).len() <= 10_000);
        assert!(parts(5 * TIB, Some(5 * TIB), &set(0..1)).len() <= 10_000);
        let refused = s3().plan(60_000 * GIB, None, &RangeSet::new()).unwrap_err();
        assert_eq!(refused.kind(), FsErrorKind::TooLarge);
    }

    prop_compose! {
        fn changes(size: u64)(raw in prop::collection::vec((0..size, 1..64 * MIB), 0..20)) -> RangeSet<u64> {
            raw.into_iter().map(|(start, len)| start..(start + len).min(size)).collect()
        }
    }

    proptest! {
        #[test]
        fn planned_parts_tile_the_object(
            (size, dirty) in prop_oneof![16 * MIB..4 * GIB, 16 * MIB..5 * TIB]
                .prop_flat_map(|size| (Just(size), changes(size))),
            base in prop::option::of(0..5 * TIB),
        ) {
            let planned = parts(size, base, &dirty);
            prop_assert!(planned.len() <= 10_000);
            let mut at = 0;
            for (i, part) in planned.iter().enumerate() {
                prop_assert_eq!(usize::from(part.number.get()), i + 1);
                prop_assert_eq!(part.range.start, at);
                at = part.range.end;
                let len = part.range.end - part.range.start;
                prop_assert!(len > 0 && len <= 5 * GIB);
                prop_assert!(len >= 5 * MIB || i + 1 == planned.len());
                if part.from == PartSource::Base {
                    prop_assert!(!dirty.overlaps(&part.range));
                    prop_assert!(base.is_some_and(|base| part.range.end <= base));
                    prop_assert!(len <= COPY_MAX || size > 9_000 * COPY_MAX);
                }
            }
            prop_assert_eq!(at, size);
        }

        #[test]
        fn streaming_parts_tile_the_object(offset in 0..8 * TIB) {
            let layout = s3();
            if let Some(part) = layout.part_of(offset) {
                let range = layout.range(part);
                prop_assert!(range.contains(&offset));
                if let Some(next) = PartNumber::new(part.get() + 1) {
                    prop_assert_eq!(layout.range(next).start, range.end);
                }
            } else {
                prop_assert!(offset >= layout.capacity());
            }
        }
    }
}
