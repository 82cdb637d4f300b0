//! A gate that operations enter with a guard: once closed it lets nobody in, and says when the last has left.
//!
//! 1. A cell counts the guards of one label in one shard, and has the bit that says closed: both change in one step.
//!    A guard that was given is counted before the cell closes, or the cell refuses it.
//! 2. A closed cell only counts down. It is empty once, and for good; who empties it counts it as settled.
//! 3. The gate is left when all cells are settled. Whoever settles the last one wakes those who wait.
//! 4. A leave releases and the settling of a cell acquires and releases: what was done inside is visible to
//!    whoever sees that the gate is left.

mod left;

use std::fmt;
use std::sync::Arc;

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicU64, Mutex, Ordering, most_shards, shard};
use left::Bell;
pub use left::{Inside, Left};

/// Labels of a gate at most, the last of which is for all others.
#[cfg(not(loom))]
const LABELS: usize = 64;
#[cfg(loom)]
const LABELS: usize = 2;

/// The bit of a cell that says that it is closed; the others count.
const CLOSED: u64 = 1 << 63;

/// What an operation is called while it is inside; see [`Gate::label`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(u8);

/// The gate is closed, or the supervisor at its end: nothing new begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, thiserror::Error)]
#[error("closed: nothing new begins here any more")]
pub struct Closed;

/// The counts of some threads. Shards lie in cache lines of their own.
struct Shard {
    cells: [AtomicU64; LABELS],
    bell: Arc<Bell>,
}

/// Lets operations in until it is closed, and then says when all have left. Clones are the same gate.
///
/// Who enters does two atomic operations in a cache line that it shares with few other threads, one to enter and
/// one to leave; nobody waits for anybody.
///
/// ```
/// use std::time::Duration;
/// use staithe_lifecycle::Gate;
///
/// let gate = Gate::new(&["read", "write"]);
/// let read = gate.label("read");
/// let guard = gate.enter(read)?;
///
/// gate.close();
/// assert!(gate.enter(read).is_err());
/// assert_eq!(gate.inside(), [("read", 1)]);
/// assert!(gate.left_blocking(Duration::from_millis(1)).is_err());
///
/// drop(guard);
/// gate.left_blocking(Duration::from_secs(1))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Gate {
    shards: Arc<[Arc<CachePadded<Shard>>]>,
    labels: Arc<Mutex<Vec<&'static str>>>,
    bell: Arc<Bell>,
}

impl Gate {
    /// An open gate with these labels, 63 at most; further ones are all counted as `other`.
    pub fn new(labels: &[&'static str]) -> Self {
        let shards = most_shards();
        let bell = Arc::new(Bell::new(shards * LABELS));
        let shard = |_| {
            let cells = std::array::from_fn(|_| AtomicU64::new(0));
            Arc::new(CachePadded::new(Shard { cells, bell: Arc::clone(&bell) }))
        };
        let gate = Self { shards: (0..shards).map(shard).collect(), labels: Arc::default(), bell };
        for name in labels {
            gate.label(name);
        }
        gate
    }

    /// The label of this name, which is registered if it is new. When there are 63 others, the one of all further
    /// names, which is called `other`. O(labels), under a lock: to be asked for once, not for each operation.
    pub fn label(&self, name: &'static str) -> Label {
        let mut labels = self.labels.lock();
        let known = labels.iter().position(|known| *known == name);
        let index = known.unwrap_or_else(|| {
            if labels.len() < LABELS - 1 {
                labels.push(name);
                labels.len() - 1
            } else {
                LABELS - 1
            }
        });
        Label(index as u8)
    }

    /// Enters, if the gate is open. Two atomic operations with the leave. The guard may be dropped in any thread.
    ///
    /// # Errors
    /// [`Closed`]: it was closed before.
    #[inline]
    pub fn enter(&self, label: Label) -> Result<Guard<'_>, Closed> {
        let shard = self.shard();
        shard.enter(label)?;
        Ok(Guard { shard, label })
    }

    /// The same with a guard that does not borrow the gate, at twice the price.
    ///
    /// # Errors
    /// As [`Gate::enter`].
    #[inline]
    pub fn enter_owned(&self, label: Label) -> Result<OwnedGuard, Closed> {
        let shard = self.shard();
        shard.enter(label)?;
        Ok(OwnedGuard { shard: Arc::clone(shard), label })
    }

    #[inline]
    fn shard(&self) -> &Arc<CachePadded<Shard>> {
        // Their number is a power of two.
        &self.shards[shard() & (self.shards.len() - 1)]
    }

    /// Closes it: when this returns, nobody enters any more. Again, it changes nothing. O(shards × labels).
    pub fn close(&self) {
        for cell in self.shards.iter().flat_map(|shard| &shard.cells) {
            if cell.fetch_or(CLOSED, Ordering::AcqRel) == 0 {
                self.bell.settle();
            }
        }
    }

    /// Whether a [`Gate::close`] has closed it for everybody.
    pub fn is_closed(&self) -> bool {
        // The cell that is closed last.
        let last = self.shards.last().and_then(|shard| shard.cells.last());
        last.is_some_and(|cell| cell.load(Ordering::Acquire) & CLOSED != 0)
    }

    /// Who is inside, by label, those without anybody left out. While it is open these are counts of different
    /// moments. O(shards × labels).
    pub fn inside(&self) -> Vec<(&'static str, u64)> {
        let mut counts = [0_u64; LABELS];
        for shard in self.shards.iter() {
            for (count, cell) in counts.iter_mut().zip(&shard.cells) {
                *count += cell.load(Ordering::Acquire) & !CLOSED;
            }
        }
        let labels = self.labels.lock();
        let names = labels.iter().copied().chain(std::iter::repeat("other"));
        let (named, other) = counts.split_at(labels.len());
        let other: u64 = other.iter().sum();
        names.zip(named.iter().copied().chain([other])).filter(|(_, count)| *count > 0).collect()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = self.is_closed();
        f.debug_struct("Gate").field("closed", &closed).field("inside", &self.inside()).finish()
    }
}

impl Shard {
    #[inline]
    fn enter(&self, label: Label) -> Result<(), Closed> {
        let cell = self.cell(label);
        let mut seen = cell.load(Ordering::Relaxed);
        loop {
            if seen & CLOSED != 0 {
                return Err(Closed);
            }
            match cell.compare_exchange_weak(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    #[inline]
    fn leave(&self, label: Label) {
        if self.cell(label).fetch_sub(1, Ordering::AcqRel) == CLOSED + 1 {
            self.bell.settle();
        }
    }

    #[inline]
    fn cell(&self, label: Label) -> &AtomicU64 {
        // A label of another gate is still one of these.
        &self.cells[usize::from(label.0) % LABELS]
    }
}

/// Somebody who is inside. Leaves when it is dropped, in whatever thread; never blocks.
#[must_use = "who drops the guard leaves"]
pub struct Guard<'a> {
    shard: &'a Shard,
    label: Label,
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.shard.leave(self.label);
    }
}

impl fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.label).finish()
    }
}

/// As [`Guard`], without borrowing the gate.
#[must_use = "who drops the guard leaves"]
pub struct OwnedGuard {
    shard: Arc<CachePadded<Shard>>,
    label: Label,
}

impl Drop for OwnedGuard {
    #[inline]
    fn drop(&mut self) {
        self.shard.leave(self.label);
    }
}

impl fmt::Debug for OwnedGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedGuard").field(&self.label).finish()
    }
}
