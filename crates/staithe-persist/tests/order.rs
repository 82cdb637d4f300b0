//! Dependencies and turns, event by event.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use staithe_persist::{
    Action, After, Answer, AttemptId, Class, Config, Core, Failure, Gate, Generation, Needed, Order, Outcome,
    Refused, State,
};

const G1: Generation = Generation(1);

struct Bench {
    core: Core<u32>,
    now: Instant,
    started: Vec<(AttemptId, u32)>,
}

impl Bench {
    fn new(concurrency: usize) -> Self {
        let core = Core::new(Config { concurrency, ..Config::default() });
        Self { core, now: Instant::now(), started: Vec::new() }
    }

    fn enqueue(&mut self, key: u32, order: Order<u32>) {
        self.core.enqueue(self.now, key, G1, order).unwrap();
        self.gather();
    }

    fn gather(&mut self) {
        let mut actions = Vec::new();
        self.core.take_actions(&mut actions);
        for action in actions {
            if let Action::Start { attempt, key, .. } = action {
                self.started.push((attempt, key));
            }
        }
    }

    /// Ends the oldest attempt; whose it was.
    fn finish(&mut self, result: Result<(), Failure>) -> u32 {
        let (attempt, key) = self.started.remove(0);
        assert_eq!(self.core.begin_commit(attempt), Gate::Open);
        self.core.commit_over(self.now, attempt);
        self.core.finished(self.now, attempt, result);
        self.gather();
        key
    }

    fn state(&self, key: u32) -> Option<State> {
        self.core.job(&key, self.now).map(|job| job.state)
    }
}

#[test]
fn a_parent_comes_before_its_child_and_a_delete_after_its_copy() {
    let mut bench = Bench::new(8);
    bench.enqueue(1, Order::default());
    bench.enqueue(2, Order::default().after(After::settled(1)));
    bench.enqueue(3, Order::waited().after(After::done(2)));
    assert_eq!(bench.core.job(&3, bench.now).unwrap().blocked_on, [2]);
    for key in 1..=3 {
        assert_eq!(bench.started.len(), 1, "one after the other");
        assert_eq!(bench.finish(Ok(())), key);
    }
    assert!(bench.core.is_empty());
}

#[test]
fn a_delete_never_follows_a_copy_that_failed_and_a_child_follows_its_parent_all_the_same() {
    let mut bench = Bench::new(8);
    bench.enqueue(1, Order::default());
    bench.enqueue(2, Order::default().after(After::done(1)));
    bench.enqueue(3, Order::default().after(After::settled(1)));
    bench.finish(Err(Failure::permanent("forbidden")));
    assert_eq!(
        [1, 2, 3].map(|key| bench.state(key)),
        [Some(State::Failed), Some(State::Failed), Some(State::Running)]
    );
    let failures = bench.core.failures();
    assert!(failures[1].1.cause().is::<Needed>() && failures[1].1.class() == Class::Permanent);
}

#[test]
fn a_cancel_tells_of_an_earlier_generation_that_is_stored() {
    let mut bench = Bench::new(1);
    bench.enqueue(1, Order::default());
    bench.core.enqueue(bench.now, 1, Generation(2), Order::default().lets_finish()).unwrap();
    bench.finish(Ok(()));
    let (attempt, _) = bench.started.remove(0);
    bench.core.cancel(bench.now, [1]);
    bench.core.finished(bench.now, attempt, Err(Failure::transient("stopped")));
    let mut actions = Vec::new();
    bench.core.take_actions(&mut actions);
    let expected = [(1, Answer::TooLate(Outcome::Done(G1)))];
    assert!(
        matches!(&actions[..], [.., Action::Cancelled { answers, .. }] if *answers == expected),
        "{actions:?}"
    );
}

#[test]
fn a_circle_is_refused_and_changes_nothing() {
    let mut bench = Bench::new(1);
    bench.enqueue(9, Order::default());
    bench.enqueue(1, Order::default());
    bench.enqueue(2, Order::default().after(After::done(1)));
    bench.enqueue(3, Order::default().after(After::done(2)));
    let again = bench.core.enqueue(bench.now, 1, Generation(2), Order::default().after(After::settled(3)));
    assert_eq!(again, Err(Refused::Cycle));
    assert_eq!(bench.core.job(&1, bench.now).unwrap().wanted, Some(G1));
}

/// Neither the end of a long chain nor the failures that it leaves use the stack.
#[test]
fn a_chain_of_any_length_falls_at_once() {
    let mut bench = Bench::new(8);
    let last = 200_000;
    bench.enqueue(0, Order::default());
    for key in 1..=last {
        bench.enqueue(key, Order::default().after(After::done(key - 1)));
    }
    bench.finish(Err(Failure::permanent("forbidden")));
    assert_eq!(bench.core.stats().failed, last as usize + 1);
    assert_eq!(bench.state(last), Some(State::Failed));
    let cancel = bench.core.cancel_where(bench.now, |_| true);
    let mut actions = Vec::new();
    bench.core.take_actions(&mut actions);
    assert!(
        matches!(&actions[..], [Action::Cancelled { cancel: id, answers }] if *id == cancel && answers.len() == last as usize + 1)
    );
}

#[test]
fn what_a_waited_job_is_blocked_on_goes_first_too() {
    let mut bench = Bench::new(1);
    for key in 0..=100 {
        bench.enqueue(key, Order::default());
    }
    bench.enqueue(101, Order::default().after(After::settled(100)));
    bench.enqueue(102, Order::waited().after(After::done(101)));
    let order: Vec<u32> = (0..4).map(|_| bench.finish(Ok(()))).collect();
    assert_eq!(order, [0, 100, 101, 102]);
}

#[test]
fn waited_jobs_go_first_and_the_background_has_its_turn() {
    let mut bench = Bench::new(1);
    bench.enqueue(0, Order::default());
    for key in 1..=4 {
        bench.enqueue(key, Order::default());
        bench.enqueue(key + 10, Order::waited());
        bench.enqueue(key + 20, Order::waited());
        bench.enqueue(key + 30, Order::waited());
    }
    let mut order = Vec::new();
    while !bench.started.is_empty() {
        order.push(bench.finish(Ok(())));
    }
    assert_eq!(order, [0, 11, 21, 31, 12, 22, 32, 13, 23, 1, 33, 14, 24, 34, 2, 3, 4]);
}

#[test]
fn a_job_waits_for_its_time_and_takes_in_what_comes_until_then() {
    let mut bench = Bench::new(8);
    let due = bench.now + Duration::from_secs(5);
    bench.enqueue(1, Order::default().not_before(due));
    // Later wishes do not put it off.
    for generation in 2..=10 {
        let order = Order::default().not_before(due + Duration::from_secs(generation));
        bench.core.enqueue(bench.now, 1, Generation(generation), order).unwrap();
        bench.gather();
    }
    assert_eq!((bench.state(1), bench.core.next_wake()), (Some(State::RetryAt), Some(due)));
    bench.now = due;
    bench.core.tick(bench.now);
    bench.gather();
    assert_eq!(bench.finish(Ok(())), 1);
    assert!(bench.started.is_empty() && bench.core.is_empty(), "ten wishes are one attempt");
}

#[test]
fn who_waits_for_a_job_does_not_wait_for_its_time() {
    let mut bench = Bench::new(8);
    let due = bench.now + Duration::from_secs(5);
    bench.enqueue(1, Order::default().not_before(due));
    bench.enqueue(2, Order::default().not_before(due));
    bench.enqueue(1, Order::waited());
    bench.core.close(bench.now);
    bench.gather();
    assert_eq!([bench.finish(Ok(())), bench.finish(Ok(()))], [1, 2], "the end makes every job due");
}

#[test]
fn what_comes_during_an_attempt_waits_for_its_own_time() {
    let mut bench = Bench::new(8);
    bench.enqueue(1, Order::default());
    let due = bench.now + Duration::from_secs(5);
    let order = Order::default().lets_finish().not_before(due);
    bench.core.enqueue(bench.now, 1, Generation(2), order).unwrap();
    bench.finish(Ok(()));
    assert_eq!((bench.state(1), bench.core.next_wake()), (Some(State::RetryAt), Some(due)));
    bench.now = due;
    bench.core.tick(bench.now);
    bench.gather();
    bench.finish(Ok(()));
    assert!(bench.core.is_empty());
}
