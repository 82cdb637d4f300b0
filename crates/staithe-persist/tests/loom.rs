//! The shell under loom: every interleaving of an attempt with a cancel, a hold, a newer enqueue, and of those who
//! wait for room.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use futures::future::BoxFuture;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread::{self, JoinHandle};
use staithe_persist::{
    Answer, Attempt, Config, Failure, Generation, Order, Outcome, Queue, Refused, Retargeted, Runtime,
};

const G1: Generation = Generation(1);
const G2: Generation = Generation(2);

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
fn wait_for<T>(future: impl Future<Output = T>) -> T {
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

/// A thread for every attempt, and none for the alarm, which is the first task: time stands still.
#[derive(Clone, Default)]
struct Threads(Arc<std::sync::Mutex<(bool, Vec<JoinHandle<()>>)>>);

impl Threads {
    fn join(&self) {
        loop {
            let Some(thread) = self.0.lock().unwrap().1.pop() else { return };
            thread.join().unwrap();
        }
    }
}

impl Runtime for Threads {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        if std::mem::replace(&mut self.0.lock().unwrap().0, true) {
            let thread = thread::spawn(move || wait_for(task));
            self.0.lock().unwrap().1.push(thread);
        }
    }

    fn sleep_until(&self, _: Instant) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// What the last commit wrote, and what is written next to it: different only while a commit is under way.
#[derive(Default)]
struct Effect {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Effect {
    fn is(&self, generation: u64) -> bool {
        let read = |place: &AtomicU64| place.load(Ordering::SeqCst);
        (read(&self.begun), read(&self.ended)) == (generation, generation)
    }
}

fn queue(config: Config) -> (Queue<u8>, Threads, Arc<Effect>) {
    let (threads, effect) = (Threads::default(), Arc::new(Effect::default()));
    let place = Arc::clone(&effect);
    let run = move |attempt: Attempt<u8>| {
        let effect = Arc::clone(&place);
        async move {
            let committing = attempt.begin_commit().await.map_err(Failure::permanent)?;
            effect.begun.store(attempt.generation().0, Ordering::SeqCst);
            effect.ended.store(attempt.generation().0, Ordering::SeqCst);
            drop(committing);
            Ok(())
        }
    };
    (Queue::new(config, Arc::new(run), threads.clone()), threads, effect)
}

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

#[test]
fn a_cancel_is_answered_when_nothing_more_happens() {
    model(|| {
        let (queue, threads, effect) = queue(Config::default());
        let ticket = queue.enqueue(7, G1, Order::default()).unwrap();
        match wait_for(queue.cancel(&7).answer()) {
            Some(Answer::Aborted) => {
                assert!(effect.is(0));
                assert_eq!(wait_for(ticket.outcome()), Outcome::Cancelled);
            }
            Some(Answer::TooLate(outcome)) => {
                assert!(effect.is(1));
                assert_eq!(outcome, Outcome::Done(G1));
                assert_eq!(wait_for(ticket.outcome()), outcome);
            }
            None => assert!(effect.is(1)),
            Some(Answer::NotStarted) => panic!("it had started"),
        }
        let last = (effect.begun.load(Ordering::SeqCst), effect.ended.load(Ordering::SeqCst));
        threads.join();
        assert!(effect.is(last.0) && last.0 == last.1, "an effect after the answer");
    });
}

#[test]
fn under_a_quiet_hold_nothing_commits_and_a_retarget_is_never_too_late() {
    model(|| {
        let (queue, threads, effect) = queue(Config::default());
        let ticket = queue.enqueue(7, G1, Order::default()).unwrap();
        let mut hold = queue.hold([7]);
        wait_for(hold.quiet());
        let before = effect.begun.load(Ordering::SeqCst);
        assert_eq!(effect.ended.load(Ordering::SeqCst), before, "a commit is under way");
        let found = queue.retarget(&7, G2);
        assert_eq!(effect.begun.load(Ordering::SeqCst), before, "a commit has begun");
        drop(hold);
        let expected = match found {
            Some(Retargeted::Outdated) => 2,
            // It was over before.
            None => 1,
            Some(other) => panic!("{other:?}"),
        };
        assert_eq!(wait_for(ticket.outcome()), Outcome::Done(Generation(expected)));
        threads.join();
        assert!(effect.is(expected));
    });
}

#[test]
fn a_newer_generation_is_never_lost_and_those_who_wait_are_told() {
    model(|| {
        let (queue, threads, effect) = queue(Config::default());
        let first = queue.enqueue(7, G1, Order::default()).unwrap();
        let second = queue.enqueue(7, G2, Order::default()).unwrap();
        let forgetful = thread::spawn(move || drop(first));
        assert_eq!(wait_for(second.outcome()), Outcome::Done(G2));
        forgetful.join().unwrap();
        threads.join();
        assert!(effect.is(2) && queue.jobs().is_empty());
    });
}

#[test]
fn those_who_wait_for_room_take_turns() {
    model(|| {
        let (queue, threads, _) = queue(Config { max_jobs: 1, ..Config::default() });
        let queue = Arc::new(queue);
        let other = Arc::clone(&queue);
        let waiting = thread::spawn(move || drop(wait_for(other.reserve(1)).unwrap()));
        let permit = wait_for(queue.reserve(1)).unwrap();
        drop(queue.enqueue_with(permit, 7, G1, Order::default()).unwrap());
        waiting.join().unwrap();
        threads.join();
        assert_eq!((queue.stats().bytes, queue.stats().waiting), (0, 0));
    });
}

#[test]
fn a_dropped_queue_leaves_nobody_waiting() {
    model(|| {
        let (queue, threads, _) = queue(Config { concurrency: 1, ..Config::default() });
        let ticket = queue.enqueue(7, G1, Order::default()).unwrap();
        let held = queue.hold([8]);
        let never = queue.enqueue(8, G1, Order::default()).unwrap();
        let dropping = thread::spawn(move || drop(queue));
        let outcome = wait_for(ticket.outcome());
        assert!(matches!(outcome, Outcome::Done(G1) | Outcome::Abandoned), "{outcome:?}");
        assert_eq!(wait_for(never.outcome()), Outcome::Abandoned);
        dropping.join().unwrap();
        drop(held);
        threads.join();
    });
}

#[test]
fn a_drain_ends_when_the_last_job_does() {
    model(|| {
        let (queue, threads, effect) = queue(Config::default());
        drop(queue.enqueue(7, G1, Order::default()).unwrap());
        assert_eq!(wait_for(queue.drain(Instant::now())), []);
        assert!(effect.is(1));
        assert_eq!(queue.enqueue(7, G2, Order::default()).unwrap_err(), Refused::Closed);
        threads.join();
    });
}
