//! A verdict that was given and is not yet confirmed.
//!
//! 1. Only probes that were asked for after the suspicion began, one at a time, each on a connection of its own, confirm it.
//! 2. One contrary answer ends it; one with another verdict begins it anew. Nothing of it is kept.
//! 3. The probes are so far apart that the last one needed is asked for no earlier than `over` after the first answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;

#[derive(Clone, Debug)]
pub(crate) struct Suspicion<V> {
    pub(crate) verdict: V,
    pub(crate) since: Instant,
    /// Over how long probes must agree.
    over: Duration,
    pub(crate) agreeing: u32,
    /// Probes without an answer that says anything, in a row.
    blind: u32,
    /// When the next probe is asked for.
    pub(crate) next: Instant,
}

/// A verdict that is held back because there were too many suspicions.
#[derive(Clone, Debug)]
pub(crate) struct Held<V> {
    pub(crate) verdict: V,
    pub(crate) what: Arc<str>,
    pub(crate) at: Instant,
}

impl<V: Clone + Eq> Suspicion<V> {
    pub(crate) fn new(config: &Config, now: Instant, verdict: V, over: Duration) -> Self {
        Self { verdict, since: now, over, agreeing: 0, blind: 0, next: now + config.gap(over) }
    }

    /// A probe is asked for now.
    pub(crate) fn asked(&mut self, config: &Config, now: Instant) {
        // One that gets no answer for long is asked less often: an outage may last.
        let is_blind = self.blind >= config.confirmations;
        let gap = if is_blind { config.blind_gap(self.over) } else { config.gap(self.over) };
        self.next = now + gap;
    }

    pub(crate) fn unanswered(&mut self) {
        self.blind = self.blind.saturating_add(1);
    }

    /// A probe agrees: for how long all of them have, if that is enough.
    pub(crate) fn agreed(&mut self, config: &Config, now: Instant) -> Option<Duration> {
        self.agreeing = self.agreeing.saturating_add(1);
        self.blind = 0;
        let over = now.saturating_duration_since(self.since);
        (self.agreeing >= config.confirmations && over >= self.over).then_some(over)
    }

    /// Whether what began then is evidence about it.
    pub(crate) fn is_before(&self, began: Instant) -> bool {
        began > self.since
    }
}
