//! Threads that create and remove names while others give late answers and listings of the same directory: whoever
//! changed a name sees its own change at once, until it changes it again.
#![cfg(not(loom))]
#![allow(clippy::expect_used)]

mod things;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use staithe_dentry::{Dentries, Lookup};
use things::{NEVER, Thing, cache};

const ROUNDS: u64 = 20_000;
const DIR: u64 = 1;

type Store = Mutex<BTreeMap<String, Thing>>;

/// Creates and removes its own name, and looks after each time.
fn change(cache: &Dentries<Thing>, store: &Store, name: &str, now: std::time::Instant) {
    for round in 0..ROUNDS {
        let thing = Thing::File(round);
        store.lock().expect("no thread panicked").insert(name.to_owned(), thing);
        cache.mutate(DIR, name, Some(thing), NEVER);
        let seen = cache.lookup(DIR, name, now);
        assert!(seen == Lookup::Miss || seen.hit() == Some(thing), "{seen:?} after creating {thing:?}");
        store.lock().expect("no thread panicked").remove(name);
        cache.mutate(DIR, name, None, NEVER);
        let seen = cache.lookup(DIR, name, now);
        assert!(!matches!(seen, Lookup::Hit(..) | Lookup::Expired(_)), "{seen:?} after removing");
    }
}

/// Asks the store for one name, then for all, and gives the answers late.
fn answer(cache: &Dentries<Thing>, store: &Store, name: &str) {
    let token = cache.begin(DIR);
    let thing = store.lock().expect("no thread panicked").get(name).copied();
    std::thread::yield_now();
    let _ = cache.insert(&token, name, thing, NEVER);
    let token = cache.begin(DIR);
    let all: Vec<_> = store.lock().expect("no thread panicked").clone().into_iter().collect();
    if let Ok(mut listing) = cache.listing(token, NEVER) {
        std::thread::yield_now();
        if listing.page(all).is_ok() {
            let _ = listing.complete();
        }
    }
}

fn hammer(max_entries: usize) {
    let (cache, now) = cache(max_entries);
    let store = Store::default();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let answering = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                answer(&cache, &store, "one");
                answer(&cache, &store, "two");
                cache.invalidate_tree(DIR);
            }
        });
        let changing = ["one", "two"].map(|name| {
            let (cache, store) = (&cache, &store);
            scope.spawn(move || change(cache, store, name, now))
        });
        let ended = changing.map(std::thread::ScopedJoinHandle::join);
        done.store(true, Ordering::Relaxed);
        answering.join().expect("answers do not fail");
        for end in ended {
            end.expect("changes are seen");
        }
    });
    assert_eq!(cache.stats().entries, cache.len() as u64);
}

#[test]
fn own_changes_are_seen_at_once() {
    hammer(1_000);
}

#[test]
fn own_changes_are_seen_at_once_or_forgotten_where_there_is_no_room() {
    hammer(1);
}
