//! The caches that one would use instead, behind one small face: hold a value per (parent, name) until a deadline.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::RwLock,
    time::{Duration, Instant},
};

use staithe_dentry::{Config, Deadline, Dentries, Entry, Lookup, Value};

/// An inode number: the smallest value that a mount could do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inode(pub(crate) u64);

impl Value for Inode {
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

/// A cache of names with deadlines. Looking up takes a borrowed name: whoever must allocate for it does so inside.
pub(crate) trait Contender: Sync {
    fn with_room(entries: usize, now: Instant) -> Self;
    fn get(&self, parent: u64, name: &str, now: Instant) -> Option<Inode>;
    fn put(&self, parent: u64, name: &str, inode: Inode, deadline: Instant);
}

/// A key that can be compared with a borrowed pair.
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Key(u64, Box<str>);

#[derive(Hash)]
struct Borrowed<'a>(u64, &'a str);

impl hashbrown::Equivalent<Key> for Borrowed<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

fn fresh((inode, deadline): (Inode, Instant), now: Instant) -> Option<Inode> {
    (deadline > now).then_some(inode)
}

impl Contender for Dentries<Inode> {
    fn with_room(entries: usize, now: Instant) -> Self {
        Dentries::new(Config { max_entries: entries, max_bytes: usize::MAX, ..Config::default() }, now)
    }

    #[inline]
    fn get(&self, parent: u64, name: &str, now: Instant) -> Option<Inode> {
        match self.lookup(parent, name, now) {
            Lookup::Hit(inode, _) => Some(inode),
            _ => None,
        }
    }

    fn put(&self, parent: u64, name: &str, inode: Inode, deadline: Instant) {
        let token = self.begin(parent);
        let _ = self.insert(&token, name, Entry::Positive(inode), Deadline::At(deadline));
    }
}

/// The first thing one writes: a lock, a map of directories, a map of names. It is not bounded.
pub(crate) struct Nested(RwLock<HashMap<u64, Names>>);

type Names = HashMap<Box<str>, (Inode, Instant)>;

impl Contender for Nested {
    fn with_room(_: usize, _: Instant) -> Self {
        Self(RwLock::default())
    }

    #[inline]
    fn get(&self, parent: u64, name: &str, now: Instant) -> Option<Inode> {
        fresh(*self.0.read().ok()?.get(&parent)?.get(name)?, now)
    }

    fn put(&self, parent: u64, name: &str, inode: Inode, deadline: Instant) {
        if let Ok(mut map) = self.0.write() {
            map.entry(parent).or_default().insert(name.into(), (inode, deadline));
        }
    }
}

/// The same with the fastest parts at hand: one flat map, a fast hash, a small lock. It is not bounded.
pub(crate) struct Flat(parking_lot::RwLock<hashbrown::HashMap<Key, (Inode, Instant)>>);

impl Contender for Flat {
    fn with_room(_: usize, _: Instant) -> Self {
        Self(parking_lot::RwLock::default())
    }

    #[inline]
    fn get(&self, parent: u64, name: &str, now: Instant) -> Option<Inode> {
        fresh(*self.0.read().get(&Borrowed(parent, name))?, now)
    }

    fn put(&self, parent: u64, name: &str, inode: Inode, deadline: Instant) {
        self.0.write().insert(Key(parent, name.into()), (inode, deadline));
    }
}

pub(crate) type Quick = quick_cache::sync::Cache<Key, (Inode, Instant)>;

impl Contender for Quick {
    fn with_room(entries: usize, _: Instant) -> Self {
        quick_cache::sync::Cache::new(entries)
    }

    #[inline]
    fn get(&self, parent: u64, name: &str, now: Instant) -> Option<Inode> {
        fresh(quick_cache::sync::Cache::get(self, &Borrowed(parent, name))?, now)
    }

    fn put(&self, parent: u64, name: &str, inode: Inode, deadline: Instant) {
        self.insert(Key(parent, name.into()), (inode, deadline));
    }
}

pub(crate) type Moka = moka::sync::Cache<Key, (Inode, Instant)>;

impl Contender for Moka {
    fn with_room(entries: usize, _: Instant) -> Self {
        moka::sync::Cache::new(entries as u64)
    }

    #[inline]
    fn get(&self, parent: u64, name: &str, now: Instant) -> Option<Inode> {
        fresh(moka::sync::Cache::get(self, &Borrowed(parent, name))?, now)
    }

    fn put(&self, parent: u64, name: &str, inode: Inode, deadline: Instant) {
        self.insert(Key(parent, name.into()), (inode, deadline));
    }
}

/// Directories of a thousand names each, as an image collection or a build tree has them: 12 to 16 bytes a name.
pub(crate) fn names(entries: usize) -> Vec<(u64, String)> {
    (0..entries).map(|number| (number as u64 / 1_000 + 1, format!("image-{number}.jpg"))).collect()
}

/// A cache that holds all of `names` for an hour.
pub(crate) fn filled<C: Contender>(names: &[(u64, String)], now: Instant) -> C {
    let cache = C::with_room(names.len() + names.len() / 4, now);
    for (number, (parent, name)) in names.iter().enumerate() {
        cache.put(*parent, name, Inode(number as u64), now + Duration::from_hours(1));
    }
    cache
}
