//! So many within any minute, and no more.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_mins(1);

/// The times of the last few: exact, where a bucket of tokens would let twice as many through.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    most: usize,
    last: VecDeque<Instant>,
}

impl Pace {
    /// At least one.
    pub(crate) fn new(most: u32) -> Self {
        let most = most.max(1) as usize;
        Self { most, last: VecDeque::with_capacity(most) }
    }

    /// When the next one may be, which is in the past if it may be now.
    pub(crate) fn free(&self) -> Option<Instant> {
        (self.last.len() == self.most).then(|| self.last.front().map(|oldest| *oldest + MINUTE)).flatten()
    }

    pub(crate) fn is_free(&self, now: Instant) -> bool {
        self.free().is_none_or(|at| now >= at)
    }

    pub(crate) fn count(&mut self, now: Instant) {
        if self.last.len() == self.most {
            self.last.pop_front();
        }
        self.last.push_back(now);
    }
}
