//! Letting time pass for the state machine, and having it probe: without a runtime. `run` is made of these.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
#[cfg(feature = "tokio")]
use std::time::Duration;
use std::time::Instant;

use super::board::Board;
use super::{Shared, Verdict, Watcher};
use crate::event::{Observation, Outcome, ProbeId};
use crate::phase::Phase;

/// What is to be done by whoever drives a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// A probe to begin with, and whether on a connection of its own. Each is told once.
    pub probe: Option<(ProbeId, bool)>,
    /// The probe whose answer is still of interest. Any other may be dropped.
    pub outstanding: Option<ProbeId>,
    /// When to take the next turn, unless nudged before.
    pub next: Option<Instant>,
    /// It has ended: there will be no further turn.
    pub over: bool,
}

impl<V: Verdict> Watcher<V> {
    /// Does what is due, and says what is to be done: the probe to make, and when to call again. One caller at a time
    /// drives a watcher; [`Watcher::nudged`] says when what comes next has changed.
    pub fn turn(&self) -> Turn {
        let now = self.0.clock.now();
        self.0.with(now, |board| board.core.tick(now));
        self.0.board.lock().take_turn()
    }

    /// Tells the answer to a probe. One that is not outstanding any more is ignored.
    pub fn answer(&self, id: ProbeId, outcome: Outcome<V>) {
        self.observe(Observation::Probe { id, outcome });
    }

    /// Waits until the next turn is to be taken earlier than the last one said. One waits at a time.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the next one resolves at once.
    pub fn nudged(&self) -> Nudged<V> {
        Nudged { shared: Arc::clone(&self.0), wheel: None }
    }

    /// The same for who began to drive with this; resolves also when another begins.
    #[cfg(feature = "tokio")]
    pub(crate) fn nudged_of(&self, wheel: u64) -> Nudged<V> {
        Nudged { shared: Arc::clone(&self.0), wheel: Some(wheel) }
    }

    /// Begins to drive, in place of whoever does.
    #[cfg(feature = "tokio")]
    pub(crate) fn take_the_wheel(&self) -> u64 {
        let (turn, waker) = {
            let driver = &mut self.0.board.lock().driver;
            driver.wheel += 1;
            (driver.wheel, driver.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        turn
    }

    /// The same as [`Watcher::turn`], of who began to drive with this; `None` if another has begun since.
    #[cfg(feature = "tokio")]
    pub(crate) fn turn_of(&self, wheel: u64) -> Option<Turn> {
        let now = self.0.clock.now();
        self.0.with(now, |board| board.core.tick(now));
        let mut board = self.0.board.lock();
        (board.driver.wheel == wheel).then(|| board.take_turn())
    }

    /// How long it is until then.
    #[cfg(feature = "tokio")]
    pub(crate) fn until(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.0.clock.now())
    }
}

impl<V: Verdict> Board<V> {
    fn take_turn(&mut self) -> Turn {
        let turn = Turn {
            probe: self.driver.asked.take(),
            outstanding: self.core.outstanding(),
            next: self.core.next_tick(),
            over: self.core.phase() == Phase::Exited,
        };
        // What was nudged for up to here is in this turn.
        self.driver.alarm = turn.next;
        self.driver.nudged = false;
        turn
    }
}

/// Resolves when a turn is to be taken; see [`Watcher::nudged`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Nudged<V: Verdict> {
    shared: Arc<Shared<V>>,
    wheel: Option<u64>,
}

impl<V: Verdict> Future for Nudged<V> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        let _replaced;
        let mut board = self.shared.board.lock();
        // Who does not drive any more leaves what is there to who does.
        let replaced = self.wheel.is_some_and(|wheel| wheel != board.driver.wheel);
        if replaced || std::mem::take(&mut board.driver.nudged) {
            drop(board);
            return Poll::Ready(());
        }
        _replaced = board.driver.waker.replace(waker);
        drop(board);
        Poll::Pending
    }
}

impl<V: Verdict> std::fmt::Debug for Nudged<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nudged").finish_non_exhaustive()
    }
}
