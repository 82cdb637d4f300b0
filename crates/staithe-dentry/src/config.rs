//! The bounds of a cache.

/// The bounds of a [`Dentries`](crate::Dentries).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Entries, positive and negative together. Default 1,000,000.
    pub max_entries: usize,
    /// Bytes: entries with their names, values and index, directories, and the eviction's memory. Default 256 MiB.
    pub max_bytes: usize,
    /// Independent locks, rounded up to a power of two between 1 and 4,096. A directory lies in one of them. Default 64.
    pub shards: usize,
    /// Changes kept for their consumer. One more empties the stream, and the consumer is told by
    /// [`Drained::lost`](crate::Drained::lost). Default 4,096.
    pub max_changes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_entries: 1_000_000, max_bytes: 256 << 20, shards: 64, max_changes: 4_096 }
    }
}
