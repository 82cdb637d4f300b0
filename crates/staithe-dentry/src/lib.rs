//! A TTL dentry cache with per-directory generations and complete directories.
//!
//! A remote file system answers "is there a `name` in this directory?" more often than anything else, and the store
//! that knows is milliseconds away. This crate remembers the answers. It keeps four things true:
//!
//! * **What was changed here is seen here, at once.** No answer that the store gave before a local change is ever
//!   found in the cache after it, however late the answer arrives.
//! * **Nothing is answered beyond its deadline.**
//! * **Absence is only claimed** of a name that was asked for, or in a directory that was listed whole and has lost
//!   no name since.
//! * **Entries and bytes are bounded**, and a walk over everything does not push out what is in use.
//!
//! It refuses to know what a value is beyond [`Value`], where answers come from, what time it is, and who else must
//! be told: time is an argument, and [`Changes`] is a stream for somebody else's thread. It makes no requests and
//! starts no threads.
//!
//! # The problem
//!
//! The obvious cache is a map from `(parent, name)` to a value and a deadline, and it is wrong under concurrency:
//!
//! 1. one thread asks the store for `a` and is told "no such name";
//! 2. before the answer is taken in, another thread creates `a` and caches it;
//! 3. the first thread takes in its answer, and `a`, which exists, is gone for a whole time to live.
//!
//! Removing the entry at each change instead of setting it does not help: the late answer comes after that too.
//! Versions of the entry do not help: the name may have no entry yet. A listing makes it worse, because it takes
//! longer, and speaks of names that nobody mentioned.
//!
//! # Tokens
//!
//! So a directory has a *generation*, which every local change raises. [`Dentries::begin`] gives a [`Token`] with
//! the generation *before* the store is asked, and an answer about a name is taken in only if that name was not changed
//! since:
//!
//! ```
//! use std::time::{Duration, Instant};
//! use staithe_dentry::{Config, Dentries, Entry, Lookup, Refused, Ttl, Value};
//!
//! #[derive(Debug, Clone, Copy, PartialEq)]
//! struct Inode(u64);
//! impl Value for Inode {
//!     fn same(&self, other: &Self) -> bool {
//!         self == other
//!     }
//! }
//!
//! let now = Instant::now();
//! let cache = Dentries::new(Config::default(), now);
//! let deadline = Ttl::For(Duration::from_secs(1)).deadline(now);
//! const DIR: u64 = 1;
//!
//! let token = cache.begin(DIR); // and now ask the store for "a", which takes its time
//! cache.mutate(DIR, "a", Entry::Positive(Inode(7)), deadline); // meanwhile it is created here
//! assert_eq!(cache.insert(&token, "a", Entry::Negative, deadline), Err(Refused::Stale));
//! assert_eq!(cache.lookup(DIR, "a", now).hit(), Some(Inode(7)));
//!
//! // A whole listing answers for the names that it does not have.
//! let mut listing = cache.listing(cache.begin(DIR), deadline)?;
//! listing.page([("a", Inode(7)), ("b", Inode(8))])?;
//! listing.complete()?;
//! assert!(matches!(cache.lookup(DIR, "c", now), Lookup::AbsentByListing(_)));
//! # Ok::<(), Refused>(())
//! ```
//!
//! Which names were changed since is known by the last few thousand changes, so that a directory which others are busy in
//! can be asked about and listed all the same. What is older is refused, whatever it is about.
//!
//! A refused answer may be handed to whoever asked, once, with a time to live of zero: it was true when it was given.
//!
//! # Complete directories
//!
//! A [`Listing`] takes a directory in page by page. Its names are usable at once; absence becomes an answer at its
//! end, if no later listing began, and no name was evicted on the way. Of what was changed here since its token it is not
//! believed: that stays as it was changed. Local changes are also applied to the complete directory and leave it complete; its deadline stays what it was.
//! [`Dentries::entries`] gives the names in order without the store. Evicting a name of a complete directory ends
//! its completeness.
//!
//! # Limits
//!
//! * A directory lies in one shard, so its writers take turns, a few entries at a time. Readers share the lock.
//! * A shard remembers what its last 4,096 changes were about: an answer that took longer than those is refused, and so is
//!   a listing. Two names of one 32-bit hash pass for one: then a good answer is refused.
//! * The index of a shard doubles in one go: its writer copies eight bytes for each entry of the shard while its readers wait.
//! * Records of changed but empty directories are kept in a bounded queue. When one is dropped, answers under way
//!   for directories of the same shard that have no record are refused although they were good.
//! * A directory's cached subtree is found through cached names. So that nothing is left over, an evicted directory
//!   name takes what is cached below it along; cache a directory's name before its contents.
//!
//! # Where the ideas come from
//!
//! Generations are to a directory what the generation count of attributes (`attr_gencount`) is to an inode in Linux's
//! NFS client: a reply from before a change is known by its number. Eviction is S3-FIFO (Yang et al., SOSP 2023). The index is linear probing with deletion by shifting
//! (Knuth, volume 3, 6.4).

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
mod recent;
mod shard;
mod shards;
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
