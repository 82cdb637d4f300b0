//! What a running filesystem says of itself.

use crate::cache::CacheStats;
use crate::fate::RequestCount;
use crate::filesystem::Filesystem;
use crate::persist::JobCounts;

/// Figures of a running filesystem, each as it was at some moment of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsStatus {
    /// Whether every change is refused.
    pub read_only: bool,
    /// Whether close(2) returns before the store has the file.
    pub writes_back: bool,
    /// Open files: descriptors shared by dup(2) or fork(2) count once.
    pub open_files: u64,
    /// Inodes in memory: what the kernel knows, is open, or is not stored yet, and the directories above.
    pub inodes: u64,
    /// Files and directories of which bytes or attributes are not in the store yet.
    pub dirty_files: u64,
    /// The bytes of these that are not in the store yet.
    pub dirty_bytes: u64,
    /// What is being done about them; of one that is just being written, nothing yet.
    pub jobs: JobCounts,
    /// What staging files take of their disk, in bytes.
    pub staging_used: u64,
    /// The most that they may; `None`: as much as the disk has.
    pub staging_limit: Option<u64>,
    /// Objects whose attributes are kept for later runs; `None`: nothing is kept.
    pub attributes_kept: Option<u64>,
    /// How requests of the store ended.
    pub requests: Vec<RequestCount>,
    /// The read path.
    pub read: ReadStats,
    /// What the disk cache holds; `None`: there is none.
    pub cache: Option<CacheStats>,
    /// Why files in the disk cache are not lent to the kernel; `None`: they are.
    pub lends_not: Option<String>,
    /// Why new files are not lent to the kernel, for their writers; `None`: they are.
    pub lends_no_new: Option<String>,
}

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
    /// The figures now. O(inodes); asks nothing of the store.
    pub fn status(&self) -> FsStatus {
        let dirty = self.inodes.dirty();
        FsStatus {
            read_only: self.config.read_only,
            writes_back: self.writes_back(),
            open_files: self.files.len() as u64,
            inodes: self.inodes.len() as u64,
            dirty_files: dirty.len() as u64,
            dirty_bytes: dirty.iter().map(|inode| inode.state().unstored()).sum(),
            jobs: self.job_counts(),
            staging_used: self.inodes.staging_used(),
            staging_limit: self.config.staging_size,
            attributes_kept: self.recall.kept(),
            requests: self.fate.counts(),
            read: self.read_stats(),
            cache: self.cache_stats(),
            lends_not: self.lends_not_because(),
            lends_no_new: self.lends_no_new_because(),
        }
    }

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
