//! Which failures are written to the log: the first of a kind, and then not each of a million.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use staithe_fs::FsErrorKind;

/// Lines about one operation and situation in one period.
const LINES: u32 = 10;
/// Length of a period.
const PERIOD: Duration = Duration::from_mins(1);

/// Counts failures by operation and situation. Bounded by the number of those, which is fixed.
#[derive(Debug, Default)]
pub(crate) struct Incidents(HashMap<(&'static str, FsErrorKind), Window>);

#[derive(Debug)]
struct Window {
    since: Instant,
    seen: u32,
}

/// What to do about one failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Write it, and how many like it went unwritten before.
    Write {
        /// Failures like this one that were left out.
        left_out: u32,
    },
    /// Leave it out.
    LeaveOut,
}

impl Incidents {
    /// Counts a failure at `now`.
    pub(crate) fn meet(&mut self, operation: &'static str, kind: FsErrorKind, now: Instant) -> Verdict {
        let window = self.0.entry((operation, kind)).or_insert(Window { since: now, seen: 0 });
        let mut left_out = 0;
        if now.saturating_duration_since(window.since) >= PERIOD {
            left_out = window.seen.saturating_sub(LINES);
            *window = Window { since: now, seen: 0 };
        }
        window.seen = window.seen.saturating_add(1);
        if window.seen <= LINES { Verdict::Write { left_out } } else { Verdict::LeaveOut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_ten_lines_a_minute_and_a_count() {
        let mut incidents = Incidents::default();
        let start = Instant::now();
        let written = (0..1000)
            .filter(|_| incidents.meet("read", FsErrorKind::TimedOut, start) != Verdict::LeaveOut)
            .count();
        assert_eq!(written, 10);
        let other = incidents.meet("write", FsErrorKind::TimedOut, start);
        assert_eq!(other, Verdict::Write { left_out: 0 });
        let later = incidents.meet("read", FsErrorKind::TimedOut, start + PERIOD);
        assert_eq!(later, Verdict::Write { left_out: 990 });
    }
}
