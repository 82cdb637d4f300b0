//! What the state machine should do, said as plainly as possible: lists of everything that happened, and walks over
//! them.

use std::time::{Duration, Instant};

use staithe_lifecycle::{Config, Phase, ProbeId};

pub(crate) type Verdict = u8;

const MINUTE: Duration = Duration::from_mins(1);

/// Over how long probes must agree on a verdict, at the least: odd ones need longer.
pub(crate) fn over(verdict: Verdict) -> Duration {
    Duration::from_secs(6) * u32::from(verdict % 2)
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    Ok,
    Transient,
    Permanent(Verdict),
}

#[derive(Debug)]
pub(crate) struct Suspicion {
    pub(crate) verdict: Verdict,
    pub(crate) since: Instant,
    pub(crate) agreeing: u32,
}

#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) id: ProbeId,
    pub(crate) fresh: bool,
    pub(crate) asked: Instant,
}

#[derive(Debug)]
pub(crate) struct Naive {
    config: Config,
    begun: Instant,
    unit: Duration,
    pub(crate) phase: Phase,
    pub(crate) moves: u64,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) suspicion: Option<Suspicion>,
    held: Option<(Verdict, Instant)>,
    suspicions: Vec<Instant>,
    pub(crate) probe: Option<Probe>,
    /// Every probe that was asked for.
    probes: Vec<(Instant, bool)>,
    /// The unit of time of each outcome since the last recovery, and whether it was a failure.
    outcomes: Vec<(u128, bool)>,
    floor: u128,
    degraded: bool,
    last_failure: Option<Instant>,
    successes: u64,
    recoveries: Vec<Instant>,
    relapses: u32,
    pub(crate) silent_since: Option<Instant>,
}

impl Naive {
    /// A model of windows that are so many units of time long.
    pub(crate) fn new(config: Config, unit: Duration, begun: Instant) -> Self {
        Self {
            config,
            begun,
            unit,
            phase: Phase::Starting,
            moves: 0,
            verdict: None,
            suspicion: None,
            held: None,
            suspicions: Vec::new(),
            probe: None,
            probes: Vec::new(),
            outcomes: Vec::new(),
            floor: 0,
            degraded: false,
            last_failure: None,
            successes: 0,
            recoveries: Vec::new(),
            relapses: 0,
            silent_since: None,
        }
    }

    fn unit(&self, at: Instant) -> u128 {
        at.saturating_duration_since(self.begun).as_nanos() / self.unit.as_nanos()
    }

    /// Failures and outcomes in the window.
    pub(crate) fn window(&self, now: Instant) -> (u64, u64) {
        let units = self.config.window.as_nanos() / self.unit.as_nanos();
        let last = self.unit(now);
        let within: Vec<_> =
            self.outcomes.iter().filter(|(at, _)| *at + units > last && *at >= self.floor).collect();
        (within.iter().filter(|(_, failed)| *failed).count() as u64, within.len() as u64)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.verdict.is_some() || self.phase == Phase::Exited
    }

    pub(crate) fn listens(&self) -> bool {
        let anything =
            self.degraded || self.silent_since.is_some() || self.suspicion.is_some() || self.held.is_some();
        !self.is_over() && anything
    }

    fn enter(&mut self, phase: Phase) {
        if self.phase.may_become(phase) {
            self.phase = phase;
            self.moves += 1;
        }
    }

    fn says(&self) -> Phase {
        if self.degraded { Phase::Degraded } else { Phase::Healthy }
    }

    pub(crate) fn before(&mut self, now: Instant) {
        if let Some(probe) = self.probe.take_if(|probe| probe.asked + self.config.probe_deadline <= now) {
            self.answer(&probe, Outcome::Transient, now);
        }
    }

    pub(crate) fn after(&mut self, now: Instant) {
        if self.is_over() {
            return;
        }
        if let (None, Some((verdict, _))) = (&self.suspicion, self.held)
            && self.may_suspect(now)
        {
            self.suspect(verdict, now);
        }
        if self.recovers(now) && self.phase == Phase::Degraded {
            self.enter(Phase::Healthy);
        }
    }

    fn recovers(&mut self, now: Instant) -> bool {
        let calm = self.config.recovery * 2_u32.pow(self.relapses);
        let recovers = self.degraded
            && self.successes >= u64::from(self.config.successes)
            && self.last_failure.is_some_and(|at| now.saturating_duration_since(at) >= calm);
        if recovers {
            self.degraded = false;
            self.recoveries.push(now);
            self.outcomes.clear();
            self.floor = self.unit(now);
        }
        recovers
    }

    pub(crate) fn ready(&mut self) {
        if self.phase == Phase::Starting {
            self.enter(self.says());
        }
    }

    pub(crate) fn drain(&mut self) {
        self.enter(Phase::Draining);
    }

    pub(crate) fn exited(&mut self) {
        if !self.phase.may_become(Phase::Exited) {
            self.enter(Phase::Draining);
        }
        self.enter(Phase::Exited);
        (self.suspicion, self.held, self.probe) = (None, None, None);
    }

    pub(crate) fn operation(&mut self, began: Instant, outcome: Outcome, now: Instant) {
        if self.is_over() {
            return;
        }
        match outcome {
            Outcome::Ok => {
                self.succeeded(began.min(now));
                if self.suspicion.as_ref().is_some_and(|suspicion| began > suspicion.since) {
                    self.clear(now);
                }
            }
            Outcome::Transient => self.failed(now),
            Outcome::Permanent(verdict) => self.told(verdict, now),
        }
    }

    pub(crate) fn answer(&mut self, probe: &Probe, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Ok => {
                self.succeeded(probe.asked);
                if probe.fresh {
                    self.clear(now);
                }
            }
            Outcome::Transient => self.failed(now),
            Outcome::Permanent(verdict) => match &mut self.suspicion {
                Some(suspicion) if probe.fresh && suspicion.verdict == verdict => {
                    suspicion.agreeing += 1;
                    let over = now.saturating_duration_since(suspicion.since);
                    let confirmed = suspicion.agreeing >= self.config.confirmations
                        && over >= self.config.confirm_over.max(self::over(verdict));
                    self.silent_since.get_or_insert(now);
                    if confirmed {
                        self.enter(Phase::Condemned);
                        self.verdict = Some(verdict);
                        (self.suspicion, self.held, self.probe) = (None, None, None);
                    }
                }
                _ => self.told(verdict, now),
            },
        }
    }

    fn succeeded(&mut self, began: Instant) {
        let unit = self.unit(began);
        if unit >= self.floor {
            self.outcomes.push((unit, false));
        }
        self.successes += 1;
        self.silent_since = None;
        self.held.take_if(|(_, at)| began > *at);
    }

    fn failed(&mut self, now: Instant) {
        self.silent_since.get_or_insert(now);
        self.outcomes.push((self.unit(now), true));
        self.last_failure = Some(now);
        self.successes = 0;
        let (failures, outcomes) = self.window(now);
        let many = failures >= u64::from(self.config.failures);
        if !self.degraded && many && failures * 100 >= outcomes * u64::from(self.config.share) {
            self.degraded = true;
            let relapse = |at: &Instant| now.saturating_duration_since(*at) < self.config.relapse;
            self.relapses =
                if self.recoveries.last().is_some_and(relapse) { (self.relapses + 1).min(3) } else { 0 };
        }
        if self.degraded && self.phase == Phase::Healthy {
            self.enter(Phase::Degraded);
        }
    }

    fn told(&mut self, verdict: Verdict, now: Instant) {
        self.silent_since.get_or_insert(now);
        match &self.suspicion {
            Some(suspicion) if suspicion.verdict == verdict => {}
            Some(_) => {
                self.suspicion = Some(Suspicion { verdict, since: now, agreeing: 0 });
                self.probe = None;
            }
            None if self.may_suspect(now) => self.suspect(verdict, now),
            None => {
                self.failed(now);
                if self.held.is_none_or(|(held, _)| held != verdict) {
                    self.held = Some((verdict, now));
                }
            }
        }
    }

    fn may_suspect(&self, now: Instant) -> bool {
        let lately = self.suspicions.iter().filter(|at| now.saturating_duration_since(**at) < MINUTE).count();
        lately < self.config.suspicions_a_minute as usize
    }

    fn suspect(&mut self, verdict: Verdict, now: Instant) {
        self.suspicions.push(now);
        self.suspicion = Some(Suspicion { verdict, since: now, agreeing: 0 });
        (self.held, self.probe) = (None, None);
        if self.phase < Phase::Suspect {
            self.enter(Phase::Suspect);
        }
    }

    fn clear(&mut self, now: Instant) {
        if self.suspicion.take().is_some() {
            self.probe = None;
            self.recovers(now);
            if self.phase == Phase::Suspect {
                self.enter(self.says());
            }
        }
    }

    /// A probe is asked for: whether it may be.
    pub(crate) fn asked(&mut self, id: ProbeId, fresh: bool, now: Instant) {
        assert!(self.probe.is_none(), "one is outstanding");
        assert!(!self.is_over());
        assert_eq!(fresh, self.suspicion.is_some());
        assert!(fresh || self.phase == Phase::Degraded);
        let config = &self.config;
        if let Some(suspicion) = &self.suspicion {
            let gap = config.confirm_over.max(over(suspicion.verdict)) / config.confirmations;
            let last = self.probes.iter().rev().find(|(_, fresh)| *fresh).map(|(at, _)| *at);
            assert!(last.is_none_or(|last| now >= last + gap) && now >= suspicion.since + gap);
        } else {
            let lately = |at: &Instant| now.saturating_duration_since(*at) < MINUTE;
            let count = self.probes.iter().filter(|(at, _)| lately(at)).count();
            assert!(count < config.probes_a_minute as usize, "too many in this minute");
        }
        self.probes.push((now, fresh));
        self.probe = Some(Probe { id, fresh, asked: now });
    }
}
