//! A versioned prefetch part queue: out-of-order fetchers, one reader, never two versions.
//!
//! # The problem
//!
//! A file is read through a mount in pieces of 128 KiB to 1 MiB; its bytes are in an object store where a
//! request costs 10 to 100 ms whatever its size. To read at the speed of the wire, ranges of many KiB must be asked
//! for early, several at once; they arrive in any order, in chunks; some fail; the reader seeks, several threads
//! read at once, the object is replaced meanwhile, and a thousand other files are open.
//!
//! # The obvious solution, and why it fails
//!
//! A channel from one download task to the reader is in order, so it is as slow as one connection; it cannot
//! seek; when the download fails it can only close, and the next read finds a closed channel with no reason.
//! A channel for each part restores parallelism, and loses the bound on memory, the byte that two hedged
//! requests both deliver, and the rule that one open file shows one version.
//!
//! # What this crate keeps true
//!
//! * **One version.** A [`PartQueue`] is made for one version; a part of another one fails it with
//!   [`ReadError::VersionChanged`], and is never read.
//! * **Total.** Failure is a value. [`QueueState`] goes from streaming through draining (what lies below the
//!   failure is still served) to failed, where every call gets the same error. No order of calls panics.
//! * **Exact.** A read gets the bytes it asked for, fewer only at the end of the object. A sequential read of S
//!   bytes fetches S bytes: none twice, none beyond the end. Random reads fetch what they ask.
//! * **Bounded.** All queues of a process share one [`Budget`]. Read-ahead is refused first; the oldest read of
//!   every queue is always granted, so nobody waits for somebody who waits.
//! * **Zero-copy.** [`ReadSlices`] shares the buffers that the fetchers pushed.
//!
//! It refuses to know what a store or a file is, which runtime runs it, and what time it is.
//!
//! # An example
//!
//! ```
//! use bytes::Bytes;
//! use staithe_parts::{Budget, Fetch, PartQueue, PlannerConfig};
//!
//! # futures::executor::block_on(async {
//! // The store: any task that delivers `fetch.range()` of the right version.
//! let object: Bytes = (0..1_000_000u32).map(|n| n as u8).collect();
//! let store = object.clone();
//! let download = move |fetch: Fetch<&'static str, std::io::ErrorKind>| {
//!     let range = fetch.range();
//!     let body = store.slice(range.start as usize..range.end as usize);
//!     // An error means that nobody wants the bytes any more: stop.
//!     if fetch.push(range.start, &"v1", body).is_ok() {
//!         fetch.done();
//!     }
//! };
//!
//! let budget = Budget::new(64 << 20); // one for the process
//! let queue = PartQueue::new(object.len() as u64, "v1", PlannerConfig::default(), &budget);
//! let slices = queue.read_with(4096, 1000, &download).await?;
//! assert_eq!(slices.into_bytes(), object[4096..5096]);
//! # Ok::<(), staithe_parts::ReadError<&'static str, std::io::ErrorKind>>(())
//! # }).unwrap();
//! ```
//!
//! # The pieces
//!
//! | piece | what it is |
//! |---|---|
//! | [`PartQueue`] | the shell: a lock around the state machine, wakers, the memory account |
//! | [`Fetch`] | a ticket for one range; dropping it returns the range |
//! | [`Planner`] | pure read-ahead policy: sequential, reordered, reverse, strided, several streams |
//! | [`Budget`] | byte permits in one line for all queues |
//! | [`Spans`] | a set of byte ranges |
//!
//! There are two ways to drive a queue. [`PartQueue::read_with`] hands each new fetch to a closure, after every
//! poll. Or a task of its own awaits [`PartQueue::next_fetches`]; reads then use [`PartQueue::read`].
//!
//! # The limits
//!
//! * A failed queue stays failed. Retries belong to the fetch task: it drops the ticket to have the range
//!   planned again, and calls [`Fetch::fail`] only when it has given up.
//! * Memory is charged by the bytes that are wanted. A `Bytes` that is a slice of a larger buffer keeps all of
//!   it alive, and slices that a read returned are the reader's.
//! * A part is released when it is read to its end: push chunks of up to a MiB or so, not whole objects.
//! * There is no clock: deadlines and hedging are the fetch task's. Hedged requests share the ticket in an `Arc`.

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
