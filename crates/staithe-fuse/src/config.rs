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
    /// How much longer than the filesystem's own deadline a request may wait: the net below that. Default: 5 s.
    pub grace: Duration,
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
            grace: Duration::from_secs(5),
            read_ahead_kib: 1024,
        }
    }
}
