//! A versioned prefetch part queue: out-of-order fetchers, one in-order reader, never two versions.

mod budget;
mod core;
mod error;
mod fetch;
mod planner;
mod queue;
mod read;
mod shelf;
mod slices;
mod spans;
mod stream;
mod sync;

pub use budget::{Account, Budget, BudgetStats, Permit, Pressure, Priority};
pub use core::QueueState;
pub use error::{ErrorKind, PushError, ReadError};
pub use fetch::{Fetch, Generation, NextFetches};
pub use planner::{Pattern, Planned, Planner, PlannerConfig};
pub use queue::{PartQueue, QueueStats};
pub use read::{Read, ReadWith};
pub use slices::ReadSlices;
pub use spans::Spans;
