//! What time it is, for the shell. The state machine is told.

use std::time::{Instant, SystemTime};

/// Tells the time. Of a simulation, or of tokio's time while it stands still, one's own. It must not call the watcher.
pub trait Clock: Send + Sync + 'static {
    /// The time, to count with.
    fn now(&self) -> Instant;

    /// The time, to show to people.
    fn wall(&self) -> SystemTime;
}

/// The system's clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemClock;

#[allow(clippy::disallowed_methods)] // The one place that asks.
impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The clock of tokio, which can be made to stand still; the wall's is the system's.
#[cfg(feature = "tokio")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokioClock;

#[cfg(feature = "tokio")]
impl Clock for TokioClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn wall(&self) -> SystemTime {
        SystemClock.wall()
    }
}
