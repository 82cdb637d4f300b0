//! The cell: who reads, who publishes, who waits.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::bell::Changed;
use crate::delta::{Delta, NoDelta};
use crate::error::{Cause, Detail, Error, Rejected};
use crate::shared::{Record, Shared};
use crate::snapshot::{Held, Snapshot};
use crate::view::View;
use crate::{Alive, Config, Epoch, Loading, Reclaimer};

/// A state that is swapped whole under its readers.
///
/// `D` is what a change of it looks like that can be replayed on a state loaded meanwhile ([`Delta`]); without it the
/// state is only replaced whole. Dropping the cell ends all waits; snapshots and views live on.
pub struct SnapshotCell<T: Send + Sync + 'static, D: Send + 'static = NoDelta> {
    pub(crate) shared: Arc<Shared<T, D>>,
}

/// What a cell has and does, now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The current epoch.
    pub epoch: Epoch,
    /// Old states in memory: held by somebody, or waiting to be freed.
    pub old: usize,
    /// How many wait for a change.
    pub waiters: usize,
    /// Changes in the log of the replacement that is under way, and their bytes.
    pub logged: (usize, usize),
    /// The replacement that is under way.
    pub loading: Option<Loading>,
}

impl<T: Send + Sync + 'static> SnapshotCell<T> {
    /// A cell with this state, whose changes replace it whole.
    pub fn new(state: T) -> Self {
        Self::with_config(state, Config::default())
    }
}

impl<T: Send + Sync + 'static, D: Send + 'static> SnapshotCell<T, D> {
    /// A cell with this state and these bounds.
    pub fn with_config(state: T, config: Config) -> Self {
        Self { shared: Arc::new(Shared::new(state, config)) }
    }

    /// The current state, for as long as the caller likes. Wait-free; a reference count and nothing else.
    #[inline]
    pub fn load(&self) -> Arc<Snapshot<T>> {
        self.shared.current.load()
    }

    /// The same under a name that [`SnapshotCell::alive`] shows. Takes a short lock.
    pub fn load_as(&self, label: impl Into<Cow<'static, str>>) -> Held<T> {
        Held::new(self.load(), label.into())
    }

    /// Looks at the current state without owning it. Wait-free, and a little cheaper than [`SnapshotCell::load`]; not
    /// for long looks.
    #[inline]
    pub fn peek<R>(&self, look: impl FnOnce(&Snapshot<T>) -> R) -> R {
        self.shared.current.peek(look)
    }

    /// The current epoch.
    pub fn epoch(&self) -> Epoch {
        self.peek(Snapshot::epoch)
    }

    /// Replaces the state, whatever it is now.
    ///
    /// # Errors
    /// [`crate::Kind::Exhausted`]: readers hold as many old states as there may be. The state comes back.
    pub fn publish(&self, state: T) -> Result<Arc<Snapshot<T>>, Rejected<T>> {
        self.replace(None, state)
    }

    /// Replaces the state if it is still the one of this epoch.
    ///
    /// # Errors
    /// [`crate::Kind::Lost`], or as [`SnapshotCell::publish`]. The state comes back.
    pub fn publish_if(&self, epoch: Epoch, state: T) -> Result<Arc<Snapshot<T>>, Rejected<T>> {
        self.replace(Some(epoch), state)
    }

    fn replace(&self, expected: Option<Epoch>, state: T) -> Result<Arc<Snapshot<T>>, Rejected<T>> {
        let mut writer = match self.shared.room(expected) {
            Ok(writer) => writer,
            Err(detail) => return Err(Rejected::new(detail, state)),
        };
        let published = self.shared.commit(&mut writer, Box::new(state), Record::Whole);
        drop(writer);
        Ok(self.shared.finish(published))
    }

    /// Reads, makes the next state of what was read, and publishes it if nobody else has published; else again.
    /// A replacement that is loading meanwhile cannot replay this, and is refused rather than undo it
    /// ([`crate::Kind::Overtaken`]); see [`SnapshotCell::change`].
    ///
    /// # Errors
    /// As [`SnapshotCell::publish`].
    pub fn update(&self, mut next: impl FnMut(&T) -> T) -> Result<Arc<Snapshot<T>>, Error> {
        self.read_copy_update(Record::Whole, |state| Ok(next(state)))
    }

    /// The same, with a closure that may refuse.
    ///
    /// # Errors
    /// [`crate::Kind::Refused`] if the closure does, or as [`SnapshotCell::publish`].
    pub fn try_update<E: Into<Cause>>(
        &self,
        mut next: impl FnMut(&T) -> Result<T, E>,
    ) -> Result<Arc<Snapshot<T>>, Error> {
        self.read_copy_update(Record::Whole, |state| next(state).map_err(Into::into))
    }

    fn read_copy_update(
        &self,
        mut record: Record<D>,
        mut next: impl FnMut(&T) -> Result<T, Cause>,
    ) -> Result<Arc<Snapshot<T>>, Error> {
        loop {
            let seen = self.load();
            let state = Box::new(next(&seen).map_err(Detail::Refused)?);
            match self.shared.room(Some(seen.epoch())) {
                Ok(mut writer) => {
                    let record = std::mem::replace(&mut record, Record::Whole);
                    let published = self.shared.commit(&mut writer, state, record);
                    drop(writer);
                    return Ok(self.shared.finish(published));
                }
                Err(Detail::Lost { .. }) => {}
                Err(detail) => return Err(detail.into()),
            }
        }
    }

    /// Ends when there is a newer epoch than this, with the newest; at once if there is one already. Await it, or have
    /// the thread wait ([`Changed::wait`], [`Changed::wait_timeout`]).
    ///
    /// # Errors
    /// Its output is [`crate::Kind::Closed`] when the cell is gone and nothing newer was published, and
    /// [`crate::Kind::Exhausted`] when as many wait as may.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind, and no change is missed: the next wait since the same epoch finds it.
    pub fn changed(&self, since: Epoch) -> Changed {
        Changed::new(Arc::clone(&self.shared.bell), since)
    }

    /// What a component may see of the state, and nothing else of it.
    pub fn view<P: ?Sized + 'static>(&self, part: impl Fn(&T) -> &P + Send + Sync + 'static) -> View<P> {
        View::new(Arc::clone(&self.shared) as _, part)
    }

    /// Every state in memory, oldest first, the current one included.
    pub fn alive(&self) -> Vec<Alive> {
        self.shared.home.ledger.alive()
    }

    /// The oldest state in memory; the current one if there is no other.
    pub fn oldest(&self) -> Option<Alive> {
        self.shared.home.ledger.oldest()
    }

    /// Who frees old states; to be shared with other cells, or settled.
    pub fn reclaimer(&self) -> &Reclaimer {
        &self.shared.home.reclaimer
    }

    /// What it has and does, now.
    pub fn stats(&self) -> Stats {
        let (epoch, logged, loading) = {
            let writer = self.shared.writer.lock();
            let stage = writer.stage.as_ref();
            let logged = stage.map_or((0, 0), |stage| (stage.log.len(), stage.log.bytes()));
            (writer.epoch, logged, stage.map(|stage| stage.loading.clone()))
        };
        let old = self.shared.home.ledger.len().saturating_sub(1);
        Stats { epoch, old, waiters: self.shared.bell.waiting(), logged, loading }
    }
}

impl<T: Send + Sync + 'static, D: Delta<T>> SnapshotCell<T, D> {
    /// Makes a change of the live state, now, and of a replacement that is loading, before it is published.
    /// Copies the state; with one that is cheap to copy (shared subtrees, `Arc`s of parts) that is little.
    ///
    /// # Errors
    /// [`crate::Kind::Refused`] if the delta cannot be applied, or as [`SnapshotCell::publish`].
    pub fn change(&self, delta: D) -> Result<Arc<Snapshot<T>>, Error>
    where
        T: Clone,
    {
        // The delta is needed for every try, and then for the log.
        let shared = &self.shared;
        loop {
            let seen = self.load();
            let mut state = Box::new(T::clone(&seen));
            delta.apply(&mut state).map_err(Detail::Refused)?;
            match shared.room(Some(seen.epoch())) {
                Ok(mut writer) => {
                    let weight = delta.weight();
                    let published = shared.commit(&mut writer, state, Record::Delta(delta, weight));
                    drop(writer);
                    return Ok(shared.finish(published));
                }
                Err(Detail::Lost { .. }) => {}
                Err(detail) => return Err(detail.into()),
            }
        }
    }

    /// The same for a state that has its own way to the next one: `next` makes of the live state what `delta` would.
    ///
    /// # Errors
    /// As [`SnapshotCell::publish`].
    pub fn change_with(&self, delta: D, mut next: impl FnMut(&T) -> T) -> Result<Arc<Snapshot<T>>, Error> {
        let weight = delta.weight();
        self.read_copy_update(Record::Delta(delta, weight), |state| Ok(next(state)))
    }
}

impl<T: Send + Sync + 'static, D: Send + 'static> Drop for SnapshotCell<T, D> {
    fn drop(&mut self) {
        self.shared.writer.lock().closed = true;
        self.shared.bell.close();
        self.shared.home.end();
    }
}

impl<T: Send + Sync + 'static, D: Send + 'static> fmt::Debug for SnapshotCell<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotCell").field("current", &self.load()).finish_non_exhaustive()
    }
}
