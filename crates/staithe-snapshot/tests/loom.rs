//! The cell under loom: every interleaving of readers, publishers, waiters, a replacement and the reclaimer.
//!
//! The pointer is a lock here, because arc-swap cannot run under loom; see `src/sync.rs` for what that leaves unchecked.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::unnecessary_wraps)]

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use staithe_snapshot::{Cause, Config, Delta, Epoch, Kind, Reclaimer, SnapshotCell, Worker};

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

#[derive(Clone, Copy)]
struct Add(u64);

impl Delta<u64> for Add {
    fn apply(&self, state: &mut u64) -> Result<(), Cause> {
        *state += self.0;
        Ok(())
    }
}

type Cell = SnapshotCell<u64, Add>;

fn cell(state: u64) -> (Arc<Cell>, Worker) {
    let (reclaimer, worker) = Reclaimer::by_hand();
    let config = Config { reclaimer: Some(reclaimer), ..Config::default() };
    (Arc::new(SnapshotCell::with_config(state, config)), worker)
}

fn fine(_: &u64) -> Result<(), Infallible> {
    Ok(())
}

#[test]
fn updates_are_not_lost() {
    model(|| {
        let (cell, _worker) = cell(0);
        let other = Arc::clone(&cell);
        let updating = thread::spawn(move || drop(other.update(|state| state + 1).unwrap()));
        drop(cell.update(|state| state + 10).unwrap());
        updating.join().unwrap();
        assert_eq!((**cell.load(), cell.epoch()), (11, Epoch(3)));
    });
}

#[test]
fn a_change_reaches_the_new_state_once_wherever_it_meets_the_replacement() {
    model(|| {
        let (cell, _worker) = cell(0);
        let other = Arc::clone(&cell);
        let changing = thread::spawn(move || {
            let changed = other.change(Add(1)).unwrap();
            assert!(other.epoch() >= changed.epoch());
        });
        let load = |loading: &staithe_snapshot::Loading| {
            let base = cell.load();
            loading.as_of(base.epoch());
            Ok::<_, Infallible>(100 + **base)
        };
        drop(cell.apply(load, fine).unwrap());
        changing.join().unwrap();
        assert_eq!(**cell.load(), 101);
    });
}

#[test]
fn a_cancel_that_was_in_time_is_final_and_one_that_was_not_says_so() {
    model(|| {
        let (cell, _worker) = cell(0);
        let staging = cell.stage().unwrap();
        let loading = staging.loading();
        let cancelling = thread::spawn(move || loading.cancel());
        let published = staging.publish(7, fine);
        let cancelled = cancelling.join().unwrap();
        match published {
            Ok(_) => assert!(!cancelled && **cell.load() == 7),
            Err(error) => assert!(cancelled && error.kind() == Kind::Cancelled && **cell.load() == 0),
        }
        drop(cell.stage().unwrap());
    });
}

#[test]
fn what_is_published_meanwhile_is_not_undone() {
    model(|| {
        let (cell, _worker) = cell(0);
        let other = Arc::clone(&cell);
        let publishing = thread::spawn(move || other.publish(1).unwrap().epoch());
        let replaced = cell.apply(|_| Ok::<_, Infallible>(2), fine);
        let published = publishing.join().unwrap();
        match replaced {
            // Before it began, or after it was published.
            Ok(replaced) => assert_eq!(**cell.load(), if replaced.epoch() > published { 2 } else { 1 }),
            Err(error) => assert!(error.kind() == Kind::Overtaken && **cell.load() == 1),
        }
    });
}

#[test]
fn a_thread_that_waits_is_woken() {
    model(|| {
        let (cell, _worker) = cell(0);
        let other = Arc::clone(&cell);
        let waiting = thread::spawn(move || {
            let epoch = other.changed(Epoch(1)).wait().unwrap();
            assert!(other.epoch() >= epoch);
        });
        drop(cell.publish(1).unwrap());
        waiting.join().unwrap();
        assert_eq!(cell.stats().waiters, 0);
    });
}

#[test]
fn a_wait_that_is_dropped_takes_no_other_with_it() {
    model(|| {
        let (cell, _worker) = cell(0);
        let other = Arc::clone(&cell);
        let forgetful = thread::spawn(move || {
            let mut wait = pin!(other.changed(Epoch(1)));
            let polled = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(!matches!(polled, Poll::Ready(Err(_))));
        });
        let other = Arc::clone(&cell);
        let publishing = thread::spawn(move || drop(other.publish(1).unwrap()));
        assert_eq!(cell.changed(Epoch(1)).wait().unwrap(), Epoch(2));
        forgetful.join().unwrap();
        publishing.join().unwrap();
        assert_eq!(cell.stats().waiters, 0);
    });
}

#[test]
fn the_end_of_the_cell_ends_a_wait() {
    model(|| {
        let (cell, _worker) = cell(0);
        let wait = cell.changed(Epoch(1));
        let waiting = thread::spawn(move || wait.wait().unwrap_err().kind());
        drop(cell);
        assert_eq!(waiting.join().unwrap(), Kind::Closed);
    });
}

/// Counts where it is freed: by the worker's thread, or by another.
struct Traced(Arc<AtomicUsize>, Arc<AtomicUsize>, thread::ThreadId);

impl Drop for Traced {
    fn drop(&mut self) {
        let reader = thread::current().id() == self.2;
        if reader { &self.1 } else { &self.0 }.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_reader_never_frees_and_the_worker_ends_with_the_last() {
    model(|| {
        let (freed, by_reader) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let state = || Traced(Arc::clone(&freed), Arc::clone(&by_reader), thread::current().id());
        let (reclaimer, worker) = Reclaimer::by_hand();
        let config = Config { reclaimer: Some(reclaimer), ..Config::default() };
        let cell: SnapshotCell<Traced> = SnapshotCell::with_config(state(), config);
        let working = thread::spawn(move || worker.run());
        let old = cell.load();
        drop(cell.publish(state()).unwrap());
        let dropping = thread::spawn(move || drop(cell));
        drop(old);
        dropping.join().unwrap();
        working.join().unwrap();
        assert_eq!((freed.load(Ordering::SeqCst), by_reader.load(Ordering::SeqCst)), (2, 0));
    });
}

#[test]
fn the_bound_of_old_states_holds_and_waits_for_no_reader() {
    model(|| {
        let (reclaimer, worker) = Reclaimer::by_hand();
        let config = Config { max_old: 1, reclaimer: Some(reclaimer), ..Config::default() };
        let cell: SnapshotCell<u64> = SnapshotCell::with_config(0, config);
        let old = cell.load();
        drop(cell.publish(1).unwrap());
        let reading = thread::spawn(move || drop(old));
        let third = cell.publish(2);
        match third {
            Ok(_) => assert_eq!(**cell.load(), 2),
            Err(rejected) => assert_eq!((rejected.kind(), **cell.load()), (Kind::Exhausted, 1)),
        }
        reading.join().unwrap();
        drop(worker);
        assert_eq!(**cell.publish(3).unwrap(), 3);
    });
}
