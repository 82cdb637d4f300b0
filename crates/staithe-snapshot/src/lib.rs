//! A state container whose whole state is swapped under its readers.
//!
//! # The problem
//!
//! A process has a large state that everybody reads: a name space, a routing table, a configuration. Now and then all of
//! it is replaced, by a snapshot that takes seconds to load, while it is read and changed.
//!
//! # The obvious solution, and why it fails
//!
//! A lock around it, cleared and refilled in place: readers wait for as long as that takes, or see it half filled, and
//! an error in the middle has destroyed the old state and made no new one. A pointer that is swapped is better, and
//! leaves three holes. What was changed while the new state loaded is gone when it is published. Whoever drops the last
//! reference of the old one frees it: a reader, in the middle of a request, frees ten million entries. And
//! nobody knows who still holds the state of last week.
//!
//! # What this crate keeps true
//!
//! * **All old or all new.** A reader has one state, for as long as it likes, and never waits: [`SnapshotCell::load`] is
//!   wait-free.
//! * **A replacement happens whole or not at all.** It is built aside, validated, published in one step; failed,
//!   panicked or cancelled, it leaves everything as it was, and says why.
//! * **No change is lost, none is made twice.** What is changed while a replacement loads is in the live state at
//!   once, and replayed on the new one before anybody sees it.
//! * **No reader frees a state.** The last to let go hands it to a [`Reclaimer`].
//! * **Bounded**: old states, waits, and what a replacement may have to replay. Every refusal says what the bound is.
//!
//! It refuses to know what the state is, and what time it is.
//!
//! # An example
//!
//! A name space: paths and sizes. Open files keep the one they were opened in.
//!
//! ```
//! use std::collections::BTreeMap;
//! use staithe_snapshot::{Cause, Config, Delta, Kind, SnapshotCell};
//!
//! type Names = BTreeMap<String, u64>;
//!
//! // A change that can be made again, on a name space that was loading when it was made.
//! struct Put(String, u64);
//!
//! impl Delta<Names> for Put {
//!     fn apply(&self, names: &mut Names) -> Result<(), Cause> {
//!         names.insert(self.0.clone(), self.1);
//!         Ok(())
//!     }
//! }
//!
//! let first = Names::from([("old".to_string(), 1)]);
//! let cell: SnapshotCell<Names, Put> = SnapshotCell::with_config(first, Config::default());
//!
//! let open = cell.load_as("an open file");
//!
//! // Replace all of it. The change that comes meanwhile is not lost.
//! let load = |_: &_| {
//!     cell.change(Put("mine".into(), 7))?;
//!     Ok::<_, Cause>(Names::from([("new".to_string(), 2)]))
//! };
//! let validate = |names: &Names| if names.is_empty() { Err("no names") } else { Ok(()) };
//! let published = cell.apply(load, validate)?;
//! assert!(published.contains_key("new") && published.contains_key("mine"));
//! assert!(!published.contains_key("old"));
//!
//! // The open file has what it had, and can be found.
//! assert!(open.contains_key("old"));
//! assert_eq!(cell.oldest().map(|oldest| oldest.epoch), Some(open.epoch()));
//!
//! // What fails changes nothing.
//! let failed = cell.apply(|_| Err("the manifest is not to be had"), |_| Ok::<_, Cause>(()));
//! assert_eq!(failed.unwrap_err().kind(), Kind::Failed);
//! assert_eq!(cell.epoch(), published.epoch());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Replacing without deltas
//!
//! A configuration is only ever replaced whole: `SnapshotCell::new(state)`. [`SnapshotCell::update`] makes the next state
//! of the current one and tries again if it was not the first; [`SnapshotCell::publish_if`] publishes only over the
//! epoch that was seen. [`SnapshotCell::apply`] works here too, with a loader and a validator; what was published
//! while it loaded cannot be replayed, so it is refused ([`Kind::Overtaken`]) rather than undo that, unless told to
//! ([`Staging::overwriting`]). The state need not be `Clone`.
//!
//! ```
//! use staithe_snapshot::{Epoch, SnapshotCell};
//!
//! struct Settings { endpoint: String, limit: u32 }
//!
//! let cell = SnapshotCell::new(Settings { endpoint: "one".into(), limit: 1 });
//! // A component sees its part, and nothing else of it.
//! let limit = cell.view(|settings| &settings.limit);
//! let changed = cell.changed(cell.epoch());
//! cell.update(|old| Settings { endpoint: old.endpoint.clone(), limit: 2 })?;
//! assert_eq!(changed.wait()?, Epoch(2)); // or `.await`
//! assert_eq!(*limit.load(), 2);
//! # Ok::<(), staithe_snapshot::Error>(())
//! ```
//!
//! # Replaying
//!
//! From [`SnapshotCell::stage`] on (`apply` begins with it) each [`SnapshotCell::change`] is logged with its epoch. When
//! the new state is there, the log is replayed on it, in rounds, without holding anybody up; the validator sees the
//! result; what came meanwhile is replayed, and the last few under the lock that publishers share. A new state that
//! was derived from a snapshot taken on the way says so ([`Loading::as_of`]), and only what is later is replayed. A log
//! that outgrows its bounds fails the replacement, never a change.
//!
//! # Where old states go
//!
//! A snapshot whose last `Arc` is dropped sends its state through a channel to the reclaimer: in the
//! reader that is a push and at most the wake-up of a thread. The reclaimer is a thread of the cell's own, or one that several cells share
//! ([`Reclaimer::thread`]), or whoever runs a [`Worker`]. It frees one after the other, at once. When readers hold
//! as many old states as [`Config::max_old`] allows, publications are refused, and the refusal names the holder of the
//! oldest, as [`SnapshotCell::alive`] does at any time.
//!
//! # On disk
#![cfg_attr(feature = "persist", doc = "")]
#![cfg_attr(
    feature = "persist",
    doc = "Module [`persist`]: states streamed into files with checksums, and found again"
)]
#![cfg_attr(
    feature = "persist",
    doc = "after a crash. A cell goes on where it was with [`Config::first_epoch`]."
)]
#![cfg_attr(
    not(feature = "persist"),
    doc = "With the feature `persist`: states in files, found again after a crash."
)]
//!
//! # The pieces
//!
//! | piece | what it is |
//! |---|---|
//! | [`SnapshotCell`] | the cell: load, publish, update, change, wait |
//! | [`Snapshot`], [`Held`] | one published state and its epoch; the same under a name |
//! | [`View`], [`Part`] | what a component may see, and one look at it |
//! | [`Changed`] | a wait for a newer epoch, as a future or a thread |
//! | [`Delta`], [`Edit`], [`NoDelta`] | changes that can be replayed; a closure as one; none |
//! | [`Staging`], [`Loading`] | a replacement that has begun; a handle to report, watch and cancel it |
//! | [`Reclaimer`], [`Worker`] | where old states go, and who frees them |
//!
//! # The limits
//!
//! * While a replacement loads there are two states in memory, and as many more as readers hold old ones. Bounds count
//!   states, not bytes: the cell does not know what one weighs.
//! * A change copies the state: for states that are changed often, one that shares what it does not change (`Arc`s of
//!   parts, a persistent map).
//! * One replacement at a time. A loader that is cancelled is asked to stop ([`Loading::check`]); if it does not, its
//!   result is thrown away, and the next one may begin meanwhile.
//! * Publishers take turns with a lock, held for a pointer swap, or for the end of a replay. An update that others
//!   always overtake tries for as long as they do.
//! * A snapshot that outlives its cell *and* the worker that was to free it is not freed.

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
