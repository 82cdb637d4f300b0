//! A state machine under test, and its clock.

use std::time::{Duration, Instant};

use super::Verdict::{self, Gone};
use crate::core::Core;
use crate::{Action, Config, Observation, Outcome, Phase, ProbeId};

/// A core and its clock, in seconds since it began.
pub(super) struct Watch {
    pub(super) core: Core<Verdict>,
    begun: Instant,
    /// All moves so far, and all verdicts.
    pub(super) moves: Vec<Phase>,
    pub(super) condemned: Vec<Verdict>,
    /// Probes that were asked for, with their times.
    pub(super) probes: Vec<(f64, ProbeId, bool)>,
    now: f64,
}

impl Watch {
    pub(super) fn new(config: Config) -> Self {
        Self::of(Core::new(config, Instant::now()))
    }

    /// Of a core that has begun just now.
    pub(super) fn of(core: Core<Verdict>) -> Self {
        let begun = core.clock;
        Self { core, begun, moves: vec![], condemned: vec![], probes: vec![], now: 0.0 }
    }

    pub(super) fn healthy() -> Self {
        let mut watch = Self::new(Config::default());
        watch.observe(0.0, Observation::Ready);
        watch
    }

    pub(super) fn at(&self, seconds: f64) -> Instant {
        self.begun + Duration::from_secs_f64(seconds)
    }

    fn take(&mut self, actions: Vec<Action<Verdict>>) {
        for action in actions {
            match action {
                Action::Probe { id, fresh } => self.probes.push((self.now, id, fresh)),
                Action::Moved(moved) => {
                    assert!(moved.from.may_become(moved.to), "{moved}");
                    self.moves.push(moved.to);
                    assert_eq!(moved.number, self.moves.len() as u64);
                }
                Action::Condemned(verdict) => self.condemned.push(verdict),
            }
        }
    }

    pub(super) fn observe(&mut self, now: f64, observation: Observation<Verdict>) -> Phase {
        self.now = now;
        let actions = self.core.observe(observation, self.at(now));
        self.take(actions);
        self.core.phase()
    }

    /// An operation that began and ended now.
    pub(super) fn operation(&mut self, now: f64, outcome: Outcome<Verdict>) -> Phase {
        let began = self.at(now);
        self.observe(now, Observation::Operation { began, outcome })
    }

    pub(super) fn ok(&mut self, now: f64) -> Phase {
        self.operation(now, Outcome::Ok)
    }

    pub(super) fn fail(&mut self, now: f64) -> Phase {
        self.operation(now, Outcome::transient("reset"))
    }

    pub(super) fn told(&mut self, now: f64, verdict: Verdict) -> Phase {
        self.operation(now, Outcome::permanent(verdict, "404"))
    }

    pub(super) fn tick(&mut self, now: f64) -> Phase {
        self.now = now;
        let actions = self.core.tick(self.at(now));
        self.take(actions);
        self.core.phase()
    }

    /// Answers the outstanding probe.
    pub(super) fn answer(&mut self, now: f64, outcome: Outcome<Verdict>) -> Phase {
        let id = self.core.outstanding().expect("one is outstanding");
        self.observe(now, Observation::Probe { id, outcome })
    }

    /// Lets the time pass until then, answering each probe at once.
    pub(super) fn answering(&mut self, until: f64, outcome: &Outcome<Verdict>) {
        while let Some(at) = self.core.next_tick() {
            let at = at.saturating_duration_since(self.begun).as_secs_f64().max(self.now) + 1e-6;
            if at > until {
                break;
            }
            self.tick(at);
            if self.core.outstanding().is_some() {
                self.answer(at, outcome.clone());
            }
        }
        self.tick(until);
    }

    pub(super) fn gone() -> Outcome<Verdict> {
        Outcome::permanent(Gone, "404")
    }
}
