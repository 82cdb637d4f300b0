//! How long an answer holds: time to live, deadline, and the tick in which the cache stores a deadline.

use std::time::{Duration, Instant};

/// How long an answer may be used, counted from when it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// For this long. Zero is [`Ttl::None`].
    For(Duration),
    /// Until it is changed, forgotten or evicted.
    Forever,
    /// Not at all: the answer goes to whoever asked and is not kept.
    None,
}

impl Ttl {
    /// The deadline of an answer that was asked for at `asked`.
    ///
    /// Count from the moment of the question, not of the answer: the store looked at its state at some time in
    /// between, and only the earlier end bounds the age of what it said.
    #[must_use]
    pub fn deadline(self, asked: Instant) -> Deadline {
        match self {
            Ttl::None | Ttl::For(Duration::ZERO) => Deadline::Passed,
            Ttl::Forever => Deadline::Never,
            Ttl::For(ttl) => asked.checked_add(ttl).map_or(Deadline::Never, Deadline::At),
        }
    }

    /// As a duration; [`Ttl::Forever`] is `Duration::MAX`, [`Ttl::None`] is zero.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        match self {
            Ttl::For(ttl) => ttl,
            Ttl::Forever => Duration::MAX,
            Ttl::None => Duration::ZERO,
        }
    }
}

/// When an answer stops being one. An answer holds while `now` is before its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// It has passed already: nothing is kept.
    Passed,
    /// At this instant, to the nanosecond. An instant before the cache's epoch has passed.
    At(Instant),
    /// It never comes.
    Never,
}

/// Nanoseconds since the cache's epoch: half the size of an `Instant`. 0 has always passed, `u64::MAX` never comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u64);

impl Tick {
    pub(crate) const PASSED: Tick = Tick(0);
    pub(crate) const NEVER: Tick = Tick(u64::MAX);

    /// What is left of a deadline at `now`; `None` once it has passed.
    pub(crate) fn remaining(self, now: Tick) -> Option<Ttl> {
        if self.0 <= now.0 {
            None
        } else if self == Tick::NEVER {
            Some(Ttl::Forever)
        } else {
            Some(Ttl::For(Duration::from_nanos(self.0 - now.0)))
        }
    }

    pub(crate) fn is_past(self, now: Tick) -> bool {
        self.0 <= now.0
    }
}

/// The instant from which ticks count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch(pub(crate) Instant);

impl Epoch {
    /// Saturates: before the epoch is 0, after 584 years is the last tick before never.
    pub(crate) fn tick(self, at: Instant) -> Tick {
        let since = at.saturating_duration_since(self.0);
        let nanos =
            since.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(since.subsec_nanos()));
        Tick(nanos.min(u64::MAX - 1))
    }

    pub(crate) fn deadline(self, deadline: Deadline) -> Tick {
        match deadline {
            Deadline::Passed => Tick::PASSED,
            Deadline::At(at) => self.tick(at),
            Deadline::Never => Tick::NEVER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_holds_until_its_instant_and_not_at_it() {
        let start = Instant::now();
        let epoch = Epoch(start);
        let end = epoch.deadline(Ttl::For(Duration::from_secs(1)).deadline(start));
        assert_eq!(end.remaining(epoch.tick(start)), Some(Ttl::For(Duration::from_secs(1))));
        assert_eq!(end.remaining(epoch.tick(start + Duration::from_secs(1))), None);
    }

    #[test]
    fn the_ends_of_time_are_kept_apart() {
        let start = Instant::now();
        let epoch = Epoch(start);
        let far = start.checked_add(Duration::from_secs(1 << 40)).map_or(start, |far| far);
        assert_eq!(epoch.deadline(Deadline::Never).remaining(epoch.tick(far)), Some(Ttl::Forever));
        assert!(epoch.deadline(Ttl::None.deadline(start)).is_past(Tick(0)));
        assert_eq!(Ttl::For(Duration::MAX).deadline(start), Deadline::Never);
        assert!(Deadline::Passed < Deadline::At(start) && Deadline::At(start) < Deadline::Never);
    }
}
