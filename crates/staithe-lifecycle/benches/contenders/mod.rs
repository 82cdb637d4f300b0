//! The gate and the watcher, and what one would use instead.

use std::hint::black_box;
use std::sync::{Arc, Barrier, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use staithe_lifecycle::{Config, Gate, Outcome, Watcher};
use tokio_util::task::TaskTracker;

/// What one thread does so many times.
pub(crate) type Work = Box<dyn Fn(u64) + Sync>;

/// Enters and leaves. All but the gates say less: a read lock does not say who is inside, a count of references
/// refuses nobody, a tracker refuses nobody either.
pub(crate) fn gates() -> Vec<(&'static str, Work)> {
    let gate = Gate::new(&["read", "write"]);
    let owned = gate.clone();
    let read = gate.label("read");
    let tracker = TaskTracker::new();
    let std = RwLock::new(());
    let parking = parking_lot::RwLock::new(());
    let shared = Arc::new(());
    vec![
        ("Gate, enter and leave", Box::new(move |times| repeat(times, || drop(black_box(gate.enter(read)))))),
        ("Gate, owned", Box::new(move |times| repeat(times, || drop(black_box(owned.enter_owned(read)))))),
        ("TaskTracker, token", Box::new(move |times| repeat(times, || drop(black_box(tracker.token()))))),
        (
            "std RwLock, read",
            Box::new(move |times| {
                repeat(times, || drop(black_box(std.read().unwrap_or_else(PoisonError::into_inner))));
            }),
        ),
        (
            "parking_lot RwLock, read",
            Box::new(move |times| repeat(times, || drop(black_box(parking.read())))),
        ),
        ("Arc, clone", Box::new(move |times| repeat(times, || drop(black_box(Arc::clone(&shared)))))),
    ]
}

/// What one would write: the counts that a share of failures needs, under a lock.
#[derive(Default)]
struct State {
    outcomes: u64,
    failures: u64,
    since: Option<Instant>,
}

/// Reports a success of an operation. The time that it began is known: it is not asked for here.
pub(crate) fn reports() -> Vec<(&'static str, Work)> {
    let watcher: Watcher<u8> = Watcher::new(Config::default());
    watcher.ready();
    let phase = watcher.clone();
    let std = Mutex::new(State::default());
    let parking = parking_lot::Mutex::new(State::default());
    let count = |state: &mut State, began: Instant| {
        state.outcomes += 1;
        if state.failures > 0 {
            (state.failures, state.since) = (0, Some(began));
        }
    };
    let began = Instant::now();
    vec![
        (
            "Watcher, report of a success",
            Box::new(move |times| repeat(times, || watcher.report(black_box(began), Outcome::Ok))),
        ),
        (
            "std Mutex of counts",
            Box::new(move |times| {
                repeat(times, || {
                    count(&mut std.lock().unwrap_or_else(PoisonError::into_inner), black_box(began));
                });
            }),
        ),
        (
            "parking_lot Mutex of counts",
            Box::new(move |times| repeat(times, || count(&mut parking.lock(), black_box(began)))),
        ),
        ("Watcher, phase", Box::new(move |times| repeat(times, || _ = black_box(phase.phase())))),
    ]
}

fn repeat(times: u64, work: impl Fn()) {
    for _ in 0..times {
        work();
    }
}

/// The time that the slowest of so many threads takes for its times, all at once.
pub(crate) fn on_threads(threads: usize, times: u64, work: &Work) -> Duration {
    let start = Barrier::new(threads);
    let run = || {
        start.wait();
        let begun = Instant::now();
        work(times);
        begun.elapsed()
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mine = run();
        others.into_iter().map(|other| other.join().unwrap_or_default()).fold(mine, Duration::max)
    })
}
