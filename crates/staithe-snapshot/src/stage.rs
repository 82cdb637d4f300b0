//! Staged replacement: a new state is built aside, made current with what has changed meanwhile, looked at whole, and
//! published at one stroke; or nothing happens.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::delta::{Delta, Log};
use crate::error::{Cause, Detail, Error, panicked};
use crate::loading::{Loading, Phase};
use crate::shared::{Record, Shared, Stage, Writer};
use crate::snapshot::Snapshot;
use crate::{Epoch, SnapshotCell};

/// How often the log is emptied before publishers have to wait for its rest.
const ROUNDS: usize = 8;

/// A replacement that has begun: from now on changes are logged for it. Dropped unpublished, it leaves everything as it
/// was.
pub struct Staging<T: Send + Sync + 'static, D: Delta<T>> {
    shared: Arc<Shared<T, D>>,
    loading: Loading,
    overwrite: bool,
}

impl<T: Send + Sync + 'static, D: Delta<T>> SnapshotCell<T, D> {
    /// Begins a replacement whose new state the caller builds in its own way, and then hands to [`Staging::publish`].
    ///
    /// # Errors
    /// [`crate::Kind::Busy`]: another one is under way.
    pub fn stage(&self) -> Result<Staging<T, D>, Error> {
        let config = &self.shared.config;
        let log = Log::new(config.log_entries, config.log_bytes);
        let mut writer = self.shared.writer.lock();
        if writer.stage.as_ref().is_some_and(|stage| !stage.loading.is_over()) {
            return Err(Detail::Busy.into());
        }
        let loading = Loading::new(writer.epoch);
        let ended = writer.stage.replace(Stage { loading: loading.clone(), log });
        drop(writer);
        drop(ended);
        Ok(Staging { shared: Arc::clone(&self.shared), loading, overwrite: false })
    }

    /// Replaces the state: `load` builds the new one, in this thread; what is changed meanwhile is replayed on it;
    /// `validate` sees it whole; it is published. Readers and changes go on all the while.
    ///
    /// A replacement of a cell without deltas is refused if something else was published meanwhile, so that nothing is
    /// undone unseen; [`Staging::overwriting`] does not mind.
    ///
    /// # Errors
    /// The old state is untouched, and the kind says why: [`crate::Kind::Busy`], [`crate::Kind::Failed`],
    /// [`crate::Kind::Panicked`], [`crate::Kind::Invalid`], [`crate::Kind::Cancelled`], [`crate::Kind::Overflowed`],
    /// [`crate::Kind::Overtaken`], [`crate::Kind::Exhausted`].
    pub fn apply<E: Into<Cause>, V: Into<Cause>>(
        &self,
        load: impl FnOnce(&Loading) -> Result<T, E>,
        validate: impl FnOnce(&T) -> Result<(), V>,
    ) -> Result<Arc<Snapshot<T>>, Error> {
        let staging = self.stage()?;
        let loaded = catch_unwind(AssertUnwindSafe(|| load(&staging.loading)));
        let state = staging.loaded(loaded)?;
        staging.publish(state, validate)
    }

    /// The same with a loader that is a future; a cancel drops it. Replay and validation run in a poll of this one:
    /// where they take long, [`SnapshotCell::apply`] on a thread of its own is better.
    ///
    /// # Errors
    /// As [`SnapshotCell::apply`].
    ///
    /// # Cancel safety
    /// Dropping it is a cancel.
    pub async fn apply_async<F, E: Into<Cause>, V: Into<Cause>>(
        &self,
        load: impl FnOnce(Loading) -> F,
        validate: impl FnOnce(&T) -> Result<(), V>,
    ) -> Result<Arc<Snapshot<T>>, Error>
    where
        F: Future<Output = Result<T, E>>,
    {
        let staging = self.stage()?;
        let begun = catch_unwind(AssertUnwindSafe(|| load(staging.loading())));
        let load = staging.loaded(begun.map(Ok::<F, Cause>))?;
        let loaded = {
            let mut load = pin!(load);
            let mut stopped = pin!(staging.loading.stopped());
            poll_fn(|context| {
                if stopped.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(staging.over()));
                }
                match catch_unwind(AssertUnwindSafe(|| load.as_mut().poll(context))) {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(loaded)) => Poll::Ready(Ok(Ok(loaded))),
                    Err(payload) => Poll::Ready(Ok(Err(payload))),
                }
            })
            .await?
        };
        let state = staging.loaded(loaded)?;
        staging.publish(state, validate)
    }
}

/// What a loader came to, its panic included.
type Outcome<T, E> = Result<Result<T, E>, Box<dyn std::any::Any + Send>>;

impl<T: Send + Sync + 'static, D: Delta<T>> Staging<T, D> {
    /// A handle to it, to report, watch and cancel.
    pub fn loading(&self) -> Loading {
        self.loading.clone()
    }

    /// Replaces what was published without a delta meanwhile, too. Deltas are replayed all the same.
    #[must_use]
    pub fn overwriting(mut self) -> Self {
        self.overwrite = true;
        self
    }

    fn loaded<U, E: Into<Cause>>(&self, loaded: Outcome<U, E>) -> Result<U, Error> {
        // A loader that stops because it was told to is cancelled, not failed.
        self.loading.check()?;
        match loaded {
            Ok(Ok(state)) => Ok(state),
            Ok(Err(cause)) => Err(Detail::Load(cause.into()).into()),
            Err(payload) => Err(panicked("the loader", &*payload).into()),
        }
    }

    /// Replays what has changed, has the state validated, replays what has changed during that, and publishes.
    /// Publishers wait for the last deltas only: those that came during one round of replay.
    ///
    /// # Errors
    /// As [`SnapshotCell::apply`].
    pub fn publish<V: Into<Cause>>(
        self,
        state: T,
        validate: impl FnOnce(&T) -> Result<(), V>,
    ) -> Result<Arc<Snapshot<T>>, Error> {
        let result = self.replay_and_publish(state, validate);
        match &result {
            Ok(snapshot) => tracing::debug!(epoch = %snapshot.epoch(), "a replacement is published"),
            Err(error) => tracing::debug!(%error, "a replacement has come to nothing"),
        }
        result
    }

    fn replay_and_publish<V: Into<Cause>>(
        &self,
        state: T,
        validate: impl FnOnce(&T) -> Result<(), V>,
    ) -> Result<Arc<Snapshot<T>>, Error> {
        let mut state = Box::new(state);
        // Once: whoever still has a handle changes nothing any more.
        let as_of = self.loading.stands_for();
        self.loading.enter(Phase::Replaying)?;
        self.catch_up(as_of, &mut state)?;
        self.loading.enter(Phase::Validating)?;
        match catch_unwind(AssertUnwindSafe(|| validate(&state))) {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => return Err(Detail::Invalid(cause.into()).into()),
            Err(payload) => return Err(panicked("the validator", &*payload).into()),
        }
        self.loading.enter(Phase::Replaying)?;
        self.catch_up(as_of, &mut state)?;

        let mut writer = self.shared.room(None)?;
        let last = self.take(as_of, &mut writer)?;
        let replayed = replay(&last, as_of, &mut state);
        let end = Phase::Published(writer.epoch.next());
        if let Err(error) = replayed.and_then(|()| self.decide(end)) {
            drop(writer);
            return Err(error);
        }
        let published = self.shared.commit(&mut writer, state, Record::Staged);
        drop(writer);
        drop(last);
        Ok(self.shared.finish(published))
    }

    /// From here on nothing can cancel it, and nothing keeps it from being published.
    fn decide(&self, end: Phase) -> Result<(), Error> {
        if self.loading.decide(end) { Ok(()) } else { Err(self.over()) }
    }

    /// Why it may not go on.
    fn over(&self) -> Error {
        self.loading.check().err().unwrap_or_else(|| Detail::Cancelled.into())
    }

    /// Empties the log without holding anybody up, as long as that makes it shorter.
    fn catch_up(&self, as_of: Epoch, state: &mut T) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            let deltas = {
                let mut writer = self.shared.writer.lock();
                self.take(as_of, &mut writer)?
            };
            if deltas.is_empty() {
                break;
            }
            replay(&deltas, as_of, state)?;
        }
        Ok(())
    }

    /// The deltas that are to be replayed now, if there is a point.
    fn take(&self, as_of: Epoch, writer: &mut Writer<D>) -> Result<Vec<(Epoch, D)>, Error> {
        let (began, current) = (self.loading.began(), writer.epoch);
        let Some(stage) = writer.stage.as_mut().filter(|stage| stage.loading.is(&self.loading)) else {
            return Err(self.over());
        };
        if as_of < began || as_of > current {
            return Err(Detail::AsOf { as_of, began, current }.into());
        }
        stage.log.verdict(as_of, self.overwrite)?;
        Ok(stage.log.take())
    }
}

fn replay<T, D: Delta<T>>(deltas: &[(Epoch, D)], as_of: Epoch, state: &mut T) -> Result<(), Error> {
    for (epoch, delta) in deltas.iter().filter(|(epoch, _)| *epoch > as_of) {
        match catch_unwind(AssertUnwindSafe(|| delta.apply(state))) {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => return Err(Detail::Replay { epoch: *epoch, cause }.into()),
            Err(payload) => return Err(panicked("a delta", &*payload).into()),
        }
    }
    Ok(())
}

impl<T: Send + Sync + 'static, D: Delta<T>> Drop for Staging<T, D> {
    fn drop(&mut self) {
        self.loading.end(Phase::Failed);
        let ended = {
            let mut writer = self.shared.writer.lock();
            if writer.stage.as_ref().is_some_and(|stage| stage.loading.is(&self.loading)) {
                writer.stage.take()
            } else {
                None
            }
        };
        drop(ended);
    }
}

impl<T: Send + Sync + 'static, D: Delta<T>> fmt::Debug for Staging<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staging").field("loading", &self.loading).finish_non_exhaustive()
    }
}
