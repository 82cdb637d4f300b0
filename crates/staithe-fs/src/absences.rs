//! The names that a kernel was told are absent. It keeps that for as long as it was told to, nothing of ours is
//! behind it, and a whole listing answers for names that nobody ever wrote down: so who wants the kernel to ask again
//! must know them.
//!
//! Bounded: an absence that finds no room is not to be told for any length of time.

use std::collections::HashMap;
use std::time::Instant;

use parking_lot::Mutex;

use crate::api::Ino;

/// Names remembered, over all directories.
const NAMES_MOST: usize = 65_536;

/// The absences told.
#[derive(Debug, Default)]
pub(crate) struct Absences(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// Until when each is believed.
    by_dir: HashMap<Ino, HashMap<Box<str>, Instant>>,
    count: usize,
    /// How many more find no room before it is worth looking again which are over.
    patience: usize,
}

impl Absences {
    /// Notes that a kernel is about to be told that there is no `name` in `dir`, to be believed until `until`. False:
    /// there is no room, it must not believe it. When it is full, those go whose time was over at `now`, and those of
    /// directories that are not `alive`: amortised O(1).
    pub(crate) fn note(
        &self,
        dir: Ino,
        name: &str,
        until: Instant,
        now: Instant,
        alive: impl Fn(Ino) -> bool,
    ) -> bool {
        let mut told = self.0.lock();
        if let Some(known) = told.by_dir.get_mut(&dir).and_then(|names| names.get_mut(name)) {
            *known = until.max(*known);
            return true;
        }
        if told.count >= NAMES_MOST && !told.make_room(now, alive) {
            return false;
        }
        told.by_dir.entry(dir).or_default().insert(Box::from(name), until);
        told.count += 1;
        true
    }

    /// Takes what was told of a directory.
    pub(crate) fn take(&self, dir: Ino) -> impl Iterator<Item = Box<str>> {
        let mut told = self.0.lock();
        let names = told.by_dir.remove(&dir).unwrap_or_default();
        told.count -= names.len();
        names.into_keys()
    }
}

impl Told {
    fn make_room(&mut self, now: Instant, alive: impl Fn(Ino) -> bool) -> bool {
        if self.patience > 0 {
            self.patience -= 1;
            return false;
        }
        self.by_dir.retain(|dir, names| {
            names.retain(|_, until| *until > now);
            !names.is_empty() && alive(*dir)
        });
        self.count = self.by_dir.values().map(HashMap::len).sum();
        self.patience = NAMES_MOST;
        self.count < NAMES_MOST
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TTL: Duration = Duration::from_secs(1);

    fn fill(absences: &Absences, dir: Ino, now: Instant) {
        for n in 0..NAMES_MOST {
            assert!(absences.note(dir, &n.to_string(), now + TTL, now, |_| true));
        }
    }

    #[test]
    fn what_was_told_is_taken_once_and_by_directory() {
        let (absences, now) = (Absences::default(), Instant::now());
        for (dir, name) in [(1, "a"), (1, "b"), (1, "a"), (2, "a")] {
            assert!(absences.note(Ino(dir), name, now + TTL, now, |_| true));
        }
        let mut names: Vec<_> = absences.take(Ino(1)).collect();
        names.sort();
        assert_eq!(names, [Box::from("a"), Box::from("b")]);
        assert_eq!(absences.take(Ino(1)).count(), 0);
        assert_eq!(absences.take(Ino(2)).count(), 1);
        assert_eq!(absences.0.lock().count, 0);
    }

    #[test]
    fn what_finds_no_room_is_refused_until_others_are_over() {
        let (absences, now) = (Absences::default(), Instant::now());
        fill(&absences, Ino(1), now);
        assert!(!absences.note(Ino(1), "more", now + TTL, now, |_| true));
        assert!(absences.note(Ino(1), "7", now + TTL * 2, now, |_| true), "it is known");
        absences.0.lock().patience = 0;
        assert!(absences.note(Ino(1), "more", now + TTL * 2, now + TTL, |_| true));
        let mut left: Vec<_> = absences.take(Ino(1)).collect();
        left.sort();
        assert_eq!(left, [Box::from("7"), Box::from("more")]);
    }

    #[test]
    fn what_was_told_of_a_directory_that_is_gone_makes_room() {
        let (absences, now) = (Absences::default(), Instant::now());
        fill(&absences, Ino(1), now);
        assert!(absences.note(Ino(2), "a", now + TTL, now, |dir| dir == Ino(2)));
        assert_eq!(absences.0.lock().count, 1);
    }
}
