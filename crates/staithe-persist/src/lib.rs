//! A cancellable persist-job queue: one chain per key, generations, retries, and a journal of intents.

mod action;
mod config;
mod core;
mod error;
mod guards;
mod info;
mod job;
mod journal;
mod order;
mod promise;
mod queue;
mod retry;
mod runner;
mod runtime;
mod shared;
mod states;
mod sync;

pub use crate::core::{Core, Gate};
pub use action::{Action, Answer, Outcome};
pub use config::Config;
pub use error::{Class, Failure, Needed, Outdated, Refused};
pub use guards::{Barrier, Cancelling, Hold, Permit, Ticket};
pub use info::{JobInfo, Stats};
pub use job::{AttemptId, BarrierId, CancelId, Generation, HoldId, JobId, Key, ReserveId, TicketId};
#[cfg(feature = "fjall")]
pub use journal::DiskJournal;
pub use journal::{Durability, Entry, IntentId, Journal, JournalError, JournalErrorKind, MemoryJournal};
pub use order::{After, Needs, Order, Overlap, Priority, Retargeted};
pub use queue::Queue;
pub use retry::{Backoff, Retry};
pub use runner::{Attempt, Committing, Runner};
pub use runtime::Runtime;
pub use states::State;
