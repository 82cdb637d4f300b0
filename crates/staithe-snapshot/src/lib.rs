//! x

mod bell;
mod cell;
mod config;
mod delta;
mod epoch;
mod error;
mod ledger;
mod loading;
#[cfg(feature = "persist")]
pub mod persist;
mod reclaim;
mod shared;
mod snapshot;
mod stage;
mod sync;
mod view;

pub use bell::Changed;
pub use cell::{SnapshotCell, Stats};
pub use config::Config;
pub use delta::{Delta, Edit, NoDelta};
pub use epoch::Epoch;
pub use error::{Cause, Error, Kind, Rejected};
pub use ledger::Alive;
pub use loading::{Loading, Phase, Progress};
pub use reclaim::{Reclaimer, Worker};
pub use snapshot::{Held, Snapshot};
pub use stage::Staging;
pub use view::{Part, View};
