use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::wait::wait_until;

/// A point where requests stop until the test lets them go on: races become a fixed order.
///
/// ```
/// # use staithe_testkit::Hold;
/// let hold = Hold::new();
/// assert_eq!(hold.arrived(), 0);
/// hold.release();
/// ```
#[derive(Debug, Clone)]
pub struct Hold(Arc<watch::Sender<State>>);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    arrived: u64,
    released: bool,
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

impl Hold {
    /// A closed one.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }

    /// How many requests have come to it.
    pub fn arrived(&self) -> u64 {
        self.0.borrow().arrived
    }

    /// Waits until `n` requests have come to it.
    ///
    /// # Cancel safety
    /// Safe: nothing is consumed.
    pub async fn wait_for(&self, n: u64) {
        // The sender lives as long as `self`: the wait cannot fail.
        let _ = self.0.subscribe().wait_for(|state| state.arrived >= n).await;
    }

    /// [`wait_for`](Self::wait_for) on a plain thread; says whether they came before the deadline.
    pub fn wait_for_blocking(&self, n: u64, deadline: Duration) -> bool {
        wait_until(deadline, || self.arrived() >= n)
    }

    /// Lets every request go on, those that are held and those that come later.
    pub fn release(&self) {
        self.0.send_modify(|state| state.released = true);
    }

    pub(crate) async fn pass(&self) {
        let mut state = self.0.subscribe();
        self.0.send_modify(|state| state.arrived += 1);
        let _ = state.wait_for(|state| state.released).await;
    }
}
