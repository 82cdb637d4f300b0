//! A lifecycle watcher.
mod clock;
mod config;
mod core;
mod event;
mod gate;
mod moves;
mod phase;
#[cfg(feature = "tokio")]
mod run;
mod status;
#[cfg(feature = "tokio")]
mod steps;
#[cfg(feature = "tokio")]
mod supervisor;
mod sync;
mod text;
mod wait;
mod watcher;

pub use crate::core::Core;
#[cfg(feature = "tokio")]
pub use clock::TokioClock;
pub use clock::{Clock, SystemClock};
pub use config::Config;
pub use event::{Action, Observation, Outcome, ProbeId};
pub use gate::{Closed, Gate, Guard, Inside, Label, Left, OwnedGuard};
pub use moves::{Move, Reason, Record};
pub use phase::Phase;
#[cfg(feature = "tokio")]
pub use run::Prober;
pub use status::{Status, Suspected};
#[cfg(feature = "tokio")]
pub use steps::{StepEnd, StepReport, Steps};
#[cfg(feature = "tokio")]
pub use supervisor::{Budget, Incident, Stopping, Supervisor, What};
pub use watcher::{Changes, Condemned, Nudged, Subscription, Turn, Verdict, WaitFor, Watcher};
