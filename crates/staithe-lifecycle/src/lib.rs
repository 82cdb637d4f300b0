//! A lifecycle watcher.
mod config;
mod core;
mod event;
mod moves;
mod phase;
mod status;
pub use crate::core::Core;
pub use config::Config;
pub use event::{Action, Observation, Outcome, ProbeId};
pub use moves::{Move, Reason, Record};
pub use phase::Phase;
pub use status::{Status, Suspected};
