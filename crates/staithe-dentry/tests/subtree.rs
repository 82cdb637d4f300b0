//! A subtree is forgotten whole, in time proportional to itself, and said so.
#![cfg(not(loom))]
#![allow(clippy::expect_used)]

mod things;

use staithe_dentry::{Cause, Change, Entry, Lookup, Refused};
use things::{NEVER, Thing, cache, list};

#[test]
fn a_subtree_goes_and_its_neighbours_stay() {
    let (cache, now) = cache(1_000_000);
    let changes = cache.changes().expect("they were not taken before");
    list(&cache, 1, [("tree".to_owned(), Thing::Directory(2)), ("other".to_owned(), Thing::Directory(3))]);
    list(&cache, 2, [("deep".to_owned(), Thing::Directory(4)), ("file".to_owned(), Thing::File(1))]);
    list(&cache, 3, [("file".to_owned(), Thing::File(2))]);
    list(&cache, 4, (0..1_000).map(|number| (number.to_string(), Thing::File(number))));
    let late = cache.begin(4);
    assert_eq!(cache.invalidate_tree(2), 1_002);
    assert_eq!(cache.len(), 3);
    assert_eq!(cache.lookup(4, "7", now), Lookup::Miss);
    assert_eq!(cache.lookup(2, "absent", now), Lookup::Miss, "it is not complete any more");
    assert!(cache.lookup(1, "tree", now).hit().is_some());
    assert!(cache.is_complete(3, now));
    assert_eq!(cache.insert(&late, "7", Entry::Positive(Thing::File(7)), NEVER), Err(Refused::Stale));
    let mut seen = Vec::new();
    changes.drain(&mut seen);
    assert_eq!(seen, [2, 4].map(|id| Change::Directory { id, cause: Cause::Forgotten }));
}

#[test]
fn a_renamed_directory_keeps_what_lies_below_it() {
    let (cache, now) = cache(1_000);
    list(&cache, 1, [("old".to_owned(), Thing::Directory(2))]);
    list(&cache, 3, []);
    list(&cache, 2, [("file".to_owned(), Thing::File(1))]);
    assert_eq!(cache.rename((1, "old"), (3, "new"), Thing::Directory(2), NEVER, NEVER), None);
    assert!(matches!(cache.lookup(1, "old", now), Lookup::Negative(_)));
    assert!(cache.lookup(3, "new", now).hit().is_some());
    assert!(cache.lookup(2, "file", now).hit().is_some());
    assert_eq!(cache.entries(1, now).map(|entries| entries.len()), Some(0));
    assert_eq!(cache.entries(3, now).map(|entries| entries.len()), Some(1));
    assert_eq!(cache.invalidate_tree(3), 2);
}

#[test]
fn a_directory_that_the_store_replaced_takes_its_names_with_it() {
    let (cache, now) = cache(1_000);
    list(&cache, 1, [("sub".to_owned(), Thing::Directory(2))]);
    list(&cache, 2, [("file".to_owned(), Thing::File(1))]);
    list(&cache, 1, [("sub".to_owned(), Thing::File(9))]);
    assert_eq!(cache.lookup(2, "file", now), Lookup::Miss);
}

#[test]
fn a_stream_that_runs_over_says_so_and_goes_on() {
    let now = std::time::Instant::now();
    let config = staithe_dentry::Config { max_changes: 3, ..Default::default() };
    let cache = staithe_dentry::Dentries::<Thing>::new(config, now);
    let changes = cache.changes().expect("they were not taken before");
    assert!(cache.changes().is_none());
    for name in ["a", "b", "c", "d"] {
        cache.forget(1, name);
    }
    let mut seen = Vec::new();
    let drained = changes.drain(&mut seen);
    assert!(drained.lost && drained.taken == 0);
    cache.forget(1, "e");
    let drained = changes.drain(&mut seen);
    assert!(!drained.lost && drained.taken == 1);
    assert_eq!(seen, [Change::Name { parent: 1, name: "e".into(), cause: Cause::Forgotten }]);
    changes.closer().close();
    assert!(!changes.wait());
}
