//! The cell and what one would use instead.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use left_right::{Absorb, ReadHandleFactory, WriteHandle};
use staithe_snapshot::{Config, Reclaimer, SnapshotCell};

/// One thread's reads of a small state: as many as it is told.
pub(crate) type Reads = Box<dyn Fn(u64) + Sync>;

pub(crate) const STATE: u64 = 7;

/// A number, replaced whole.
struct Put(u64);

impl Absorb<Put> for u64 {
    fn absorb_first(&mut self, put: &mut Put, _: &Self) {
        *self = put.0;
    }

    fn sync_with(&mut self, first: &Self) {
        *self = *first;
    }
}

/// Keeps the writer alive; a lock because a writer is not to be shared.
struct LeftRight {
    factory: ReadHandleFactory<u64>,
    _writer: std::sync::Mutex<WriteHandle<u64, Put>>,
}

fn repeat(times: u64, mut read: impl FnMut() -> u64) {
    for _ in 0..times {
        black_box(read());
    }
}

/// Each of them gives an owned state, but left-right, which has guards only.
pub(crate) fn readers() -> Vec<(&'static str, Reads)> {
    let cell = SnapshotCell::new(STATE);
    let peeked = SnapshotCell::new(STATE);
    let plain = ArcSwap::from_pointee(STATE);
    let std = RwLock::new(Arc::new(STATE));
    let parking = parking_lot::RwLock::new(Arc::new(STATE));
    let (mut writer, reader) = left_right::new::<u64, Put>();
    writer.append(Put(STATE)).publish();
    let left_right = LeftRight { factory: reader.factory(), _writer: std::sync::Mutex::new(writer) };
    vec![
        ("ArcSwap, load_full", Box::new(move |times| repeat(times, || *plain.load_full()))),
        ("SnapshotCell, load", Box::new(move |times| repeat(times, || **cell.load()))),
        ("SnapshotCell, peek", Box::new(move |times| repeat(times, || peeked.peek(|state| **state)))),
        (
            "std RwLock of Arc",
            Box::new(move |times| {
                repeat(times, || *Arc::clone(&std.read().unwrap_or_else(PoisonError::into_inner)));
            }),
        ),
        ("parking_lot RwLock of Arc", Box::new(move |times| repeat(times, || *Arc::clone(&parking.read())))),
        (
            "left-right, guard",
            Box::new(move |times| {
                let handle = left_right.factory.handle();
                repeat(times, || handle.enter().map_or(0, |state| *state));
            }),
        ),
    ]
}

/// The time that the slowest of so many threads takes for so many reads, all at once.
pub(crate) fn read_all(threads: usize, times: u64, reads: &Reads) -> Duration {
    let start = Barrier::new(threads);
    let run = || {
        start.wait();
        let begun = Instant::now();
        reads(times);
        begun.elapsed()
    };
    if threads == 1 {
        return run();
    }
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).max().unwrap_or_default()
    })
}

/// Keys and values, in the order of their keys: cheap to fill, so that filling keeps the pace on a busy machine.
pub(crate) type Table = Vec<(u64, u64)>;

fn fill(table: &mut Table, entries: u64, value: u64) {
    table.extend((0..entries).map(|key| (key, value)));
}

fn table(entries: u64, value: u64) -> Table {
    let mut table = Table::with_capacity(entries as usize);
    fill(&mut table, entries, value);
    table
}

fn get(table: &Table, key: u64) -> Option<u64> {
    let at = table.binary_search_by_key(&key, |(key, _)| *key).ok()?;
    table.get(at).map(|(_, value)| *value)
}

fn timed<G>(key: u64, acquire: impl FnOnce() -> G, table: impl FnOnce(&G) -> &Table) -> Duration {
    let begun = Instant::now();
    let held = acquire();
    let acquired = begun.elapsed();
    black_box(get(table(&held), key));
    let ending = Instant::now();
    drop(held);
    acquired + ending.elapsed()
}

/// Without a worker, who publishes frees: no third thread competes for two cores.
fn publisher_frees(table: Table) -> SnapshotCell<Table> {
    let (reclaimer, worker) = Reclaimer::by_hand();
    drop(worker);
    SnapshotCell::with_config(table, Config { reclaimer: Some(reclaimer), ..Config::default() })
}

/// A large state: how one entry of it is read, and how all of it is replaced.
pub(crate) struct Large {
    pub(crate) name: &'static str,
    /// The time to get hold of the state and to let go of it: looking the key up between the two is the same for all,
    /// and gives a busy machine a large target to interrupt.
    pub(crate) read: Box<dyn Fn(u64) -> Duration + Send + Sync>,
    pub(crate) replace: Box<dyn Fn(u64) + Send + Sync>,
}

impl Large {
    fn new<S: Send + Sync + 'static>(
        name: &'static str,
        state: S,
        read: impl Fn(&S, u64) -> Duration + Send + Sync + 'static,
        replace: impl Fn(&S, u64) + Send + Sync + 'static,
    ) -> Self {
        let state = Arc::new(state);
        let read_from = Arc::clone(&state);
        Self {
            name,
            read: Box::new(move |key| read(&read_from, key)),
            replace: Box::new(move |value| replace(&state, value)),
        }
    }
}

pub(crate) fn large(entries: u64) -> Vec<Large> {
    vec![
        Large::new(
            "SnapshotCell, publish",
            SnapshotCell::new(table(entries, 0)),
            |cell, key| timed(key, || cell.load(), |held| held),
            move |cell, value| drop(cell.publish(table(entries, value))),
        ),
        Large::new(
            "SnapshotCell, publisher frees",
            publisher_frees(table(entries, 0)),
            |cell, key| timed(key, || cell.load(), |held| held),
            move |cell, value| drop(cell.publish(table(entries, value))),
        ),
        Large::new(
            "ArcSwap, store",
            ArcSwap::from_pointee(table(entries, 0)),
            |cell, key| timed(key, || cell.load_full(), |held| held),
            move |cell, value| cell.store(Arc::new(table(entries, value))),
        ),
        Large::new(
            "std RwLock of Arc",
            RwLock::new(Arc::new(table(entries, 0))),
            |cell, key| {
                let acquire = || Arc::clone(&cell.read().unwrap_or_else(PoisonError::into_inner));
                timed(key, acquire, |held| held)
            },
            move |cell, value| {
                let next = Arc::new(table(entries, value));
                let mut state = cell.write().unwrap_or_else(PoisonError::into_inner);
                let old = std::mem::replace(&mut *state, next);
                drop(state);
                drop(old);
            },
        ),
        Large::new(
            "std RwLock, refilled in place",
            RwLock::new(table(entries, 0)),
            |cell, key| timed(key, || cell.read().unwrap_or_else(PoisonError::into_inner), |held| held),
            move |cell, value| {
                let mut state = cell.write().unwrap_or_else(PoisonError::into_inner);
                state.clear();
                fill(&mut state, entries, value);
            },
        ),
    ]
}

/// Nanoseconds that reads took, one an interval, while the state was replaced so often. A read that took longer than the
/// interval stands for those that could not begin meanwhile, too.
pub(crate) fn latencies(
    large: &Large,
    entries: u64,
    interval: Duration,
    swaps: u32,
    each: Duration,
) -> Vec<u64> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_at_intervals(large, entries, interval, &stop));
        let mut next = Instant::now();
        for value in 0..swaps {
            (large.replace)(u64::from(value));
            next += each;
            thread::park_timeout(next.saturating_duration_since(Instant::now()));
        }
        stop.store(true, Ordering::Relaxed);
        let mut latencies = reader.join().unwrap_or_default();
        latencies.sort_unstable();
        latencies
    })
}

fn read_at_intervals(large: &Large, entries: u64, interval: Duration, stop: &AtomicBool) -> Vec<u64> {
    let interval_ns = interval.as_nanos() as u64;
    let (mut latencies, mut next, mut key) = (Vec::with_capacity(1 << 20), Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        while Instant::now() < next {
            std::hint::spin_loop();
        }
        let mut took = (large.read)(key).as_nanos() as u64;
        key = (key + 386_093) % entries;
        latencies.push(took);
        while took > interval_ns {
            took -= interval_ns;
            latencies.push(took);
        }
        next = Instant::now() + interval;
    }
    latencies
}

/// The least of them that this share of all does not exceed.
pub(crate) fn percentile(sorted: &[u64], share: f64) -> u64 {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(0)
}
