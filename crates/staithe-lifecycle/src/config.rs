//! The thresholds of a watch.

use std::time::Duration;

/// The thresholds of a watch. What is out of its range is brought into it by [`Config::checked`], which
/// [`Core::new`](crate::Core::new) calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many failures within the window are too many; 3, at least 1.
    pub failures: u32,
    /// Which share of all outcomes within the window they must be, in per cent; 10, at most 100.
    pub share: u32,
    /// How long an outcome counts; 10 s, from 1 ms to an hour. It is counted in steps of at most a 32nd of this.
    pub window: Duration,
    /// How long nothing may fail before what was degraded is healthy again; 5 s. Each relapse within [`Config::relapse`] of
    /// a recovery doubles it, three times at most.
    pub recovery: Duration,
    /// How many successes there must be in that time; 3, at least 1.
    pub successes: u32,
    /// How soon after a recovery a degradation is a relapse; 60 s.
    pub relapse: Duration,
    /// How soon the first probe is asked for when something is degraded, or is so again after a suspicion; 1 s.
    pub first_probe: Duration,
    /// How far apart probes are while it stays degraded; 6 s, at least 1 ms. Those that a recovery still needs may come
    /// sooner.
    pub probe_every: Duration,
    /// How many probes are asked for within any minute for the sake of a recovery; 12, from 1 to 600. Those of a
    /// suspicion count, and are not held up.
    pub probes_a_minute: u32,
    /// How long an answer to a probe may take before it counts as a failure that may pass; 10 s, at least 1 ms.
    pub probe_deadline: Duration,
    /// Over how long probes must agree before anything is condemned, from the first answer to the last; 10 s. For some
    /// verdicts it may be longer: see [`Core::confirming_over`](crate::Core::confirming_over).
    pub confirm_over: Duration,
    /// How many probes must agree; 5, from 2 to 1,000.
    pub confirmations: u32,
    /// How many suspicions may begin within any minute; 6, from 1 to 600. A verdict beyond is held back until the next
    /// one may: it counts as a failure, and becomes a suspicion unless a contrary answer comes first.
    pub suspicions_a_minute: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            failures: 3,
            share: 10,
            window: Duration::from_secs(10),
            recovery: Duration::from_secs(5),
            successes: 3,
            relapse: Duration::from_mins(1),
            first_probe: Duration::from_secs(1),
            probe_every: Duration::from_secs(6),
            probes_a_minute: 12,
            probe_deadline: Duration::from_secs(10),
            confirm_over: Duration::from_secs(10),
            confirmations: 5,
            suspicions_a_minute: 6,
        }
    }
}

/// No time of a configuration is longer: sums of them stay far from what an `Instant` can hold.
const LONGEST: Duration = Duration::from_hours(1);
/// No period is shorter.
const SHORTEST: Duration = Duration::from_millis(1);

impl Config {
    /// The same, with every value in its range. Times are at most an hour.
    #[must_use]
    pub fn checked(self) -> Self {
        let time = |time: Duration| time.min(LONGEST);
        let period = |time: Duration| time.clamp(SHORTEST, LONGEST);
        Self {
            failures: self.failures.max(1),
            share: self.share.min(100),
            window: period(self.window),
            recovery: time(self.recovery),
            successes: self.successes.max(1),
            relapse: time(self.relapse),
            first_probe: time(self.first_probe),
            probe_every: period(self.probe_every),
            probes_a_minute: self.probes_a_minute.clamp(1, 600),
            probe_deadline: period(self.probe_deadline),
            confirm_over: time(self.confirm_over),
            confirmations: self.confirmations.clamp(2, 1_000),
            suspicions_a_minute: self.suspicions_a_minute.clamp(1, 600),
        }
    }

    /// Over how long probes must agree on a verdict for which this is asked.
    pub(crate) fn over(&self, asked: Duration) -> Duration {
        asked.clamp(self.confirm_over, LONGEST)
    }

    /// How far apart the probes of a suspicion are asked for that is to be confirmed over this time: the last one that must
    /// agree is asked for no earlier than that after the first answer. Of a checked configuration.
    pub(crate) fn gap(&self, over: Duration) -> Duration {
        let share = over / self.confirmations;
        // Division rounds down; up would be later, never earlier.
        (share + Duration::from_nanos(1)).max(SHORTEST)
    }

    /// The same for a suspicion whose probes get no answer.
    pub(crate) fn blind_gap(&self, over: Duration) -> Duration {
        self.gap(over).max(self.probe_every)
    }

    /// How far apart probes are that a recovery still needs.
    pub(crate) fn soon(&self) -> Duration {
        (self.recovery / self.successes).clamp(SHORTEST, self.probe_every)
    }
}
