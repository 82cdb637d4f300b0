//! What goes when there is no room, and what that means for what stays.
#![cfg(not(loom))]
#![allow(clippy::expect_used)]

mod things;

use staithe_dentry::{Config, Dentries, Entry, Lookup, Refused};
use std::time::Instant;
use things::{NEVER, Thing, cache, list};

fn insert(cache: &Dentries<Thing>, parent: u64, name: &str, thing: Thing) {
    let token = cache.begin(parent);
    cache.insert(&token, name, Entry::Positive(thing), NEVER).expect("nothing changes here meanwhile");
}

#[test]
fn a_scan_does_not_push_out_what_is_in_use() {
    let (cache, now) = cache(1_000);
    let hot: Vec<_> = (0..200).map(|number| format!("hot-{number}")).collect();
    let touch = |times| {
        (0..times).flat_map(|_| &hot).filter(|name| cache.lookup(1, name, now).hit().is_some()).count()
            / times
    };
    for name in &hot {
        insert(&cache, 1, name, Thing::File(1));
    }
    touch(3);
    for number in 0..20_000 {
        insert(&cache, 2 + number / 100, &format!("scanned-{number}"), Thing::File(2));
    }
    let left = touch(1);
    assert!(left >= 190, "{left} of 200 names in use survived a scan of twenty times the cache");
    assert!(cache.len() <= 1_000);
}

#[test]
fn a_directory_as_big_as_the_cache_fits_though_it_lies_in_one_shard() {
    let (cache, now) = cache(10_000);
    list(&cache, 1, (0..10_000).map(|number| (number.to_string(), Thing::File(number))));
    assert!(cache.is_complete(1, now));
    assert_eq!(cache.entries(1, now).expect("it is complete").len(), 10_000);
}

#[test]
fn a_directory_that_does_not_fit_is_not_complete() {
    let (cache, now) = cache(100);
    let mut listing = cache.listing(cache.begin(1), NEVER).expect("nothing changes here meanwhile");
    assert_eq!(listing.page((0..1_000).map(|number| (number.to_string(), Thing::File(number)))), Ok(()));
    assert_eq!(listing.complete(), Err(Refused::Evicted));
    assert_eq!(cache.lookup(1, "absent", now), Lookup::Miss);
}

#[test]
fn an_eviction_ends_completeness_and_no_later_answer_brings_it_back() {
    let (cache, now) = cache(100);
    list(&cache, 1, (0..100).map(|number| (number.to_string(), Thing::File(number))));
    for number in 0..300 {
        insert(&cache, 2, &number.to_string(), Thing::File(number));
    }
    let gone = (0..100).filter(|number| cache.lookup(1, &number.to_string(), now).hit().is_none()).count();
    assert!(gone > 0, "three times the cache pushes something out");
    assert!(!cache.is_complete(1, now));
    assert!(cache.entries(1, now).is_none());
}

#[test]
fn what_lies_below_an_evicted_directory_goes_with_it() {
    let (cache, now) = cache(100);
    insert(&cache, 1, "sub", Thing::Directory(2));
    insert(&cache, 2, "file", Thing::File(1));
    for number in 0..2_000 {
        insert(&cache, 3, &number.to_string(), Thing::File(number));
        cache.lookup(2, "file", now);
    }
    assert_eq!(cache.lookup(1, "sub", now), Lookup::Miss);
    assert_eq!(
        cache.lookup(2, "file", now),
        Lookup::Miss,
        "nothing leads to it: an invalidation would miss it"
    );
}

#[test]
fn bytes_are_a_bound_of_their_own() {
    let now = Instant::now();
    let config = Config { max_bytes: 100_000, ..Config::default() };
    let cache = Dentries::new(config, now);
    for number in 0..1_000 {
        insert(&cache, number / 50, &format!("{number}-{}", "long".repeat(100)), Thing::File(number));
        assert!(cache.stats().bytes <= 100_000);
    }
    assert!(cache.len() > 100, "{} names of 400 bytes in 100,000", cache.len());
}

#[test]
fn directories_without_entries_are_bounded() {
    let (cache, now) = cache(1_000);
    let late = cache.begin(7);
    for parent in 0..200_000 {
        cache.mutate(parent, "gone", Entry::Negative, staithe_dentry::Deadline::Passed);
    }
    assert!(cache.stats().directories <= 64 * 256);
    assert_eq!(cache.insert(&late, "gone", Some(Thing::File(1)), NEVER), Err(Refused::Stale));
    assert_eq!(cache.lookup(7, "gone", now), Lookup::Miss);
}
