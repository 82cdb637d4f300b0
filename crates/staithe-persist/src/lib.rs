//! A cancellable persist-job queue: one chain per key, generations, retries, and a journal of intents.
//!
//! # The problem
//!
//! A file is written locally and stored remotely later. Between the two it is written again, renamed, removed; the
//! upload is slow, fails, is tried again, and at some moment makes its effect visible to everybody. A persist that runs
//! beside the changes it persists must neither lose the last one nor bring back what an earlier one removed.
//!
//! # The obvious solution, and why it fails
//!
//! A channel of paths and a few tasks that upload them. A job that names a path re-creates that path after the
//! rename. Ten overwrites are ten uploads, in any order. To abort a task says nothing of whether its effect has happened,
//! so whoever removes the file does not know what there is to remove. A failed task has nowhere to wait, a full
//! channel blocks `close`, and when the process dies nobody knows what it had promised.
//!
//! # What this crate keeps true
//!
//! * **A job belongs to a key and a generation**, never to a place: where its effect goes is resolved after the door
//!   ([`Attempt::begin_commit`]), when nothing can change it any more.
//! * **One chain per key.** Two attempts of a key never overlap. What is queued is coalesced; what is removed before
//!   it is committed is no request at all.
//! * **A stale generation never commits.** The door is closed to an attempt that a newer generation, a cancel or a
//!   retarget has outdated.
//! * **A cancel is answered once, and truly**: [`Answer::NotStarted`], [`Answer::Aborted`] or [`Answer::TooLate`], when
//!   the job can have no further effect.
//! * **Nothing is lost.** A job ends committed, cancelled, or failed and visible; a drain reports what remains.
//! * **Bounded** in jobs, bytes and attempts; the moves between states are one table ([`State::next`]).
//!
//! It refuses to know what a job does, what a key stands for, and what time it is.
//!
//! # An example
//!
#![cfg_attr(feature = "tokio", doc = "```")]
#![cfg_attr(not(feature = "tokio"), doc = "```ignore")]
//! use std::sync::Arc;
//! use staithe_persist::{Answer, Attempt, Config, Failure, Generation, Order, Outcome, Queue};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let run = |attempt: Attempt<u64>| async move {
//!     // Prepare: upload parts under a name that nobody sees. `attempt.stopped()` says when it is not wanted any more.
//!     let committing = attempt.begin_commit().await.map_err(Failure::permanent)?;
//!     // Now resolve the name of `attempt.key()`, and make it visible there.
//!     drop(committing);
//!     Ok(())
//! };
//! let queue = Queue::new(Config::default(), Arc::new(run), tokio::runtime::Handle::current());
//!
//! let file = 7;
//! let ticket = queue.enqueue(file, Generation(1), Order::default())?;
//! assert_eq!(ticket.outcome().await, Outcome::Done(Generation(1)));
//!
//! drop(queue.enqueue(file, Generation(2), Order::default())?);
//! match queue.cancel(&file).answer().await {
//!     Some(Answer::NotStarted | Answer::Aborted) => {} // no effect, now or later
//!     Some(Answer::TooLate(_)) | None => {}            // it is stored: remove it there too
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A rename
//!
//! [`Queue::hold`] keeps the keys of a directory before the door, [`Hold::quiet`] waits for those that are past it, and
//! [`Queue::retarget_all`] raises the generations under the hold. What was uploading the old name is outdated and runs
//! again; nothing is [`Retargeted::TooLate`], because nothing is committing. Then the hold is dropped.
//!
//! # A file that is written all the time
//!
//! By default a newer generation outdates a running attempt, so that no bytes go up in vain. A file that is appended to
//! faster than it uploads would never be stored; after [`Config::patience`] outdated attempts in a row the next one may
//! finish and commit what it has, and the job runs once more. [`Order::lets_finish`] asks for that at once.
//!
//! # Order
//!
//! A job may be [`After`] others: [`After::done`] never runs unless the other is done (a delete after a copy),
//! [`After::settled`] only waits for its end (a child after its parent's marker). Waited-for jobs start first, but the
//! background has every [`Config::share`]th start; among equals, who came first. [`Queue::barrier`] waits for everything
//! before it.
//!
//! # The journal
//!
//! [`Journal`] is for promises that outlive the process: record the intent, enqueue, complete it after the commit. The
//! queue itself writes none: what an intent says, and whether a lost completion may be carried out again, is the
//! caller's. [`MemoryJournal`] knows what a kill or a power failure would leave of it; `DiskJournal` (feature `disk`)
//! is on disk, and shares one fsync among all who wait for one.
//!
//! # The pieces
//!
//! | piece | what it is |
//! |---|---|
//! | [`Core`] | the state machine: events with their time in, [`Action`]s out |
//! | [`Queue`] | the shell: a lock around it, tasks, promises, an alarm |
//! | [`Runner`], [`Attempt`] | what a job does, and one run of it |
//! | [`Ticket`], [`Cancelling`], [`Barrier`] | waits for answers |
//! | [`Permit`], [`Hold`], [`Committing`] | guards: room, keys kept still, a commit under way |
//! | [`Runtime`] | what runs the tasks: tokio's `Handle` (feature `tokio`), or one's own |
//! | [`Journal`] | intents that outlive the process |
//!
//! # The limits
//!
//! * A job that is over is forgotten: [`Queue::wait`] for a key with nothing under way says `None`, not what became of
//!   it. Generations are compared within a job; the caller counts them, upwards.
//! * An attempt that does not stop when it is asked is waited for: a deadline is the runner's.
//! * A drain is final. A halted queue can be listed, and starts nothing more.
//! * Predicates run under the lock, over every job: a subtree of 100,000 takes some milliseconds, others wait for it.
//!
//! # Where the ideas come from
//!
//! A token says *stop*, and an answer proves *stopped*: the split of tokio-util's cancellation token and task tracker.
//! Full jitter is Brooker's ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015), group commit `DeWitt`'s (SIGMOD
//! 1984), the journal's rule of intents and idempotent replay that of write-ahead logs (Mohan et al., ARIES, 1992).

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
#[cfg(feature = "disk")]
pub use journal::{DiskJournal, Salvage};
pub use journal::{Durability, Entry, IntentId, Journal, JournalError, JournalErrorKind, MemoryJournal};
pub use order::{After, Needs, Order, Overlap, Priority, Retargeted};
pub use queue::Queue;
pub use retry::{Backoff, Retry};
pub use runner::{Attempt, Committing, Runner};
pub use runtime::Runtime;
pub use states::State;
