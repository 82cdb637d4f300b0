//! When to try again: exponential backoff with full jitter.
//!
//! From Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).

use std::time::Duration;

use crate::error::{Class, Failure};

/// How failures of one class are retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first wait; it doubles with every further failure.
    pub base: Duration,
    /// The bound of every wait.
    pub cap: Duration,
    /// How many failures in a row the job survives; `None` is any number, for whoever rides out an outage.
    pub retries: Option<u32>,
}

/// How failures are retried, by class. A permanent one is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// For [`Class::Transient`]: up to 200 ms, then doubling to 30 s, for ever.
    pub transient: Backoff,
    /// For [`Class::Throttled`]: up to 1 s, then doubling to 60 s, for ever.
    pub throttled: Backoff,
    /// The longest `retry_after` that is believed; 10 minutes.
    pub longest: Duration,
    /// Where the jitter begins. The same seed and the same events give the same waits.
    pub seed: u64,
}

impl Default for Retry {
    fn default() -> Self {
        let backoff = |base, cap| Backoff { base, cap, retries: None };
        Self {
            transient: backoff(Duration::from_millis(200), Duration::from_secs(30)),
            throttled: backoff(Duration::from_secs(1), Duration::from_mins(1)),
            longest: Duration::from_mins(10),
            seed: 0x5EED,
        }
    }
}

/// The waits between attempts.
#[derive(Debug)]
pub(crate) struct Waits {
    retry: Retry,
    state: u64,
}

impl Waits {
    pub(crate) fn new(retry: Retry) -> Self {
        Self { retry, state: retry.seed }
    }

    /// How long to wait after the `failures`th failure in a row, counted from 1; `None` if it was the last one.
    pub(crate) fn after(&mut self, failures: u32, failure: &Failure) -> Option<Duration> {
        let backoff = match failure.class() {
            Class::Transient => self.retry.transient,
            Class::Throttled => self.retry.throttled,
            Class::Permanent => return None,
        };
        if backoff.retries.is_some_and(|most| failures > most) {
            return None;
        }
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        let bound = backoff.base.saturating_mul(doubled).min(backoff.cap);
        let asked = failure.wait().unwrap_or_default().min(self.retry.longest);
        Some(asked + self.jitter(bound))
    }

    /// Uniform in `0..=bound` (`SplitMix64`: Steele, Lea, Flood, OOPSLA 2014).
    fn jitter(&mut self, bound: Duration) -> Duration {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        let scaled = (u128::from(mixed) * (u128::from(nanos) + 1)) >> 64;
        Duration::from_nanos(scaled as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(retries: Option<u32>) -> Waits {
        let mut retry = Retry::default();
        retry.transient.retries = retries;
        Waits::new(retry)
    }

    #[test]
    fn waits_grow_to_their_cap_and_fill_the_whole_range_below() {
        let mut waits = waits(None);
        let failure = Failure::transient("down");
        for failures in [1, 2, 5, 8, 100] {
            let bound =
                Duration::from_millis(200 * 2_u64.pow(failures.min(20) - 1)).min(Duration::from_secs(30));
            let drawn: Vec<_> = (0..400).filter_map(|_| waits.after(failures, &failure)).collect();
            assert!(drawn.iter().all(|wait| *wait <= bound), "{failures}");
            assert!(
                drawn.iter().any(|wait| *wait < bound / 10)
                    && drawn.iter().any(|wait| *wait > bound / 10 * 9)
            );
        }
    }

    #[test]
    fn what_the_other_side_asks_for_is_the_least_wait_and_is_believed_within_bounds() {
        let mut waits = waits(None);
        let asked = Duration::from_secs(7);
        assert!(waits.after(1, &Failure::throttled("slow down").retry_after(asked)).unwrap() >= asked);
        let absurd = Failure::throttled("slow down").retry_after(Duration::from_hours(1000));
        assert!(waits.after(1, &absurd).unwrap() <= Duration::from_mins(11));
    }

    #[test]
    fn a_class_has_its_bound_and_permanent_is_never_tried_again() {
        let mut waits = waits(Some(2));
        let failure = Failure::transient("down");
        assert!(waits.after(2, &failure).is_some());
        assert!(waits.after(3, &failure).is_none());
        assert!(waits.after(9, &Failure::throttled("slow down")).is_some());
        assert!(waits.after(1, &Failure::permanent("forbidden")).is_none());
    }
}
