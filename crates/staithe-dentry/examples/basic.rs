//! One name asked for, one created while the store was being asked, one directory listed whole.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use staithe_dentry::{Config, Dentries, Entry, Lookup, Refused, Ttl, Value};

/// What a name stands for here: an inode, which may be a directory.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Inode {
    File(u64),
    Directory(u64),
}

impl Value for Inode {
    fn directory(&self) -> Option<u64> {
        match self {
            Inode::Directory(id) => Some(*id),
            Inode::File(_) => None,
        }
    }

    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

const ROOT: u64 = 1;

fn main() -> Result<(), Refused> {
    let start = Instant::now();
    let cache = Dentries::new(Config::default(), start);
    let deadline = Ttl::For(Duration::from_secs(10)).deadline(start);

    // Nothing is known: take a token, ask the store, give its answer back.
    assert_eq!(cache.lookup(ROOT, "data", start), Lookup::Miss);
    let token = cache.begin(ROOT);
    cache.insert(&token, "data", Entry::Positive(Inode::Directory(2)), deadline)?;
    println!("data: {:?}", cache.lookup(ROOT, "data", start));

    // A slow answer is overtaken by a local create: it is refused, and the create stands.
    let slow = cache.begin(2);
    cache.mutate(2, "new", Entry::Positive(Inode::File(3)), deadline);
    println!("late answer: {:?}", cache.insert(&slow, "new", Entry::Negative, deadline));
    println!("new: {:?}", cache.lookup(2, "new", start));

    // A whole listing answers for what is not in it, and for the names in order.
    let mut listing = cache.listing(cache.begin(2), deadline)?;
    listing.page([("a", Inode::File(4)), ("b", Inode::File(5))])?;
    listing.page([("new", Inode::File(3))])?;
    listing.complete()?;
    println!("nothing: {:?}", cache.lookup(2, "nothing", start));
    cache.mutate(2, "a", Entry::Negative, deadline);
    if let Some(entries) = cache.entries(2, start) {
        println!("in order: {:?}", entries.iter().map(|(name, _)| name).collect::<Vec<_>>());
    }

    // Ten seconds later it has to be asked for again.
    println!("later: {:?}", cache.lookup(2, "b", start + Duration::from_secs(10)));
    println!("{:?}", cache.stats());
    Ok(())
}
