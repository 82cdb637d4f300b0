//! Every interleaving of a local change with an answer of the store, by loom. Run with `RUSTFLAGS="--cfg loom"`.
#![cfg(loom)]

use std::time::Instant;

use loom::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};
use staithe_dentry::{Cause, Change, Config, Deadline, Dentries, Entry, Lookup, Ttl, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version(u64);

impl Value for Version {
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

const DIR: u64 = 1;
const NEVER: Deadline = Deadline::Never;

fn cache(shards: usize) -> (Dentries<Version>, Instant) {
    let now = Instant::now();
    (Dentries::new(Config { shards, ..Config::default() }, now), now)
}

fn hit(version: u64) -> Lookup<Version> {
    Lookup::Hit(Version(version), Ttl::Forever)
}

#[test]
fn a_late_answer_does_not_undo_a_create() {
    loom::model(|| {
        let (cache, now) = cache(1);
        let token = cache.begin(DIR);
        let creator = cache.clone();
        let creating = thread::spawn(move || {
            creator.mutate(DIR, "a", Some(Version(1)), NEVER);
            assert_eq!(creator.lookup(DIR, "a", now), hit(1));
        });
        let _ = cache.insert(&token, "a", Entry::Negative, NEVER);
        creating.join().unwrap();
        assert_eq!(cache.lookup(DIR, "a", now), hit(1));
    });
}

#[test]
fn what_is_cached_is_the_last_version_of_the_store() {
    loom::model(|| {
        let (cache, now) = cache(1);
        let store = Arc::new(AtomicU64::new(1));
        let (writer, written) = (cache.clone(), Arc::clone(&store));
        let writing = thread::spawn(move || {
            written.store(2, Ordering::SeqCst);
            writer.mutate(DIR, "a", Some(Version(2)), NEVER);
        });
        let token = cache.begin(DIR);
        let answer = Version(store.load(Ordering::SeqCst));
        let _ = cache.insert(&token, "a", Some(answer), NEVER);
        writing.join().unwrap();
        assert_eq!(cache.lookup(DIR, "a", now), hit(2));
    });
}

#[test]
fn a_listing_does_not_end_over_a_create() {
    loom::model(|| {
        let (cache, now) = cache(1);
        let mut listing = cache.listing(cache.begin(DIR), NEVER).unwrap();
        let creator = cache.clone();
        let creating = thread::spawn(move || {
            creator.mutate(DIR, "new", Some(Version(1)), NEVER);
        });
        let paged = listing.page([("old", Version(0))]);
        let ended = listing.complete();
        creating.join().unwrap();
        assert!(paged.is_ok() || ended.is_err());
        assert_eq!(cache.lookup(DIR, "new", now), hit(1));
        let names: Option<Vec<_>> =
            cache.entries(DIR, now).map(|entries| entries.iter().map(|(name, _)| name.to_owned()).collect());
        assert_eq!(names, ended.is_ok().then(|| vec!["new".to_owned(), "old".to_owned()]));
    });
}

#[test]
fn nothing_from_before_outlives_a_forgotten_directory() {
    loom::model(|| {
        let (cache, now) = cache(1);
        let token = cache.begin(DIR);
        let forgetter = cache.clone();
        let forgetting = thread::spawn(move || forgetter.forget_dir(DIR));
        let _ = cache.insert(&token, "a", Some(Version(1)), NEVER);
        forgetting.join().unwrap();
        assert_eq!(cache.lookup(DIR, "a", now), Lookup::Miss);
        assert!(cache.is_empty());
    });
}

#[test]
fn renames_in_opposite_directions_both_end() {
    loom::model(|| {
        let (cache, now) = cache(2);
        let other = cache.clone();
        let renaming = thread::spawn(move || other.rename((1, "a"), (2, "b"), Version(1), NEVER, NEVER));
        cache.rename((2, "c"), (1, "d"), Version(2), NEVER, NEVER);
        renaming.join().unwrap();
        assert_eq!(cache.lookup(2, "b", now), hit(1));
        assert_eq!(cache.lookup(1, "d", now), hit(2));
    });
}

#[test]
fn a_change_reaches_its_consumer_once() {
    loom::model(|| {
        let (cache, _) = cache(1);
        let changes = cache.changes().unwrap();
        cache.mutate(DIR, "a", Some(Version(1)), NEVER);
        let token = cache.begin(DIR);
        let teller = cache.clone();
        let telling = thread::spawn(move || teller.insert(&token, "a", Some(Version(2)), NEVER));
        let mut seen = Vec::new();
        changes.drain(&mut seen);
        telling.join().unwrap().unwrap();
        changes.drain(&mut seen);
        assert_eq!(seen, [Change::Name { parent: DIR, name: "a".into(), cause: Cause::Replaced }]);
    });
}
