//! What was changed here, or learned otherwise, since a flat page was asked for; by prefix, because a directory of
//! a page need not have an inode, and so no token either.
//!
//! Invariants:
//! 1. A directory's page is overtaken by every note of that directory, and by every doubt, that came after its stamp.
//! 2. Notes are bounded: one too many is a doubt.

use std::collections::HashMap;

/// Notes that are kept.
const NOTES_MOST: usize = 4096;

/// When something was asked, among the notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(u64);

/// The notes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    latest: u64,
    doubted: u64,
    noted: HashMap<String, u64>,
}

impl Changes {
    /// To be taken before the store is asked.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp(self.latest)
    }

    /// The names directly below `prefix` are not what they were.
    pub(super) fn note(&mut self, prefix: String) {
        self.latest += 1;
        self.noted.insert(prefix, self.latest);
        if self.noted.len() > NOTES_MOST {
            self.doubt();
        }
    }

    /// Nothing that was asked for until now holds.
    pub(super) fn doubt(&mut self) {
        self.latest += 1;
        self.doubted = self.latest;
        self.noted.clear();
    }

    /// Whether what was asked at `stamp` no longer says what is in the directory of `prefix`.
    pub(super) fn overtook(&self, prefix: &str, stamp: Stamp) -> bool {
        let noted = self.noted.get(prefix).copied().unwrap_or(0);
        self.doubted.max(noted) > stamp.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_overtakes_what_was_asked_before_it_in_its_directory_only() {
        let mut changes = Changes::default();
        let before = changes.stamp();
        changes.note(String::from("a/"));
        assert!(changes.overtook("a/", before));
        assert!(!changes.overtook("a/b/", before) && !changes.overtook("", before));
        assert!(!changes.overtook("a/", changes.stamp()));
    }

    #[test]
    fn a_doubt_overtakes_everything_and_so_do_too_many_notes() {
        let mut changes = Changes::default();
        let before = changes.stamp();
        changes.doubt();
        assert!(changes.overtook("x/", before) && !changes.overtook("x/", changes.stamp()));
        let between = changes.stamp();
        for i in 0..=NOTES_MOST {
            changes.note(format!("{i}/"));
        }
        assert!(changes.overtook("x/", between));
        assert!(changes.noted.len() <= NOTES_MOST);
    }
}
