//! The control channel: how a command talks to the daemon of a mount.
//!
//! A running daemon listens on a Unix stream socket beside its registry record. A connection carries one request
//! and the replies to it, each one JSON object on a line:
//!
//! ```text
//! client: {"v":1,"request":{"status":{}}}
//! daemon: {"news":...}          none, one or many; progress is left out for a client that reads slowly
//! daemon: {"done":...}          the last one: the answer
//!     or: {"error":"..."}       the last one: one sentence that says why there is no answer
//! ```
//!
//! Kept true:
//! 1. The request ends when its client hangs up, or closes its sending side: then its handler is dropped.
//! 2. A client can take no more than a line of [`LINE_MAX`](protocol::LINE_MAX) bytes and one of
//!    [`CONNECTIONS_MAX`](server::CONNECTIONS_MAX) places; a silent one loses its place. None waits for another,
//!    no filesystem request waits for any, and neither does the end of the mount.
//! 3. Only the user who runs the daemon can connect (and root): the socket has mode 0600 before it listens.
//!
//! To add a command: a variant of [`Request`], and its arm in `answers`.

mod address;
mod answers;
mod client;
mod lines;
mod protocol;
mod server;

pub(crate) use answers::Served;
pub(crate) use client::{Conversation, ask, understand, wait_for};
pub(crate) use protocol::{
    Change, Counts, Differing, Failed, Health, InForce, JobLine, JobList, Mishap, Paths, Refresh, Refreshed,
    Reload, Reloaded, Reloading, Reply, Request, Requests, Running, Staging, Status, Suspicion, Swap, Synced,
    Syncing, Verify, VerifyNews, Verifying, View, Warm, Warming,
};
pub(crate) use server::Server;
