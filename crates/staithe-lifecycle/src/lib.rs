//! A lifecycle watcher: phases with evidence, confirmed verdicts, gates that prove they are empty, shutdown in steps.
//!
//! # The problem
//!
//! A process depends on something that it does not own: a volume, a bucket, a database. That becomes slow, cannot be
//! reached for an hour, comes back, says once by mistake that it does not exist, and at some time is really gone.
//! Whatever the process does then (wait, serve what it has, give up and exit) should follow from what is the case, and
//! not from which request happened to fail first.
//!
//! # The obvious solution, and why it fails
//!
//! Each operation looks at its own error. An outage looks like a deletion, and ends the process; a deletion looks like an
//! outage, and is waited out for ever. A counter of failures in a row is better: it never trips where one request in two
//! succeeds, flaps where it does, and takes a thousand requests that share one connection, or one cache, to be a
//! thousand witnesses. A health check beside it knows whether a probe works, but not whether anything else does, and costs
//! requests in all the time in which nothing is wrong. And when the end has come, who knows that the last operation is out?
//!
//! # What this crate keeps true
//!
//! * **Deleted is not down.** Nothing is condemned but by `k` agreeing probes, each on a connection of its own, spread over a
//!   least time, with no contrary answer between them. One contrary answer begins it all anew.
//! * **Down is noticed, and ends.** Failures degrade when they are many and a share of all; recovery has hysteresis, and
//!   needs nobody to do anything: it probes, rarely enough to be counted on one hand.
//! * **Healthy costs nothing.** No probe, no timer; a success is one atomic operation in a line of its own.
//! * **The moves are one table** ([`Phase::next`]), and each has its reason, its time and its number.
//! * **Who entered is waited for.** A [`Gate`] that is left has nobody inside, and nobody enters after.
//! * **No end hangs.** A step that overruns is named and passed by; a task that panics is started again within a budget, or
//!   said to be given up.
//!
//! It refuses to know what is watched, and how an answer is to be read: the caller classifies.
//!
//! # An example
//!
#![cfg_attr(feature = "tokio", doc = "```")]
#![cfg_attr(not(feature = "tokio"), doc = "```ignore")]
//! use std::time::{Duration, Instant};
//! use futures::future::BoxFuture;
//! use staithe_lifecycle::{Config, Outcome, Phase, Prober, Watcher};
//!
//! #[derive(Clone, Debug, PartialEq, Eq)]
//! enum Verdict { Gone }
//!
//! /// Asks the volume whether it is there.
//! struct Head;
//!
//! impl Prober<Verdict> for Head {
//!     fn probe(&self, fresh: bool) -> BoxFuture<'_, Outcome<Verdict>> {
//!         // `fresh`: on a connection of its own, past every cache.
//!         Box::pin(async { Outcome::permanent(Verdict::Gone, "404: no such volume") })
//!     }
//! }
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! // So fast only here.
//! let config = Config { confirm_over: Duration::from_millis(50), ..Config::default() };
//! let watcher = Watcher::new(config);
//! let driver = tokio::spawn(watcher.run(Head));
//! let _log = watcher.on_change(|record| eprintln!("{}", record.moved));
//! watcher.ready();
//!
//! // Each operation tells how it ended.
//! let began = Instant::now();
//! watcher.report(began, Outcome::Ok);
//! watcher.report(began, Outcome::permanent(Verdict::Gone, "404"));
//! assert_eq!(watcher.phase(), Phase::Suspect);
//!
//! // Five probes agree.
//! assert_eq!(watcher.condemned().await, Some(Verdict::Gone));
//! assert_eq!(watcher.phase(), Phase::Condemned);
//! watcher.exited("unmounted");
//! driver.await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Degraded
//!
//! At least [`Config::failures`] failures within [`Config::window`], and they are at least [`Config::share`] of a hundred
//! outcomes. Back to healthy after [`Config::recovery`] without one and with [`Config::successes`] successes; a relapse
//! doubles the time, as routers damp a route that flaps. While it is degraded it probes every [`Config::probe_every`], and
//! sooner once that succeeds, but never more than [`Config::probes_a_minute`] times in any minute. What failed before a
//! recovery counts no more.
//!
//! # Suspect, and condemned
//!
//! One verdict, of an operation or a probe, makes suspect. Then probes are asked for, [`Config::confirm_over`] divided by
//! [`Config::confirmations`] apart. They confirm it; operations that agree do not. What clears it: a probe that
//! succeeds, or an operation that does and that *began* after the suspicion. A failure that may pass does neither,
//! and after as many without an answer as would have confirmed it, probes are no closer than [`Config::probe_every`].
//! Another verdict begins it anew.
//!
//! A verdict is condemned no earlier than `confirm_over` after it was first given. It is so within 25 s more if every
//! operation and probe says the same from then on, they take at most half a second, and one comes in 5 s; and within 85 s
//! more if there were so many suspicions in the last minute that this one was held back
//! ([`Config::suspicions_a_minute`]). The simulation measures it.
//!
//! # Draining
//!
//! A suspicion goes on while it drains, so that it is known whether there is anything left to drain to. The verdict
//! is told ([`Watcher::condemned`], [`Status::verdict`]); the phase stays.
//!
//! # The pieces
//!
//! | piece | what it is |
//! |---|---|
//! | [`Core`] | the state machine: [`Observation`]s with their time in, [`Action`]s out |
//! | [`Watcher`] | the shell: counts without a lock, a history, streams, waits, callbacks |
//! | [`Turn`], [`Watcher::nudged`] | what drives it, without a runtime |
#![cfg_attr(feature = "tokio", doc = "| `Watcher::run`, [`Prober`] | the same on tokio |")]
//! | [`Gate`] | who is inside, and when the last has left |
#![cfg_attr(feature = "tokio", doc = "| [`Supervisor`] | tasks that are started again |")]
#![cfg_attr(feature = "tokio", doc = "| [`Steps`] | a shutdown in steps with deadlines |")]
//!
//! # The limits
//!
//! * Nobody finds out about a deletion while nobody does anything: a healthy watch does not probe.
//! * `k` wrong answers in a row over the whole time, each on a connection of its own, are believed.
//! * Two verdicts that are given in turn are never confirmed, neither of them: it stays suspect.
//! * Successes are counted when their operations began, in steps of at most a 32nd of the window: the share of failures
//!   is a little too high where operations take a good part of it, and one that took longer than the window may be counted
//!   with a later time.
//! * Callbacks are called in the thread that made the move: one that takes long holds it up, and no other.
//! * A gate has 64 labels and up to 16 shards, 8 KiB.
//!
//! # Where the ideas come from
//!
//! Phases of suspicion before a verdict: the failure detectors of Chandra and Toueg (1996), and SWIM's suspect state
//! (Das, Gupta, Motivala, 2002). Failures as a share of a sliding window: the circuit breakers of Nygard's "Release It!"
//! (2007) and their successors. Damping: RFC 2439. A gate as the proof of *stopped*: neon's `Gate`, tokio-util's task
//! tracker; its shards: "sloppy counters" (Boyd-Wickizer et al., OSDI 2010). Restarts within a budget: Erlang's
//! supervisors (Armstrong, 2003).

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
