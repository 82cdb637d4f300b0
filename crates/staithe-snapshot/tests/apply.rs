//! Staged replacement: all of it or nothing, and no change is lost.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::unnecessary_wraps)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;

use futures::FutureExt as _;
use futures::executor::block_on;
use staithe_snapshot::{Cause, Config, Delta, Edit, Epoch, Error, Kind, Phase, Progress, SnapshotCell};

type Table = BTreeMap<&'static str, u32>;

/// Sets a key; fails on a state that has `frozen`.
#[derive(Debug)]
struct Set(&'static str, u32);

impl Delta<Table> for Set {
    fn apply(&self, table: &mut Table) -> Result<(), Cause> {
        match table.get("frozen") {
            Some(0) => panic!("frozen through"),
            Some(_) => return Err("frozen".into()),
            None => {}
        }
        table.insert(self.0, self.1);
        Ok(())
    }
}

type Cell = SnapshotCell<Table, Set>;

fn cell() -> Cell {
    SnapshotCell::with_config(Table::from([("a", 1)]), Config::default())
}

fn fine<T>(_: &T) -> Result<(), Infallible> {
    Ok(())
}

/// That nothing of it is left, and another one can follow.
fn untouched(cell: &Cell, kind: Kind, result: Result<impl Sized, Error>) {
    let error = result.map(drop).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!((cell.load().get("a"), cell.epoch()), (Some(&1), Epoch(1)));
    assert!(cell.stats().loading.is_none());
    let loaded = cell.apply(|_| Ok::<_, Infallible>(Table::from([("b", 2)])), fine).unwrap();
    assert_eq!((**loaded).clone(), Table::from([("b", 2)]));
}

#[test]
fn changes_go_to_the_live_state_at_once_and_to_the_new_one_before_it_is_seen() {
    let cell = cell();
    let mut validated = None;
    let load = |_: &_| {
        drop(cell.change(Set("c", 3)).unwrap());
        assert_eq!(cell.load().get("c"), Some(&3));
        assert_eq!(cell.stats().logged, (1, size_of::<Set>()));
        Ok::<_, Infallible>(Table::from([("b", 2)]))
    };
    let validate = |state: &Table| {
        validated = Some(state.clone());
        // Too late for the validator, in time for the publication.
        drop(cell.change(Set("d", 4)).unwrap());
        Ok::<_, Infallible>(())
    };
    let published = cell.apply(load, validate).unwrap();
    assert_eq!(validated.unwrap(), Table::from([("b", 2), ("c", 3)]));
    assert_eq!((**published).clone(), Table::from([("b", 2), ("c", 3), ("d", 4)]));
    assert_eq!(published.epoch(), Epoch(4));
}

#[test]
fn a_failed_load_says_why() {
    let cell = cell();
    untouched(&cell, Kind::Failed, cell.apply(|_| Err("no such file"), fine));
}

#[test]
fn a_panic_is_a_failure() {
    let cell = cell();
    let error = cell.apply(|_| -> Result<_, Infallible> { panic!("half way") }, fine).unwrap_err();
    assert_eq!(error.to_string(), "the loader panicked: half way");
    untouched(&cell, Kind::Panicked, Err::<(), _>(error));
}

#[test]
fn a_validator_refuses_or_panics() {
    let one = || Ok::<_, Infallible>(Table::new());
    let table = cell();
    untouched(&table, Kind::Invalid, table.apply(|_| one(), |_| Err("too few")));
    let table = cell();
    let panics = |_: &Table| -> Result<(), Infallible> { panic!("unforeseen") };
    untouched(&table, Kind::Panicked, table.apply(|_| one(), panics));
}

#[test]
fn a_cancel_ends_it_at_any_time_before_it_is_published() {
    let table = cell();
    untouched(
        &table,
        Kind::Cancelled,
        table.apply(
            |loading| {
                loading.report(1, 2);
                let seen = table.stats().loading.unwrap();
                assert_eq!(seen.progress(), Progress { phase: Phase::Loading, done: 1, total: 2 });
                assert!(seen.cancel());
                assert_eq!(loading.check().unwrap_err().kind(), Kind::Cancelled);
                // Another may begin before this loader has noticed.
                drop(table.stage().unwrap());
                Err("stopped")
            },
            fine,
        ),
    );
    let table = cell();
    let mut seen = None;
    let validate = |_: &Table| {
        seen = table.stats().loading;
        seen.as_ref().unwrap().cancel();
        Ok::<_, Infallible>(())
    };
    let cancelled = table.apply(|_| Ok::<_, Infallible>(Table::new()), validate);
    untouched(&table, Kind::Cancelled, cancelled);
    assert!(!seen.unwrap().cancel(), "it was over");
}

#[test]
fn a_cancel_after_the_end_is_too_late_and_says_so() {
    let cell = cell();
    let staging = cell.stage().unwrap();
    let loading = staging.loading();
    let epoch = staging.publish(Table::new(), fine).unwrap().epoch();
    assert!(!loading.cancel());
    assert_eq!(loading.progress().phase, Phase::Published(epoch));
}

#[test]
fn one_at_a_time() {
    let cell = cell();
    let staging = cell.stage().unwrap();
    assert_eq!(cell.stage().unwrap_err().kind(), Kind::Busy);
    let loading = staging.loading();
    drop(staging);
    assert_eq!(loading.progress().phase, Phase::Failed);
    drop(cell.stage().unwrap());
}

#[test]
fn too_many_changes_fail_the_replacement_not_the_changes() {
    for config in [
        Config { log_entries: 2, ..Config::default() },
        Config { log_bytes: 2 * size_of::<Set>(), ..Config::default() },
    ] {
        let cell: Cell = SnapshotCell::with_config(Table::new(), config);
        let staging = cell.stage().unwrap();
        for key in ["a", "b"] {
            drop(cell.change(Set(key, 1)).unwrap());
        }
        staging.loading().check().unwrap();
        drop(cell.change(Set("c", 1)).unwrap());
        assert_eq!(staging.loading().check().unwrap_err().kind(), Kind::Overflowed);
        drop(cell.change(Set("d", 1)).unwrap());
        let error = staging.publish(Table::new(), fine).unwrap_err();
        assert_eq!(error.kind(), Kind::Overflowed);
        assert!(error.to_string().contains("3 changes of 72 bytes"), "{error}");
        assert_eq!((cell.load().len(), cell.epoch()), (4, Epoch(5)));
    }
}

#[test]
fn what_cannot_be_replayed_is_not_undone() {
    let cell = cell();
    let staging = cell.stage().unwrap();
    drop(cell.update(Clone::clone).unwrap());
    assert_eq!(staging.publish(Table::new(), fine).unwrap_err().kind(), Kind::Overtaken);
    assert_eq!(cell.load().len(), 1);

    let staging = cell.stage().unwrap().overwriting();
    drop(cell.publish(Table::from([("z", 1)])).unwrap());
    drop(cell.change(Set("c", 3)).unwrap());
    assert_eq!((**staging.publish(Table::new(), fine).unwrap()).clone(), Table::from([("c", 3)]));

    // A loader that takes the state on the way has it.
    let staging = cell.stage().unwrap();
    drop(cell.publish(Table::from([("y", 1)])).unwrap());
    let base = cell.load();
    staging.loading().as_of(base.epoch());
    assert_eq!((**staging.publish((**base).clone(), fine).unwrap()).clone(), Table::from([("y", 1)]));
}

#[test]
fn what_the_new_state_has_is_not_applied_twice() {
    let cell: SnapshotCell<u32, Edit<u32>> = SnapshotCell::with_config(0, Config::default());
    let add = |n: u32| drop(cell.change(Edit::new(move |state| *state += n)).unwrap());
    let staging = cell.stage().unwrap();
    add(1);
    add(2);
    let base = cell.load();
    add(4);
    staging.loading().as_of(base.epoch());
    assert_eq!(**staging.publish(**base + 100, fine).unwrap(), 107);

    for epoch in [Epoch(1), Epoch(99)] {
        let staging = cell.stage().unwrap();
        staging.loading().as_of(epoch);
        let error = staging.publish(0, fine).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    }
    assert_eq!(**cell.load(), 107);
}

#[test]
fn a_change_that_cannot_be_replayed_fails_the_replacement() {
    for (frozen, kind) in [(1, Kind::Failed), (0, Kind::Panicked)] {
        let cell = cell();
        let staging = cell.stage().unwrap();
        drop(cell.change(Set("b", 2)).unwrap());
        let error = staging.publish(Table::from([("frozen", frozen)]), fine).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!((**cell.load()).clone(), Table::from([("a", 1), ("b", 2)]));
        // And it was logged no longer.
        assert!(cell.stats().loading.is_none());
    }
    let cell: Cell = SnapshotCell::with_config(Table::from([("frozen", 1)]), Config::default());
    assert_eq!(cell.change(Set("b", 2)).unwrap_err().kind(), Kind::Refused);
}

#[test]
fn a_change_may_have_its_own_way_to_the_next_live_state() {
    let cell = cell();
    let staging = cell.stage().unwrap();
    let next = |table: &Table| table.iter().map(|(key, n)| (*key, n + 1)).collect();
    drop(cell.change_with(Set("b", 2), next).unwrap());
    assert_eq!(cell.load().get("a"), Some(&2));
    assert_eq!((**staging.publish(Table::new(), fine).unwrap()).clone(), Table::from([("b", 2)]));
}

#[test]
fn a_future_loads_too() {
    let cell = cell();
    let load = async |_| Ok::<_, Infallible>(Table::from([("b", 2)]));
    assert_eq!(block_on(cell.apply_async(load, fine)).unwrap().get("b"), Some(&2));
}

#[test]
fn a_future_that_waits_is_cancelled_dropped_or_panics() {
    let table = cell();
    let never = async |_| pending::<Result<Table, Infallible>>().await;
    let mut applying = Box::pin(table.apply_async(never, fine));
    assert!(applying.as_mut().now_or_never().is_none());
    table.stats().loading.unwrap().cancel();
    untouched(&table, Kind::Cancelled, block_on(applying));

    let table = cell();
    let mut applying = Box::pin(table.apply_async(never, fine));
    assert!(applying.as_mut().now_or_never().is_none());
    drop(applying);
    assert!(table.stats().loading.is_none());

    let panics = async |_| -> Result<Table, Infallible> { panic!("half way") };
    untouched(&table, Kind::Panicked, block_on(table.apply_async(panics, fine)));
}

#[test]
fn what_is_staged_when_the_cell_goes_is_not_published() {
    let cell = cell();
    let view = cell.view(|table| table);
    let staging = cell.stage().unwrap();
    drop(cell);
    assert_eq!(staging.publish(Table::new(), fine).unwrap_err().kind(), Kind::Closed);
    assert_eq!(view.load().len(), 1);
}
