use std::fmt;
use std::sync::Arc;

use crate::Operation;
use crate::operation::Target;

type KeyPredicate = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Which requests a fault meets: every part that is set must agree, then the counts decide.
///
/// ```
/// use staithe_testkit::{Operation, When};
/// let third_put_below_a = When::operation(Operation::PutObject).key_prefix("a/").nth(3);
/// ```
#[derive(Clone, Default)]
pub struct When {
    operations: Option<Vec<Operation>>,
    bucket: Option<String>,
    key: Option<KeyPredicate>,
    skip: u64,
    times: Option<u64>,
    chance: Option<(f64, u64)>,
}

impl When {
    /// Every request.
    pub fn any() -> Self {
        Self::default()
    }

    /// Requests of one operation.
    pub fn operation(operation: Operation) -> Self {
        Self::operations([operation])
    }

    /// Requests of any of these operations.
    pub fn operations(operations: impl IntoIterator<Item = Operation>) -> Self {
        Self { operations: Some(operations.into_iter().collect()), ..Self::default() }
    }

    /// Requests that, when they succeed, change something.
    pub fn mutation() -> Self {
        Self::operations(Operation::ALL.into_iter().filter(|o| o.is_mutation()))
    }

    /// Only about this bucket.
    #[must_use]
    pub fn bucket(mut self, bucket: impl Into<String>) -> Self {
        self.bucket = Some(bucket.into());
        self
    }

    /// Only about this key.
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> Self {
        let key = key.into();
        self.key_where(move |k| k == key)
    }

    /// Only about keys that begin so.
    #[must_use]
    pub fn key_prefix(self, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        self.key_where(move |k| k.starts_with(&prefix))
    }

    /// Only about keys for which this holds. A request about no key never matches.
    #[must_use]
    pub fn key_where(mut self, holds: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.key = Some(Arc::new(holds));
        self
    }

    /// Lets the first `n` matching requests pass.
    #[must_use]
    pub fn after(mut self, n: u64) -> Self {
        self.skip = n;
        self
    }

    /// At most `n` times.
    #[must_use]
    pub fn times(mut self, n: u64) -> Self {
        self.times = Some(n);
        self
    }

    /// Once.
    #[must_use]
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Only the `n`th matching request, counted from 1.
    #[must_use]
    pub fn nth(self, n: u64) -> Self {
        self.after(n.saturating_sub(1)).once()
    }

    /// Each matching request with this probability (0 to 1), drawn from a generator with this seed: the same
    /// sequence of matching requests meets the same sequence of faults.
    #[must_use]
    pub fn with_probability(mut self, probability: f64, seed: u64) -> Self {
        self.chance = Some((probability, seed));
        self
    }

    fn concerns(&self, target: &Target) -> bool {
        let key_agrees = |holds: &KeyPredicate| target.key.as_deref().is_some_and(|k| holds(k));
        self.operations.as_ref().is_none_or(|list| list.contains(&target.operation))
            && self.bucket.as_ref().is_none_or(|b| target.bucket.as_ref() == Some(b))
            && self.key.as_ref().is_none_or(key_agrees)
    }
}

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("When")
            .field("operations", &self.operations)
            .field("bucket", &self.bucket)
            .field("key", &self.key.as_ref().map(|_| ".."))
            .field("skip", &self.skip)
            .field("times", &self.times)
            .field("chance", &self.chance)
            .finish()
    }
}

/// A [`When`] with the counts of what it has met.
#[derive(Debug)]
pub(crate) struct Matcher {
    when: When,
    rng: fastrand::Rng,
    seen: u64,
    hits: u64,
}

impl Matcher {
    pub(crate) fn new(when: When) -> Self {
        let seed = when.chance.map_or(0, |(_, seed)| seed);
        Self { when, rng: fastrand::Rng::with_seed(seed), seen: 0, hits: 0 }
    }

    /// Counts the request, and says whether the fault meets it.
    pub(crate) fn meets(&mut self, target: &Target) -> bool {
        if !self.when.concerns(target) {
            return false;
        }
        self.seen += 1;
        let drawn = self.when.chance.is_none_or(|(probability, _)| self.rng.f64() < probability);
        let due = self.seen > self.when.skip && self.when.times.is_none_or(|n| self.hits < n);
        let met = drawn && due;
        self.hits += u64::from(met);
        met
    }

    /// How many requests the fault has met.
    pub(crate) fn hits(&self) -> u64 {
        self.hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(key: &str) -> Target {
        Target { operation: Operation::GetObject, bucket: Some("b".into()), key: Some(key.into()) }
    }

    #[test]
    fn counts_only_what_it_concerns() {
        let mut matcher = Matcher::new(When::operation(Operation::GetObject).key_prefix("a/").nth(2));
        let met: Vec<bool> = ["x", "a/1", "x", "a/2", "a/3"].map(|k| matcher.meets(&get(k))).into();
        assert_eq!(met, [false, false, false, true, false]);
        assert_eq!(matcher.hits(), 1);
    }

    #[test]
    fn a_seed_repeats_itself() {
        let draw = |seed| {
            let mut matcher = Matcher::new(When::any().with_probability(0.5, seed));
            (0..64).map(|_| matcher.meets(&get("k"))).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!((16..48).contains(&draw(7).iter().filter(|met| **met).count()));
    }
}
