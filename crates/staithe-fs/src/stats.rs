//! What reading costs, in figures; who has the filesystem says where they go.

use crate::filesystem::Filesystem;

/// Figures of the read path since the filesystem was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadStats {
    /// Ranges that were asked for a second time because nothing came of the first request.
    pub hedges_asked: u64,
    /// How many of those second requests were the first to deliver.
    pub hedges_won: u64,
    /// The bound of the memory that parts of files may take, in bytes.
    pub memory_limit: u64,
    /// How much of it is in use.
    pub memory_used: u64,
    /// The most that ever was.
    pub memory_peak: u64,
}

impl Filesystem {
    /// The figures of the read path now.
    pub fn read_stats(&self) -> ReadStats {
        let budget = self.budget.stats();
        let (hedges_asked, hedges_won) = self.pace.hedges();
        ReadStats {
            hedges_asked,
            hedges_won,
            memory_limit: budget.limit,
            memory_used: budget.used,
            memory_peak: budget.peak,
        }
    }
}
