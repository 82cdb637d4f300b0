//! Sequences of calls, two bytes each, checked call by call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use staithe_snapshot::{
    Cause, Changed, Config, Delta, Epoch, Error, Held, Kind, Reclaimer, Snapshot, SnapshotCell, Staging,
    Worker,
};

use super::naive::{self, MOST_LOGGED, MOST_OLD, Naive, State};

const MOST_WAITERS: usize = 3;

struct Push(u8);

impl Delta<State> for Push {
    fn apply(&self, state: &mut State) -> Result<(), Cause> {
        naive::push(state, self.0).map_err(Into::into)
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Wait {
    changed: Changed,
    since: u64,
    wakes: Arc<Wakes>,
}

impl Wait {
    fn poll(&mut self) -> Poll<Result<Epoch, Error>> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        Pin::new(&mut self.changed).poll(&mut Context::from_waker(&waker))
    }
}

struct Driver {
    cell: SnapshotCell<State, Push>,
    worker: Worker,
    naive: Naive,
    held: Vec<(Held<State>, State)>,
    stagings: Vec<Staging<State, Push>>,
    waits: Vec<Wait>,
    since: u64,
}

pub(crate) fn run(calls: &[[u8; 2]]) {
    let (reclaimer, worker) = Reclaimer::by_hand();
    let config = Config {
        max_old: MOST_OLD,
        max_waiters: MOST_WAITERS,
        log_entries: MOST_LOGGED,
        reclaimer: Some(reclaimer),
        ..Config::default()
    };
    let mut driver = Driver {
        cell: SnapshotCell::with_config(vec![0], config),
        worker,
        naive: Naive::new(vec![0]),
        held: Vec::new(),
        stagings: Vec::new(),
        waits: Vec::new(),
        since: 1,
    };
    for [call, with] in calls {
        driver.step(*call, *with);
        driver.check();
    }
}

/// One of so many, if there are any.
fn pick(with: u8, of: usize) -> Option<usize> {
    usize::from(with).checked_rem(of)
}

fn same(real: Result<Arc<Snapshot<State>>, Error>, naive: Result<(), Kind>, epoch: u64) {
    match (real, naive) {
        (Ok(snapshot), Ok(())) => assert_eq!(snapshot.epoch(), Epoch(epoch)),
        (Err(error), Err(kind)) => assert_eq!(error.kind(), kind),
        (real, naive) => panic!("{real:?}, but the model says {naive:?}"),
    }
}

impl Driver {
    fn step(&mut self, call: u8, with: u8) {
        let item = with % 8;
        let Self { cell, naive, .. } = self;
        match call % 12 {
            0 => same(cell.publish(vec![item]).map_err(Into::into), naive.replace(vec![item]), naive.epoch),
            1 => {
                let expected = naive.epoch - u64::from(with % 2).min(naive.epoch - 1);
                let model = if expected == naive.epoch { naive.replace(vec![item]) } else { Err(Kind::Lost) };
                same(cell.publish_if(Epoch(expected), vec![item]).map_err(Into::into), model, naive.epoch);
            }
            2 => {
                let next = [&[item], naive.state.as_slice()].concat();
                let real = cell.update(|state| [&[item], state.as_slice()].concat());
                same(real, naive.replace(next), naive.epoch);
            }
            3 | 4 => same(cell.change(Push(item)), naive.change(item), naive.epoch),
            5 => self.stage(with.is_multiple_of(3)),
            6 => self.during_a_load(item),
            7 => {
                if let Some(at) = pick(with, self.stagings.len()) {
                    let valid = !with.is_multiple_of(16);
                    let model = self.naive.publish_staged(at, vec![100, item], valid);
                    let validate = |_: &State| if valid { Ok(()) } else { Err("no") };
                    let real = self.stagings.remove(at).publish(vec![100, item], validate);
                    same(real, model, self.naive.epoch);
                }
            }
            8 => {
                self.held.push((self.cell.load_as(item.to_string()), self.naive.state.clone()));
                *self.naive.alive.get_mut(&self.naive.epoch).unwrap() += 1;
            }
            9 => {
                if let Some(at) = pick(with, self.held.len()) {
                    let (held, _) = self.held.swap_remove(at);
                    *self.naive.alive.get_mut(&held.epoch().0).unwrap() -= 1;
                }
            }
            10 => {
                self.worker.reclaim();
                self.naive.reclaim();
            }
            _ => self.wait(with),
        }
    }

    fn stage(&mut self, overwrite: bool) {
        match (self.cell.stage(), self.naive.stage(overwrite)) {
            (Ok(staging), Ok(())) => {
                self.stagings.push(if overwrite { staging.overwriting() } else { staging });
            }
            (Err(error), Err(kind)) => assert_eq!(error.kind(), kind),
            (real, naive) => panic!("{real:?}, but the model says {naive:?}"),
        }
    }

    fn during_a_load(&mut self, item: u8) {
        let Some(at) = pick(item, self.stagings.len()) else { return };
        match item / 2 {
            0 => assert_eq!(self.stagings[at].loading().cancel(), self.naive.cancel(at)),
            1 => {
                drop(self.stagings.remove(at));
                self.naive.stages.remove(at);
            }
            _ => {
                self.stagings[at].loading().as_of(self.cell.epoch());
                self.naive.as_of_now(at);
            }
        }
    }

    fn wait(&mut self, with: u8) {
        if let Some(at) = pick(with, self.waits.len()).filter(|_| with.is_multiple_of(4)) {
            self.waits.swap_remove(at);
            return;
        }
        let since = if with % 4 == 1 { self.since } else { self.naive.epoch };
        self.since = self.naive.epoch;
        let (changed, wakes) = (self.cell.changed(Epoch(since)), Arc::default());
        let mut wait = Wait { changed, since, wakes };
        match wait.poll() {
            Poll::Ready(Ok(epoch)) => assert!(epoch.0 == self.naive.epoch && epoch.0 > since),
            Poll::Ready(Err(error)) => {
                assert_eq!((error.kind(), self.waits.len()), (Kind::Exhausted, MOST_WAITERS));
            }
            Poll::Pending => self.waits.push(wait),
        }
    }

    fn check(&mut self) {
        let (cell, naive) = (&self.cell, &self.naive);
        let now = cell.load();
        assert_eq!((now.epoch().0, &**now), (naive.epoch, &naive.state));
        drop(now);
        for (held, state) in &self.held {
            assert_eq!(&***held, state, "a reader's state has changed");
        }
        let alive: Vec<_> = cell.alive().iter().map(|alive| (alive.epoch.0, alive.holders)).collect();
        let own = |(epoch, holders): (&u64, &usize)| (*epoch, holders + usize::from(*epoch == naive.epoch));
        assert_eq!(alive, naive.alive.iter().map(own).collect::<Vec<_>>());
        let epoch = naive.epoch;
        self.waits.retain_mut(|wait| {
            let woken = wait.wakes.0.load(Ordering::SeqCst) > 0;
            assert_eq!(woken, epoch > wait.since, "woken for nothing, or not at all");
            if !woken {
                return true;
            }
            assert!(matches!(wait.poll(), Poll::Ready(Ok(now)) if now.0 == epoch));
            false
        });
        assert_eq!(self.cell.stats().waiters, self.waits.len());
    }
}
