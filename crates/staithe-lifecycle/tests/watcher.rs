//! The shell: what is told to whom, and when. Every interleaving of its wake-ups is `loom.rs`.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use futures::{FutureExt, StreamExt};
use staithe_lifecycle::{Clock, Config, Outcome, Phase, Record, Watcher};

const SECOND: Duration = Duration::from_secs(1);

/// A clock that stands still until it is set.
#[derive(Clone)]
struct Hand(Arc<Mutex<Instant>>);

impl Hand {
    fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

impl Clock for Hand {
    fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

fn watcher() -> (Watcher<&'static str>, Hand) {
    let hand = Hand(Arc::new(Mutex::new(Instant::now())));
    (Watcher::with_clock(Config::default(), hand.clone()), hand)
}

fn fail(watcher: &Watcher<&'static str>, hand: &Hand) {
    watcher.report(hand.now(), Outcome::transient("reset"));
}

/// Makes two moves.
fn scare(watcher: &Watcher<&'static str>, hand: &Hand) {
    hand.pass(SECOND * 11);
    watcher.report(hand.now(), Outcome::permanent("gone", "404"));
    assert_eq!(watcher.phase(), Phase::Suspect);
    hand.pass(SECOND);
    watcher.report(hand.now(), Outcome::Ok);
}

fn to(records: &[Record<&'static str>]) -> Vec<Phase> {
    records.iter().map(|record| record.moved.to).collect()
}

#[test]
fn successes_are_counted_without_the_lock_and_are_in_the_share_all_the_same() {
    let (watcher, hand) = watcher();
    watcher.ready();
    for _ in 0..50 {
        watcher.report(hand.now(), Outcome::Ok);
    }
    assert_eq!(watcher.status().outcomes_in_window, 50);
    hand.pass(SECOND);
    for _ in 0..50 {
        watcher.report(hand.now(), Outcome::Ok);
    }
    for _ in 0..11 {
        fail(&watcher, &hand);
    }
    let status = watcher.status();
    assert_eq!(
        (status.phase, status.failures_in_window, status.outcomes_in_window),
        (Phase::Healthy, 11, 111)
    );
    fail(&watcher, &hand);
    assert_eq!(watcher.phase(), Phase::Degraded);
    // What is older than the window is not in it, however it was counted.
    hand.pass(SECOND * 11);
    assert_eq!(watcher.status().outcomes_in_window, 0);
}

#[test]
fn a_success_ends_the_silence() {
    let (watcher, hand) = watcher();
    watcher.ready();
    fail(&watcher, &hand);
    assert_eq!(watcher.status().silent_since, Some(hand.now()));
    hand.pass(SECOND);
    watcher.report(hand.now(), Outcome::Ok);
    assert_eq!(watcher.status().silent_since, None);
}

#[test]
fn whoever_drives_is_told_of_probes_and_nudged() {
    let (watcher, hand) = watcher();
    watcher.ready();
    let turn = watcher.turn();
    assert_eq!((turn.probe, turn.next, turn.over), (None, None, false));
    assert_eq!(watcher.nudged().now_or_never(), None);
    watcher.report(hand.now(), Outcome::permanent("gone", "404"));
    assert_eq!(watcher.nudged().now_or_never(), Some(()));
    let mut probes = 0;
    while watcher.verdict().is_none() {
        let turn = watcher.turn();
        if let Some((id, fresh)) = turn.probe {
            assert!(fresh && turn.outstanding == Some(id));
            probes += 1;
            watcher.answer(id, Outcome::permanent("gone", "404"));
            continue;
        }
        hand.pass(turn.next.expect("it is not over") - hand.now());
    }
    assert_eq!((probes, watcher.phase(), watcher.verdict()), (5, Phase::Condemned, Some("gone")));
    assert_eq!(watcher.condemned().now_or_never(), Some(Some("gone")));
    watcher.exited("unmounted");
    assert!(watcher.turn().over);
}

#[test]
fn a_stream_gets_every_move_and_ends() {
    let (watcher, hand) = watcher();
    let mut changes = watcher.changes();
    assert!(changes.next().now_or_never().is_none());
    watcher.ready();
    scare(&watcher, &hand);
    watcher.exited("killed");
    let all = changes.collect::<Vec<_>>().now_or_never().unwrap();
    use Phase::{Draining, Exited, Healthy, Suspect};
    assert_eq!(to(&all), [Healthy, Suspect, Healthy, Draining, Exited]);
    assert!(all.iter().zip(1..).all(|(record, n)| record.moved.number == n && record.missed == 0));
    assert_eq!(all, watcher.history());
    assert!(watcher.changes().next().now_or_never().unwrap().is_none());
    assert_eq!(watcher.condemned().now_or_never(), Some(None));
}

#[test]
fn a_slow_stream_gets_the_newest_and_how_many_it_missed() {
    let (watcher, hand) = watcher();
    let mut changes = watcher.changes();
    watcher.ready();
    for _ in 0..50 {
        scare(&watcher, &hand);
    }
    let first = changes.next().now_or_never().unwrap().unwrap();
    assert_eq!((first.missed, first.moved.number), (37, 38));
    let second = changes.next().now_or_never().unwrap().unwrap();
    assert_eq!((second.missed, second.moved.number), (0, 39));
    assert_eq!(watcher.history().len(), 64);
}

#[test]
fn a_wait_sees_a_phase_that_is_over_already() {
    let (watcher, hand) = watcher();
    watcher.ready();
    let mut suspect = watcher.wait_for(|phase| phase == Phase::Suspect);
    assert_eq!((&mut suspect).now_or_never(), None);
    scare(&watcher, &hand);
    assert_eq!(suspect.now_or_never(), Some(Phase::Suspect));
    assert_eq!(watcher.wait_for(|phase| phase == Phase::Healthy).now_or_never(), Some(Phase::Healthy));
}

#[test]
fn a_thread_waits_and_not_for_ever() {
    let (watcher, _) = watcher();
    assert_eq!(watcher.wait_for_blocking(|phase| phase == Phase::Exited, SECOND / 100), None);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| watcher.wait_for_blocking(|phase| !phase.is_alive(), SECOND * 30));
        watcher.ready();
        watcher.drain("SIGTERM");
        assert_eq!(waiting.join().unwrap(), Some(Phase::Draining));
    });
}

#[test]
fn callbacks_are_called_in_order_and_may_call_the_watcher() {
    let (watcher, _) = watcher();
    let (seen, inner) = (Arc::new(Mutex::new(Vec::new())), watcher.clone());
    let log = Arc::clone(&seen);
    let _subscription = watcher.on_change(move |record| {
        if record.moved.to == Phase::Healthy {
            inner.drain("from inside");
            assert_eq!(inner.phase(), Phase::Draining);
        }
        log.lock().unwrap().push(record.moved.to);
    });
    watcher.ready();
    assert_eq!(*seen.lock().unwrap(), [Phase::Healthy, Phase::Draining]);
}

#[test]
fn a_callback_is_told_of_what_comes_after_it_and_until_it_is_off() {
    let (watcher, _) = watcher();
    watcher.ready();
    let count = Arc::new(Mutex::new(0));
    let counting = Arc::clone(&count);
    let subscription = watcher.on_change(move |_| *counting.lock().unwrap() += 1);
    let kept = Arc::clone(&count);
    watcher.on_change(move |_| *kept.lock().unwrap() += 10).keep();
    watcher.drain("now");
    assert_eq!(*count.lock().unwrap(), 11);
    drop(subscription);
    assert_eq!(Arc::strong_count(&count), 2, "it is dropped with its subscription");
    watcher.exited("now");
    assert_eq!(*count.lock().unwrap(), 21);
}

#[test]
fn a_callback_that_panics_is_not_called_again_and_the_others_are() {
    let (watcher, _) = watcher();
    let count = Arc::new(Mutex::new(0));
    let _panics = watcher.on_change(|record| assert!(record.moved.to != Phase::Healthy, "on purpose"));
    let counting = Arc::clone(&count);
    let _counts = watcher.on_change(move |_| *counting.lock().unwrap() += 1);
    catch_unwind(AssertUnwindSafe(|| watcher.ready())).expect("it stays inside");
    watcher.drain("now");
    assert_eq!(*count.lock().unwrap(), 2);
}

#[test]
fn a_subscription_may_outlive_its_watcher_and_be_dropped_by_its_callback() {
    let (watcher, _) = watcher();
    let slot = Arc::new(Mutex::new(None));
    let mine = Arc::clone(&slot);
    let subscription = watcher.on_change(move |_| drop(mine.lock().unwrap().take()));
    *slot.lock().unwrap() = Some(subscription);
    watcher.ready();
    assert!(slot.lock().unwrap().is_none());
    let subscription = watcher.on_change(|_| {});
    drop(watcher);
    drop(subscription);
}

#[test]
fn threads_that_report_at_once_lose_no_move() {
    let watcher: Watcher<u8> = Watcher::new(Config::default());
    watcher.ready();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let _subscription = watcher.on_change(move |record| log.lock().unwrap().push(record.moved.number));
    thread::scope(|scope| {
        for thread in 0..4_u8 {
            let watcher = watcher.clone();
            scope.spawn(move || {
                for n in 0..2_000 {
                    let began = Instant::now();
                    let outcome = match (n + usize::from(thread)) % 50 {
                        0 => Outcome::permanent(thread, "404"),
                        1..=3 => Outcome::transient("reset"),
                        _ => Outcome::Ok,
                    };
                    watcher.report(began, outcome);
                }
            });
        }
    });
    let moves = watcher.status().moves;
    assert_eq!(*seen.lock().unwrap(), (2..=moves).collect::<Vec<_>>());
    assert!(watcher.phase().is_alive());
}
