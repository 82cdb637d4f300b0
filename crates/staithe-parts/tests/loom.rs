//! The concurrent core under loom: every interleaving of a reader, fetchers and the budget.
#![cfg(loom)]

use bytes::Bytes;
use loom::sync::{Condvar, Mutex};
use loom::thread;
use staithe_parts::{Budget, Fetch, PartQueue, PlannerConfig, PushError, ReadError};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

type Queue = Arc<PartQueue<u8, u8>>;

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

fn queue(budget: &Arc<Budget>) -> Queue {
    PartQueue::new(64, 1, PlannerConfig { max_window: 0, ..PlannerConfig::default() }, budget)
}

fn body(fetch: &Fetch<u8, u8>) -> Bytes {
    fetch.range().map(|o| o as u8).collect::<Vec<_>>().into()
}

fn serve(fetch: Fetch<u8, u8>) {
    let _ = fetch.push(fetch.range().start, &1, body(&fetch));
    let _ = fetch.done();
}

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

#[test]
fn a_reader_is_woken_by_its_fetcher() {
    model(|| {
        let queue = queue(&Budget::new(64));
        let mut fetchers = Vec::new();
        let read = queue.read_with(0, 8, |fetch| fetchers.push(thread::spawn(move || serve(fetch))));
        assert_eq!(wait_for(read).unwrap().into_bytes(), &[0, 1, 2, 3, 4, 5, 6, 7][..]);
        fetchers.into_iter().for_each(|f| f.join().unwrap());
    });
}

#[test]
fn a_dropped_fetch_is_planned_again_for_the_reader_that_waits() {
    model(|| {
        let queue = queue(&Budget::new(64));
        let (mut drops, mut threads) = (1, Vec::new());
        let read = queue.read_with(0, 8, |fetch| {
            let drop_it = std::mem::replace(&mut drops, 0) == 1;
            threads.push(thread::spawn(move || if drop_it { drop(fetch) } else { serve(fetch) }));
        });
        assert_eq!(wait_for(read).unwrap().len(), 8);
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn two_reads_and_a_driver_make_progress() {
    model(|| {
        let queue = queue(&Budget::new(64));
        let other = Arc::clone(&queue);
        let reader = thread::spawn(move || wait_for(other.read(8, 8)).map(|s| s.len()));
        let drive = Arc::clone(&queue);
        let driver = thread::spawn(move || {
            let mut served = 0;
            while served < 8 {
                for fetch in wait_for(drive.next_fetches()).into_iter().flatten() {
                    served += fetch.len();
                    serve(fetch);
                }
            }
        });
        assert_eq!(reader.join().unwrap(), Ok(8));
        driver.join().unwrap();
    });
}

#[test]
fn closing_wakes_whoever_waits() {
    model(|| {
        let queue = queue(&Budget::new(64));
        let closer = Arc::clone(&queue);
        let closing = thread::spawn(move || closer.close());
        assert_eq!(wait_for(queue.read(0, 8)).unwrap_err(), ReadError::Ended);
        assert!(wait_for(queue.next_fetches()).is_none());
        closing.join().unwrap();
    });
}

#[test]
fn hedged_fetches_of_one_range_race_and_a_foreign_version_fails_it() {
    model(|| {
        let queue = queue(&Budget::new(64));
        let mut threads = Vec::new();
        let read = queue.read_with(0, 4, |fetch| {
            let fetch = Arc::new(fetch);
            for version in [1, 2] {
                let fetch = Arc::clone(&fetch);
                threads.push(thread::spawn(move || fetch.push(0, &version, body(&fetch))));
            }
        });
        let outcome = wait_for(read);
        let answers: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        match outcome {
            Ok(slices) => assert_eq!(slices.into_bytes(), &[0, 1, 2, 3][..]),
            Err(error) => assert_eq!(error, ReadError::VersionChanged { expected: 1, found: 2, offset: 0 }),
        }
        assert!(matches!(answers[0], Ok(()) | Err(PushError::Failed)));
        assert_eq!(answers[1], Err(PushError::VersionChanged));
    });
}

#[test]
fn readers_short_of_memory_take_turns() {
    model(|| {
        let budget = Budget::new(8);
        let readers: Vec<_> = (0..2u8)
            .map(|_| {
                let queue = queue(&budget);
                thread::spawn(move || {
                    // The second read is not the oldest: it may have to wait for memory.
                    let spawn = |fetch| serve(fetch);
                    let first = wait_for(queue.read_with(0, 8, spawn)).map(|s| s.len());
                    let second = wait_for(queue.read_with(16, 8, spawn)).map(|s| s.len());
                    assert_eq!((first, second), (Ok(8), Ok(8)));
                })
            })
            .collect();
        readers.into_iter().for_each(|r| r.join().unwrap());
        assert_eq!((budget.stats().used, budget.stats().waiting), (0, 0));
    });
}
