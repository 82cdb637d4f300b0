//! The cache as its callers see it. What holds between the shards is said in `shards.rs`.

use std::time::Instant;

use crate::{
    change::{Cause, Change, Changes},
    config::Config,
    directory::Generation,
    entry::{Entry, Lookup, Refused, Value},
    shard::{Effects, Source},
    shards::{Inner, STEP},
    stats::Stats,
    sync::{Arc, Ordering},
    ttl::Deadline,
};

/// Proof of when the store was asked about a directory. Take it before asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a token does nothing by itself: give it back with the store's answer"]
pub struct Token {
    pub(crate) parent: u64,
    pub(crate) generation: Generation,
}

impl Token {
    /// The directory it was taken of.
    pub fn parent(&self) -> u64 {
        self.parent
    }
}

/// The cache. A clone is another handle to the same one.
pub struct Dentries<V> {
    pub(crate) inner: Arc<Inner<V>>,
}

impl<V> Clone for Dentries<V> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<V: Value> Dentries<V> {
    /// An empty cache whose deadlines count from `epoch`: an instant no later than any other it will be given.
    pub fn new(config: Config, epoch: Instant) -> Self {
        Self { inner: Arc::new(Inner::new(config, epoch)) }
    }

    /// What is known about a name at `now`. O(1); allocates nothing; waits at most for one step of a writer.
    #[inline]
    pub fn lookup(&self, parent: u64, name: &str, now: Instant) -> Lookup<V> {
        let now = self.inner.epoch.tick(now);
        let hash = self.inner.hash(parent, name);
        let shard = self.inner.shard(parent);
        let state = shard.state.read();
        let found = state.lookup(hash, parent, name, now);
        shard.count(&found);
        found
    }

    /// To be called *before* the store is asked about anything in `parent`. O(1).
    pub fn begin(&self, parent: u64) -> Token {
        Token { parent, generation: self.inner.shard(parent).state.read().dirs.generation(parent) }
    }

    /// Whether the directory is unchanged here since the token was taken: an answer that no longer holds is told
    /// to others with a time to live of zero. O(1).
    pub fn holds(&self, token: &Token) -> bool {
        self.begin(token.parent) == *token
    }

    /// Takes in what the store said about one name. O(1).
    ///
    /// A deadline that has passed keeps nothing, but what was cached of the name goes.
    ///
    /// # Errors
    /// [`Refused::Stale`] if the name was changed here since the token was taken, or the directory as a whole. Nothing
    /// is cached.
    pub fn insert(
        &self,
        token: &Token,
        name: &str,
        entry: impl Into<Entry<V>>,
        deadline: Deadline,
    ) -> Result<(), Refused> {
        let parent = token.parent;
        let answer = self.inner.answer(parent, name, entry.into(), deadline);
        self.inner.write(parent, |state, effects| {
            if !state.dirs.standing(parent, token.generation).covers(answer.hash) {
                state.counts.refused += 1;
                effects.discard(answer.entry);
                return Err(Refused::Stale);
            }
            let dir = state.dirs.open(parent);
            let before = state.record(dir, answer, Source::Store, effects);
            effects.trash.extend(before);
            state.dirs.settle(dir);
            state.counts.inserts += 1;
            Ok(())
        })
    }

    /// A change made here: outdates every answer about the name that is under way, and sets or removes it, in one step.
    /// Returns what the name stood for, also if its time was over. O(1).
    ///
    /// Call it before the change is acknowledged to whoever made it. A complete directory stays complete. A deadline
    /// that has passed leaves no entry, so that the next lookup asks the store, but in a complete directory.
    pub fn mutate(
        &self,
        parent: u64,
        name: &str,
        entry: impl Into<Entry<V>>,
        deadline: Deadline,
    ) -> Option<V> {
        let answer = self.inner.answer(parent, name, entry.into(), deadline);
        self.inner.write(parent, |state, effects| state.mutate(parent, answer, effects))
    }

    /// A rename made here, across directories or within one: `from` is absent until `gone`, `to` is `value` until
    /// `deadline`, and no lookup sees the one without the other. Returns what `to` stood for. O(1).
    ///
    /// What is cached below a renamed directory stays as it is: it lies under the directory's identity, not its name.
    pub fn rename(
        &self,
        from: (u64, &str),
        to: (u64, &str),
        value: V,
        deadline: Deadline,
        gone: Deadline,
    ) -> Option<V> {
        let inner = &*self.inner;
        let leave = inner.answer(from.0, from.1, Entry::Negative, gone);
        let arrive = inner.answer(to.0, to.1, Entry::Positive(value), deadline);
        let (source, target) = (inner.shard_index(from.0), inner.shard_index(to.0));
        let mut effects = Effects::new();
        let mut before = None;
        if source == target {
            inner.write_shard(source, &mut effects, |state, effects| {
                let left = state.mutate(from.0, leave, effects);
                effects.trash.extend(left);
                before = state.mutate(to.0, arrive, effects);
            });
        } else {
            let (low, high) = (source.min(target), source.max(target));
            let mut first = inner.shards[low].state.write();
            let mut second = inner.shards[high].state.write();
            let (leaving, arriving) =
                if source == low { (&mut *first, &mut *second) } else { (&mut *second, &mut *first) };
            let left = leaving.mutate(from.0, leave, &mut effects);
            effects.trash.extend(left);
            before = arriving.mutate(to.0, arrive, &mut effects);
            inner.settle_totals(low, &first);
            inner.settle_totals(high, &second);
            drop((first, second));
        }
        inner.finish(effects);
        before
    }

    /// Forgets one name without a word about whether it exists: outdates answers about it, and the directory is no
    /// longer complete. Publishes [`Cause::Forgotten`]. Returns whether it was cached. O(1), and what is
    /// cached below a directory of that name goes too.
    pub fn forget(&self, parent: u64, name: &str) -> bool {
        let hash = self.inner.hash(parent, name);
        self.inner.write(parent, |state, effects| {
            effects.changes.push(Change::Name { parent, name: name.into(), cause: Cause::Forgotten });
            state.forget(hash, parent, name, effects)
        })
    }

    /// Forgets the names of one directory and outdates its tokens; returns how many went. Publishes nothing: it is
    /// meant for a directory that nobody knows any more. At once for lookups; O(names) until it returns.
    pub fn forget_dir(&self, parent: u64) -> usize {
        let mut effects = Effects::new();
        let gone = self.inner.detach(parent, true, &mut Vec::new(), &mut effects);
        self.inner.finish(effects);
        gone
    }

    /// Forgets the names of a directory and of every directory below it, as far as cached names lead there, and
    /// outdates their tokens; returns how many went. Publishes each directory as [`Cause::Forgotten`].
    /// O(directories and names forgotten), however big the cache is.
    pub fn invalidate_tree(&self, root: u64) -> usize {
        let mut effects = Effects::new();
        let mut below = vec![root];
        let mut gone = 0;
        while let Some(dir) = below.pop() {
            effects.changes.push(Change::Directory { id: dir, cause: Cause::Forgotten });
            gone += self.inner.detach(dir, true, &mut below, &mut effects);
        }
        self.inner.finish(effects);
        gone
    }

    /// Whether the absence of a name is an answer in this directory at `now`. O(1).
    pub fn is_complete(&self, parent: u64, now: Instant) -> bool {
        let now = self.inner.epoch.tick(now);
        let state = self.inner.shard(parent).state.read();
        state.dirs.find(parent).is_some_and(|at| !state.dirs.get(at).complete_until.is_past(now))
    }

    /// Frees entries whose time is over, looking at no more than `budget` of them in each shard; returns how many
    /// it freed. Nothing depends on it: eviction reaches them too. Call it from a maintenance timer, or never.
    pub fn sweep(&self, now: Instant, budget: usize) -> usize {
        let now = self.inner.epoch.tick(now);
        let mut freed = 0;
        for index in 0..self.inner.shards.len() {
            let mut left = budget;
            while left > 0 {
                let step = left.min(STEP);
                left -= step;
                let mut effects = Effects::new();
                let round_over = self.inner.write_shard(index, &mut effects, |state, effects| {
                    freed += state.sweep(now, step, effects);
                    state.swept_to == 0
                });
                self.inner.finish(effects);
                if round_over {
                    break;
                }
            }
        }
        freed
    }

    /// The receiving end of the stream of changes; `None` if it was taken before. Until it is taken, changes gather
    /// up to the bound.
    pub fn changes(&self) -> Option<Changes> {
        let first = !self.inner.taken.swap(true, Ordering::Relaxed);
        first.then(|| Changes::new(Arc::clone(&self.inner.changes)))
    }

    /// Entries now, positive and negative, those whose time is over included. O(1).
    pub fn len(&self) -> usize {
        self.inner.entries.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The counters. O(shards).
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for shard in &self.inner.shards {
            let state = shard.state.read();
            let lookups = |outcome: usize| shard.lookups[outcome].load(Ordering::Relaxed);
            stats.hits += lookups(0);
            stats.negatives += lookups(1);
            stats.absent_by_listing += lookups(2);
            stats.expired += lookups(3);
            stats.misses += lookups(4);
            stats.inserts += state.counts.inserts;
            stats.mutations += state.counts.mutations;
            stats.refused += state.counts.refused;
            stats.evictions += state.counts.evictions;
            stats.completed += state.counts.completed;
            stats.swept += state.counts.swept;
            stats.entries += state.entries() as u64;
            stats.directories += state.dirs.len() as u64;
            stats.bytes += state.bytes() as u64;
        }
        stats
    }
}
