//! What a directory stream has shown and is about to show, in memory that does not grow with the directory but for
//! eight bytes a name. Pure.
//!
//! Invariants:
//! 1. A name has one position for the life of the stream, and a position one name. Offsets of the kernel are
//!    positions, so they stay true while entries come and go.
//! 2. Entries are kept around the reader only. Who seeks back farther has the directory listed again:
//!    [`Shown::list_again`] gives every name its old position back, and new ones positions behind all others.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::{Page, extend, is_file};
use crate::lookup::Dent;

/// So many entries behind the reader are kept: more than a kernel takes in one call and may ask for again.
const BEHIND: u64 = 2048;

/// Entries, page by page, each of them final: a file that a directory of its name on the next page would hide is held
/// back until that is there. Between `x` and `x/` there are only names that begin with `x`.
#[derive(Default)]
pub(crate) struct Final {
    held_back: Vec<(Arc<str>, Dent)>,
}

impl Final {
    /// What is certain with this page, in the order of the listing.
    pub(crate) fn page(&mut self, page: Page) -> Vec<(Arc<str>, Dent)> {
        let mut entries = std::mem::take(&mut self.held_back);
        extend(&mut entries, page.entries);
        if let Some(last) = page.last {
            let may_be_hidden = |(name, dent): &(Arc<str>, Dent)| is_file(dent) && last.starts_with(&**name);
            (self.held_back, entries) = entries.into_iter().partition(may_be_hidden);
        }
        entries
    }
}

/// The entries of a stream around its reader, and the position of every name that it ever had.
#[derive(Default)]
pub(super) struct Shown {
    /// In the order of positions.
    entries: VecDeque<(u64, Arc<str>, Dent)>,
    /// A hash of the name at each position. Two names of one hash, by a chance of 2^-24 among a million, count as
    /// one.
    names: Vec<u64>,
    hasher: RandomState,
    /// Of a directory that was listed again, everything is kept.
    keeps_all: bool,
}

impl Shown {
    /// Whether there was ever an entry.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// How many entries lie at `position` and behind it.
    pub(super) fn left(&self, position: u64) -> usize {
        self.entries.len() - self.index(position)
    }

    /// The first entry at `position` or behind it. O(log entries kept).
    pub(super) fn at(&self, position: u64) -> Option<&(u64, Arc<str>, Dent)> {
        self.entries.get(self.index(position))
    }

    /// Whether the entry at `position` was given up.
    pub(super) fn is_gone(&self, position: u64) -> bool {
        let first = self.entries.front().map_or(self.names.len() as u64, |(first, ..)| *first);
        !self.keeps_all && position < first
    }

    /// Appends entries.
    pub(super) fn extend(&mut self, entries: impl IntoIterator<Item = (Arc<str>, Dent)>) {
        for (name, dent) in entries {
            self.entries.push_back((self.names.len() as u64, name.clone(), dent));
            self.names.push(self.hasher.hash_one(&*name));
        }
    }

    /// Gives up what lies far behind a reader at `position`.
    pub(super) fn pass(&mut self, position: u64) {
        let until = if self.keeps_all { 0 } else { position.saturating_sub(BEHIND) };
        while self.entries.front().is_some_and(|(first, ..)| *first < until) {
            self.entries.pop_front();
        }
        if self.entries.capacity() > 4 * self.entries.len().max(BEHIND as usize) {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }

    /// Of these names, the ones that have no position yet. O(positions) for any number of names.
    pub(super) fn missing<T>(&self, names: Vec<(Arc<str>, T)>) -> Vec<(Arc<str>, T)> {
        if names.is_empty() {
            return names;
        }
        let mut by_hash: HashMap<u64, (Arc<str>, T)> =
            names.into_iter().map(|named| (self.hasher.hash_one(&*named.0), named)).collect();
        for hash in &self.names {
            by_hash.remove(hash);
        }
        let mut missing: Vec<_> = by_hash.into_values().collect();
        missing.sort_by(|a, b| a.0.cmp(&b.0));
        missing
    }

    /// Takes in the whole directory once more, and keeps it. O(entries log entries), and memory for all of them.
    pub(super) fn list_again(&mut self, entries: Vec<(Arc<str>, Dent)>) {
        let mut positions: HashMap<u64, u64> = self.names.iter().copied().zip(0..).collect();
        let mut known = Vec::with_capacity(entries.len());
        let mut new = Vec::new();
        for (name, dent) in entries {
            match positions.remove(&self.hasher.hash_one(&*name)) {
                Some(position) => known.push((position, name, dent)),
                None => new.push((name, dent)),
            }
        }
        known.sort_by_key(|(position, ..)| *position);
        self.entries = known.into();
        self.keeps_all = true;
        self.extend(new);
    }

    fn index(&self, position: u64) -> usize {
        self.entries.partition_point(|(at, ..)| *at < position)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn dent() -> Dent {
        Dent::Directory { marker: None }
    }

    fn entries(names: impl IntoIterator<Item = u32>) -> Vec<(Arc<str>, Dent)> {
        names.into_iter().map(|n| (Arc::from(format!("{n:06}")), dent())).collect()
    }

    fn name_at(shown: &Shown, position: u64) -> Option<(u64, u32)> {
        shown.at(position).map(|(at, name, _)| (*at, name.parse().unwrap()))
    }

    #[test]
    fn memory_does_not_grow_with_what_was_read() {
        let mut shown = Shown::default();
        for page in 0..500_u32 {
            shown.extend(entries(page * 1000..(page + 1) * 1000));
            shown.pass(u64::from(page) * 1000);
            assert!(shown.entries.len() <= BEHIND as usize + 1000);
            assert!(shown.entries.capacity() <= 8 * BEHIND as usize, "{}", shown.entries.capacity());
        }
        assert_eq!(name_at(&shown, 499_500), Some((499_500, 499_500)));
        assert!(shown.is_gone(0) && !shown.is_gone(499_000));
    }

    #[test]
    fn a_file_that_a_later_directory_hides_is_never_shown() {
        let file = |name: &str| {
            let (etag, modified) = (staithe_store::ETag::new("e"), std::time::SystemTime::UNIX_EPOCH);
            (Arc::from(name), Dent::File { size: 1, etag, id: None, modified, told: true, kind: None })
        };
        let page = |entries, last: Option<&str>| Page { entries, last: last.map(str::to_owned) };
        let mut certain = Final::default();
        let mut names = Vec::new();
        for page in [
            page(vec![file("a"), file("x")], Some("x")),
            page(vec![file("x!"), file("x-")], Some("x-")),
            page(vec![(Arc::from("x"), dent()), file("y")], None),
        ] {
            names.extend(
                certain.page(page).into_iter().map(|(name, dent)| (name.to_string(), is_file(&dent))),
            );
        }
        let expected = [("a", true), ("x!", true), ("x", false), ("x-", true), ("y", true)];
        let mut expected = expected.map(|(n, f)| (n.to_owned(), f)).to_vec();
        expected.sort();
        names.sort();
        assert_eq!(names, expected);
    }

    proptest! {
        /// A reader who goes anywhere meets every name that was there throughout exactly at its position, whatever
        /// came and went between two listings.
        #[test]
        fn a_position_means_one_name(
            first in prop::collection::btree_set(0..400_u32, 0..300),
            second in prop::collection::btree_set(0..400_u32, 0..300),
            read in 0..300_u64,
            back in 0..300_u64,
        ) {
            let mut shown = Shown::default();
            shown.extend(entries(first.iter().copied()));
            let before: BTreeMap<u32, u64> = first.iter().copied().zip(0..).collect();
            shown.pass(read);
            shown.list_again(entries(second.iter().copied()));
            let (mut at, mut met) = (back, Vec::new());
            while let Some((position, name)) = name_at(&shown, at) {
                prop_assert_eq!(before.get(&name).copied().unwrap_or(position), position);
                prop_assert!(before.contains_key(&name) || position >= first.len() as u64);
                met.push(name);
                at = position + 1;
            }
            let mut distinct = met.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), met.len(), "nothing twice");
            for name in first.intersection(&second).filter(|n| before[n] >= back) {
                prop_assert!(met.contains(name), "{} was there throughout", name);
            }
            let absent = shown.missing((0..400_u32).map(|n| (Arc::from(format!("{n:06}")), n)).collect());
            prop_assert!(absent.iter().all(|(_, n)| !first.contains(n) && !second.contains(n)));
        }
    }
}
