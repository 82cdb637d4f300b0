//! Reading, publishing, waiting, and where old states are freed.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use futures::FutureExt as _;
use futures::executor::block_on;
use parking_lot::Mutex;
use staithe_snapshot::{Config, Epoch, Kind, Reclaimer, SnapshotCell};

const E1: Epoch = Epoch(1);
const E2: Epoch = Epoch(2);

#[test]
fn a_reader_keeps_what_it_loaded() {
    let cell = SnapshotCell::new("old".to_string());
    let old = cell.load();
    let new = cell.publish("new".to_string()).unwrap();
    assert_eq!((old.as_str(), old.epoch()), ("old", E1));
    assert_eq!((new.as_str(), new.epoch()), ("new", E2));
    assert_eq!((cell.load().as_str(), cell.epoch()), ("new", E2));
}

#[test]
fn a_conditional_publication_that_lost_gives_the_state_back() {
    struct NoClone(u32);
    let cell = SnapshotCell::new(NoClone(1));
    drop(cell.publish_if(E1, NoClone(2)).unwrap());
    let rejected = cell.publish_if(E1, NoClone(3)).unwrap_err();
    assert_eq!(rejected.kind(), Kind::Lost);
    assert_eq!(rejected.to_string(), "the state is at epoch 2, not at 1: load it and decide again");
    assert_eq!(rejected.into_state().0, 3);
    assert_eq!(cell.load().0, 2);
}

#[test]
fn an_update_is_tried_again_on_what_won() {
    let cell = SnapshotCell::new(1);
    let mut tries = 0;
    let updated = cell.update(|state| {
        tries += 1;
        if tries == 1 {
            drop(cell.publish(10).unwrap());
        }
        state + 1
    });
    assert_eq!((**updated.unwrap(), tries), (11, 2));
    assert_eq!((**cell.load(), cell.epoch()), (11, Epoch(3)));
    let refused = cell.try_update(|_| Err::<i32, _>("not today")).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert_eq!((**cell.load(), cell.epoch()), (11, Epoch(3)));
}

#[test]
fn a_view_shows_its_part_and_passes_over_changes_of_others() {
    #[derive(Clone)]
    struct Settings {
        name: String,
        limits: (u32, u32),
    }
    let cell = SnapshotCell::new(Settings { name: "a".into(), limits: (1, 2) });
    let limits = cell.view(|settings| &settings.limits);
    let upper = limits.view(|limits| &limits.1);
    let name = cell.view(|settings| settings.name.as_str());
    let seen = upper.load();
    let mut differs = Box::pin(upper.differs(&seen));
    assert!(differs.as_mut().now_or_never().is_none());
    drop(cell.update(|settings| Settings { name: "b".into(), ..settings.clone() }).unwrap());
    assert!(differs.as_mut().now_or_never().is_none(), "another part");
    drop(cell.update(|settings| Settings { limits: (1, 3), ..settings.clone() }).unwrap());
    let now = block_on(differs).unwrap();
    assert_eq!((*seen, *now, now.epoch(), &*name.load()), (2, 3, Epoch(3), "b"));
    drop(cell);
    assert_eq!((*limits.load(), limits.epoch()), ((1, 3), Epoch(3)));
    assert_eq!(block_on(limits.changed(Epoch(3))).unwrap_err().kind(), Kind::Closed);
}

#[test]
fn a_wait_ends_with_the_next_epoch_or_at_once() {
    let cell = SnapshotCell::new(0);
    let mut waiting = cell.changed(E1);
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!(cell.stats().waiters, 1);
    drop(cell.publish(1).unwrap());
    assert_eq!(block_on(waiting).unwrap(), E2);
    assert_eq!(block_on(cell.changed(E1)).unwrap(), E2);
    assert_eq!(cell.changed(E1).wait().unwrap(), E2);
    assert_eq!(cell.changed(E2).wait_timeout(Duration::ZERO).unwrap(), None);
    assert_eq!(cell.stats().waiters, 0);
}

#[test]
fn waits_are_bounded_and_leave_nothing_behind() {
    let cell: SnapshotCell<u8> = SnapshotCell::with_config(0, Config { max_waiters: 2, ..Config::default() });
    let mut waits = [cell.changed(E1), cell.changed(E1)];
    // To be polled again takes no other place.
    for _ in 0..2 {
        assert!(waits.iter_mut().all(|wait| wait.now_or_never().is_none()));
    }
    assert_eq!(cell.changed(E1).now_or_never().unwrap().unwrap_err().kind(), Kind::Exhausted);
    assert_eq!(cell.stats().waiters, 2);
    drop(waits);
    assert_eq!(cell.stats().waiters, 0);
    let mut left = cell.changed(E1);
    assert!((&mut left).now_or_never().is_none());
    drop(cell);
    assert_eq!(block_on(left).unwrap_err().kind(), Kind::Closed);
}

#[test]
fn threads_that_wait_are_woken() {
    let cell = SnapshotCell::new(0);
    thread::scope(|scope| {
        let waits = [0; 3].map(|_| scope.spawn(|| cell.changed(E1).wait().unwrap()));
        drop(cell.publish(1).unwrap());
        for wait in waits {
            assert_eq!(wait.join().unwrap(), E2);
        }
    });
}

/// Notes which thread frees it.
struct Traced(Arc<Mutex<Vec<ThreadId>>>);

impl Drop for Traced {
    fn drop(&mut self) {
        self.0.lock().push(thread::current().id());
    }
}

#[test]
fn a_reader_frees_no_state_even_as_the_last_holder_of_all() {
    let freed = Arc::new(Mutex::new(Vec::new()));
    let cell = SnapshotCell::new(Traced(Arc::clone(&freed)));
    let reclaimer = cell.reclaimer().clone();
    let (first, part) = (cell.load(), cell.view(|state| &state.0).load());
    drop(cell.publish(Traced(Arc::clone(&freed))).unwrap());
    let second = cell.load_as("me");
    drop(cell);
    // In another thread: settling helps, and would free in this one.
    let reader = thread::spawn(move || {
        drop(first);
        drop(part);
        drop(second);
        thread::current().id()
    });
    let reader = reader.join().unwrap();
    reclaimer.settle();
    let freed = freed.lock();
    assert_eq!(freed.len(), 2);
    assert!(!freed.contains(&reader));
}

#[test]
fn who_holds_an_old_state_can_be_asked() {
    let (reclaimer, worker) = Reclaimer::by_hand();
    let config = Config { reclaimer: Some(reclaimer.clone()), ..Config::default() };
    let cell: SnapshotCell<u8> = SnapshotCell::with_config(1, config);
    let held = cell.load_as("open file 7");
    let again = held.clone();
    let anonymous = cell.load();
    drop(cell.publish(2).unwrap());
    let oldest = cell.oldest().unwrap();
    assert_eq!((oldest.epoch, oldest.holders), (E1, 3));
    assert_eq!(oldest.labels, [("open file 7".into(), 2)]);
    assert_eq!((held.label(), **held, **anonymous), ("open file 7", 1, 1));
    drop((held, anonymous));
    assert_eq!(cell.oldest().unwrap().labels, [("open file 7".into(), 1)]);
    drop(again);
    // It waits for the worker.
    assert_eq!((cell.alive()[0].holders, cell.stats().old, reclaimer.outstanding()), (0, 1, 1));
    assert_eq!(worker.reclaim(), 1);
    assert_eq!((cell.alive().len(), cell.stats().old, reclaimer.outstanding()), (1, 0, 0));
}

#[test]
fn old_states_are_bounded_and_the_refusal_names_the_holder() {
    let config = Config { max_old: 2, ..Config::default() };
    let cell: SnapshotCell<u32> = SnapshotCell::with_config(0, config);
    for state in 1..100 {
        drop(cell.publish(state).unwrap());
    }
    let old = cell.load_as("a backup");
    drop(cell.publish(100).unwrap());
    let older = cell.load();
    drop(cell.publish(101).unwrap());
    let rejected = cell.publish(102).unwrap_err();
    assert_eq!(rejected.kind(), Kind::Exhausted);
    assert!(rejected.to_string().contains("of epoch 100, held 1 times, by a backup (1)"), "{rejected}");
    assert_eq!(cell.update(|state| state + 1).unwrap_err().kind(), Kind::Exhausted);
    drop(older);
    drop(cell.publish(rejected.into_state()).unwrap());
    assert_eq!((**old, **cell.load()), (99, 102));
}

#[test]
fn without_a_worker_whoever_publishes_frees() {
    let freed = Arc::new(Mutex::new(Vec::new()));
    let state = || Traced(Arc::clone(&freed));
    let (reclaimer, worker) = Reclaimer::by_hand();
    let config = Config { reclaimer: Some(reclaimer), ..Config::default() };
    let cell: SnapshotCell<Traced> = SnapshotCell::with_config(state(), config);
    drop(cell.publish(state()).unwrap());
    assert_eq!(freed.lock().len(), 0);
    drop(worker);
    assert_eq!(freed.lock().len(), 1);
    drop(cell.publish(state()).unwrap());
    assert_eq!(freed.lock().len(), 2);
    let held = cell.load();
    drop(cell);
    assert_eq!(freed.lock().len(), 2);
    drop(held);
    assert_eq!(freed.lock().len(), 3);
}

#[test]
fn a_destructor_that_panics_ends_nothing_else() {
    struct Bomb(Arc<AtomicUsize>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("a destructor that panics");
        }
    }
    let freed = Arc::new(AtomicUsize::new(0));
    let cell = SnapshotCell::new(Bomb(Arc::clone(&freed)));
    for _ in 0..3 {
        drop(cell.publish(Bomb(Arc::clone(&freed))).unwrap());
    }
    cell.reclaimer().settle();
    assert_eq!((freed.load(Ordering::SeqCst), cell.stats().old), (3, 0));
}

#[test]
fn cells_share_a_reclaimer() {
    let reclaimer = Reclaimer::thread("shared").unwrap();
    let config = || Config { reclaimer: Some(reclaimer.clone()), ..Config::default() };
    let numbers: SnapshotCell<u8> = SnapshotCell::with_config(1, config());
    let words: SnapshotCell<String> = SnapshotCell::with_config("one".into(), config());
    drop((numbers.publish(2).unwrap(), words.publish("two".into()).unwrap()));
    reclaimer.settle();
    assert_eq!((numbers.stats().old, words.stats().old, reclaimer.outstanding()), (0, 0, 0));
}

#[test]
fn epochs_go_on_from_where_they_were() {
    let config = Config { first_epoch: Epoch(41), ..Config::default() };
    let cell: SnapshotCell<u8> = SnapshotCell::with_config(1, config);
    assert_eq!(cell.publish(2).unwrap().epoch(), Epoch(42));
}
