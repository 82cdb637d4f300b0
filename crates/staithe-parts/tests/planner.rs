//! The read-ahead policy, pattern by pattern, with a fetcher that delivers at once.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use staithe_parts::{Pattern, Planner, PlannerConfig, Spans};
use std::ops::Range;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const NO_CAP: u64 = u64::MAX;

/// A planner and everything that it ever planned.
struct Trace {
    planner: Planner,
    have: Spans,
    requests: Vec<Range<u64>>,
}

impl Trace {
    fn new(size: u64) -> Self {
        let planner = Planner::new(size, PlannerConfig::default());
        Self { planner, have: Spans::new(), requests: Vec::new() }
    }

    fn read(&mut self, at: u64, len: u64) {
        let read = at..at + len;
        self.planner.note(&read);
        for planned in self.planner.plan(&self.have, std::slice::from_ref(&read), NO_CAP) {
            assert!(!self.have.intersects(&planned.range), "{planned:?} was planned before");
            self.have.insert(planned.range.clone());
            self.requests.push(planned.range);
        }
    }

    fn fetched(&self) -> u64 {
        self.requests.iter().map(|r| r.end - r.start).sum()
    }

    fn pattern(&self) -> Pattern {
        self.planner.current().unwrap().0
    }
}

#[test]
fn a_sequential_read_is_fetched_once_in_few_growing_requests() {
    let size = 1024 * MIB;
    let mut trace = Trace::new(size);
    for at in (0..size).step_by(128 * 1024) {
        trace.read(at, 128 * KIB);
    }
    assert_eq!((trace.fetched(), trace.have.bytes()), (size, size));
    assert_eq!(trace.requests[0], 0..128 * KIB);
    assert!(trace.requests.iter().all(|r| r.end - r.start < 12 * MIB));
    assert!(trace.requests.len() < 176, "{} requests", trace.requests.len());
}

#[test]
fn a_few_sequential_reads_are_enough_for_a_full_window() {
    let mut trace = Trace::new(1024 * MIB);
    for n in 0..64 {
        trace.read(n * 128 * KIB, 128 * KIB);
        assert!(trace.fetched() <= (n + 1) * 128 * KIB * 9, "read-ahead beyond what was earned");
    }
    assert!(trace.fetched() >= 64 * MIB, "{}", trace.fetched() / MIB);
}

#[test]
fn reads_that_the_kernel_reorders_count_as_sequential() {
    let size = 256 * MIB;
    let mut trace = Trace::new(size);
    // Windows of eight requests, each delivered in a scrambled order.
    for window in (0..size).step_by(1 << 20) {
        for n in [2, 0, 1, 5, 3, 7, 6, 4] {
            trace.read(window + n * 128 * KIB, 128 * KIB);
        }
    }
    assert_eq!(trace.pattern(), Pattern::Sequential);
    assert_eq!(trace.fetched(), size);
    assert!(trace.requests.len() < 80, "{} requests", trace.requests.len());
}

#[test]
fn random_reads_fetch_only_what_was_asked() {
    let mut trace = Trace::new(64 << 30);
    let mut at = 12_345u64;
    for n in 1..=200u64 {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n) % (63 << 30);
        let before = trace.fetched();
        trace.read(at, 4096);
        assert!(trace.fetched() - before <= 4096);
    }
}

#[test]
fn a_small_skip_stays_in_the_stream_and_a_seek_starts_small() {
    let mut trace = Trace::new(1024 * MIB);
    for n in 0..16 {
        trace.read(n * 128 * KIB, 128 * KIB);
    }
    let before = trace.fetched();
    trace.read(3 * MIB, 128 * KIB);
    assert_eq!(trace.pattern(), Pattern::Sequential);
    let after_skip = trace.fetched();
    assert!(after_skip == before || trace.requests.last().unwrap().start >= 3 * MIB);
    trace.read(900 * MIB, 128 * KIB);
    assert_eq!(trace.requests.last().unwrap(), &(900 * MIB..900 * MIB + 128 * KIB));
    assert_eq!(trace.planner.current(), Some((Pattern::Random, 0)));
}

#[test]
fn two_interleaved_streams_both_read_ahead() {
    let size = 512 * MIB;
    let mut trace = Trace::new(size);
    for at in (0..size / 2).step_by(256 * 1024) {
        trace.read(at, 256 * KIB);
        trace.read(size / 2 + at, 256 * KIB);
    }
    assert_eq!(trace.fetched(), size);
    assert!(trace.requests.len() < 150, "{} requests", trace.requests.len());
}

#[test]
fn reading_backward_reads_ahead_downward() {
    let size = 128 * MIB;
    let mut trace = Trace::new(size);
    for n in (0..size / (128 * KIB)).rev() {
        trace.read(n * 128 * KIB, 128 * KIB);
    }
    assert_eq!(trace.fetched(), size);
    assert_eq!(trace.pattern(), Pattern::Reverse);
    assert!(trace.requests.len() < 66, "{} requests", trace.requests.len());
}

#[test]
fn a_stride_is_followed_without_its_gaps() {
    for backward in [false, true] {
        let mut trace = Trace::new(4096 * MIB);
        for n in 0..200u64 {
            let n = if backward { 399 - n } else { n };
            trace.read(n * 10 * MIB, 64 * KIB);
        }
        assert!(matches!(trace.pattern(), Pattern::Strided { .. }), "{:?}", trace.pattern());
        assert!(trace.requests.iter().all(|r| r.start % (10 * MIB) == 0 && r.end - r.start == 64 * KIB));
        let ahead = trace.fetched() - 200 * 64 * KIB;
        assert!(ahead > 64 * KIB, "nothing was read ahead");
    }
}

#[test]
fn who_finds_everything_present_is_read_for_amply_and_no_further() {
    let config = PlannerConfig::default();
    let mut planner = Planner::new(1024 * MIB, config.clone());
    let mut at = 0;
    let mut read = |planner: &mut Planner, is_hit: bool| {
        let read = at..at + MIB;
        at += MIB;
        if is_hit {
            planner.note_hit(&read);
        } else {
            planner.note(&read);
        }
        planner.current().unwrap().1
    };
    for _ in 0..50 {
        read(&mut planner, true);
    }
    assert_eq!(read(&mut planner, true), config.ample_window);
    assert_eq!(read(&mut planner, false), config.max_window, "one that waits doubles it");
    assert_eq!(read(&mut planner, true), config.max_window, "which stays");
}

#[test]
fn scarce_memory_shrinks_the_window_and_the_requests() {
    let mut trace = Trace::new(1024 * MIB);
    for n in 0..64 {
        trace.planner.note(&(n * 128 * KIB..(n + 1) * 128 * KIB));
    }
    let plan = |cap| trace.planner.plan(&Spans::new(), &[], cap);
    let total = |cap| plan(cap).iter().map(|p| p.range.end - p.range.start).sum::<u64>();
    assert_eq!(total(NO_CAP), 64 * MIB);
    assert!(total(4 * MIB) <= 4 * MIB && total(4 * MIB) >= 3 * MIB);
    assert!(plan(MIB / 2).iter().all(|p| p.range.end - p.range.start <= MIB / 2));
    assert_eq!(total(0), 0);
}

proptest! {
    /// Whatever is read: what is planned is inside, disjoint, and covers what is waited for.
    #[test]
    fn plans_are_sound(
        size in 0u64..5000,
        sizes in (0u64..400, 0u64..900, 0u64..2000, 0u64..300, 0u64..10),
        reads in prop::collection::vec((0u64..5500, 0u64..700, 0u64..3000), 0..60),
    ) {
        let (min_part, max_part, max_window, reorder_window, ahead_ratio) = sizes;
        let config = PlannerConfig {
            min_part, max_part, max_window, reorder_window, ahead_ratio,
            ample_window: max_window / 2, initial_window: min_part, back_window: 0, skip_gap: reorder_window / 2, max_streams: 3,
        };
        let mut planner = Planner::new(size, config);
        let mut have = Spans::new();
        for (at, len, cap) in reads {
            let read = at..at + len;
            planner.note(&read);
            let wanted = [read.clone(), 0..len / 3];
            for planned in planner.plan(&have, &wanted, cap) {
                prop_assert!(!planned.range.is_empty() && planned.range.end <= size);
                prop_assert!(!have.intersects(&planned.range));
                prop_assert!(planned.demanded <= planned.range.end - planned.range.start);
                have.insert(planned.range);
            }
            prop_assert!(wanted.iter().all(|w| have.contains(&(w.start.min(size)..w.end.min(size)))));
            have.remove(&(at / 2..at / 2 + 40));
        }
    }
}
