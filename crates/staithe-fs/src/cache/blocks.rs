//! What is known of a cached file's blocks: which are there, what their checksums are, what was seen to be right.
//! Pure: no file is touched here.
//!
//! A record on disk is eight bytes a block, all zero while the block is absent: the CRC32C of the block's bytes, and
//! the CRC32C of that and the block's number, so that neither a torn write nor a foreign file passes for a record.
//! CRC32C (Castagnoli): RFC 3720, appendix B.4.

use std::collections::BTreeMap;
use std::ops::Range;

use crc_fast::{CrcAlgorithm, checksum_combine, crc32_iscsi};

/// Length of a block in bytes; the last one of a file may be shorter.
pub(super) const BLOCK: u64 = 128 << 10;
/// Length of a record in bytes.
pub(super) const RECORD: usize = 8;

/// How a block stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not here, or not all of it.
    Absent,
    /// An earlier process says that it is here.
    Claimed,
    /// Written, or seen to be right, by this process.
    Trusted,
}

/// The blocks of one file.
#[derive(Debug)]
pub(super) struct Blocks {
    size: u64,
    sums: Vec<u32>,
    standing: Vec<Standing>,
    absent: usize,
    claimed: usize,
    /// What is in the file of absent blocks: from where to where, and the checksum. No piece touches another one of its
    /// block, and none reaches out of it.
    pieces: BTreeMap<u64, (u64, u32)>,
}

impl Blocks {
    /// None are here.
    pub(super) fn new(size: u64) -> Self {
        let count = size.div_ceil(BLOCK) as usize;
        Self {
            size,
            sums: vec![0; count],
            standing: vec![Standing::Absent; count],
            absent: count,
            claimed: 0,
            pieces: BTreeMap::new(),
        }
    }

    /// How many there are, present or not.
    pub(super) fn count(&self) -> usize {
        self.standing.len()
    }

    /// Where a block lies in the file.
    pub(super) fn range(&self, index: usize) -> Range<u64> {
        let start = index as u64 * BLOCK;
        start..(start + BLOCK).min(self.size)
    }

    /// The blocks that a range touches.
    pub(super) fn touching(&self, range: &Range<u64>) -> Range<usize> {
        if range.is_empty() {
            return 0..0;
        }
        (range.start / BLOCK) as usize..(range.end.div_ceil(BLOCK) as usize).min(self.count())
    }

    /// Changes how a block stands.
    pub(super) fn set(&mut self, index: usize, sum: u32, standing: Standing) {
        let before = std::mem::replace(&mut self.standing[index], standing);
        self.absent -= usize::from(before == Standing::Absent);
        self.absent += usize::from(standing == Standing::Absent);
        self.claimed -= usize::from(before == Standing::Claimed);
        self.claimed += usize::from(standing == Standing::Claimed);
        self.sums[index] = sum;
    }

    /// Trusts every block that is here.
    pub(super) fn trust(&mut self) {
        for standing in self.standing.iter_mut().filter(|s| **s == Standing::Claimed) {
            *standing = Standing::Trusted;
        }
        self.claimed = 0;
    }

    /// Trusts no block any more that is here.
    pub(super) fn distrust(&mut self) {
        for standing in self.standing.iter_mut().filter(|s| **s == Standing::Trusted) {
            *standing = Standing::Claimed;
            self.claimed += 1;
        }
    }

    /// Whether every block is here.
    pub(super) fn is_whole(&self) -> bool {
        self.absent == 0
    }

    /// Whether every block is here and was seen to be right.
    pub(super) fn is_trusted(&self) -> bool {
        self.absent == 0 && self.claimed == 0
    }

    /// Bytes that were not seen to be right, at most.
    pub(super) fn claimed_bytes(&self) -> u64 {
        self.claimed as u64 * BLOCK
    }

    /// Bytes that are here in whole blocks. O(1).
    pub(super) fn bytes(&self) -> u64 {
        let here = (self.count() - self.absent) as u64 * BLOCK;
        let has_last = self.standing.last().is_some_and(|last| *last != Standing::Absent);
        if has_last { here - (self.count() as u64 * BLOCK - self.size) } else { here }
    }

    /// The checksums of the blocks that a range touches; `None` if one of them is absent.
    pub(super) fn sums(&self, range: &Range<u64>) -> Option<(Range<usize>, Vec<u32>)> {
        let touched = self.touching(range);
        let here = self.standing[touched.clone()].iter().all(|s| *s != Standing::Absent);
        here.then(|| (touched.clone(), self.sums[touched].to_vec()))
    }

    /// What begins at `at` and ends by `end`, alike throughout: its end, and whether it is here.
    pub(super) fn run(&self, at: u64, end: u64) -> (u64, bool) {
        let end = end.min(self.size);
        let touched = self.touching(&(at..end));
        let Some(first) = touched.clone().next() else { return (end, false) };
        let here = self.standing[first] != Standing::Absent;
        let other = touched.into_iter().find(|n| (self.standing[*n] != Standing::Absent) != here);
        (other.map_or(end, |n| self.range(n).start), here)
    }

    /// The stretches without a block that is here.
    pub(super) fn absent_runs(&self) -> Vec<Range<u64>> {
        let mut runs = Vec::new();
        let mut at = 0;
        while at < self.size {
            let (end, here) = self.run(at, self.size);
            if !here {
                runs.push(at..end);
            }
            at = end;
        }
        runs
    }

    /// The stretches of `range` that are neither in whole blocks nor noted as written.
    pub(super) fn wanted(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let touched = self.touching(range);
        let absent = touched.filter(|n| self.standing[*n] == Standing::Absent);
        absent.flat_map(|n| self.gaps(self.range(n), range)).collect()
    }

    /// The stretches of `range` in a block that no piece covers.
    fn gaps(&self, block: Range<u64>, range: &Range<u64>) -> Vec<Range<u64>> {
        let (mut at, end) = (block.start.max(range.start), block.end.min(range.end));
        let mut gaps = Vec::new();
        for (start, (piece_end, _)) in self.pieces.range(block) {
            if at < end.min(*start) {
                gaps.push(at..end.min(*start));
            }
            at = at.max(*piece_end);
        }
        if at < end {
            gaps.push(at..end);
        }
        gaps
    }

    /// Notes what was [wanted](Self::wanted) of an absent block, with its checksum, as written. When that completes the
    /// block: which one it is, and its checksum, put together from those of its pieces. What is on the disk is not asked:
    /// others may have written there since.
    pub(super) fn wrote(&mut self, mut piece: Range<u64>, mut sum: u32) -> Option<(usize, u32)> {
        let index = self.touching(&piece).next()?;
        let block = self.range(index);
        let before =
            self.pieces.range(block.start..piece.start).next_back().map(|(start, piece)| (*start, *piece));
        if let Some((start, (end, before))) = before
            && end == piece.start
        {
            self.pieces.remove(&start);
            sum = joined(before, sum, length(&piece));
            piece.start = start;
        }
        if piece.end < block.end
            && let Some((end, after)) = self.pieces.remove(&piece.end)
        {
            sum = joined(sum, after, end - piece.end);
            piece.end = end;
        }
        if piece == block {
            return Some((index, sum));
        }
        self.pieces.insert(piece.start, (piece.end, sum));
        None
    }
}

/// The checksum of two pieces, one behind the other; the second one is `len` bytes long.
fn joined(first: u32, second: u32, len: u64) -> u32 {
    checksum_combine(CrcAlgorithm::Crc32Iscsi, u64::from(first), u64::from(second), len) as u32
}

/// The checksum of a block.
pub(super) fn sum(bytes: &[u8]) -> u32 {
    crc32_iscsi(bytes)
}

/// A record, as it lies on disk.
pub(super) fn encode(index: usize, sum: u32) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&sum.to_le_bytes());
    record[4..].copy_from_slice(&seal(index, sum).to_le_bytes());
    record
}

/// The checksum in a record; `None` for one that is empty, torn or not of this block.
pub(super) fn decode(index: usize, record: [u8; RECORD]) -> Option<u32> {
    let whole = u64::from_le_bytes(record);
    let (sum, sealed) = (whole as u32, (whole >> 32) as u32);
    (record != [0; RECORD] && sealed == seal(index, sum)).then_some(sum)
}

fn seal(index: usize, sum: u32) -> u32 {
    let mut sealed = [0; 12];
    sealed[..8].copy_from_slice(&(index as u64).to_le_bytes());
    sealed[8..].copy_from_slice(&sum.to_le_bytes());
    crc32_iscsi(&sealed)
}

/// The length of a range.
pub(super) fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use rangemap::RangeSet;

    use super::*;

    /// What comes.
    static CONTENT: [u8; 3 * BLOCK as usize] = {
        let mut bytes = [0; 3 * BLOCK as usize];
        let mut at = 0;
        while at < bytes.len() {
            bytes[at] = (at / 5) as u8;
            at += 1;
        }
        bytes
    };

    #[test]
    fn a_block_is_complete_when_its_last_byte_is() {
        let bytes: Vec<u8> = (0..3 * BLOCK + 10).map(|n| (n / 3) as u8).collect();
        let of = |range: Range<u64>| sum(&bytes[range.start as usize..range.end as usize]);
        let mut blocks = Blocks::new(3 * BLOCK + 10);
        assert_eq!(blocks.count(), 4);
        let wrote = |blocks: &mut Blocks, piece: Range<u64>| blocks.wrote(piece.clone(), of(piece));
        assert_eq!(wrote(&mut blocks, 100..BLOCK), None);
        assert_eq!(wrote(&mut blocks, BLOCK..BLOCK + 5), None);
        assert_eq!(blocks.wanted(&(0..BLOCK + 10)), [0..100, BLOCK + 5..BLOCK + 10]);
        assert_eq!(wrote(&mut blocks, 0..100), Some((0, of(0..BLOCK))), "whatever the order");
        blocks.set(0, 7, Standing::Trusted);
        assert_eq!(blocks.wanted(&(0..BLOCK)), []);
        let end = 3 * BLOCK..3 * BLOCK + 10;
        assert_eq!(wrote(&mut blocks, end.clone()), Some((3, of(end))), "the last one is short");
        assert_eq!(wrote(&mut blocks, BLOCK + 70..2 * BLOCK), None);
        assert_eq!(wrote(&mut blocks, BLOCK + 5..BLOCK + 70), Some((1, of(BLOCK..2 * BLOCK))));
        assert_eq!(wrote(&mut blocks, 2 * BLOCK..3 * BLOCK), Some((2, of(2 * BLOCK..3 * BLOCK))));
        for n in 1..4 {
            blocks.set(n, 0, Standing::Claimed);
        }
        assert!(blocks.is_whole() && !blocks.is_trusted());
        assert_eq!(blocks.bytes(), 3 * BLOCK + 10);
        blocks.set(2, 0, Standing::Absent);
        assert!(!blocks.is_whole());
        assert_eq!(blocks.wanted(&(0..4 * BLOCK)), vec![2 * BLOCK..3 * BLOCK]);
    }

    proptest! {
        /// Whatever comes in whatever order, what is wanted is what never came, and a block is complete with its last
        /// byte.
        #[test]
        fn what_is_wanted_never_came(parts in vec((0..3 * BLOCK, 1..2 * BLOCK), 1..60), tail in 1..BLOCK) {
            let size = 2 * BLOCK + tail;
            let of = |range: &Range<u64>| sum(&CONTENT[range.start as usize..range.end as usize]);
            let mut blocks = Blocks::new(size);
            let mut came = RangeSet::new();
            for (at, len) in parts {
                let range = at.min(size - 1)..(at + len).min(size);
                let wanted = blocks.wanted(&range);
                prop_assert_eq!(wanted.iter().cloned().collect::<RangeSet<_>>(), came.gaps(&range).collect());
                for piece in wanted {
                    let sum = of(&piece);
                    came.insert(piece.clone());
                    if let Some((index, sum)) = blocks.wrote(piece, sum) {
                        prop_assert_eq!(sum, of(&blocks.range(index)));
                        blocks.set(index, sum, Standing::Trusted);
                    }
                }
                let whole = |n: &usize| came.gaps(&blocks.range(*n)).next().is_none();
                let here = |n: &usize| blocks.standing[*n] != Standing::Absent;
                prop_assert!((0..blocks.count()).all(|n| here(&n) == whole(&n)));
                let bytes: u64 = (0..blocks.count()).filter(here).map(|n| length(&blocks.range(n))).sum();
                prop_assert_eq!(blocks.bytes(), bytes);
            }
        }
    }

    #[test]
    fn runs_are_alike_throughout() {
        let mut blocks = Blocks::new(4 * BLOCK);
        blocks.set(1, 0, Standing::Trusted);
        blocks.set(2, 0, Standing::Claimed);
        assert_eq!(blocks.run(5, 4 * BLOCK), (BLOCK, false));
        assert_eq!(blocks.run(BLOCK + 5, 4 * BLOCK), (3 * BLOCK, true));
        assert_eq!(blocks.run(BLOCK + 5, BLOCK + 9), (BLOCK + 9, true));
        assert_eq!(blocks.run(3 * BLOCK, u64::MAX), (4 * BLOCK, false));
        assert!(blocks.sums(&(BLOCK..3 * BLOCK)).is_some());
        assert!(blocks.sums(&(0..2 * BLOCK)).is_none());
        assert_eq!(blocks.absent_runs(), [0..BLOCK, 3 * BLOCK..4 * BLOCK]);
    }

    #[test]
    fn a_record_is_of_its_block_only() {
        let record = encode(5, 0xdead_beef);
        assert_eq!(decode(5, record), Some(0xdead_beef));
        assert_eq!(decode(6, record), None);
        assert_eq!(decode(5, [0; RECORD]), None);
        for byte in 0..RECORD {
            let mut torn = record;
            torn[byte] ^= 1;
            assert_eq!(decode(5, torn), None, "byte {byte}");
        }
        assert_eq!(sum(b"123456789"), 0xe306_9283, "the check value of CRC-32/ISCSI");
    }
}
