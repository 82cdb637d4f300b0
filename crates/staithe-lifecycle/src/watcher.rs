//! The shell around the state machine: one lock, a word that says what there is to know without it, who waits.
//!
//! 1. The word (phase, and whether a success has something to say) is written under the lock, after each change.
//! 2. No waker, no callback and no caller's question runs under the lock; the clock does.
//! 3. A success that finds nobody listening is counted without the lock. One that ran beside the observation which
//!    made the state machine listen may be counted like that too: it was first.

mod board;
mod callbacks;
mod counts;
mod drive;
mod subscribe;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::core::Core;
use crate::core::window::Scale;
use crate::event::{Action, Observation, Outcome};
use crate::moves::Record;
use crate::phase::Phase;
use crate::status::Status;
use crate::sync::{AtomicU32, Mutex, Ordering};
use crate::wait::block_on;
use board::Board;
pub use callbacks::Subscription;
use counts::Counts;
pub use drive::{Nudged, Turn};
pub use subscribe::{Changes, Condemned, WaitFor};

/// What may be said for good of what is watched: "it is gone", "its credentials are refused". Every type that has what it
/// takes is one.
pub trait Verdict: Clone + Eq + fmt::Debug + Send + Sync + 'static {}

impl<V: Clone + Eq + fmt::Debug + Send + Sync + 'static> Verdict for V {}

/// The bit of the word that says that successes have something to say. The others are the phase.
const LISTENS: u32 = 1 << 8;

pub(crate) struct Shared<V: Verdict> {
    word: CachePadded<AtomicU32>,
    scale: Scale,
    counts: Counts,
    config: Config,
    clock: Box<dyn Clock>,
    board: Mutex<Board<V>>,
}

/// Decides what state something is in that others depend on, and tells them. Clones are the same watcher.
///
/// See the [crate documentation](crate) for an example.
pub struct Watcher<V: Verdict>(Arc<Shared<V>>);

impl<V: Verdict> Watcher<V> {
    /// A watcher that begins now, as [`Phase::Starting`]. Something has to drive it: `run` (feature `tokio`), or
    /// whoever calls [`Watcher::turn`].
    pub fn new(config: Config) -> Self {
        Self::with_clock(config, SystemClock)
    }

    /// The same by another clock. The times of operations that are reported must be of that clock too.
    pub fn with_clock(config: Config, clock: impl Clock) -> Self {
        let core = Core::new(config, clock.now());
        Self::of(core, clock)
    }

    /// The same around a state machine, by the clock that it began with.
    pub fn of(core: Core<V>, clock: impl Clock) -> Self {
        let shared = Shared {
            word: CachePadded::new(AtomicU32::new(core.phase() as u32)),
            scale: core.scale(),
            counts: Counts::new(),
            config: *core.config(),
            clock: Box::new(clock),
            board: Mutex::new(Board::new(core)),
        };
        Self(Arc::new(shared))
    }

    /// Tells how an operation ended that began then.
    ///
    /// A success is counted with one atomic operation in a cache line that few threads share, and no lock, unless
    /// it has something to say: after a failure the first one does, and while degraded or suspect each of them.
    /// Those that are counted like that are counted when they began, in steps of at most a 32nd of the window. One that
    /// began longer ago than the window may be left out of the share of failures, or counted with a later time.
    #[inline]
    pub fn report(&self, began: Instant, outcome: Outcome<V>) {
        if matches!(outcome, Outcome::Ok) && self.0.word.load(Ordering::Acquire) & LISTENS == 0 {
            self.0.counts.add(self.0.scale.bucket(began));
        } else {
            self.observe(Observation::Operation { began, outcome });
        }
    }

    /// The start is over.
    pub fn ready(&self) {
        self.observe(Observation::Ready);
    }

    /// Asks for the end.
    pub fn drain(&self, reason: impl Into<Arc<str>>) {
        self.observe(Observation::Drain { reason: reason.into() });
    }

    /// It has ended.
    pub fn exited(&self, reason: impl Into<Arc<str>>) {
        self.observe(Observation::Exited { reason: reason.into() });
    }

    /// Tells the state machine something at the time it is.
    #[cold]
    pub fn observe(&self, observation: Observation<V>) {
        let now = self.0.clock.now();
        self.0.with(now, |board| board.core.observe(observation, now));
    }

    /// The phase. Wait-free.
    #[inline]
    pub fn phase(&self) -> Phase {
        Phase::of(self.0.word.load(Ordering::Acquire) & (LISTENS - 1))
    }

    /// The verdict, once it is confirmed, while draining too.
    pub fn verdict(&self) -> Option<V> {
        self.0.board.lock().core.verdict().cloned()
    }

    /// All that there is to know.
    pub fn status(&self) -> Status<V> {
        let now = self.0.clock.now();
        let mut board = self.0.board.lock();
        self.0.gather(&mut board, now);
        let status = board.core.status_at(now);
        drop(board);
        status
    }

    /// The thresholds, in their ranges.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The last 64 moves.
    pub fn history(&self) -> Vec<Record<V>> {
        self.0.board.lock().history()
    }

    /// The moves from now on, to the end after [`Phase::Exited`]. A subscriber that is more than 64 moves behind
    /// gets the last 64, and [`Record::missed`] says how many it did not get.
    pub fn changes(&self) -> Changes<V> {
        Changes::new(Arc::clone(&self.0))
    }

    /// Waits until the phase is one that is wanted; resolves with it. From the first poll on it looks at every phase
    /// that is passed through, however short, unless it is more than 64 moves behind. Never resolves if none comes.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub fn wait_for<F: FnMut(Phase) -> bool + Unpin>(&self, wanted: F) -> WaitFor<V, F> {
        WaitFor::new(Arc::clone(&self.0), wanted)
    }

    /// The same in this thread, and no longer than this.
    pub fn wait_for_blocking(
        &self,
        wanted: impl FnMut(Phase) -> bool + Unpin,
        most: Duration,
    ) -> Option<Phase> {
        block_on(self.wait_for(wanted), most)
    }

    /// Waits for the verdict, which comes while draining too. `None`: it has ended without one.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub fn condemned(&self) -> Condemned<V> {
        Condemned::new(Arc::clone(&self.0))
    }

    /// Calls back for every move from now on, in their order, until the subscription is dropped.
    ///
    /// The thread that makes a move calls, or another that is calling at that time. A callback may call the watcher, and
    /// hold on to nothing for long: later moves are told after it. One that panics is traced, and not called again. One
    /// that runs in another thread while its subscription is dropped is not waited for.
    pub fn on_change(&self, callback: impl Fn(&Record<V>) + Send + Sync + 'static) -> Subscription {
        self.0.subscribe(Box::new(callback))
    }
}

impl<V: Verdict> Shared<V> {
    /// Has the state machine do something, and does what it asks for once the lock is free.
    fn with(&self, now: Instant, f: impl FnOnce(&mut Board<V>) -> Vec<Action<V>>) {
        let (actions, woken, driver, tells) = {
            let mut board = self.board.lock();
            self.gather(&mut board, now);
            let actions = f(&mut board);
            let woken = board.act(&actions, || self.clock.wall());
            let listens = if board.core.listens() { LISTENS } else { 0 };
            self.word.store(board.core.phase() as u32 | listens, Ordering::Release);
            (actions, woken, board.nudge(), board.told < board.last())
        };
        for action in &actions {
            trace(action);
        }
        woken.wake();
        if let Some(driver) = driver {
            driver.wake();
        }
        if tells {
            self.tell();
        }
    }

    /// Brings what was counted without the lock to the state machine.
    fn gather(&self, board: &mut Board<V>, now: Instant) {
        let latest = self.scale.bucket(now);
        self.counts.take(|bucket, times| board.core.count_bucket(bucket.min(latest), times));
    }
}

fn trace<V: Verdict>(action: &Action<V>) {
    match action {
        Action::Probe { id, fresh } => tracing::debug!(id = id.0, fresh, "a probe is asked for"),
        Action::Moved(moved) => {
            tracing::debug!(from = %moved.from, to = %moved.to, reason = %moved.reason, "the phase has changed");
        }
        Action::Condemned(verdict) => tracing::warn!(?verdict, "the verdict is confirmed"),
    }
}

impl<V: Verdict> Clone for Watcher<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V: Verdict> fmt::Debug for Watcher<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("phase", &self.phase()).finish_non_exhaustive()
    }
}
