//! The names of things: keys, generations, jobs, attempts.

use std::fmt::Debug;
use std::hash::Hash;

/// What jobs belong to: an inode number, a row id. Cheap to clone; every type with these traits is one.
pub trait Key: Clone + Eq + Ord + Hash + Debug + Send + Sync + 'static {}

impl<K: Clone + Eq + Ord + Hash + Debug + Send + Sync + 'static> Key for K {}

/// Which state of a key a job is about. The caller counts it, upwards for each key: a write, a rename, an unlink
/// raises it. What was made for a lower one may be *stale*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The name of a job: everything that its key has under way, from the enqueue that found nothing to coalesce with
/// until it is resolved. Never used twice within 2^32 jobs of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

impl JobId {
    pub(crate) const fn new(slot: u32, nonce: u32) -> Self {
        Self((nonce as u64) << 32 | slot as u64)
    }

    pub(crate) const fn slot(self) -> u32 {
        self.0 as u32
    }
}

/// The name of one run of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The job.
    pub job: JobId,
    /// Which run of the job this is, counted from 1.
    pub number: u32,
}

macro_rules! counted {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) u64);
    )*};
}

counted! {
    /// Somebody who waits for a generation of a key.
    TicketId;
    /// A cancel that was asked for and is to be answered.
    CancelId;
    /// A barrier that has yet to be passed.
    BarrierId;
    /// A hold that is in force.
    HoldId;
    /// A reservation that stands in line for space.
    ReserveId;
}
