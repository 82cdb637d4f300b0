//! The state machine: an observation and the time in, a phase and actions out. No clock, no I/O, no lock.
//!
//! 1. Every move is in the table, [`Phase::next`]; one that is not is not made.
//! 2. [`Health`] goes on whatever the phase, until nothing matters any more: a suspicion that is cleared leads to what
//!    the failures say then.
//! 3. One probe is outstanding at most. It belongs to the suspicion, or to the spell without one, in which it was asked for:
//!    when that ends, so does it, and its answer is ignored.
//! 4. The time never goes back: an earlier `now` counts as the latest that was told.

mod health;
mod pace;
mod probes;
mod suspicion;
#[cfg(test)]
mod tests;
mod verdicts;
pub(crate) mod window;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::event::{Action, Observation, Outcome, ProbeId};
use crate::moves::{Move, Reason};
use crate::phase::Phase;
use crate::status::{Status, Suspected};
use health::Health;
use pace::Pace;
use probes::{Outstanding, Probes};
use suspicion::{Held, Suspicion};
use window::{Scale, Window};

/// The state machine under a [`Watcher`](crate::Watcher). `V` is the caller's verdict: what may be said for good of
/// what is watched.
///
/// Every call takes the time, and does all that is due by then; [`Core::next_tick`] says when something is due next.
/// A call is O(1), and allocates nothing when there is nothing to tell.
#[derive(Clone, Debug)]
pub struct Core<V> {
    config: Config,
    /// Over how long probes must agree on a verdict, at the least.
    over: fn(&V) -> Duration,
    clock: Instant,
    phase: Phase,
    since: Instant,
    reason: Reason<V>,
    moves: u64,
    health: Health,
    probes: Probes,
    suspicion: Option<Suspicion<V>>,
    held: Option<Held<V>>,
    suspicions: Pace,
    verdict: Option<V>,
    actions: Vec<Action<V>>,
}

impl<V: Clone + Eq + fmt::Debug> Core<V> {
    /// A watch that begins now, as [`Phase::Starting`], with [`Config::checked`] of the configuration.
    pub fn new(config: Config, now: Instant) -> Self {
        let config = config.checked();
        Self {
            config,
            over: |_| Duration::ZERO,
            clock: now,
            phase: Phase::Starting,
            since: now,
            reason: Reason::Began,
            moves: 0,
            health: Health::new(Window::new(Scale::new(now, config.window))),
            probes: Probes::new(&config, now),
            suspicion: None,
            held: None,
            suspicions: Pace::new(config.suspicions_a_minute),
            verdict: None,
            actions: Vec::new(),
        }
    }

    /// The same, with verdicts on which probes must agree over a longer time than [`Config::confirm_over`]; an hour at most.
    /// What is shorter is not heard.
    #[must_use]
    pub fn confirming_over(self, over: fn(&V) -> Duration) -> Self {
        Self { over, ..self }
    }

    /// Takes in what was observed, and does what is due.
    pub fn observe(&mut self, observation: Observation<V>, now: Instant) -> Vec<Action<V>> {
        let now = self.advance(now);
        self.expire(now);
        match observation {
            Observation::Ready => self.ready(now),
            Observation::Operation { began, outcome } => self.operation(began, outcome, now),
            Observation::Probe { id, outcome } => {
                if let Some(probe) = self.probes.answered(id) {
                    self.answer(probe, outcome, now);
                }
            }
            Observation::Drain { reason } => self.enter(Phase::Draining, Reason::Asked(reason), now),
            Observation::Exited { reason } => self.exited(reason, now),
        }
        self.settle(now);
        std::mem::take(&mut self.actions)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) -> Vec<Action<V>> {
        let now = self.advance(now);
        self.expire(now);
        self.settle(now);
        std::mem::take(&mut self.actions)
    }

    /// Counts successes of operations that began at this time, for the share of failures. They say nothing else: not
    /// against a suspicion, nor for a recovery. What is older than the window is forgotten.
    ///
    /// A caller that has many, and for whom [`Core::listens`] is false, may tell of them together.
    pub fn count_successes(&mut self, began: Instant, times: u64) {
        let number = self.health.window.scale().bucket(began);
        self.count_bucket(number, times);
    }

    /// Whether the success of an operation would say more than that it happened.
    pub fn listens(&self) -> bool {
        let health = self.health.degraded || self.health.silent_since.is_some();
        !self.is_over() && (health || self.suspicion.is_some() || self.held.is_some())
    }

    /// When something is due that no observation brings: a probe, the end of a wait for one, a recovery. `None` if
    /// nothing is.
    pub fn next_tick(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let probe = match &self.probes.outstanding {
            Some(outstanding) => Some(outstanding.deadline),
            None => self.probe_due().map(|(at, _)| at),
        };
        let held = self.held.as_ref().and_then(|_| self.suspicions.free());
        [probe, held, self.health.recovers(&self.config)].into_iter().flatten().min()
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The verdict that was confirmed: with the move to [`Phase::Condemned`], or while draining.
    pub fn verdict(&self) -> Option<&V> {
        self.verdict.as_ref()
    }

    /// The probe whose answer would be taken in.
    pub fn outstanding(&self) -> Option<ProbeId> {
        self.probes.outstanding.map(|outstanding| outstanding.id)
    }

    /// The thresholds, in their ranges.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// All that there is to know, as of the latest time that was told.
    pub fn status(&self) -> Status<V> {
        let (failures_in_window, outcomes_in_window) = self.health.window.sums(self.clock);
        Status {
            phase: self.phase,
            since: self.since,
            reason: self.reason.clone(),
            moves: self.moves,
            suspected: self.suspicion.as_ref().map(|suspicion| Suspected {
                verdict: suspicion.verdict.clone(),
                since: suspicion.since,
                agreeing: suspicion.agreeing,
                needed: self.config.confirmations,
            }),
            verdict: self.verdict.clone(),
            silent_since: self.health.silent_since,
            failures_in_window,
            outcomes_in_window,
        }
    }

    /// The same, with what counts in the window that ends now.
    pub(crate) fn status_at(&mut self, now: Instant) -> Status<V> {
        self.advance(now);
        self.status()
    }

    pub(crate) fn scale(&self) -> Scale {
        self.health.window.scale()
    }

    pub(crate) fn count_bucket(&mut self, number: u64, times: u64) {
        if !self.is_over() {
            self.health.window.succeeded(number, times);
        }
    }

    /// Whether observations change nothing any more, the asked-for end aside.
    fn is_over(&self) -> bool {
        self.verdict.is_some() || self.phase == Phase::Exited
    }

    fn advance(&mut self, now: Instant) -> Instant {
        self.clock = self.clock.max(now);
        self.clock
    }

    fn enter(&mut self, next: Phase, reason: Reason<V>, now: Instant) {
        if !self.phase.may_become(next) {
            return;
        }
        self.moves += 1;
        let moved = Move { from: self.phase, to: next, reason: reason.clone(), at: now, number: self.moves };
        (self.phase, self.since, self.reason) = (next, now, reason);
        if next == Phase::Degraded {
            self.probes.degraded(&self.config, now);
        }
        self.actions.push(Action::Moved(moved));
    }

    fn ready(&mut self, now: Instant) {
        if self.phase == Phase::Starting {
            let reason = if self.health.degraded { self.failures(now) } else { Reason::Ready };
            self.enter(self.says(), reason, now);
        }
    }

    fn exited(&mut self, reason: Arc<str>, now: Instant) {
        if !self.phase.may_become(Phase::Exited) {
            self.enter(Phase::Draining, Reason::Asked(Arc::clone(&reason)), now);
        }
        self.enter(Phase::Exited, Reason::Ended(reason), now);
        (self.suspicion, self.held, self.probes.outstanding) = (None, None, None);
    }

    fn operation(&mut self, began: Instant, outcome: Outcome<V>, now: Instant) {
        if self.is_over() {
            return;
        }
        match outcome {
            Outcome::Ok => {
                self.succeeded(began.min(now));
                if self.suspicion.as_ref().is_some_and(|suspicion| suspicion.is_before(began)) {
                    self.clear(now);
                }
            }
            Outcome::Transient(what) => self.failed(what, now),
            Outcome::Permanent(verdict, what) => self.told(verdict, what, now),
        }
    }

    fn answer(&mut self, probe: Outstanding, outcome: Outcome<V>, now: Instant) {
        match outcome {
            Outcome::Ok => {
                self.succeeded(probe.asked);
                self.probes.sooner(&self.config, now);
                if probe.fresh {
                    self.clear(now);
                }
            }
            Outcome::Transient(what) => {
                if let Some(suspicion) = &mut self.suspicion {
                    suspicion.unanswered();
                }
                self.failed(what, now);
            }
            Outcome::Permanent(verdict, what) if probe.fresh => self.confirm(verdict, what, now),
            Outcome::Permanent(verdict, what) => self.told(verdict, what, now),
        }
    }

    fn succeeded(&mut self, began: Instant) {
        let number = self.health.window.scale().bucket(began);
        self.count_bucket(number, 1);
        self.health.succeeded();
        self.held.take_if(|held| began > held.at);
    }

    fn failed(&mut self, what: Arc<str>, now: Instant) {
        self.health.failed(&self.config, now, what);
        if self.health.degraded && self.phase == Phase::Healthy {
            let reason = self.failures(now);
            self.enter(Phase::Degraded, reason, now);
        }
    }

    fn failures(&self, now: Instant) -> Reason<V> {
        let (failures, outcomes, last) = self.health.evidence(now);
        Reason::Failures { failures, outcomes, last }
    }

    /// What the failures say.
    fn says(&self) -> Phase {
        if self.health.degraded { Phase::Degraded } else { Phase::Healthy }
    }

    /// A probe whose time is over is a failure.
    fn expire(&mut self, now: Instant) {
        if let Some(probe) = self.probes.overdue(now) {
            let what = format!("a probe was not answered within {:?}", self.config.probe_deadline);
            self.answer(probe, Outcome::transient(what), now);
        }
    }

    /// When the next probe is due, and whether it is for the sake of a suspicion.
    fn probe_due(&self) -> Option<(Instant, bool)> {
        match &self.suspicion {
            Some(suspicion) => Some((suspicion.next, true)),
            None if self.phase == Phase::Degraded => Some((self.probes.recovery_due(), false)),
            None => None,
        }
    }

    /// Does what the time, or what was observed, has made due.
    fn settle(&mut self, now: Instant) {
        if self.is_over() {
            return;
        }
        self.take_up_held(now);
        if let Some((successes, calm)) = self.health.recover(&self.config, now)
            && self.phase == Phase::Degraded
        {
            self.enter(Phase::Healthy, Reason::Recovered { successes, calm }, now);
        }
        let due = self.probe_due().filter(|(at, _)| *at <= now && self.probes.outstanding.is_none());
        if let Some((_, fresh)) = due {
            let id = self.probes.ask(&self.config, now, fresh);
            if let Some(suspicion) = &mut self.suspicion {
                suspicion.asked(&self.config, now);
            }
            self.actions.push(Action::Probe { id, fresh });
        }
    }
}
