//! A volume's life by seed: outages, brown-outs, servers that lie, slow answers, clocks that jump, deletions.
//!
//! What must hold: nothing that lives is condemned, whatever lies there are but `k` agreeing probes in a row; what is
//! deleted is condemned in time; probes and moves a minute are bounded; what is calm becomes healthy.
//!
//! `SIMULATION_SEEDS=100000 cargo test --release -p staithe-lifecycle --test simulation`

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod world;

use std::collections::BTreeMap;
use std::time::Instant;

use staithe_lifecycle::{Action, Config, Core, Observation, Outcome, Phase, ProbeId};
use world::{SECOND, Time, Verdict, World, duration};

/// Unless the environment says more: some seconds of a debug build.
const SEEDS: u64 = if cfg!(debug_assertions) { 200 } else { 5_000 };

#[derive(Clone, Copy, Debug)]
enum Event {
    Begin,
    Ends(Time),
    Probed(ProbeId, Time),
    Tick,
    Drain,
    Ready,
}

struct Life {
    world: World,
    core: Core<Verdict>,
    begun: Instant,
    now: Time,
    /// How far the clock is ahead of the world: it jumps when a machine sleeps.
    ahead: Time,
    events: BTreeMap<(Time, u64), Event>,
    next: u64,
    /// By the clock.
    probes: Vec<(Time, bool)>,
    moves: Vec<(Time, Phase)>,
    condemned: Option<Time>,
    /// After the deletion a verdict was held back for a while, because there had been too many suspicions.
    held_up: bool,
    /// The latest time that the core was told, by the clock.
    told: Time,
}

/// What lives have had at most.
#[derive(Debug, Default)]
struct Most {
    deletions: u32,
    /// From when it could be known for good to the verdict, with and without a suspicion that was held back.
    condemned: Time,
    condemned_held: Time,
    probes: usize,
    moves: usize,
}

impl Life {
    fn new(seed: u64) -> Self {
        let world = World::new(seed);
        let begun = Instant::now();
        let core = Core::new(Config::default(), begun);
        let mut life = Self {
            world,
            core,
            begun,
            now: 0,
            ahead: 0,
            events: BTreeMap::new(),
            next: 0,
            probes: Vec::new(),
            moves: Vec::new(),
            condemned: None,
            held_up: false,
            told: 0,
        };
        let ready = life.world.random.u64(..5 * SECOND);
        life.at(ready, Event::Ready);
        life.at(0, Event::Begin);
        if let Some(drained) = life.world.drained {
            life.at(drained, Event::Drain);
        }
        life
    }

    fn at(&mut self, time: Time, event: Event) {
        self.next += 1;
        self.events.insert((time.max(self.now), self.next), event);
    }

    fn clock(&self, time: Time) -> Instant {
        self.begun + duration(time + self.ahead)
    }

    fn run(mut self) -> Self {
        while let Some(((time, _), event)) = self.events.pop_first() {
            if time > self.world.end {
                break;
            }
            self.now = time;
            if self.world.random.u32(..2_000) == 0 {
                self.ahead += self.world.random.u64(..3600 * SECOND);
            }
            self.event(event);
        }
        self
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Begin => {
                let ends = self.now + self.world.latency(self.now);
                self.at(ends, Event::Ends(self.now));
                let next = self.world.next_operation(self.now);
                self.at(next, Event::Begin);
            }
            Event::Ends(began) => {
                let outcome = self.world.outcome(began, self.now, true);
                let began = self.clock(began);
                self.observe(Observation::Operation { began, outcome });
            }
            Event::Probed(id, began) => {
                // Wrong answers agree as often as they can without being what is promised never to be.
                let agreeing = self.core.status().suspected.map_or(0, |suspected| suspected.agreeing);
                let outcome =
                    self.world.outcome(began, self.now, agreeing + 1 < Config::default().confirmations);
                self.observe(Observation::Probe { id, outcome });
            }
            Event::Tick => {
                self.told = self.told.max(self.now + self.ahead);
                let actions = self.core.tick(self.clock(self.now));
                self.take(actions);
            }
            Event::Drain => self.observe(Observation::Drain { reason: "SIGTERM".into() }),
            Event::Ready => self.observe(Observation::Ready),
        }
    }

    fn observe(&mut self, observation: Observation<Verdict>) {
        // Reports race: one may come with an earlier time than the last.
        let late = if self.world.random.u32(..20) == 0 { self.world.random.u64(..SECOND) } else { 0 };
        let time = self.now.saturating_sub(late);
        self.told = self.told.max(time + self.ahead);
        let now = self.clock(time);
        let actions = self.core.observe(observation, now);
        self.take(actions);
    }

    fn take(&mut self, actions: Vec<Action<Verdict>>) {
        let clock = self.told;
        for action in actions {
            match action {
                Action::Probe { id, fresh } => {
                    self.probes.push((clock, fresh));
                    let ends = self.now + self.world.latency(self.now);
                    self.at(ends, Event::Probed(id, self.now));
                }
                Action::Moved(moved) => {
                    assert!(moved.from.may_become(moved.to), "{moved}");
                    self.moves.push((clock, moved.to));
                }
                Action::Condemned(verdict) => {
                    assert!(self.world.deleted.is_some_and(|at| at <= self.now), "condemned, and it lives");
                    assert_eq!((verdict, self.condemned), (Verdict::Gone, None));
                    self.condemned = Some(self.now);
                }
            }
        }
        let calm = self.now >= self.world.calm_from && self.world.deleted.is_some_and(|at| at <= self.now);
        self.held_up |= calm && self.core.listens() && self.core.status().suspected.is_none();
        if let Some(next) = self.core.next_tick() {
            let due = next.saturating_duration_since(self.clock(0)).as_micros() as Time + 1;
            let late = if self.world.random.u32(..10) == 0 { self.world.random.u64(..SECOND / 2) } else { 0 };
            // Those that are due already are ticked once more.
            if !matches!(self.events.first_key_value(), Some(((at, _), Event::Tick)) if *at <= due) {
                self.at(due + late, Event::Tick);
            }
        }
    }

    /// The most of these times in any minute.
    fn a_minute(times: &[Time]) -> usize {
        let count =
            |(n, from): (usize, &Time)| times[n..].iter().take_while(|at| **at < from + 60 * SECOND).count();
        times.iter().enumerate().map(count).max().unwrap_or(0)
    }

    fn check(&self, most: &mut Most) {
        let probes: Vec<Time> = self.probes.iter().map(|(at, _)| *at).collect();
        let fresh: Vec<Time> = self.probes.iter().filter(|(_, fresh)| *fresh).map(|(at, _)| *at).collect();
        for (n, (at, fresh)) in self.probes.iter().enumerate() {
            let before = probes[..=n].iter().filter(|before| **before + 60 * SECOND > *at).count();
            assert!(*fresh || before <= 12, "{before} probes in a minute for a recovery");
        }
        assert!(fresh.windows(2).all(|two| two[1] - two[0] >= 2 * SECOND), "probes of suspicions too close");
        most.probes = most.probes.max(Self::a_minute(&probes));
        let moves: Vec<Time> = self.moves.iter().map(|(at, _)| *at).collect();
        most.moves = most.moves.max(Self::a_minute(&moves));
        assert!(Self::a_minute(&moves) <= 24, "it flaps: {:?}", self.moves);
        if let Some(deleted) = self.world.deleted {
            self.check_deletion(deleted, most);
        } else {
            assert_eq!(self.core.verdict(), None);
            let phase = if self.world.drained.is_some() { Phase::Draining } else { Phase::Healthy };
            assert_eq!(self.core.phase(), phase, "after four calm minutes");
        }
    }

    /// It is condemned in time, from when nothing stood against it.
    fn check_deletion(&self, deleted: Time, most: &mut Most) {
        let known = self.world.calm_from.max(deleted + 2 * SECOND);
        let took = self.condemned.expect("a deletion was missed").saturating_sub(known);
        let confirm = Config::default().confirm_over.as_micros() as Time;
        let within = if self.held_up { 85 } else { 25 };
        assert!(took <= confirm + within * SECOND, "condemned after {} s", took / SECOND);
        let figure = if self.held_up { &mut most.condemned_held } else { &mut most.condemned };
        *figure = (*figure).max(took);
        most.deletions += 1;
        let last = if self.world.drained.is_some() { Phase::Draining } else { Phase::Condemned };
        assert_eq!(self.core.phase(), last);
    }
}

#[test]
fn nothing_that_lives_is_condemned_and_no_deletion_is_missed() {
    let seeds = std::env::var("SIMULATION_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS);
    let mut most = Most::default();
    for seed in 0..seeds {
        let checked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Life::new(seed).run().check(&mut most)));
        assert!(checked.is_ok(), "seed {seed}");
    }
    println!("{seeds} seeds, at most: {most:?}");
}

#[test]
fn the_same_seed_gives_the_same_life() {
    for seed in 0..20 {
        let (first, second) = (Life::new(seed).run(), Life::new(seed).run());
        assert_eq!((&first.moves, &first.probes), (&second.moves, &second.probes));
    }
    assert_ne!(Life::new(1).run().moves, Life::new(2).run().moves);
    // The outcome's text is not looked at.
    assert_ne!(Outcome::<Verdict>::transient("a"), Outcome::transient("b"));
}
