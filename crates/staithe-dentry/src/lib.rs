//! A TTL dentry cache with per-directory generations and complete directories.

mod cache;
mod change;
mod config;
mod directory;
mod entries;
mod entry;
mod evict;
mod index;
mod listing;
mod name;
mod shard;
mod slots;
mod stats;
mod sync;
mod ttl;

pub use cache::{Dentries, Token};
pub use change::{Cause, Change, Changes, Closer, Drained};
pub use config::Config;
pub use entries::Entries;
pub use entry::{Entry, Lookup, Refused, Value};
pub use listing::Listing;
pub use stats::Stats;
pub use ttl::{Deadline, Ttl};
