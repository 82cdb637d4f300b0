//! Sequences of observations, four bytes each, for the property test and the fuzz target, checked step by step.

use std::time::{Duration, Instant};

use staithe_lifecycle::{Action, Config, Core, Observation, Outcome, Phase, ProbeId};

use super::naive::{self, Naive, Verdict, over};

/// The width of a bucket of the state machine: so the model need not know of buckets.
const UNIT: Duration = Duration::from_nanos(1 << 28);

struct Driver {
    core: Core<Verdict>,
    naive: Naive,
    begun: Instant,
    /// The latest time that was told.
    now: Instant,
    /// Every probe that was ever asked for.
    probes: Vec<ProbeId>,
    verdicts: u32,
}

/// Runs any bytes as a script.
pub(crate) fn run_bytes(bytes: &[u8]) {
    let config = Config {
        failures: 3,
        share: 20,
        window: UNIT * 32,
        recovery: UNIT * 8,
        successes: 2,
        relapse: UNIT * 100,
        first_probe: UNIT * 2,
        probe_every: UNIT * 12,
        probes_a_minute: 9,
        probe_deadline: UNIT * 10,
        confirm_over: UNIT * 12,
        confirmations: 3,
        suspicions_a_minute: 4,
    };
    let begun = Instant::now();
    let mut driver = Driver {
        core: Core::new(config, begun).confirming_over(|verdict: &Verdict| over(*verdict)),
        naive: Naive::new(config, UNIT, begun),
        begun,
        now: begun,
        probes: Vec::new(),
        verdicts: 0,
    };
    for raw in bytes.as_chunks::<4>().0.iter().take(400) {
        driver.step(*raw);
        driver.check();
    }
}

fn outcomes(kind: u8, c: u8) -> (Outcome<Verdict>, naive::Outcome) {
    let verdict = u8::from(c.is_multiple_of(16));
    match kind % 8 {
        0..=2 => (Outcome::Ok, naive::Outcome::Ok),
        3..=4 => (Outcome::transient("reset"), naive::Outcome::Transient),
        _ => (Outcome::permanent(verdict, "404"), naive::Outcome::Permanent(verdict)),
    }
}

impl Driver {
    fn step(&mut self, [kind, a, b, c]: [u8; 4]) {
        // Time passes, and now and then goes back.
        let told = match a {
            250.. => self.now.checked_sub(UNIT * u32::from(b)).unwrap_or(self.now).max(self.begun),
            _ => self.now + UNIT / 4 * u32::from(a % 24),
        };
        self.now = self.now.max(told);
        let now = self.now;
        self.naive.before(now);
        let actions = match kind {
            0..=99 => {
                let began = now.checked_sub(UNIT * u32::from(b % 48)).unwrap_or(now).max(self.begun);
                let began = if b > 250 { now + UNIT } else { began };
                let (outcome, naive) = outcomes(kind, c);
                self.naive.operation(began, naive, now);
                self.core.observe(Observation::Operation { began, outcome }, told)
            }
            100..=219 => self.answer(kind, b, c, told),
            220..=239 => self.core.tick(told),
            240..=246 => {
                self.naive.ready();
                self.core.observe(Observation::Ready, told)
            }
            247..=249 if c < 40 => {
                self.naive.drain();
                self.core.observe(Observation::Drain { reason: "asked".into() }, told)
            }
            250.. if c < 20 => {
                self.naive.exited();
                self.core.observe(Observation::Exited { reason: "ended".into() }, told)
            }
            _ => self.wait(told),
        };
        // A wait has passed more time.
        self.naive.after(self.now);
        self.take(actions);
    }

    /// An answer to the outstanding probe, or to another.
    fn answer(&mut self, kind: u8, b: u8, c: u8, told: Instant) -> Vec<Action<Verdict>> {
        let (outcome, naive) = outcomes(kind, c);
        let outstanding = self.core.outstanding();
        let any = || self.probes.get(usize::from(b) % self.probes.len().max(1)).copied();
        let id = outstanding.filter(|_| b < 250).or_else(any).unwrap_or(ProbeId(u64::from(b)));
        if let Some(probe) = self.naive.probe.take_if(|probe| probe.id == id) {
            self.naive.answer(&probe, naive, self.now);
        }
        self.core.observe(Observation::Probe { id, outcome }, told)
    }

    /// Waits for what is due next.
    fn wait(&mut self, told: Instant) -> Vec<Action<Verdict>> {
        let next = self.core.next_tick().unwrap_or(told).max(self.now);
        let actions = self.core.tick(self.now);
        self.naive.after(self.now);
        self.take(actions);
        self.now = next;
        self.naive.before(next);
        self.core.tick(next)
    }

    fn take(&mut self, actions: Vec<Action<Verdict>>) {
        for action in actions {
            match action {
                Action::Probe { id, fresh } => {
                    self.probes.push(id);
                    self.naive.asked(id, fresh, self.now);
                }
                Action::Moved(moved) => assert!(moved.from.may_become(moved.to), "{moved}"),
                Action::Condemned(verdict) => {
                    self.verdicts += 1;
                    assert_eq!((self.naive.verdict, self.verdicts), (Some(verdict), 1));
                }
            }
        }
    }

    fn check(&self) {
        let (status, naive) = (self.core.status(), &self.naive);
        assert_eq!((status.phase, status.moves), (naive.phase, naive.moves), "{status:?}");
        assert_eq!((&status.verdict, self.verdicts), (&naive.verdict, u32::from(naive.verdict.is_some())));
        let suspected = status.suspected.map(|it| (it.verdict, it.since, it.agreeing));
        assert_eq!(suspected, naive.suspicion.as_ref().map(|it| (it.verdict, it.since, it.agreeing)));
        assert_eq!(self.core.outstanding(), naive.probe.as_ref().map(|probe| probe.id));
        if !naive.is_over() {
            let window = (status.failures_in_window, status.outcomes_in_window);
            assert_eq!(window, naive.window(self.now));
        }
        assert_eq!(status.silent_since, naive.silent_since);
        assert_eq!(self.core.listens(), naive.listens());
        let next = self.core.next_tick();
        assert!(
            next.is_some()
                || naive.is_over()
                || (naive.suspicion.is_none() && naive.phase != Phase::Degraded)
        );
    }
}
