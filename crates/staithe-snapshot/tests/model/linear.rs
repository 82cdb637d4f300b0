//! Threads that change, replace and read at once; afterwards every state that anybody saw is computed again, one
//! publication after the other.

use std::convert::Infallible;
use std::sync::Arc;
use std::thread;

use staithe_snapshot::{Cause, Config, Delta, Epoch, Kind, Snapshot, SnapshotCell};

/// A base that replacements bring, and what was changed since.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    base: u32,
    changes: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Add(u32);

impl Delta<State> for Add {
    fn apply(&self, state: &mut State) -> Result<(), Cause> {
        state.changes.push(self.0);
        Ok(())
    }
}

type Seen = Arc<Snapshot<State>>;

enum Event {
    Change(u32),
    Replace(u32),
    /// A base, and the epoch that it has no changes of before.
    Apply(u32, Epoch),
    /// The same with the changes that there were at that epoch.
    Rebase(u32, Epoch),
}

#[derive(Default)]
struct Log {
    published: Vec<(Seen, Event)>,
    seen: Vec<Seen>,
}

type Cell = SnapshotCell<State, Add>;

fn act(cell: &Cell, call: u8, name: u32, log: &mut Log) {
    let before = cell.load();
    let loaded = |loading: &staithe_snapshot::Loading, rebase: bool| {
        if rebase {
            let base = cell.load();
            loading.as_of(base.epoch());
            (base.epoch(), State { base: name, changes: base.changes.clone() })
        } else {
            (loading.began(), State { base: name, changes: Vec::new() })
        }
    };
    let result = match call % 16 {
        0..8 => cell.change(Add(name)).map(|seen| (seen, Event::Change(name))),
        8 => cell
            .update(|state| State { base: name, ..state.clone() })
            .map(|seen| (seen, Event::Replace(name))),
        rest @ 9..13 => {
            let mut as_of = Epoch(0);
            let rebase = rest % 2 == 0;
            let load = |loading: &_| {
                let (epoch, state) = loaded(loading, rebase);
                as_of = epoch;
                Ok::<_, Infallible>(state)
            };
            let whole = |state: &State| if state.base == name { Ok(()) } else { Err("torn") };
            cell.apply(load, whole).map(|seen| {
                (seen, if rebase { Event::Rebase(name, as_of) } else { Event::Apply(name, as_of) })
            })
        }
        13 => cell
            .apply(|_| Err::<State, _>("it fails"), |_| Ok::<_, Infallible>(()))
            .map(|seen| (seen, Event::Replace(name))),
        14 => {
            let load = |loading: &staithe_snapshot::Loading| {
                loading.cancel();
                Ok::<_, Infallible>(State::default())
            };
            cell.apply(load, |_| Ok::<_, Infallible>(())).map(|seen| (seen, Event::Replace(name)))
        }
        _ => {
            // Of somebody else.
            if let Some(loading) = cell.stats().loading {
                loading.cancel();
            }
            return;
        }
    };
    match result {
        Ok((seen, event)) => {
            // A change that was answered is seen, and came after what was seen before it.
            assert!(seen.epoch() > before.epoch() && cell.epoch() >= seen.epoch());
            log.published.push((seen, event));
        }
        Err(error) => assert!(
            matches!(error.kind(), Kind::Busy | Kind::Failed | Kind::Cancelled | Kind::Overtaken),
            "{error}"
        ),
    }
    log.seen.push(before);
}

pub(crate) fn run(threads: &[Vec<u8>]) {
    let config = Config { max_old: 10_000, ..Config::default() };
    let cell: Cell = SnapshotCell::with_config(State::default(), config);
    let logs: Vec<Log> = thread::scope(|scope| {
        let each = threads.iter().enumerate().map(|(number, calls)| {
            let cell = &cell;
            scope.spawn(move || {
                let mut log = Log::default();
                for (at, call) in calls.iter().enumerate() {
                    act(cell, *call, number as u32 * 1000 + at as u32 + 1, &mut log);
                }
                log
            })
        });
        let running: Vec<_> = each.collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for log in &logs {
        assert!(log.seen.is_sorted_by_key(|seen| seen.epoch()), "a reader went back");
    }
    let (mut published, mut seen) = (Vec::new(), Vec::new());
    for log in logs {
        published.extend(log.published);
        seen.extend(log.seen);
    }
    seen.push(cell.load());
    check(published, &seen);
    drop(seen);
    cell.reclaimer().settle();
    assert_eq!(cell.stats().old, 0);
}

fn check(mut published: Vec<(Seen, Event)>, seen: &[Seen]) {
    published.sort_by_key(|(snapshot, _)| snapshot.epoch());
    let mut states = vec![State::default()];
    let mut changes = Vec::new();
    for (at, (snapshot, event)) in published.iter().enumerate() {
        let epoch = Epoch(at as u64 + 2);
        assert_eq!(snapshot.epoch(), epoch, "an epoch that nobody has published, or two have");
        let mut state = states[at].clone();
        let since = |as_of: Epoch| changes.iter().filter(move |(at, _)| *at > as_of).map(|(_, name)| *name);
        match event {
            Event::Change(name) => {
                state.changes.push(*name);
                changes.push((epoch, *name));
            }
            Event::Replace(name) => state.base = *name,
            Event::Apply(name, as_of) => state = State { base: *name, changes: since(*as_of).collect() },
            Event::Rebase(name, as_of) => {
                let mut all = states[as_of.0 as usize - 1].changes.clone();
                all.extend(since(*as_of));
                state = State { base: *name, changes: all };
            }
        }
        assert_eq!(***snapshot, state, "epoch {epoch}");
        states.push(state);
    }
    for snapshot in seen {
        assert_eq!(***snapshot, states[snapshot.epoch().0 as usize - 1], "a state that nobody published");
    }
}
