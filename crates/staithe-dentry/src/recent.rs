//! Which names the latest local mutations of a shard were about.
//!
//! An answer of the store speaks of one name, and only a change of that name makes it wrong. So a token whose directory
//! has moved on is not worthless: what was mutated since is looked up here.
//!
//! Invariants:
//! 1. There is one entry for each generation that the shard gave, in their order; the last one is of the latest.
//! 2. It says less the longer ago: a token older than all entries is outdated for every name.

use std::collections::VecDeque;

use crate::shard::KeyHash;

/// Mutations that one shard remembers: what it takes four bytes each for.
const MUTATIONS_MAX: usize = 4_096;

/// The latest local mutations, by the hash of their directory and name. Two names of one hash pass for one.
#[derive(Debug, Default)]
pub(crate) struct Recent(VecDeque<KeyHash>);

/// The names that were mutated since a token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mutated<'a>(&'a [KeyHash], &'a [KeyHash]);

impl Recent {
    /// Notes the mutation of the generation that was just given. O(1).
    pub(crate) fn push(&mut self, name: KeyHash) {
        if self.0.len() == MUTATIONS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(name);
    }

    /// The names of the latest `mutations`; `None` if some of them are not remembered any more. O(1).
    pub(crate) fn latest(&self, mutations: u64) -> Option<Mutated<'_>> {
        let skipped = self.0.len().checked_sub(usize::try_from(mutations).ok()?)?;
        let (older, newer) = self.0.as_slices();
        let rest = newer.get(skipped.saturating_sub(older.len())..)?;
        Some(Mutated(older.get(skipped..).unwrap_or_default(), rest))
    }
}

impl Mutated<'_> {
    /// Whether this name is among them. O(mutations).
    pub(crate) fn has(&self, name: KeyHash) -> bool {
        self.0.contains(&name) || self.1.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_those_that_were_pushed_last_also_after_the_first_were_dropped() {
        let hasher = hashbrown::DefaultHashBuilder::default();
        let hash = |n: usize| KeyHash::of(&hasher, 1, &n.to_string());
        let mut recent = Recent::default();
        let total = 2 * MUTATIONS_MAX + 3;
        for n in 0..total {
            recent.push(hash(n));
            for back in [0, 1, 2.min(n + 1), MUTATIONS_MAX.min(n + 1)] {
                let Some(mutated) = recent.latest(back as u64) else { panic!("{back} of {n}") };
                assert_eq!(mutated.0.len() + mutated.1.len(), back);
                assert!(back == 0 || (mutated.has(hash(n)) && mutated.has(hash(n + 1 - back))));
            }
            assert!(recent.latest(MUTATIONS_MAX as u64 + 1).is_none());
        }
        assert!(!recent.latest(2).is_some_and(|two| two.has(hash(total - 3))));
        assert!(recent.latest(u64::MAX).is_none());
    }
}
