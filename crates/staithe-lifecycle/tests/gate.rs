//! The gate with real threads; every interleaving is `loom.rs`.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use staithe_lifecycle::{Closed, Gate, Inside};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn who_is_inside_is_waited_for_by_name() {
    let gate = Gate::new(&["read", "write"]);
    let (read, write) = (gate.label("read"), gate.label("write"));
    let guards = [gate.enter(read).unwrap(), gate.enter(read).unwrap(), gate.enter(write).unwrap()];
    assert_eq!(gate.inside(), [("read", 2), ("write", 1)]);
    assert!(!gate.is_closed());
    gate.close();
    assert!(gate.is_closed() && !gate.is_left());
    assert_eq!(gate.enter(read).unwrap_err(), Closed);
    assert_eq!(gate.enter_owned(write).unwrap_err(), Closed);
    let inside = gate.left_blocking(Duration::from_millis(2)).unwrap_err();
    assert_eq!(inside, Inside { who: vec![("read", 2), ("write", 1)] });
    assert_eq!(inside.to_string(), "the gate is not left: 2 read, 1 write still inside");
    drop(guards);
    gate.close();
    assert_eq!((gate.left_blocking(SECOND), gate.left().now_or_never()), (Ok(()), Some(())));
    assert_eq!((gate.inside(), gate.is_left()), (vec![], true));
}

#[test]
fn an_open_gate_is_not_left_though_it_is_empty() {
    let gate = Gate::new(&[]);
    let left = gate.left_blocking(Duration::from_millis(1)).unwrap_err();
    assert!(left.to_string().contains("not closed"), "{left}");
    gate.close();
    gate.left_blocking(SECOND).unwrap();
}

#[test]
fn labels_are_the_same_by_name_and_bounded() {
    let gate = Gate::new(&["read"]);
    assert_eq!(gate.label("read"), gate.label("read"));
    let names: Vec<&'static str> = (0..100).map(|n| &*format!("label {n}").leak()).collect();
    let labels: Vec<_> = names.iter().map(|name| gate.label(name)).collect();
    let guards: Vec<_> = labels.iter().map(|label| gate.enter(*label).unwrap()).collect();
    let inside = gate.inside();
    assert_eq!(inside.len(), 63);
    assert_eq!(inside[0], ("label 0", 1));
    assert_eq!(inside[62], ("other", 38));
    drop(guards);
    assert_eq!(gate.inside(), []);
}

#[test]
fn a_guard_may_leave_in_another_thread() {
    let gate = Gate::new(&["read"]);
    let read = gate.label("read");
    let guards: Vec<_> = (0..100).map(|_| gate.enter_owned(read).unwrap()).collect();
    gate.close();
    let mut left = gate.left();
    assert_eq!((&mut left).now_or_never(), None);
    thread::spawn(move || drop(guards)).join().unwrap();
    assert_eq!(left.now_or_never(), Some(()));
}

#[test]
fn nobody_is_inside_after_it_was_left_and_all_they_did_is_seen() {
    for _ in 0..200 {
        let gate = Gate::new(&["write"]);
        let write = gate.label("write");
        let done = AtomicBool::new(false);
        let (entered, finished) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Ok(_guard) = gate.enter(write) {
                        assert!(!done.load(Ordering::SeqCst), "inside after it was left");
                        entered.fetch_add(1, Ordering::Relaxed);
                        finished.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            while entered.load(Ordering::Relaxed) < 10 {
                thread::yield_now();
            }
            gate.close();
            gate.left_blocking(SECOND * 30).unwrap();
            done.store(true, Ordering::SeqCst);
            assert_eq!(entered.load(Ordering::Relaxed), finished.load(Ordering::Relaxed));
        });
    }
}

#[test]
fn many_wait_and_all_are_woken() {
    let gate = Gate::new(&["read"]);
    let guard = gate.enter(gate.label("read")).unwrap();
    gate.close();
    let woken = Arc::new(AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                drop(gate.left());
                gate.left_blocking(SECOND * 30).unwrap();
                woken.fetch_add(1, Ordering::SeqCst);
            });
        }
        drop(guard);
    });
    assert_eq!(woken.load(Ordering::SeqCst), 8);
}
