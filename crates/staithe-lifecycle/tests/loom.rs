//! The gate and the watcher under loom: every interleaving of entering, leaving and closing, and of whoever waits with
//! whatever it waits for.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant, SystemTime};

use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use staithe_lifecycle::{Clock, Config, Gate, Outcome, Phase, Watcher};

/// Any: in a model no time is ever over, and a lost wake-up is a deadlock.
const WAIT: Duration = Duration::from_secs(1);

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

#[derive(Clone, Copy)]
struct Still(Instant);

impl Clock for Still {
    fn now(&self) -> Instant {
        self.0
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

#[derive(Debug)]
struct Parker {
    woken: Mutex<bool>,
    bell: Condvar,
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.bell.notify_one();
    }
}

/// Waits as a thread does; loom reports a lost wake-up as a deadlock.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let parker = Arc::new(Parker { woken: Mutex::new(false), bell: Condvar::new() });
    let waker = Waker::from(Arc::clone(&parker));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = parker.woken.lock().unwrap();
        while !*woken {
            woken = parker.bell.wait(woken).unwrap();
        }
        *woken = false;
    }
}

fn watcher() -> (Watcher<u8>, Instant) {
    let now = Instant::now();
    (Watcher::with_clock(Config::default(), Still(now)), now)
}

#[test]
fn a_guard_that_was_given_is_waited_for() {
    model(|| {
        let gate = Gate::new(&["read"]);
        let (entering, inside) = (gate.clone(), Arc::new(AtomicU64::new(0)));
        let work = Arc::clone(&inside);
        let worker = thread::spawn(move || {
            if let Ok(_guard) = entering.enter(entering.label("read")) {
                // Not atomic together: seen half done if it is not waited for.
                work.fetch_add(1, Ordering::Relaxed);
                work.fetch_add(1, Ordering::Relaxed);
            }
        });
        gate.close();
        gate.left_blocking(WAIT).unwrap();
        let seen = inside.load(Ordering::Relaxed);
        assert!(seen == 0 || seen == 2, "left while somebody was inside");
        assert!(gate.enter(gate.label("read")).is_err() && gate.inside().is_empty());
        worker.join().unwrap();
        assert_eq!(inside.load(Ordering::Relaxed), seen, "somebody entered after it was left");
    });
}

#[test]
fn the_last_of_several_wakes_who_waits_in_whatever_thread_it_leaves() {
    model(|| {
        let gate = Gate::new(&["read"]);
        let read = gate.label("read");
        let (first, second) = (gate.enter_owned(read).unwrap(), gate.enter_owned(read).unwrap());
        let leaving = thread::spawn(move || drop(first));
        let closing = gate.clone();
        let closer = thread::spawn(move || {
            closing.close();
            drop(second);
        });
        gate.left_blocking(WAIT).unwrap();
        assert!(gate.is_closed());
        leaving.join().unwrap();
        closer.join().unwrap();
    });
}

#[test]
fn closed_by_two_it_is_left_once_and_for_all_who_wait() {
    model(|| {
        let gate = Gate::new(&[]);
        let other = gate.clone();
        let closer = thread::spawn(move || {
            other.close();
            assert!(other.is_closed() && other.enter(other.label("late")).is_err());
            other.left_blocking(WAIT).unwrap();
        });
        gate.close();
        assert!(gate.is_closed());
        gate.left_blocking(WAIT).unwrap();
        closer.join().unwrap();
    });
}

#[test]
fn who_waits_for_a_phase_is_woken_for_it() {
    model(|| {
        let (watcher, _) = watcher();
        let waiting = watcher.clone();
        let waiter = thread::spawn(move || {
            let seen = waiting.wait_for_blocking(|phase| phase >= Phase::Draining, WAIT);
            assert!(seen.unwrap() >= Phase::Draining);
        });
        watcher.drain("now");
        waiter.join().unwrap();
    });
}

#[test]
fn who_gives_up_a_wait_takes_no_other_with_it() {
    model(|| {
        let (watcher, _) = watcher();
        let forgetful = watcher.clone();
        let forgetful = thread::spawn(move || {
            let mut wait = Box::pin(forgetful.wait_for(|phase| phase == Phase::Exited));
            let mut context = Context::from_waker(Waker::noop());
            let _polled = wait.as_mut().poll(&mut context);
        });
        let other = watcher.clone();
        let moving = thread::spawn(move || other.ready());
        assert_eq!(watcher.wait_for_blocking(|phase| phase == Phase::Healthy, WAIT), Some(Phase::Healthy));
        forgetful.join().unwrap();
        moving.join().unwrap();
    });
}

#[test]
fn a_phase_that_is_passed_through_is_seen() {
    model(|| {
        let (watcher, now) = watcher();
        let mut wait = Box::pin(watcher.wait_for(|phase| phase == Phase::Suspect));
        let mut context = Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(&mut context).is_pending());
        let other = watcher.clone();
        let moving = thread::spawn(move || {
            other.report(now, Outcome::permanent(1, "404"));
            other.drain("now");
        });
        while watcher.phase() != Phase::Draining {
            thread::yield_now();
        }
        assert!(wait.as_mut().poll(&mut context).is_ready());
        moving.join().unwrap();
    });
}

#[test]
fn whoever_drives_is_nudged_by_a_report() {
    model(|| {
        let (watcher, now) = watcher();
        let driving = watcher.clone();
        let driver = thread::spawn(move || {
            let mut turn = driving.turn();
            while turn.next.is_none() {
                block_on(driving.nudged());
                turn = driving.turn();
            }
        });
        watcher.report(now, Outcome::permanent(1, "404"));
        driver.join().unwrap();
    });
}

#[test]
fn callbacks_are_told_every_move_once_and_in_order() {
    model(|| {
        let (watcher, _) = watcher();
        let last = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&last);
        watcher
            .on_change(move |record| {
                let before = told.fetch_add(1, Ordering::Relaxed) as u64;
                assert_eq!(record.moved.number, before + 1);
            })
            .keep();
        let other = watcher.clone();
        let moving = thread::spawn(move || other.ready());
        watcher.drain("now");
        moving.join().unwrap();
        let moves = watcher.history().len();
        assert!(moves == 1 || moves == 2);
        assert_eq!(last.load(Ordering::Relaxed), moves);
    });
}

#[test]
fn a_success_beside_a_failure_is_counted_once() {
    model(|| {
        let (watcher, now) = watcher();
        let other = watcher.clone();
        let succeeding = thread::spawn(move || other.report(now, Outcome::Ok));
        watcher.report(now, Outcome::transient("reset"));
        succeeding.join().unwrap();
        let status = watcher.status();
        assert_eq!((status.failures_in_window, status.outcomes_in_window), (1, 2));
    });
}
