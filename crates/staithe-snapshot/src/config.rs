//! Bounds of a cell.

use crate::{Epoch, Reclaimer};

/// Bounds of a cell, and who frees its old states.
#[derive(Clone, Debug)]
pub struct Config {
    /// The epoch of the first state. For one that was loaded from disk, the epoch that it was saved with.
    pub first_epoch: Epoch,
    /// How many old states may be alive, at least 1: a publication beyond that first has what nobody holds freed, and
    /// is refused with [`crate::Kind::Exhausted`] if readers hold too many. An update under way holds the state that it
    /// read; a state's destructor must not publish, as it would wait for itself. Default 64; memory is bounded by this many states, the current one and one that is loading.
    pub max_old: usize,
    /// How many may wait for a change. Default 4096.
    pub max_waiters: usize,
    /// How many changes a replacement may have to replay. Those that it is replaying do not count any more. Default
    /// 1,000,000.
    pub log_entries: usize,
    /// The same in bytes, as [`crate::Delta::weight`] says. Default 64 MiB.
    pub log_bytes: usize,
    /// Who frees old states. `None`, the default: a thread of the cell's own.
    pub reclaimer: Option<Reclaimer>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            first_epoch: Epoch::FIRST,
            max_old: 64,
            max_waiters: 4096,
            log_entries: 1_000_000,
            log_bytes: 64 << 20,
            reclaimer: None,
        }
    }
}
