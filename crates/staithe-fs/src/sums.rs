//! What is in a file, block by block, as checksums: to find out what others have written to it.
//!
//! Modification times do not tell: a memory map moves them only with the first store to a page that was written back.

use std::ops::Range;

use crc_fast::crc32_iscsi;

use crate::disk_file::DiskFile;
use crate::error::Result;

/// Length of a block in bytes; the last one of a file may be shorter.
const BLOCK: u64 = 128 << 10;

/// The checksums (CRC32C) of a file's blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sums(Vec<u32>);

impl Sums {
    /// Reads a whole file. Blocks on the disk.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn of(file: &DiskFile) -> Result<Self> {
        let len = file.len()?;
        let blocks = (0..len).step_by(BLOCK as usize).map(|at| (at, (at + BLOCK).min(len)));
        let sums = blocks.map(|(at, end)| Ok(crc32_iscsi(&file.read_at(at, (end - at) as usize)?)));
        sums.collect::<Result<_>>().map(Self)
    }

    /// The blocks that are others in `later`, or only there. The last one may end behind its file.
    pub(crate) fn differing(&self, later: &Self) -> Vec<Range<u64>> {
        let range = |n: usize| n as u64 * BLOCK..(n as u64 + 1) * BLOCK;
        let others = later.0.iter().enumerate().filter(|(n, sum)| self.0.get(*n) != Some(sum));
        others.map(|(n, _)| range(n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = DiskFile::create(dir.path(), "f").unwrap();
        file.set_len(3 * BLOCK + 5).unwrap();
        let before = Sums::of(&file).unwrap();
        assert_eq!(before.differing(&before), []);
        file.write_at(BLOCK + 9, b"x").1.unwrap();
        file.set_len(3 * BLOCK + 6).unwrap();
        let after = Sums::of(&file).unwrap();
        assert_eq!(before.differing(&after), [BLOCK..2 * BLOCK, 3 * BLOCK..4 * BLOCK]);
        file.set_len(BLOCK).unwrap();
        assert_eq!(before.differing(&Sums::of(&file).unwrap()), []);
    }
}
