//! A listing passed a name before it existed; the store then says that it does, with a time to live of zero. Nothing
//! may be kept of that, so the listing must not end by claiming the name's absence.
#![cfg(not(loom))]
#![allow(clippy::expect_used)]

mod things;

use staithe_dentry::{Deadline, Entry, Lookup, Refused};
use things::{NEVER, Thing, cache};

#[test]
fn a_listing_does_not_claim_the_absence_of_a_name_that_was_not_kept() {
    let (cache, now) = cache(1_000);
    let token = cache.begin(1);
    let mut listing = cache.listing(token, NEVER).expect("nothing changes here meanwhile");
    listing.page([("a", Thing::File(1))]).expect("nothing changes here meanwhile");
    let taken = cache.insert(&token, "b", Entry::Positive(Thing::File(2)), Deadline::Passed);
    assert_eq!(taken, Ok(()));
    assert_eq!(listing.complete(), Err(Refused::Evicted));
    assert_eq!(cache.lookup(1, "b", now), Lookup::Miss);
}
