//! What a cache has done, as plain numbers.

/// Counters since the cache was made, and what it holds now. The binary that composes the cache exports them.
///
/// Lookups are counted without a synchronised instruction: two of one shard at the same instant may count as one.
/// Everything else is exact for each shard; the shards are read one after another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Lookups that found a name.
    pub hits: u64,
    /// Lookups answered by a negative entry.
    pub negatives: u64,
    /// Lookups answered by a complete listing.
    pub absent_by_listing: u64,
    /// Lookups that found a name whose time was over.
    pub expired: u64,
    /// Lookups that found nothing.
    pub misses: u64,
    /// Answers of the store that were taken in, each name of a listing counted.
    pub inserts: u64,
    /// Local mutations; a rename is two.
    pub mutations: u64,
    /// Answers refused because their name or directory had been changed since, each name of a listing counted.
    pub refused: u64,
    /// Entries that made room.
    pub evictions: u64,
    /// Listings that ended and made their directory complete.
    pub completed: u64,
    /// Entries freed by sweeps.
    pub swept: u64,
    /// Entries now.
    pub entries: u64,
    /// Directories known now.
    pub directories: u64,
    /// Bytes now, as [`Config::max_bytes`](crate::Config::max_bytes) counts them.
    pub bytes: u64,
}
