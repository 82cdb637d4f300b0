//! What the cache should know, said as plainly as possible: maps, sets, and a walk over everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use staithe_dentry::{Cause, Change, Deadline, Lookup, Ttl, Value};

/// A version of a file, or of a directory with the identity `directory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thing {
    pub version: u8,
    pub directory: Option<u64>,
}

impl Value for Thing {
    fn directory(&self) -> Option<u64> {
        self.directory
    }

    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

#[derive(Debug, Default)]
pub(crate) struct Dir {
    pub generation: u64,
    /// The generation of the latest change of all of it.
    pub outdated: u64,
    /// The generation of the latest change of each name.
    pub changed: BTreeMap<&'static str, u64>,
    pub complete: Option<Deadline>,
    pub names: BTreeMap<&'static str, (Option<Thing>, Deadline)>,
    /// A name that exists was not kept, or forgotten, since that listing began: it may not end well.
    pub(crate) leaky: bool,
    /// The latest listing and what was written since it began.
    pub listing: Option<(usize, BTreeSet<&'static str>)>,
}

#[derive(Debug, Default)]
pub(crate) struct Naive {
    pub dirs: BTreeMap<u64, Dir>,
    pub changes: Vec<Change>,
    /// How often a directory was dropped because nothing leads to it: tokens from before may be refused.
    pub orphaned: u64,
}

impl Naive {
    pub(crate) fn dir(&mut self, id: u64) -> &mut Dir {
        self.dirs.entry(id).or_default()
    }

    pub(crate) fn generation(&mut self, id: u64) -> u64 {
        self.dir(id).generation
    }

    /// Whether an answer about a name, that was asked for at this generation, may be taken in.
    pub(crate) fn is_fresh(&mut self, id: u64, name: &str, generation: u64) -> bool {
        let dir = self.dir(id);
        dir.outdated <= generation && dir.changed.get(name).is_none_or(|changed| *changed <= generation)
    }

    fn change(&mut self, id: u64, name: &'static str) {
        let dir = self.dir(id);
        dir.generation += 1;
        dir.changed.insert(name, dir.generation);
    }

    pub(crate) fn lookup(&mut self, id: u64, name: &str, now: Instant) -> Lookup<Thing> {
        let dir = self.dir(id);
        match dir.names.get(name) {
            Some((Some(thing), deadline)) => {
                return left(*deadline, now)
                    .map_or(Lookup::Expired(*thing), |left| Lookup::Hit(*thing, left));
            }
            Some((None, deadline)) => {
                if let Some(left) = left(*deadline, now) {
                    return Lookup::Negative(left);
                }
            }
            None => {}
        }
        let complete = dir.complete.and_then(|deadline| left(deadline, now));
        complete.map_or(Lookup::Miss, Lookup::AbsentByListing)
    }

    pub(crate) fn entries(&mut self, id: u64, now: Instant) -> Option<Vec<(&'static str, Thing)>> {
        let dir = self.dir(id);
        left(dir.complete?, now)?;
        Some(dir.names.iter().filter_map(|(name, (thing, _))| Some((*name, (*thing)?))).collect())
    }

    pub(crate) fn record(
        &mut self,
        id: u64,
        name: &'static str,
        thing: Option<Thing>,
        deadline: Deadline,
        remote: bool,
    ) {
        let dir = self.dir(id);
        let found = dir.names.remove(name);
        let known_absent = dir.complete.is_some() || found.is_some();
        let before = found.and_then(|(thing, _)| thing);
        if deadline != Deadline::Passed || (dir.complete.is_some() && thing.is_some()) {
            dir.names.insert(name, (thing, deadline));
            if let Some((_, seen)) = &mut dir.listing {
                seen.insert(name);
            }
        } else if thing.is_some() {
            dir.leaky = true;
        }
        if remote {
            self.news(id, name, before, thing, known_absent);
        }
    }

    fn news(&mut self, id: u64, name: &str, before: Option<Thing>, after: Option<Thing>, known_absent: bool) {
        let cause = match (before, after) {
            (Some(before), Some(after)) => (before != after).then_some(Cause::Replaced),
            (Some(_), None) => Some(Cause::Removed),
            (None, Some(_)) => known_absent.then_some(Cause::Appeared),
            (None, None) => None,
        };
        self.changes.extend(cause.map(|cause| Change::Name { parent: id, name: name.into(), cause }));
        let after = after.and_then(|thing| thing.directory);
        if let Some(child) = before.and_then(|thing| thing.directory).filter(|child| after != Some(*child)) {
            self.orphan(child);
        }
    }

    pub(crate) fn orphan(&mut self, id: u64) {
        self.orphaned += 1;
        let dir = self.dir(id);
        let names = std::mem::take(&mut dir.names);
        dir.complete = None;
        dir.listing = None;
        for child in names.values().filter_map(|(thing, _)| (*thing)?.directory) {
            self.orphan(child);
        }
    }

    pub(crate) fn mutate(&mut self, id: u64, name: &'static str, thing: Option<Thing>, deadline: Deadline) {
        self.change(id, name);
        self.record(id, name, thing, deadline, false);
    }

    pub(crate) fn forget(&mut self, id: u64, name: &'static str) {
        self.change(id, name);
        let dir = self.dir(id);
        dir.complete = None;
        dir.leaky = true;
        let found = dir.names.remove(name).and_then(|(thing, _)| thing);
        self.changes.push(Change::Name { parent: id, name: name.into(), cause: Cause::Forgotten });
        if let Some(child) = found.and_then(|thing| thing.directory) {
            self.orphan(child);
        }
    }

    pub(crate) fn forget_dir(&mut self, id: u64) -> Vec<u64> {
        let dir = self.dir(id);
        dir.generation += 1;
        dir.outdated = dir.generation;
        dir.complete = None;
        dir.listing = None;
        let names = std::mem::take(&mut dir.names);
        names.values().filter_map(|(thing, _)| (*thing)?.directory).collect()
    }

    pub(crate) fn invalidate_tree(&mut self, id: u64) {
        let mut below = vec![id];
        while let Some(id) = below.pop() {
            self.changes.push(Change::Directory { id, cause: Cause::Forgotten });
            below.extend(self.forget_dir(id));
        }
    }

    /// The listing's number has been checked.
    pub(crate) fn complete(&mut self, id: u64, deadline: Deadline) {
        let dir = self.dir(id);
        let seen = dir.listing.as_ref().map(|(_, seen)| seen.clone()).unwrap_or_default();
        let gone: Vec<_> = dir.names.keys().copied().filter(|name| !seen.contains(name)).collect();
        dir.complete = (deadline != Deadline::Passed).then_some(deadline);
        for name in gone {
            let before = self.dir(id).names.remove(name).and_then(|(thing, _)| thing);
            self.news(id, name, before, None, false);
        }
    }
}

pub(crate) fn left(deadline: Deadline, now: Instant) -> Option<Ttl> {
    match deadline {
        Deadline::Passed => None,
        Deadline::Never => Some(Ttl::Forever),
        Deadline::At(at) => {
            Some(at.saturating_duration_since(now)).filter(|left| *left > Duration::ZERO).map(Ttl::For)
        }
    }
}
