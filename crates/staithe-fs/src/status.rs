//! What a running filesystem says of itself.

use crate::cache::CacheStats;
use crate::filesystem::Filesystem;

/// Figures of a running filesystem, each as it was at some moment of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsStatus {
    /// Whether every change is refused.
    pub read_only: bool,
    /// Open files: descriptors shared by dup(2) or fork(2) count once.
    pub open_files: u64,
    /// Inodes in memory: what the kernel knows, is open, or is not stored yet, and the directories above.
    pub inodes: u64,
    /// Files and directories of which bytes or attributes are not in the store yet.
    pub dirty_files: u64,
    /// The bound of the memory for read-ahead, in bytes.
    pub memory_limit: u64,
    /// What is in use of it, in bytes.
    pub memory_used: u64,
    /// The most that was ever in use at once, in bytes; above the limit only by what waiting reads touched.
    pub memory_peak: u64,
    /// What the disk cache holds; `None`: there is none.
    pub cache: Option<CacheStats>,
    /// Why files in the disk cache are not lent to the kernel; `None`: they are.
    pub lends_not: Option<String>,
}

impl Filesystem {
    /// The figures now. O(inodes); asks nothing of the store.
    pub fn status(&self) -> FsStatus {
        let budget = self.budget.stats();
        FsStatus {
            read_only: self.config.read_only,
            open_files: self.files.len() as u64,
            inodes: self.inodes.len() as u64,
            dirty_files: self.inodes.dirty().len() as u64,
            memory_limit: budget.limit,
            memory_used: budget.used,
            memory_peak: budget.peak,
            cache: self.cache_stats(),
            lends_not: self.lends_not_because(),
        }
    }
}
