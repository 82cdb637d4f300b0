//! The bounds of a queue.

use crate::retry::Retry;

/// The bounds of a queue, with defaults for a filesystem's uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Jobs at once, those that failed and are not acknowledged included; 1,000,000.
    pub max_jobs: usize,
    /// The [`bytes`](crate::Order::bytes) of all jobs together; 1 TiB. A job that alone is larger is taken when there
    /// is no other.
    pub max_bytes: u64,
    /// Attempts under way at once; 32.
    pub concurrency: usize,
    /// The bytes of all attempts under way; 1 GiB. A job that alone is larger runs when nothing else does.
    pub bytes_in_flight: u64,
    /// How many attempts of a key may be outdated in a row before one may finish; 3.
    pub patience: u32,
    /// After how many starts of waited-for jobs a background job has its turn; 8.
    pub share: u32,
    /// When to try again.
    pub retry: Retry,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_jobs: 1_000_000,
            max_bytes: 1 << 40,
            concurrency: 32,
            bytes_in_flight: 1 << 30,
            patience: 3,
            share: 8,
            retry: Retry::default(),
        }
    }
}
