//! The one way in which a state is published.
//!
//! 1. Epochs go up by one with each publication, under the writer's lock, and no user's code runs under it but the
//!    deltas that a replacement replays last.
//! 2. While a replacement loads, each publication is in its log, with its delta or as one that cannot be replayed,
//!    before the lock is released.
//! 3. Readers take no lock.
//! 4. Lock order: writer; then ledger, or phase of a [`Loading`]. Bells are rung, and states and deltas dropped, after
//!    it is released.

use std::sync::Arc;

use crate::Epoch;
use crate::bell::Bell;
use crate::config::Config;
use crate::delta::Log;
use crate::error::Detail;
use crate::loading::{Loading, Phase};
use crate::reclaim::Reclaimer;
use crate::snapshot::{Home, Snapshot};
use crate::sync::{Mutex, MutexGuard, Pointer};

pub(crate) struct Shared<T: Send + Sync + 'static, D> {
    pub(crate) current: Pointer<Snapshot<T>>,
    pub(crate) writer: Mutex<Writer<D>>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) home: Arc<Home>,
    pub(crate) config: Config,
}

pub(crate) struct Writer<D> {
    /// Of the current state.
    pub(crate) epoch: Epoch,
    pub(crate) stage: Option<Stage<D>>,
    pub(crate) closed: bool,
}

/// A replacement that is under way.
pub(crate) struct Stage<D> {
    pub(crate) loading: Loading,
    pub(crate) log: Log<D>,
}

/// What a publication is to a replacement that is under way.
pub(crate) enum Record<D> {
    /// A change that it replays, and its weight.
    Delta(D, usize),
    /// A state that it would undo.
    Whole,
    /// Its own end.
    Staged,
}

/// What is left of a publication, for when the lock is released.
#[must_use]
pub(crate) struct Published<T: Send + Sync + 'static, D> {
    next: Arc<Snapshot<T>>,
    old: Arc<Snapshot<T>>,
    spilt: Vec<(Epoch, D)>,
    ended: Option<Stage<D>>,
}

impl<T: Send + Sync + 'static, D> Shared<T, D> {
    pub(crate) fn new(state: T, config: Config) -> Self {
        let reclaimer = config.reclaimer.clone().unwrap_or_else(|| {
            Reclaimer::thread("snapshot-reclaimer").unwrap_or_else(|error| {
                tracing::warn!(%error, "no thread to free old states: whoever publishes does");
                Reclaimer::by_hand().0
            })
        });
        let home = Arc::new(Home::new(reclaimer));
        let epoch = config.first_epoch;
        let first = Arc::new(Snapshot::new(epoch, Box::new(state), Arc::clone(&home)));
        home.ledger.born(epoch, Arc::downgrade(&first) as _);
        Self {
            current: Pointer::new(first),
            writer: Mutex::new(Writer { epoch, stage: None, closed: false }),
            bell: Arc::new(Bell::new(epoch, config.max_waiters)),
            home,
            config,
        }
    }

    /// The writer's lock, when there is room for another state, and if the current epoch is the expected one.
    pub(crate) fn room(&self, expected: Option<Epoch>) -> Result<MutexGuard<'_, Writer<D>>, Detail> {
        let ledger = &self.home.ledger;
        let most = self.config.max_old.max(1);
        loop {
            let writer = self.writer.lock();
            if writer.closed {
                return Err(Detail::Closed);
            }
            if let Some(expected) = expected.filter(|expected| *expected != writer.epoch) {
                return Err(Detail::Lost { expected, current: writer.epoch });
            }
            // The current one will be old.
            if ledger.len() <= most {
                return Ok(writer);
            }
            drop(writer);
            if !self.home.reclaimer.help_until(|| ledger.len() <= most) {
                let alive = ledger.len();
                return Err(Detail::Old { alive, most, oldest: ledger.oldest() });
            }
        }
    }

    /// Publishes. The rest is [`Published::finish`], after the lock is released.
    pub(crate) fn commit(&self, writer: &mut Writer<D>, state: Box<T>, record: Record<D>) -> Published<T, D> {
        let epoch = writer.epoch.next();
        let next = Arc::new(Snapshot::new(epoch, state, Arc::clone(&self.home)));
        self.home.ledger.born(epoch, Arc::downgrade(&next) as _);
        let old = self.current.swap(Arc::clone(&next));
        writer.epoch = epoch;
        let mut spilt = Vec::new();
        let mut over = matches!(record, Record::Staged);
        if let Some(stage) = &mut writer.stage {
            match record {
                Record::Delta(delta, weight) => spilt = stage.log.push(epoch, delta, weight),
                Record::Whole => stage.log.replaced(epoch),
                Record::Staged => {}
            }
            if let Some(Detail::Overflowed { entries, bytes }) = stage.log.overflow() {
                stage.loading.decide(Phase::Overflowed { entries, bytes });
            }
            over = over || stage.loading.is_over();
        }
        let ended = if over { writer.stage.take() } else { None };
        Published { next, old, spilt, ended }
    }

    /// What follows a publication, with no lock held.
    pub(crate) fn finish(&self, published: Published<T, D>) -> Arc<Snapshot<T>> {
        let Published { next, old, spilt, ended } = published;
        drop(old);
        drop(spilt);
        if let Some(stage) = ended {
            stage.loading.tell();
        }
        self.bell.ring(next.epoch());
        self.home.reclaimer.help_if_alone();
        next
    }
}
