//! What there is to know of a watch at one moment.

use std::time::Instant;

use crate::moves::Reason;
use crate::phase::Phase;

/// A watch at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status<V> {
    /// The phase.
    pub phase: Phase,
    /// Since when.
    pub since: Instant,
    /// Why.
    pub reason: Reason<V>,
    /// How many moves there were.
    pub moves: u64,
    /// What is suspected, if anything.
    pub suspected: Option<Suspected<V>>,
    /// The verdict that was confirmed, while draining too.
    pub verdict: Option<V>,
    /// Since when nothing has succeeded; `None` if the last outcome was a success. Probes count.
    pub silent_since: Option<Instant>,
    /// Failures that may pass, within [`Config::window`](crate::Config::window), and since the last recovery.
    pub failures_in_window: u64,
    /// All outcomes in the same time; verdicts are neither.
    pub outcomes_in_window: u64,
}

/// A suspicion at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspected<V> {
    /// What an answer said.
    pub verdict: V,
    /// When it was first said, with no contrary answer and no other verdict since.
    pub since: Instant,
    /// How many probes agree.
    pub agreeing: u32,
    /// How many must.
    pub needed: u32,
}
