//! A replacement that is under way, as its loader and others see it.

use std::fmt;
use std::sync::Arc;

use crate::Epoch;
use crate::bell::{Bell, Changed};
use crate::error::{Detail, Error};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// How far a replacement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The loader builds the new state.
    Loading,
    /// What has changed meanwhile is replayed on the new state.
    Replaying,
    /// The validator looks at it.
    Validating,
    /// It is published, with this epoch.
    Published(Epoch),
    /// It was cancelled; whatever the loader does is not published.
    Cancelled,
    /// So much was changed meanwhile that it cannot be published.
    Overflowed {
        /// Changes.
        entries: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// It ended in an error, or was dropped.
    Failed,
}

impl Phase {
    fn is_over(self) -> bool {
        !matches!(self, Self::Loading | Self::Replaying | Self::Validating)
    }
}

/// How far a replacement is, in its own units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// What the loader has done.
    pub done: u64,
    /// Of how much; 0: it has not said.
    pub total: u64,
}

/// A handle to a replacement that is under way, for its loader and for those who watch or cancel it.
#[derive(Clone)]
pub struct Loading(Arc<Control>);

/// Its lock is the last one taken: under it there is no other.
struct Control {
    began: Epoch,
    as_of: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
    phase: Mutex<Phase>,
    /// Rings once, when the loader need not go on.
    stop: Arc<Bell>,
}

const STOPPED: Epoch = Epoch(1);

impl Loading {
    pub(crate) fn new(began: Epoch) -> Self {
        Self(Arc::new(Control {
            began,
            as_of: AtomicU64::new(began.0),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            phase: Mutex::new(Phase::Loading),
            stop: Arc::new(Bell::new(Epoch(0), 1)),
        }))
    }

    /// The epoch that was current when it began: what is changed after it is replayed.
    pub fn began(&self) -> Epoch {
        self.0.began
    }

    /// Says how far the loader is, in units of its own.
    pub fn report(&self, done: u64, total: u64) {
        self.0.done.store(done, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress {
            phase: *self.0.phase.lock(),
            done: self.0.done.load(Ordering::Relaxed),
            total: self.0.total.load(Ordering::Relaxed),
        }
    }

    /// Says that the new state has in it what was current at this epoch: only what is changed later is replayed. For a
    /// loader that derives the new state from a snapshot that it takes on the way. Without it, it is [`Loading::began`].
    pub fn as_of(&self, epoch: Epoch) {
        self.0.as_of.store(epoch.0, Ordering::Release);
    }

    pub(crate) fn stands_for(&self) -> Epoch {
        Epoch(self.0.as_of.load(Ordering::Acquire))
    }

    /// Cancels it. `true`: it will not be published, now or later; `false`: it was over.
    pub fn cancel(&self) -> bool {
        self.end(Phase::Cancelled)
    }

    /// For the loader, now and then: whether it is worth going on.
    ///
    /// # Errors
    /// [`crate::Kind::Cancelled`], or [`crate::Kind::Overflowed`] if more was changed meanwhile than can be replayed.
    pub fn check(&self) -> Result<(), Error> {
        let phase = *self.0.phase.lock();
        match phase {
            Phase::Cancelled => Err(Detail::Cancelled.into()),
            Phase::Overflowed { entries, bytes } => Err(Detail::Overflowed { entries, bytes }.into()),
            _ => Ok(()),
        }
    }

    /// Moves on, unless it is over; an end is final.
    pub(crate) fn enter(&self, phase: Phase) -> Result<(), Error> {
        {
            let mut now = self.0.phase.lock();
            if !now.is_over() {
                *now = phase;
            }
        }
        self.check()
    }

    /// Ends it; whether it was not over before. Not under a lock: it wakes.
    pub(crate) fn end(&self, last: Phase) -> bool {
        let ended = self.decide(last);
        if ended {
            self.tell();
        }
        ended
    }

    /// The first half of an end, which wakes nobody.
    pub(crate) fn decide(&self, last: Phase) -> bool {
        let mut phase = self.0.phase.lock();
        let ended = !phase.is_over();
        if ended {
            *phase = last;
        }
        ended
    }

    /// The second half.
    pub(crate) fn tell(&self) {
        self.0.stop.ring(STOPPED);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.phase.lock().is_over()
    }

    /// Ends when the loader need not go on.
    pub(crate) fn stopped(&self) -> Changed {
        Changed::new(Arc::clone(&self.0.stop), Epoch(0))
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Loading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loading").field("began", &self.0.began).field("progress", &self.progress()).finish()
    }
}
