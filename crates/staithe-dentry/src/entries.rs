//! The names of a complete directory, copied out in order.

use std::time::Instant;

use crate::{
    cache::Dentries,
    entry::Value,
    shard::State,
    slots::Chain,
    ttl::{Tick, Ttl},
};

/// Entries copied under one hold of the lock.
const STEP: usize = 1_024;
/// How often a copy begins again because the directory changed, before it holds the lock to its end.
const TRIES: usize = 4;

/// The names that existed in a directory at one moment, in the order of their bytes, with their values.
///
/// It is a copy: what happens to the directory later does not change it, so a reader of a directory may walk it at
/// its own pace and by position. The names lie in one allocation.
#[derive(Debug, Clone)]
pub struct Entries<V> {
    text: String,
    /// Where each name ends, and where it begins, in `text`.
    items: Vec<(usize, usize, V)>,
    remaining: Ttl,
}

impl<V> Entries<V> {
    /// How many names there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the directory is empty.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What was left of the listing when this was taken.
    pub fn remaining(&self) -> Ttl {
        self.remaining
    }

    /// The name and value at a position. O(1).
    pub fn get(&self, position: usize) -> Option<(&str, &V)> {
        self.items.get(position).map(|(start, end, value)| (&self.text[*start..*end], value))
    }

    /// The position of the first name after `name`, whether or not that is there. O(log names).
    pub fn after(&self, name: &str) -> usize {
        self.items.partition_point(|(start, end, _)| &self.text[*start..*end] <= name)
    }

    /// All of them in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &V)> + ExactSizeIterator {
        self.items.iter().map(|(start, end, value)| (&self.text[*start..*end], value))
    }
}

impl<V: Value> Dentries<V> {
    /// The names of a directory that is complete at `now`, without a request to the store; `None` if it is not.
    ///
    /// A value that was taken in alone with a shorter deadline is there although that has passed: the listing
    /// vouches for its name. O(names), and O(names log names) where they did not come in order. The lock is held
    /// for a thousand names at a time, unless local changes keep overtaking the copy.
    pub fn entries(&self, parent: u64, now: Instant) -> Option<Entries<V>> {
        let now = self.inner.epoch.tick(now);
        let shard = self.inner.shard(parent);
        let mut copy = None;
        for attempt in 1..=TRIES {
            let budget = if attempt == TRIES { usize::MAX } else { STEP };
            let mut walk = Walk::default();
            while let Step::More = walk.step(&shard.state.read(), parent, now, budget) {}
            match walk.end? {
                End::Overtaken => {}
                End::Whole(remaining) => {
                    copy = Some(Entries { text: walk.text, items: walk.items, remaining });
                    break;
                }
            }
        }
        let mut copy = copy?;
        let Entries { text, items, .. } = &mut copy;
        items.sort_by(|one, other| text.as_bytes()[one.0..one.1].cmp(&text.as_bytes()[other.0..other.1]));
        Some(copy)
    }
}

enum Step {
    More,
    Done,
}

enum End {
    Overtaken,
    Whole(Ttl),
}

/// A copy in the making. It knows by the count of edits whether the place where it stopped is still one.
struct Walk<V> {
    text: String,
    items: Vec<(usize, usize, V)>,
    at: Option<Place>,
    end: Option<End>,
}

#[derive(Clone, Copy)]
struct Place {
    dir: u32,
    edits: u32,
    next: Option<u32>,
}

impl<V> Default for Walk<V> {
    fn default() -> Self {
        Self { text: String::new(), items: Vec::new(), at: None, end: None }
    }
}

impl<V: Value> Walk<V> {
    /// `end` stays empty if the directory is not complete.
    fn step(&mut self, state: &State<V>, parent: u64, now: Tick, budget: usize) -> Step {
        let Some(dir) = state.dirs.find(parent) else {
            return Step::Done;
        };
        let record = state.dirs.get(dir);
        let Some(remaining) = record.complete_until.remaining(now) else {
            return Step::Done;
        };
        let mut next = match self.at {
            None => record.entries.first(),
            Some(place) if (place.dir, place.edits) == (dir, record.edits) => place.next,
            Some(_) => {
                self.end = Some(End::Overtaken);
                return Step::Done;
            }
        };
        if self.at.is_none() {
            self.items.reserve_exact(record.entries.len());
        }
        for _ in 0..budget {
            let Some(at) = next else {
                break;
            };
            let slot = state.slots.get(at);
            if let Some(value) = &slot.value {
                let start = self.text.len();
                self.text.push_str(slot.name.as_str());
                self.items.push((start, self.text.len(), value.clone()));
            }
            next = state.slots.next(Chain::Directory, at);
        }
        if next.is_none() {
            self.end = Some(End::Whole(remaining));
            return Step::Done;
        }
        self.at = Some(Place { dir, edits: record.edits, next });
        Step::More
    }
}
