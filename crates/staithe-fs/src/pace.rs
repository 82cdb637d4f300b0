//! How long the store keeps a reader waiting for the next bytes, and when that is so long that asking once more is
//! worth a request.
//!
//! A range is asked for again once nothing came of it for longer than 99 of 100 ranges ever kept silent (J. Dean and
//! L. A. Barroso, "The Tail at Scale", CACM 56(2), 2013), from its first byte on. What is asked twice is at most 5 %
//! of what is asked for, and a few: a store that is slow for everybody is not made slower.
//!
//! Invariants:
//! 1. Only ranges that came whole at the first try are learned from, those that were asked for twice included: to
//!    leave these out would lower the estimate by itself.
//! 2. Second requests are never more than `requests / 20 + BURST`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// No silence is long before so many ranges have come.
const SAMPLES_LEAST: u32 = 64;
/// No silence shorter than this is long.
const FLOOR: Duration = Duration::from_millis(10);
/// Samples, and time, after which a generation of them is the old one.
const GENERATION: u32 = 1024;
const GENERATION_TIME: Duration = Duration::from_mins(1);
/// One second request for so many first ones ...
const PRICE: u32 = 20;
/// ... and so many beside.
const BURST: u32 = 8;
/// Buckets in each doubling: an estimate is too high by an eighth at most.
const STEPS: usize = 8;
/// Doublings from a microsecond: up to over an hour.
const DOUBLINGS: usize = 32;

/// Silences of the ranges of one generation, counted by how long they were, on a logarithmic scale.
#[derive(Debug)]
struct Silences {
    total: u32,
    counts: [u32; STEPS * DOUBLINGS],
}

/// The estimate, and what may be spent by it. Pure: time is an argument.
#[derive(Debug)]
struct Estimate {
    young: Silences,
    old: Silences,
    young_since: Option<Instant>,
    /// In requests; a second one costs [`PRICE`].
    credit: u32,
}

/// The pace of the store, as all readers see it.
#[derive(Debug)]
pub(crate) struct Pace {
    estimate: Mutex<Estimate>,
    tried_again: Arc<AtomicU64>,
    asked: AtomicU64,
    won: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            estimate: Mutex::new(Estimate::new()),
            tried_again: Arc::default(),
            asked: AtomicU64::new(0),
            won: AtomicU64::new(0),
        }
    }
}

impl Pace {
    /// A range is asked for.
    pub(crate) fn began(&self) {
        self.estimate.lock().began();
    }

    /// A range came whole at the first try, and this was the longest time without a byte of it.
    pub(crate) fn came(&self, silence: Duration, now: Instant) {
        self.estimate.lock().came(silence, now);
    }

    /// The silence that is too long; `None` while that cannot be told.
    pub(crate) fn too_long(&self) -> Option<Duration> {
        self.estimate.lock().too_long()
    }

    /// Whether a second request may be made; then it is counted.
    pub(crate) fn may_hedge(&self) -> bool {
        let may = self.estimate.lock().spend();
        if may {
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    /// A second request delivered first.
    pub(crate) fn won(&self) {
        self.won.fetch_add(1, Ordering::Relaxed);
    }

    /// Second requests that were made, and those that delivered first.
    pub(crate) fn hedges(&self) -> (u64, u64) {
        (self.asked.load(Ordering::Relaxed), self.won.load(Ordering::Relaxed))
    }

    /// The count of requests that were made once more after a failure: whoever waited while it rose may have waited
    /// for that.
    pub(crate) fn tried_again(&self) -> Arc<AtomicU64> {
        self.tried_again.clone()
    }

    /// What that count is now.
    pub(crate) fn tries(&self) -> u64 {
        self.tried_again.load(Ordering::Relaxed)
    }
}

impl Estimate {
    fn new() -> Self {
        Self { young: Silences::new(), old: Silences::new(), young_since: None, credit: BURST * PRICE }
    }

    fn began(&mut self) {
        self.credit = (self.credit + 1).min(BURST * PRICE);
    }

    fn came(&mut self, silence: Duration, now: Instant) {
        let since = *self.young_since.get_or_insert(now);
        let is_old = now.saturating_duration_since(since) >= GENERATION_TIME;
        // So few say nothing yet, however long ago.
        if self.young.total >= GENERATION || (is_old && self.young.total >= SAMPLES_LEAST) {
            self.old = std::mem::replace(&mut self.young, Silences::new());
            self.young_since = Some(now);
        }
        self.young.add(silence);
    }

    fn too_long(&self) -> Option<Duration> {
        let total = self.young.total + self.old.total;
        if total < SAMPLES_LEAST {
            return None;
        }
        let mut above = total / 100;
        for bucket in (0..STEPS * DOUBLINGS).rev() {
            let here = self.young.counts[bucket] + self.old.counts[bucket];
            if here > above {
                return Some(end_of(bucket).max(FLOOR));
            }
            above -= here;
        }
        None
    }

    fn spend(&mut self) -> bool {
        let left = self.credit.checked_sub(PRICE);
        self.credit = left.unwrap_or(self.credit);
        left.is_some()
    }
}

impl Silences {
    fn new() -> Self {
        Self { total: 0, counts: [0; STEPS * DOUBLINGS] }
    }

    fn add(&mut self, silence: Duration) {
        self.total += 1;
        self.counts[bucket_of(silence)] += 1;
    }
}

/// The bucket of a silence: the doubling, and the step in it.
fn bucket_of(silence: Duration) -> usize {
    let micros = u64::try_from(silence.as_micros()).unwrap_or(u64::MAX).max(1);
    let doubling = micros.ilog2() as usize;
    // The bits behind the first one, as many as tell the steps apart.
    let step = ((u128::from(micros) * STEPS as u128) >> doubling) as usize - STEPS;
    (doubling * STEPS + step).min(STEPS * DOUBLINGS - 1)
}

/// Where a bucket ends.
fn end_of(bucket: usize) -> Duration {
    let (doubling, step) = (bucket / STEPS, bucket % STEPS);
    Duration::from_micros((((STEPS + step + 1) as u64) << doubling).div_ceil(STEPS as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn after(silences: impl IntoIterator<Item = Duration>) -> Estimate {
        let mut estimate = Estimate::new();
        let now = Instant::now();
        silences.into_iter().for_each(|silence| estimate.came(silence, now));
        estimate
    }

    #[test]
    fn a_bucket_holds_what_it_says() {
        for micros in (1..100_000).chain([1 << 20, (1 << 31) - 1, 1 << 31]) {
            let silence = Duration::from_micros(micros);
            let end = end_of(bucket_of(silence));
            assert!(silence < end || micros < 8 && silence <= end, "{silence:?} in a bucket up to {end:?}");
            assert!(end <= silence.mul_f64(1.125) + Duration::from_micros(1), "{silence:?}, {end:?}");
        }
        assert_eq!(bucket_of(Duration::MAX), STEPS * DOUBLINGS - 1);
        assert_eq!(bucket_of(Duration::ZERO), 0);
    }

    #[test]
    fn few_ranges_say_nothing() {
        assert_eq!(after((0..63).map(|_| ms(20))).too_long(), None);
        assert!(after((0..64).map(|_| ms(20))).too_long().is_some());
    }

    #[test]
    fn too_long_is_what_one_in_a_hundred_is() {
        let usual = after((0..1000).map(ms));
        let too_long = usual.too_long().unwrap();
        assert!((ms(990)..ms(1120)).contains(&too_long), "{too_long:?}");
        // One in a thousand moves nothing.
        let rare = after((0..1000).map(|n| if n == 500 { ms(60_000) } else { ms(20) }));
        assert!(rare.too_long().unwrap() < ms(25));
        // One in fifty is usual.
        let often = after((0..1000).map(|n| if n % 50 == 0 { ms(500) } else { ms(20) }));
        assert!(often.too_long().unwrap() >= ms(500));
    }

    #[test]
    fn nothing_under_the_floor_is_too_long() {
        assert_eq!(after((0..1000).map(|_| Duration::from_micros(30))).too_long(), Some(FLOOR));
    }

    #[test]
    fn a_store_that_changes_its_pace_is_followed() {
        let mut estimate = after((0..5000).map(|_| ms(20)));
        let now = Instant::now();
        (0..2 * GENERATION).for_each(|_| estimate.came(ms(200), now));
        assert!(estimate.too_long().unwrap() >= ms(200));
        (0..2 * GENERATION + 2).for_each(|_| estimate.came(ms(20), now));
        assert!(estimate.too_long().unwrap() < ms(25));
        // And in time, where there are few samples.
        let later = |n: u32| now + GENERATION_TIME * (n / SAMPLES_LEAST + 1);
        (0..4 * SAMPLES_LEAST).for_each(|n| estimate.came(ms(80), later(n)));
        assert!((ms(80)..ms(92)).contains(&estimate.too_long().unwrap()));
    }

    #[test]
    fn second_requests_are_one_in_twenty_and_a_few() {
        let mut estimate = Estimate::new();
        let mut spent = 0;
        for request in 1..=10_000 {
            estimate.began();
            // As if the store had stopped altogether.
            spent += (0..3).filter(|_| estimate.spend()).count() as u32;
            assert!(spent <= request / PRICE + BURST, "{spent} of {request}");
        }
        assert_eq!(spent, 10_000 / PRICE + BURST - 1, "and no fewer");
        // Nothing is saved up beyond the burst.
        (0..10_000).for_each(|_| estimate.began());
        assert_eq!((0..100).filter(|_| estimate.spend()).count(), BURST as usize);
    }
}
