//! A whole directory on its way in, page by page.
//!
//! Invariants:
//! 1. Of a page, names that were changed here since the token are passed over, one step at a time: each step looks
//!    again.
//! 2. The directory becomes complete at the end, if it was not changed as a whole, no later listing has begun, and no
//!    name of it was evicted since the first page. Names that no page had, and that nobody changed here meanwhile, go in
//!    the same step: a change marks its name as the listing does.

use crate::{
    cache::{Dentries, Token},
    directory::Standing,
    entry::{Entry, Refused, Value},
    shard::Source,
    shards::STEP,
    ttl::{Deadline, Tick},
};

/// A listing of one directory that is being taken in; made by [`Dentries::listing`].
///
/// Names are usable as soon as their page is in. Dropped before [`Listing::complete`], it leaves them there, and
/// the directory's completeness as it was.
#[must_use = "a listing makes its directory complete only at `complete`"]
pub struct Listing<V: Value> {
    cache: Dentries<V>,
    token: Token,
    deadline: Deadline,
    mark: u32,
}

impl<V: Value> Dentries<V> {
    /// Begins a listing of the token's directory whose names, and whose absences, hold until `deadline`. A later
    /// listing of the same directory takes over from it. O(1).
    ///
    /// # Errors
    /// [`Refused::Stale`] if the directory was changed here since the token was taken.
    pub fn listing(&self, token: Token, deadline: Deadline) -> Result<Listing<V>, Refused> {
        let parent = token.parent;
        let mark = self.inner.write(parent, |state, _| {
            if state.dirs.generation(parent) != token.generation {
                state.counts.refused += 1;
                return Err(Refused::Stale);
            }
            let dir = state.dirs.open(parent);
            let mark = state.dirs.begin_listing(dir);
            state.dirs.settle(dir);
            Ok(mark)
        })?;
        Ok(Listing { cache: self.clone(), token, deadline, mark })
    }
}

impl<V: Value> Listing<V> {
    /// The directory.
    pub fn parent(&self) -> u64 {
        self.token.parent
    }

    /// Takes a page of names that exist in, but those that were changed here since the token was taken. O(page); the lock is held for a few names at a time, and never while
    /// `names` is asked for its next item. Names in the order of the store make [`Dentries::entries`] cheapest.
    ///
    /// # Errors
    /// [`Refused::Stale`] if the directory was changed here as a whole since the token was taken: what is left of the
    /// page, and any later page, is not cached. The rest of the listing may still be answered from, once.
    pub fn page<N: AsRef<str>>(&mut self, names: impl IntoIterator<Item = (N, V)>) -> Result<(), Refused> {
        let mut names = names.into_iter();
        let mut step = Vec::with_capacity(names.size_hint().0.clamp(1, STEP));
        loop {
            step.extend(names.by_ref().take(STEP));
            if step.is_empty() {
                return Ok(());
            }
            self.take_in(&mut step)?;
        }
    }

    fn take_in<N: AsRef<str>>(&self, step: &mut Vec<(N, V)>) -> Result<(), Refused> {
        let (inner, token) = (&self.cache.inner, self.token);
        inner.write(token.parent, |state, effects| {
            let standing = state.dirs.standing(token.parent, token.generation);
            if !matches!(standing, Standing::Whole) {
                let is_overtaken =
                    |(name, _): &mut (N, V)| !standing.covers(inner.hash(token.parent, name.as_ref()));
                let before = step.len();
                let (is_outdated, overtaken) = (standing.is_outdated(), step.extract_if(.., is_overtaken));
                effects.trash.extend(overtaken.map(|(_, value)| value));
                state.counts.refused += (before - step.len()) as u64;
                if is_outdated {
                    return Err(Refused::Stale);
                }
            }
            let dir = state.dirs.open(token.parent);
            state.counts.inserts += step.len() as u64;
            for (name, value) in step.drain(..) {
                let answer = inner.answer(token.parent, name.as_ref(), Entry::Positive(value), self.deadline);
                let before = state.record(dir, answer, Source::Store, effects);
                effects.trash.extend(before);
            }
            state.dirs.settle(dir);
            Ok(())
        })
    }

    /// Ends the listing: names that no page had, and that were not changed here meanwhile, are gone, and every name that is not there now is known absent
    /// until the deadline. O(names gone).
    ///
    /// # Errors
    /// [`Refused::Stale`] if the directory was changed here as a whole since the token was taken,
    /// [`Refused::Superseded`] if a later listing of it has begun, [`Refused::Evicted`] if it did not fit. The directory's completeness is then
    /// what it was, and the names of the pages stay.
    pub fn complete(self) -> Result<(), Refused> {
        while self.end_step()? {}
        Ok(())
    }

    /// One hold of the lock; whether another is needed.
    fn end_step(&self) -> Result<bool, Refused> {
        let (inner, token) = (&self.cache.inner, self.token);
        inner.write(token.parent, |state, effects| {
            if state.dirs.standing(token.parent, token.generation).is_outdated() {
                state.counts.refused += 1;
                return Err(Refused::Stale);
            }
            let dir = state.dirs.find(token.parent).ok_or(Refused::Evicted)?;
            let record = state.dirs.get(dir);
            if record.mark != self.mark {
                return Err(if record.mark == 0 { Refused::Evicted } else { Refused::Superseded });
            }
            let until = inner.epoch.deadline(self.deadline);
            if !record.intact && until != Tick::PASSED {
                return Err(Refused::Evicted);
            }
            if state.drop_unlisted(dir, STEP, effects) {
                return Ok(true);
            }
            state.dirs.get_mut(dir).complete_until = until;
            state.counts.completed += u64::from(until != Tick::PASSED);
            state.dirs.settle(dir);
            Ok(false)
        })
    }
}
