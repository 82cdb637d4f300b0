//! A volume behind several servers, the network before them, and what a seed makes of both.

use std::time::Duration;

use fastrand::Rng;
use staithe_lifecycle::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Gone,
    Refused,
}

/// Microseconds since the world began.
pub(crate) type Time = u64;

pub(crate) const SECOND: Time = 1_000_000;

/// What the network and the servers are like for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Calm,
    /// Nothing gets through.
    Outage,
    /// This many of a hundred fail.
    BrownOut(u32),
    /// This many of a hundred answers are wrong verdicts.
    Lies(u32, Verdict),
    /// Answers take up to 20 s.
    Slow,
}

pub(crate) struct World {
    pub(crate) random: Rng,
    weather: Vec<(Time, Weather)>,
    /// When it is deleted, if it is.
    pub(crate) deleted: Option<Time>,
    /// When operations are asked to end it, if they are.
    pub(crate) drained: Option<Time>,
    /// From here on the weather is calm.
    pub(crate) calm_from: Time,
    pub(crate) end: Time,
    /// Operations are this far apart, on average.
    pub(crate) pace: Time,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut weather = Vec::new();
        let mut now = 0;
        for _ in 0..random.u32(1..8) {
            weather.push((now, Self::weather(&mut random)));
            now += random.u64(SECOND..90 * SECOND);
        }
        weather.push((now, Weather::Calm));
        let deleted = random.bool().then(|| random.u64(0..now + 60 * SECOND));
        let drained = (random.u32(..8) == 0).then(|| random.u64(0..now + 120 * SECOND));
        let pace = [SECOND / 10, SECOND, 4 * SECOND, 30 * SECOND][random.usize(..4)];
        let end = now.max(deleted.unwrap_or(0)) + 240 * SECOND;
        Self { random, weather, deleted, drained, calm_from: now, end, pace }
    }

    fn weather(random: &mut Rng) -> Weather {
        match random.u32(..8) {
            0..=1 => Weather::Calm,
            2 => Weather::Outage,
            3 => Weather::BrownOut(random.u32(5..60)),
            4 => Weather::Slow,
            5 => Weather::Lies(random.u32(1..100), Verdict::Refused),
            _ => Weather::Lies(random.u32(1..=100), Verdict::Gone),
        }
    }

    fn now(&self, at: Time) -> Weather {
        let begun = self.weather.partition_point(|(from, _)| *from <= at);
        self.weather[begun.max(1) - 1].1
    }

    /// When the next operation begins. A deleted volume is not left alone.
    pub(crate) fn next_operation(&mut self, now: Time) -> Time {
        let pace = if self.deleted.is_some_and(|at| at <= now + self.pace) {
            self.pace.min(5 * SECOND)
        } else {
            self.pace
        };
        now + self.random.u64(1..=pace)
    }

    /// How long an answer takes.
    pub(crate) fn latency(&mut self, now: Time) -> Time {
        let most = if self.now(now) == Weather::Slow { 20 * SECOND } else { SECOND / 2 };
        self.random.u64(1_000..most)
    }

    /// The answer to what began and ends then. `may_lie`: whether one more wrong verdict is within what is promised.
    pub(crate) fn outcome(&mut self, began: Time, ends: Time, may_lie: bool) -> Outcome<Verdict> {
        let at = self.random.u64(began..=ends);
        let dice = self.random.u32(..100);
        // For two seconds some servers do not know of the deletion.
        let deleted = self.deleted.is_some_and(|from| at >= from && (dice < 50 || at >= from + 2 * SECOND));
        let truth = if deleted { Outcome::permanent(Verdict::Gone, "no such volume") } else { Outcome::Ok };
        match self.now(at) {
            Weather::Outage => Outcome::transient("unreachable"),
            Weather::BrownOut(share) if dice < share => Outcome::transient("503"),
            Weather::Lies(share, verdict) if dice < share && may_lie && !deleted => {
                Outcome::permanent(verdict, "a server that is wrong")
            }
            _ => truth,
        }
    }
}

pub(crate) fn duration(time: Time) -> Duration {
    Duration::from_micros(time)
}
