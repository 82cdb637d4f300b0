//! The value of these tests, and a cache of a given size.

#![allow(dead_code, clippy::expect_used)] // Each of the tests uses some of it.

use std::time::Instant;

use staithe_dentry::{Config, Deadline, Dentries, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thing {
    File(u64),
    Directory(u64),
}

impl Value for Thing {
    fn directory(&self) -> Option<u64> {
        match self {
            Thing::Directory(id) => Some(*id),
            Thing::File(_) => None,
        }
    }

    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

pub(crate) const NEVER: Deadline = Deadline::Never;

pub(crate) fn cache(max_entries: usize) -> (Dentries<Thing>, Instant) {
    let now = Instant::now();
    (Dentries::new(Config { max_entries, ..Config::default() }, now), now)
}

/// Lists `names` whole into `parent`.
pub(crate) fn list(cache: &Dentries<Thing>, parent: u64, names: impl IntoIterator<Item = (String, Thing)>) {
    let mut listing = cache.listing(cache.begin(parent), NEVER).expect("nothing changes here meanwhile");
    listing.page(names).expect("nothing changes here meanwhile");
    listing.complete().expect("it fits");
}
