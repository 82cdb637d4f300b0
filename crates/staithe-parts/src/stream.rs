//! One stream of reads through an object: where it is, which way it goes, how far ahead it has earned.

use std::iter::once;
use std::ops::Range;

use crate::planner::{Pattern, PlannerConfig};

/// Descending, contiguous reads before a stream counts as reverse. Kernel threads may deliver a handful of
/// forward reads backwards; they do not deliver five.
const REVERSE_AFTER: u32 = 5;

/// A run of related reads. All positions are bytes from the start of the object.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) pattern: Pattern,
    /// The lowest and the highest offset that the stream has reached.
    pub(crate) low: u64,
    pub(crate) high: u64,
    /// The read-ahead, in bytes beyond `high` (below `low` when reverse).
    pub(crate) window: u64,
    /// Bytes read in this stream: what it has earned trust with.
    pub(crate) run: u64,
    /// Contiguous reads below `low`, one after another.
    descents: u32,
    /// The last read, which a stride counts from.
    last: Range<u64>,
    /// Bytes read in other streams since this one was last used.
    pub(crate) idle: u64,
}

impl Stream {
    pub(crate) fn begin(read: &Range<u64>, config: &PlannerConfig) -> Self {
        Self {
            pattern: Pattern::Random,
            low: read.start,
            high: read.end,
            window: config.initial_window,
            run: read.end - read.start,
            descents: 0,
            last: read.clone(),
            idle: 0,
        }
    }

    /// A stream that was recognised as strided, at its latest read. `seen` is how many reads showed it.
    pub(crate) fn strided(read: &Range<u64>, stride: i64, seen: u64, config: &PlannerConfig) -> Self {
        let len = read.end - read.start;
        Self {
            pattern: Pattern::Strided { stride },
            low: read.start,
            high: read.end,
            window: len.saturating_mul(2).min(config.max_window),
            run: len.saturating_mul(seen),
            descents: 0,
            last: read.clone(),
            idle: 0,
        }
    }

    /// How far `read` is from where this stream would go next, or `None` if it is not of this stream.
    pub(crate) fn distance(&self, read: &Range<u64>, config: &PlannerConfig) -> Option<u64> {
        let reorder = config.reorder_window;
        match self.pattern {
            Pattern::Strided { stride } => {
                let same_len = read.end - read.start == self.last.end - self.last.start;
                (same_len && self.last.start.checked_add_signed(stride) == Some(read.start)).then_some(0)
            }
            Pattern::Reverse => {
                let reach = config.skip_gap.max(self.window);
                (read.end.saturating_add(reach) >= self.low && read.end <= self.low.saturating_add(reorder))
                    .then(|| read.end.abs_diff(self.low))
            }
            Pattern::Random | Pattern::Sequential => {
                let reach = config.skip_gap.max(self.window);
                (read.start <= self.high.saturating_add(reach)
                    && read.end.saturating_add(reorder) >= self.high)
                    .then(|| read.start.abs_diff(self.high))
            }
        }
    }

    /// Takes in a read for which [`distance`](Self::distance) was `Some`; its window may grow up to `most`.
    pub(crate) fn advance(&mut self, read: &Range<u64>, config: &PlannerConfig, most: u64) {
        let len = read.end - read.start;
        let onward = match self.pattern {
            Pattern::Strided { .. } => true,
            Pattern::Reverse => read.start < self.low,
            Pattern::Random | Pattern::Sequential => read.end > self.high,
        };
        self.descents =
            if read.end == self.last.start && read.start < self.low { self.descents + 1 } else { 0 };
        self.idle = 0;
        self.run = self.run.saturating_add(len);
        self.last = read.clone();
        if let Pattern::Strided { .. } = self.pattern {
            (self.low, self.high) = (read.start, read.end);
        } else {
            self.low = self.low.min(read.start);
            self.high = self.high.max(read.end);
        }
        if onward && self.pattern == Pattern::Random {
            self.pattern = Pattern::Sequential;
        }
        if !matches!(self.pattern, Pattern::Reverse | Pattern::Strided { .. })
            && self.descents + 1 >= REVERSE_AFTER
        {
            self.pattern = Pattern::Reverse;
            self.window = 0;
        }
        if onward || (self.pattern == Pattern::Reverse && self.window == 0) {
            self.grow(len, config, most);
        }
    }

    /// Doubles the window, within what the run has earned and `most`; it never shrinks below what it was, but for the
    /// configured cap.
    fn grow(&mut self, len: u64, config: &PlannerConfig, most: u64) {
        let doubled = self.window.saturating_mul(2).max(len.saturating_mul(2));
        let earned = self.run.saturating_mul(config.ahead_ratio);
        self.window = doubled.min(earned).min(most).max(self.window.min(config.max_window));
    }

    /// The ranges that this stream wants ahead of it, nearest first, within `cap` bytes and `size`.
    pub(crate) fn ahead(&self, cap: u64, size: u64) -> Vec<Range<u64>> {
        let window = self.window.min(cap);
        match self.pattern {
            Pattern::Random | Pattern::Sequential => {
                once(self.high.min(size)..self.high.saturating_add(window).min(size)).collect()
            }
            Pattern::Reverse => once(self.low.saturating_sub(window)..self.low).collect(),
            Pattern::Strided { stride } => self.strides(stride, window, size),
        }
    }

    fn strides(&self, stride: i64, window: u64, size: u64) -> Vec<Range<u64>> {
        let len = self.last.end - self.last.start;
        let mut ranges = Vec::new();
        let mut at = self.last.start;
        let mut left = window;
        while left >= len && len > 0 {
            let Some(next) = at.checked_add_signed(stride).filter(|next| *next < size) else { break };
            ranges.push(next..next.saturating_add(len).min(size));
            left -= len;
            at = next;
        }
        ranges
    }

    /// What this stream may still come to read: bytes outside of every stream's interest are given up.
    pub(crate) fn interest(&self, config: &PlannerConfig) -> Range<u64> {
        let (ahead, behind) = (config.max_window, config.reorder_window);
        match self.pattern {
            Pattern::Random | Pattern::Sequential => {
                self.high.saturating_sub(behind)..self.high.saturating_add(ahead)
            }
            Pattern::Reverse => self.low.saturating_sub(ahead)..self.low.saturating_add(behind),
            Pattern::Strided { stride } => {
                let len = (self.last.end - self.last.start).max(1);
                let steps = self.window / len + 1;
                let reach = stride.unsigned_abs().saturating_mul(steps).saturating_add(len);
                if stride < 0 {
                    self.last.start.saturating_sub(reach)..self.last.end
                } else {
                    self.last.start..self.last.end.saturating_add(reach)
                }
            }
        }
    }
}
