//! One published state, and those who hold it.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::Epoch;
use crate::ledger::Ledger;
use crate::reclaim::{Garbage, Reclaimer};
use crate::sync::{AtomicBool, Ordering};

/// Where a state goes when nobody holds it any more.
pub(crate) struct Home {
    pub(crate) ledger: Ledger,
    pub(crate) reclaimer: Reclaimer,
    /// The cell is gone: nobody publishes any more.
    over: AtomicBool,
}

impl Home {
    pub(crate) fn new(reclaimer: Reclaimer) -> Self {
        Self { ledger: Ledger::default(), reclaimer, over: AtomicBool::new(false) }
    }

    /// Nobody publishes any more, and so nobody frees for want of a worker but whoever drops the last of a state: what is
    /// handed over holds its reclaimer, and would stay with it for ever.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.reclaimer.help_if_alone();
    }
}

/// One published state and its epoch. Dereferences to the state.
///
/// Whoever drops the last `Arc` of it hands the state over to the [`Reclaimer`]; the destructor of `T` never runs
/// where a reader is, unless both the cell and the reclaimer's worker are gone.
pub struct Snapshot<T: Send + 'static> {
    epoch: Epoch,
    /// Taken by `drop` alone.
    state: Option<Box<T>>,
    home: Arc<Home>,
}

impl<T: Send + 'static> Snapshot<T> {
    pub(crate) fn new(epoch: Epoch, state: Box<T>, home: Arc<Home>) -> Self {
        Self { epoch, state: Some(state), home }
    }

    /// Its epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl<T: Send + 'static> Deref for Snapshot<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match &self.state {
            Some(state) => state,
            None => unreachable!("the state is taken by drop alone"),
        }
    }
}

impl<T: Send + 'static> Drop for Snapshot<T> {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            self.home.reclaimer.hand_over(Garbage::new(state, self.epoch, Arc::clone(&self.home)));
            if self.home.over.load(Ordering::SeqCst) {
                self.home.reclaimer.help_if_alone();
            }
        }
    }
}

/// Without the state: it may be large.
impl<T: Send + 'static> fmt::Debug for Snapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// A snapshot that is held under a name, so that who holds an old state can be asked ([`crate::SnapshotCell::alive`]).
/// Dereferences to the snapshot.
pub struct Held<T: Send + Sync + 'static> {
    snapshot: Arc<Snapshot<T>>,
    label: Cow<'static, str>,
}

impl<T: Send + Sync + 'static> Held<T> {
    pub(crate) fn new(snapshot: Arc<Snapshot<T>>, label: Cow<'static, str>) -> Self {
        snapshot.home.ledger.hold(snapshot.epoch, label.clone());
        Self { snapshot, label }
    }

    /// The name.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The snapshot without the name.
    pub fn to_arc(&self) -> Arc<Snapshot<T>> {
        Arc::clone(&self.snapshot)
    }
}

impl<T: Send + Sync + 'static> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self::new(self.to_arc(), self.label.clone())
    }
}

impl<T: Send + Sync + 'static> Deref for Held<T> {
    type Target = Snapshot<T>;

    fn deref(&self) -> &Snapshot<T> {
        &self.snapshot
    }
}

impl<T: Send + Sync + 'static> Drop for Held<T> {
    fn drop(&mut self) {
        self.snapshot.home.ledger.release(self.snapshot.epoch, &self.label);
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("label", &self.label).field("snapshot", &self.snapshot).finish()
    }
}

/// A snapshot of a state whose type is not known here.
pub(crate) type Opaque = Arc<dyn Any + Send + Sync>;
