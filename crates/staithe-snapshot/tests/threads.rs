//! Real threads that read, change, replace and wait at once.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use staithe_snapshot::{Config, Edit, Epoch, SnapshotCell};

const CHANGES: u64 = if cfg!(miri) { 5 } else { 2_000 };

/// Two halves that agree, and a count of those that are alive.
struct Halves {
    left: Vec<u64>,
    right: Vec<u64>,
    alive: Arc<AtomicUsize>,
    reader: Arc<AtomicBool>,
}

thread_local! {
    static READER: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Halves {
    fn new(value: u64, of: Option<&Self>) -> Self {
        let (alive, reader) =
            of.map_or_else(Default::default, |of| (Arc::clone(&of.alive), Arc::clone(&of.reader)));
        alive.fetch_add(1, Ordering::SeqCst);
        Self { left: vec![value; 8], right: vec![value; 8], alive, reader }
    }
}

impl Drop for Halves {
    fn drop(&mut self) {
        // Who reads it now reads what is freed.
        self.left.fill(u64::MAX);
        self.alive.fetch_sub(1, Ordering::SeqCst);
        if READER.get() {
            self.reader.store(true, Ordering::SeqCst);
        }
    }
}

#[test]
fn readers_see_whole_states_and_free_none() {
    let first = Halves::new(0, None);
    let (alive, freed_by_reader) = (Arc::clone(&first.alive), Arc::clone(&first.reader));
    let cell = SnapshotCell::new(first);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                READER.set(true);
                let mut last = Epoch(0);
                while last.0 <= CHANGES {
                    let seen = cell.load();
                    assert!(seen.left == seen.right && seen.left[0] + 1 == seen.epoch().0);
                    assert!(seen.epoch() >= last);
                    last = seen.epoch();
                }
            });
        }
        scope.spawn(|| {
            for value in 1..=CHANGES {
                drop(cell.update(|old| Halves::new(value, Some(old))).unwrap());
            }
        });
    });
    cell.reclaimer().settle();
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    assert!(!freed_by_reader.load(Ordering::SeqCst));
}

#[test]
fn no_change_is_lost_or_made_twice_while_replacements_come_and_go() {
    let cell: SnapshotCell<(u64, u64), Edit<(u64, u64)>> =
        SnapshotCell::with_config((0, 0), Config::default());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let changers = [0; 2].map(|_| {
            scope.spawn(|| {
                for _ in 0..CHANGES {
                    drop(cell.change(Edit::new(|(_, count)| *count += 1)).unwrap());
                }
            })
        });
        scope.spawn(|| {
            for round in 1.. {
                let load = |loading: &staithe_snapshot::Loading| {
                    let base = cell.load();
                    loading.as_of(base.epoch());
                    match round % 4 {
                        0 => Err("it fails"),
                        1 => {
                            loading.cancel();
                            Ok((round, base.1))
                        }
                        _ => Ok((round, base.1)),
                    }
                };
                drop(cell.apply(load, |_| Ok::<_, Infallible>(())));
                if done.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        for changer in changers {
            changer.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(cell.load().1, 2 * CHANGES);
}

#[test]
fn who_waits_misses_no_change() {
    let cell = SnapshotCell::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = Epoch::FIRST;
                while seen.0 <= CHANGES {
                    seen = cell.changed(seen).wait().unwrap();
                    assert!(cell.epoch() >= seen);
                }
            });
        }
        for value in 1..=CHANGES {
            drop(cell.publish(value).unwrap());
        }
    });
}
