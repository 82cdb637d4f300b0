//! Whether what is watched works: degraded by failures, recovered with hysteresis. Goes on below a suspicion.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::core::window::Window;

/// A relapse doubles the time that a recovery takes, so many times at most.
const DOUBLINGS: u32 = 3;

#[derive(Clone, Debug)]
pub(crate) struct Health {
    pub(crate) window: Window,
    pub(crate) degraded: bool,
    /// The last failure that may pass.
    last_failure: Option<(Instant, Arc<str>)>,
    /// Successes since.
    successes: u64,
    /// When it was last recovered, and how many relapses there were in a row.
    recovered: Option<Instant>,
    relapses: u32,
    pub(crate) silent_since: Option<Instant>,
}

impl Health {
    pub(crate) fn new(window: Window) -> Self {
        Self {
            window,
            degraded: false,
            last_failure: None,
            successes: 0,
            recovered: None,
            relapses: 0,
            silent_since: None,
        }
    }

    /// A success that has something to say; how it is counted in the window is the caller's.
    pub(crate) fn succeeded(&mut self) {
        self.successes = self.successes.saturating_add(1);
        self.silent_since = None;
    }

    /// Nothing has succeeded, whatever else this says.
    pub(crate) fn silent(&mut self, now: Instant) {
        self.silent_since.get_or_insert(now);
    }

    pub(crate) fn failed(&mut self, config: &Config, now: Instant, what: Arc<str>) {
        self.silent(now);
        self.window.failed(now);
        self.last_failure = Some((now, what));
        self.successes = 0;
        if !self.degraded {
            let (failures, outcomes) = self.window.sums(now);
            let share = failures.saturating_mul(100) >= outcomes.saturating_mul(u64::from(config.share));
            if failures >= u64::from(config.failures) && share {
                self.degrade(config, now);
            }
        }
    }

    fn degrade(&mut self, config: &Config, now: Instant) {
        self.degraded = true;
        let relapse = self.recovered.is_some_and(|at| now.saturating_duration_since(at) < config.relapse);
        self.relapses = if relapse { (self.relapses + 1).min(DOUBLINGS) } else { 0 };
    }

    /// When it is recovered if nothing else comes; `None` if it is not degraded, or too little has succeeded.
    pub(crate) fn recovers(&self, config: &Config) -> Option<Instant> {
        let enough = self.degraded && self.successes >= u64::from(config.successes);
        let calm = config.recovery * (1 << self.relapses);
        self.last_failure.as_ref().filter(|_| enough).map(|(at, _)| *at + calm)
    }

    /// Recovers it if it is time: the successes that it took, and the time without a failure. What failed before
    /// counts no more.
    pub(crate) fn recover(&mut self, config: &Config, now: Instant) -> Option<(u64, Duration)> {
        let due = self.recovers(config)?;
        if now < due {
            return None;
        }
        self.degraded = false;
        self.recovered = Some(now);
        self.window.forget(now);
        let (at, _) = self.last_failure.as_ref()?;
        Some((self.successes, now.saturating_duration_since(*at)))
    }

    /// Failures and outcomes in the window, and the text of the last failure.
    pub(crate) fn evidence(&self, now: Instant) -> (u64, u64, Arc<str>) {
        let (failures, outcomes) = self.window.sums(now);
        let last = self.last_failure.as_ref().map_or_else(|| Arc::from(""), |(_, what)| Arc::clone(what));
        (failures, outcomes, last)
    }
}
