use std::sync::Arc;

use tokio::sync::watch;

/// A gate that requests wait at until it is opened; how a test holds a request at a chosen point.
///
/// Clones are the same gate. It is opened once and stays open.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<State>>);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    open: bool,
    arrived: usize,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.0.send_modify(|state| state.open = true);
    }

    /// Waits until `count` requests in all have come to the gate.
    ///
    /// # Cancel safety
    /// Safe: it only looks.
    pub async fn arrived(&self, count: usize) {
        self.wait(|state| state.arrived >= count).await;
    }

    /// Comes to the gate and waits until it is open.
    pub(super) async fn pass(&self) {
        self.0.send_modify(|state| state.arrived += 1);
        self.wait(|state| state.open).await;
    }

    async fn wait(&self, done: impl FnMut(&State) -> bool) {
        // The sender lives in `self`, so waiting ends only when the condition holds.
        let _ = self.0.subscribe().wait_for(done).await;
    }
}
