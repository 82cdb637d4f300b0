//! A directory in which others are busy can be asked about and listed all the same.

#![cfg(not(loom))]
#![allow(clippy::expect_used)]

mod things;

use staithe_dentry::{Entry, Lookup, Refused};
use things::{NEVER, Thing, cache};

const DIR: u64 = 1;

#[test]
fn an_answer_about_one_name_outlives_the_changes_of_others() {
    let (cache, now) = cache(10_000);
    let token = cache.begin(DIR);
    cache.mutate(DIR, "theirs", Some(Thing::File(1)), NEVER);
    cache.insert(&token, "asked", Entry::Negative, NEVER).expect("it is taken in");
    assert!(matches!(cache.lookup(DIR, "asked", now), Lookup::Negative(_)));
    assert_eq!(cache.insert(&token, "theirs", Entry::Negative, NEVER), Err(Refused::Stale));
    cache.forget(DIR, "asked");
    assert_eq!(cache.insert(&token, "asked", Entry::Negative, NEVER), Err(Refused::Stale));
}

#[test]
fn a_listing_ends_well_and_believes_nothing_of_what_was_changed_meanwhile() {
    let (cache, now) = cache(10_000);
    cache.mutate(DIR, "old", Some(Thing::File(1)), NEVER);
    let mut listing = cache.listing(cache.begin(DIR), NEVER).expect("it is taken in");
    // The store listed before all this.
    cache.mutate(DIR, "created", Some(Thing::File(2)), NEVER);
    cache.mutate(DIR, "removed", None, NEVER);
    cache.mutate(DIR, "replaced", Some(Thing::File(4)), NEVER);
    listing.page(["kept", "removed", "replaced"].map(|name| (name, Thing::File(3)))).expect("it is taken in");
    listing.complete().expect("it is taken in");
    let entries = cache.entries(DIR, now).expect("it is taken in");
    let found: Vec<_> = entries.iter().map(|(name, thing)| (name, *thing)).collect();
    let expected = [("created", 2), ("kept", 3), ("replaced", 4)];
    assert_eq!(found, expected.map(|(name, version)| (name, Thing::File(version))));
    assert!(matches!(cache.lookup(DIR, "old", now), Lookup::AbsentByListing(_)), "no page had it");
}

#[test]
fn what_is_older_than_all_remembered_changes_is_refused() {
    let (cache, _) = cache(10_000);
    let token = cache.begin(DIR);
    let mut listing = cache.listing(token, NEVER).expect("it is taken in");
    for change in 0..4_097 {
        cache.mutate(DIR, &(change % 7).to_string(), Some(Thing::File(change)), NEVER);
    }
    assert_eq!(cache.insert(&token, "asked", Entry::Negative, NEVER), Err(Refused::Stale));
    assert_eq!(listing.page([("a", Thing::File(0))]), Err(Refused::Stale));
    assert_eq!(listing.complete(), Err(Refused::Stale));
}
