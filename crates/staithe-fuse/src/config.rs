use std::path::PathBuf;
use std::time::Duration;

/// How a filesystem is mounted.
#[derive(Debug, Clone)]
pub struct FuseConfig {
    /// An empty directory.
    pub mountpoint: PathBuf,
    /// The mount's source, as `mount` and `df` show it.
    pub source: String,
    /// Other users than the one who mounts may enter. Default: false.
    pub allow_other: bool,
    /// The kernel refuses writes. Default: false.
    pub read_only: bool,
    /// Threads that serve the kernel, at least 1. Default: 2.
    pub threads: usize,
    /// The longest that a request may wait. The filesystem has a deadline of its own; this one is the net below
    /// it and should be a little longer. Default: 65 s.
    pub deadline: Duration,
    /// What the kernel reads ahead of a sequential reader, in KiB; needs root to take effect. Default: 1024.
    pub read_ahead_kib: u32,
}

impl FuseConfig {
    /// The defaults, for a mount point and a source.
    pub fn new(mountpoint: impl Into<PathBuf>, source: impl Into<String>) -> Self {
        Self {
            mountpoint: mountpoint.into(),
            source: source.into(),
            allow_other: false,
            read_only: false,
            threads: 2,
            deadline: Duration::from_secs(65),
            read_ahead_kib: 1024,
        }
    }
}
