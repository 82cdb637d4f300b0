//! A sequence of calls, made on the cache and on the naive model side by side.
//!
//! Tokens and listings are kept open between the steps, so every order of question, answer and local change occurs
//! that threads could produce.

use std::time::{Duration, Instant};

use staithe_dentry::{Changes, Config, Deadline, Dentries, Entry, Listing, Lookup, Refused, Token, Ttl};

use super::naive::{Naive, Thing};

pub(crate) const NAMES: [&str; 5] = ["a", "b", "c", "a name longer than what fits in an entry", "é"];
pub(crate) const DIRS: u64 = 4;

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Begin(u64),
    Insert { token: u8, name: u8, thing: u8, ttl: u8 },
    Mutate { dir: u64, name: u8, thing: u8, ttl: u8 },
    Rename { from: (u64, u8), to: (u64, u8), thing: u8, ttl: u8 },
    Forget { dir: u64, name: u8 },
    ForgetDir(u64),
    InvalidateTree(u64),
    Listing { token: u8, ttl: u8 },
    Page { listing: u8, names: u8, thing: u8 },
    Complete { listing: u8 },
    Advance(u8),
    Sweep,
}

impl Op {
    /// The next step that a string of bytes says, for a fuzzer.
    pub(crate) fn decode(bytes: &mut impl Iterator<Item = u8>) -> Option<Op> {
        let kind = bytes.next()?;
        let mut next = || bytes.next().unwrap_or(0);
        let dir = |byte: u8| u64::from(byte) % DIRS;
        Some(match kind % 14 {
            0 | 1 => Op::Begin(dir(next())),
            2 | 3 => Op::Insert { token: next(), name: next(), thing: next(), ttl: next() },
            4 => Op::Mutate { dir: dir(next()), name: next(), thing: next(), ttl: next() },
            5 => Op::Rename {
                from: (dir(next()), next()),
                to: (dir(next()), next()),
                thing: next(),
                ttl: next(),
            },
            6 => Op::Forget { dir: dir(next()), name: next() },
            7 => Op::ForgetDir(dir(next())),
            8 => Op::InvalidateTree(dir(next())),
            9 => Op::Listing { token: next(), ttl: next() },
            10 => Op::Page { listing: next(), names: next(), thing: next() },
            11 => Op::Complete { listing: next() },
            12 => Op::Advance(next()),
            _ => Op::Sweep,
        })
    }
}

struct Asked {
    token: Token,
    generation: u64,
    orphaned: u64,
}

struct OpenListing {
    listing: Listing<Thing>,
    number: usize,
    generation: u64,
    orphaned: u64,
    deadline: Deadline,
}

/// Both sides, and the steps that are under way between them.
pub(crate) struct Run {
    cache: Dentries<Thing>,
    changes: Changes,
    naive: Naive,
    now: Instant,
    tokens: Vec<Asked>,
    listings: Vec<OpenListing>,
    begun: usize,
    /// Whether directories are among the values, and the cache is big enough to know all that the model knows.
    exact: bool,
    max_entries: usize,
}

/// Runs a script that is encoded in bytes: the body of a fuzz target.
pub(crate) fn run_bytes(bytes: &[u8]) {
    let (first, mut rest) = (bytes.first().copied().unwrap_or(0), bytes.iter().skip(1).copied());
    let mut ops = Vec::new();
    while let Some(op) = Op::decode(&mut rest) {
        ops.push(op);
    }
    run(&ops, (first % 2 == 1).then_some(usize::from(first) / 16));
}

/// Runs a script. With `max_entries`, the cache is so small that it may know less than the model, never otherwise.
pub(crate) fn run(ops: &[Op], max_entries: Option<usize>) {
    let now = Instant::now();
    let exact = max_entries.is_none();
    let max_entries = max_entries.unwrap_or(1_000_000);
    let config = Config { max_entries, shards: 2, ..Config::default() };
    let cache = Dentries::new(config, now);
    let changes = cache.changes().expect("they were not taken before");
    let mut run = Run {
        cache,
        changes,
        naive: Naive::default(),
        now,
        tokens: Vec::new(),
        listings: Vec::new(),
        begun: 0,
        exact,
        max_entries,
    };
    for (number, op) in ops.iter().enumerate() {
        run.step(op);
        run.compare(&format!("after step {number}, {op:?}"));
    }
}

impl Run {
    fn thing(&self, byte: u8) -> Option<Thing> {
        let directory = match byte / 4 % 3 {
            // A directory's parent has a lower number: there are no cycles, as there are none in a namespace.
            0 if self.exact => Some(u64::from(byte % 3) + 1),
            _ => None,
        };
        (!byte.is_multiple_of(5)).then_some(Thing { version: byte % 2, directory })
    }

    fn deadline(&self, byte: u8) -> Deadline {
        match byte % 6 {
            0 => Ttl::None.deadline(self.now),
            1 => Ttl::Forever.deadline(self.now),
            other => Ttl::For(Duration::from_millis(u64::from(other) * 10)).deadline(self.now),
        }
    }

    fn below(dir: u64, thing: Option<Thing>) -> Option<Thing> {
        thing.map(|thing| Thing { directory: thing.directory.filter(|child| *child > dir), ..thing })
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Begin(dir) => {
                let generation = self.naive.generation(dir);
                let orphaned = self.naive.orphaned;
                self.tokens.push(Asked { token: self.cache.begin(dir), generation, orphaned });
            }
            Op::Insert { token, name, thing, ttl } => self.insert(token, name, thing, ttl),
            Op::Mutate { dir, name, thing, ttl } => {
                let (name, deadline) = (name_of(name), self.deadline(ttl));
                let thing = Self::below(dir, self.thing(thing));
                self.cache.mutate(dir, name, thing, deadline);
                self.naive.mutate(dir, name, thing, deadline);
            }
            Op::Rename { from, to, thing, ttl } => self.rename(from, to, thing, ttl),
            Op::Forget { dir, name } => {
                self.cache.forget(dir, name_of(name));
                self.naive.forget(dir, name_of(name));
            }
            Op::ForgetDir(dir) => {
                self.cache.forget_dir(dir);
                self.naive.forget_dir(dir);
            }
            Op::InvalidateTree(dir) => {
                self.cache.invalidate_tree(dir);
                self.naive.invalidate_tree(dir);
            }
            Op::Listing { token, ttl } => self.listing(token, ttl),
            Op::Page { listing, names, thing } => self.page(listing, names, thing),
            Op::Complete { listing } => self.complete(listing),
            Op::Advance(by) => self.now += Duration::from_millis(u64::from(by % 32)),
            Op::Sweep => {
                // What a sweep frees answers nothing but a revalidation: the model forgets that as well.
                self.cache.sweep(self.now, usize::MAX);
                self.sweep_naive();
            }
        }
    }

    fn insert(&mut self, token: u8, name: u8, thing: u8, ttl: u8) {
        let Some(asked) = pick(&self.tokens, token) else {
            return;
        };
        let (token, orphaned, generation) = (asked.token, asked.orphaned, asked.generation);
        let (name, deadline) = (name_of(name), self.deadline(ttl));
        let fresh = self.naive.is_fresh(token.parent(), name, generation);
        let thing = Self::below(token.parent(), self.thing(thing));
        let taken = self.cache.insert(&token, name, Entry::from(thing), deadline);
        self.check_refusal(fresh, orphaned, taken.is_ok());
        if taken.is_ok() {
            self.naive.record(token.parent(), name, thing, deadline, true);
        }
    }

    fn check_refusal(&self, fresh: bool, orphaned: u64, taken: bool) {
        assert!(fresh || !taken, "an answer from before a local change was taken in");
        assert!(taken || !fresh || self.naive.orphaned > orphaned, "a good answer was refused");
    }

    fn rename(&mut self, from: (u64, u8), to: (u64, u8), thing: u8, ttl: u8) {
        let ((from_dir, from), (to_dir, to)) = ((from.0, name_of(from.1)), (to.0, name_of(to.1)));
        let Some(thing) = Self::below(to_dir, self.thing(thing)) else {
            return;
        };
        let (deadline, gone) = (self.deadline(ttl), self.deadline(ttl / 6));
        self.cache.rename((from_dir, from), (to_dir, to), thing, deadline, gone);
        self.naive.mutate(from_dir, from, None, gone);
        self.naive.mutate(to_dir, to, Some(thing), deadline);
    }

    fn listing(&mut self, token: u8, ttl: u8) {
        let Some(asked) = pick(&self.tokens, token) else {
            return;
        };
        let (token, orphaned, deadline) = (asked.token, asked.orphaned, self.deadline(ttl));
        let generation = asked.generation;
        let fresh = self.naive.generation(token.parent()) == generation;
        let begun = self.cache.listing(token, deadline);
        self.check_refusal(fresh, orphaned, begun.is_ok());
        if let Ok(listing) = begun {
            self.begun += 1;
            let number = self.begun;
            let dir = self.naive.dir(token.parent());
            dir.listing = Some((number, std::collections::BTreeSet::new()));
            dir.leaky = false;
            self.listings.push(OpenListing { listing, number, generation, orphaned, deadline });
        }
    }

    fn page(&mut self, listing: u8, names: u8, thing: u8) {
        let (exact_thing, count) = (self.thing(thing), self.listings.len());
        if count == 0 {
            return;
        }
        let open = &mut self.listings[usize::from(listing) % count];
        let (parent, deadline, orphaned) = (open.listing.parent(), open.deadline, open.orphaned);
        let generation = open.generation;
        let fresh = self.naive.dir(parent).outdated <= generation;
        let thing = exact_thing.unwrap_or(Thing { version: 0, directory: None });
        let thing = Thing { directory: thing.directory.filter(|child| *child > parent), ..thing };
        let page: Vec<_> =
            (0..NAMES.len()).filter(|bit| names >> bit & 1 == 1).map(|bit| (NAMES[bit], thing)).collect();
        let taken = open.listing.page(page.iter().copied());
        if !page.is_empty() {
            self.check_refusal(fresh, orphaned, taken.is_ok());
        }
        if taken.is_ok() {
            for (name, thing) in page {
                if !self.naive.is_fresh(parent, name, generation) {
                    continue;
                }
                self.naive.record(parent, name, Some(thing), deadline, true);
            }
        }
    }

    fn complete(&mut self, listing: u8) {
        if self.listings.is_empty() {
            return;
        }
        let open = self.listings.swap_remove(usize::from(listing) % self.listings.len());
        let parent = open.listing.parent();
        let dir = self.naive.dir(parent);
        let fresh = dir.outdated <= open.generation;
        let latest = dir.listing.as_ref().map(|(number, _)| *number);
        let leaky = dir.leaky && open.deadline != Deadline::Passed;
        let ended = open.listing.complete();
        assert!(fresh || ended == Err(Refused::Stale), "{ended:?} for an outdated listing");
        let disturbed = self.naive.orphaned > open.orphaned || !self.exact || leaky;
        match ended {
            Ok(()) => {
                assert_eq!(latest, Some(open.number), "a listing that lost its directory completed it");
                assert!(!leaky, "a listing that overlooks a name completed its directory");
                self.naive.complete(parent, open.deadline);
            }
            Err(Refused::Superseded) => assert_ne!(latest, Some(open.number), "taken for superseded"),
            Err(refused) => assert!(!fresh || disturbed, "{refused:?} without a cause"),
        }
    }

    fn sweep_naive(&mut self) {
        let now = self.now;
        let mut orphans = Vec::new();
        for (id, dir) in &mut self.naive.dirs {
            let in_force = dir.complete.is_some_and(|deadline| super::naive::left(deadline, now).is_some());
            let before = dir.names.len();
            let mut lost = false;
            dir.names.retain(|_, (thing, deadline)| {
                let keep = super::naive::left(*deadline, now).is_some() || (thing.is_some() && in_force);
                if let Some(thing) = thing.filter(|_| !keep) {
                    lost = true;
                    orphans.extend(thing.directory);
                }
                keep
            });
            debug_assert!(before >= dir.names.len(), "in {id}");
            if lost {
                dir.complete = None;
                // A listing that is under way has lost a name: it may not end well any more.
                self.naive.orphaned += 1;
            }
        }
        for orphan in orphans {
            self.naive.orphan(orphan);
        }
    }

    fn compare(&mut self, when: &str) {
        for dir in 0..DIRS {
            for name in NAMES {
                let (known, truth) =
                    (self.cache.lookup(dir, name, self.now), self.naive.lookup(dir, name, self.now));
                if self.exact {
                    assert_eq!(known, truth, "{dir}/{name} {when}");
                } else {
                    let complete = self.naive.entries(dir, self.now).is_some();
                    let negative = matches!(truth, Lookup::Negative(_)) && complete;
                    let absent = matches!(known, Lookup::AbsentByListing(_)) && negative;
                    assert!(
                        known == truth || known == Lookup::Miss || absent,
                        "{known:?}, not {truth:?}, {when}"
                    );
                }
            }
            let entries = self.cache.entries(dir, self.now);
            let entries =
                entries.as_ref().map(|entries| entries.iter().map(|(n, v)| (n, *v)).collect::<Vec<_>>());
            let truth = self.naive.entries(dir, self.now);
            assert!(
                entries == truth || (!self.exact && entries.is_none()),
                "{entries:?}, not {truth:?}, {when}"
            );
        }
        assert!(self.cache.len() <= self.max_entries, "over the bound {when}");
        assert_eq!(self.cache.stats().entries, self.cache.len() as u64, "the totals are off {when}");
        let mut drained = Vec::new();
        self.changes.drain(&mut drained);
        let mut truth = std::mem::take(&mut self.naive.changes);
        if self.exact {
            let key = |change: &staithe_dentry::Change| format!("{change:?}");
            drained.sort_by_key(key);
            truth.sort_by_key(key);
            assert_eq!(drained, truth, "changes {when}");
        }
    }
}

fn name_of(byte: u8) -> &'static str {
    NAMES[usize::from(byte) % NAMES.len()]
}

fn pick<T>(from: &[T], number: u8) -> Option<&T> {
    (!from.is_empty()).then(|| &from[usize::from(number) % from.len()])
}
