//! Outcomes of the last while, in buckets: the memory is constant, whatever comes.

use std::time::{Duration, Instant};

/// Buckets in the ring. A window spans 32 to 64 of them.
const BUCKETS: usize = 64;

/// A division of time into buckets. Their width is a power of two in nanoseconds, so that the bucket of a time is found
/// with a shift.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    origin: Instant,
    shift: u32,
    /// Buckets in a window, the one that is filling included.
    span: u64,
}

impl Scale {
    /// For windows of this length, from a millisecond up.
    pub(crate) fn new(origin: Instant, window: Duration) -> Self {
        let nanos = nanos(window).max(1 << 20);
        // The largest power of two of which the window has at least 32.
        let shift = nanos.ilog2() - 5;
        Self { origin, shift, span: nanos >> shift }
    }

    /// The number of the bucket. What is earlier than the origin is in the first one.
    #[inline]
    pub(crate) fn bucket(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.origin)) >> self.shift
    }

    /// The first bucket of the window that ends with this one.
    pub(crate) fn first(&self, last: u64) -> u64 {
        (last + 1).saturating_sub(self.span)
    }
}

/// Enough for 584 years.
#[inline]
fn nanos(time: Duration) -> u64 {
    time.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(time.subsec_nanos()))
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    number: u64,
    successes: u64,
    failures: u64,
}

/// The ring.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    scale: Scale,
    ring: [Bucket; BUCKETS],
    /// What is before counts no more.
    floor: u64,
}

impl Window {
    pub(crate) fn new(scale: Scale) -> Self {
        Self { scale, ring: [Bucket::default(); BUCKETS], floor: 0 }
    }

    pub(crate) fn scale(&self) -> Scale {
        self.scale
    }

    /// The bucket of this number; `None` if the ring has moved past it.
    fn slot(&mut self, number: u64) -> Option<&mut Bucket> {
        let bucket = &mut self.ring[number as usize % BUCKETS];
        if bucket.number < number {
            *bucket = Bucket { number, ..Bucket::default() };
        }
        (bucket.number == number).then_some(bucket)
    }

    /// Counts successes in the bucket of this number. Those that are older than the ring are forgotten.
    pub(crate) fn succeeded(&mut self, number: u64, times: u64) {
        if let Some(bucket) = self.slot(number) {
            bucket.successes = bucket.successes.saturating_add(times);
        }
    }

    pub(crate) fn failed(&mut self, at: Instant) {
        if let Some(bucket) = self.slot(self.scale.bucket(at)) {
            bucket.failures = bucket.failures.saturating_add(1);
        }
    }

    /// Failures, and all outcomes, in the window that ends now. O(1): the ring has 64 buckets.
    pub(crate) fn sums(&self, now: Instant) -> (u64, u64) {
        let last = self.scale.bucket(now);
        let from = self.scale.first(last).max(self.floor);
        let within = self.ring.iter().filter(|bucket| (from..=last).contains(&bucket.number));
        within.fold((0, 0), |(failures, outcomes): (u64, u64), bucket| {
            let all = bucket.successes.saturating_add(bucket.failures);
            (failures.saturating_add(bucket.failures), outcomes.saturating_add(all))
        })
    }

    /// Nothing before now counts any more.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.floor = self.scale.bucket(now);
        if let Some(bucket) = self.slot(self.floor) {
            (bucket.successes, bucket.failures) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]
    use super::*;

    fn window(length: Duration) -> (Window, Instant) {
        let origin = Instant::now();
        (Window::new(Scale::new(origin, length)), origin)
    }

    #[test]
    fn an_outcome_counts_for_the_window_and_no_longer() {
        for millis in [1, 7, 999, 10_000, 86_400, 3_600_000] {
            let length = Duration::from_millis(millis).max(Duration::from_nanos(1 << 20));
            let (mut window, origin) = window(length);
            let begun = origin + length * 3;
            window.failed(begun);
            assert_eq!(window.sums(begun + length * 29 / 32), (1, 1), "{millis}");
            assert_eq!(window.sums(begun + length + Duration::from_nanos(1)), (0, 0), "{millis}");
        }
    }

    #[test]
    fn late_counts_go_where_they_belong_and_too_late_ones_nowhere() {
        let second = Duration::from_secs(1);
        let (mut window, origin) = window(second * 10);
        let now = origin + second * 100;
        window.failed(now);
        let number = window.scale().bucket(origin + second * 95);
        window.succeeded(number, 9);
        window.succeeded(window.scale().bucket(origin + second * 40), 9);
        assert_eq!(window.sums(now), (1, 10));
        assert_eq!(window.sums(now + second * 6), (1, 1));
        window.forget(now + second * 6);
        window.failed(now + second * 6);
        assert_eq!(window.sums(now + second * 6), (1, 1));
    }
}
