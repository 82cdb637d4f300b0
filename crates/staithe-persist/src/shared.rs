//! The shell around the state machine: one lock, the promises, the tasks.
//!
//! Invariants:
//! 1. No waker, no task and no caller's code runs under the lock, predicates aside: they are gathered in an
//!    [`Aftermath`] first.
//! 2. Lock order: the board's, then a promise's or a control's. Those two never meet.
//! 3. A promise is registered under the same acquisition of the lock that asked the core for it: no answer is lost.
//! 4. Every attempt that the core started is finished, once: by its future's end, its panic, or its being dropped.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use hashbrown::HashMap;

use crate::action::{Action, Answer, Outcome};
use crate::core::Core;
use crate::error::Failure;
use crate::info::JobInfo;
use crate::job::{AttemptId, BarrierId, CancelId, HoldId, Key, ReserveId, TicketId};
use crate::promise::Promise;
use crate::runner::{Attempt, Control, Runner};
use crate::runtime::Runtime;
use crate::sync::Mutex;

pub(crate) struct Shared<K: Key> {
    board: Mutex<Board<K>>,
    runner: Arc<dyn Runner<K>>,
    pub(crate) runtime: Box<dyn Runtime>,
}

/// What the lock guards.
pub(crate) struct Board<K: Key> {
    pub(crate) core: Core<K>,
    pub(crate) tickets: HashMap<TicketId, Promise<Outcome>>,
    pub(crate) cancels: HashMap<CancelId, Promise<Vec<(K, Answer)>>>,
    pub(crate) barriers: HashMap<BarrierId, Promise<Vec<(K, Failure)>>>,
    pub(crate) quiet: HashMap<HoldId, Promise<()>>,
    pub(crate) grants: HashMap<ReserveId, Promise<()>>,
    pub(crate) idle: Vec<Promise<()>>,
    pub(crate) running: HashMap<AttemptId, Arc<Control>>,
    actions: Vec<Action<K>>,
    /// When the alarm goes off; the waker is there while it sleeps.
    alarm: Option<Instant>,
    alarm_waker: Option<Waker>,
    over: bool,
}

struct Starting<K> {
    control: Arc<Control>,
    id: AttemptId,
    key: K,
    generation: crate::job::Generation,
    priority: crate::order::Priority,
}

/// What is done once the lock is free.
struct Aftermath<K> {
    starts: Vec<Starting<K>>,
    wakers: Vec<Waker>,
}

impl<K: Key> Shared<K> {
    pub(crate) fn new(core: Core<K>, runner: Arc<dyn Runner<K>>, runtime: Box<dyn Runtime>) -> Arc<Self> {
        let board = Board {
            core,
            tickets: HashMap::new(),
            cancels: HashMap::new(),
            barriers: HashMap::new(),
            quiet: HashMap::new(),
            grants: HashMap::new(),
            idle: Vec::new(),
            running: HashMap::new(),
            actions: Vec::new(),
            alarm: None,
            alarm_waker: None,
            over: false,
        };
        let shared = Arc::new(Self { board: Mutex::new(board), runner, runtime });
        let alarm = Alarm { shared: Arc::downgrade(&shared), sleep: None };
        shared.runtime.spawn(Box::pin(alarm));
        shared
    }

    pub(crate) fn now(&self) -> Instant {
        self.runtime.now()
    }

    /// Runs `f` under the lock, and what it caused after the lock is released.
    pub(crate) fn with<R>(self: &Arc<Self>, f: impl FnOnce(&mut Board<K>) -> R) -> R {
        let (answer, aftermath) = {
            let mut board = self.board.lock();
            let answer = f(&mut board);
            (answer, board.gather())
        };
        for waker in aftermath.wakers {
            waker.wake();
        }
        for starting in aftermath.starts {
            self.start(starting);
        }
        answer
    }

    fn start(self: &Arc<Self>, starting: Starting<K>) {
        let Starting { control, id, key, generation, priority } = starting;
        let mut end = End { shared: Arc::clone(self), id, finished: false };
        let attempt = Attempt { shared: Arc::clone(self), control, id, key, generation, priority };
        let task = async move {
            let shared = Arc::clone(&end.shared);
            let run = async { shared.runner.run(attempt).await };
            let result = AssertUnwindSafe(run).catch_unwind().await;
            end.finished = true;
            end.shared.finished(id, result.unwrap_or_else(|panic| Err(panicked(&*panic))));
        };
        self.runtime.spawn(Box::pin(task));
    }

    fn finished(self: &Arc<Self>, id: AttemptId, result: Result<(), Failure>) {
        self.with(|board| {
            board.running.remove(&id);
            board.core.finished(self.now(), id, result);
        });
    }

    /// Nothing more is started, what runs is asked to stop, and nobody waits for room any more.
    pub(crate) fn halt(self: &Arc<Self>) {
        let unmet = self.with(|board| {
            board.core.halt(self.now());
            in_order(&mut board.grants)
        });
        drop(unmet);
    }

    /// The queue is gone. Cancels are still answered: they are about attempts that may still be running.
    pub(crate) fn end(self: &Arc<Self>) {
        self.halt();
        let unmet = self.with(|board| {
            board.over = true;
            (in_order(&mut board.tickets), in_order(&mut board.barriers))
        });
        drop(unmet);
    }
}

/// Takes what is there, in the order of asking: who is told first must not depend on a hash.
fn in_order<I: Ord, P>(promises: &mut HashMap<I, P>) -> Vec<(I, P)> {
    let mut taken: Vec<_> = promises.drain().collect();
    taken.sort_by(|(a, _), (b, _)| a.cmp(b));
    taken
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Failure::permanent(format!("the attempt panicked: {}", text.unwrap_or("it did not say why")))
}

impl<K: Key> Board<K> {
    /// Turns the core's actions into what is to be done without the lock.
    fn gather(&mut self) -> Aftermath<K> {
        let mut aftermath = Aftermath { starts: Vec::new(), wakers: Vec::new() };
        let mut actions = std::mem::take(&mut self.actions);
        self.core.take_actions(&mut actions);
        for action in actions.drain(..) {
            self.act(action, &mut aftermath);
        }
        self.actions = actions;
        let next = self.core.next_wake();
        let earlier = next.is_some_and(|next| self.alarm.is_none_or(|alarm| next < alarm));
        if earlier || self.over {
            aftermath.wakers.extend(self.alarm_waker.take());
        }
        aftermath
    }

    pub(crate) fn add_progress(&self, job: &mut JobInfo<K>) {
        let id = AttemptId { job: job.job, number: job.attempts };
        job.progress = self.running.get(&id).and_then(|control| control.progress());
    }

    fn act(&mut self, action: Action<K>, aftermath: &mut Aftermath<K>) {
        let wakers = &mut aftermath.wakers;
        match action {
            Action::Start { attempt: id, key, generation, priority } => {
                let control = Arc::new(Control::new());
                self.running.insert(id, Arc::clone(&control));
                aftermath.starts.push(Starting { control, id, key, generation, priority });
            }
            Action::Stop { attempt } => {
                wakers.extend(self.running.get(&attempt).into_iter().flat_map(|control| control.stop()));
            }
            Action::Proceed { attempt } => {
                wakers.extend(self.running.get(&attempt).into_iter().flat_map(|control| control.proceed()));
            }
            Action::Resolved { ticket, outcome } => {
                wakers.extend(self.tickets.remove(&ticket).and_then(|promise| promise.keep(outcome)));
            }
            Action::Cancelled { cancel, answers } => {
                wakers.extend(self.cancels.remove(&cancel).and_then(|promise| promise.keep(answers)));
            }
            Action::Passed { barrier, failures } => {
                wakers.extend(self.barriers.remove(&barrier).and_then(|promise| promise.keep(failures)));
            }
            Action::Quiet { hold } => {
                wakers.extend(self.quiet.remove(&hold).and_then(|promise| promise.keep(())));
            }
            Action::Granted { reserve } => {
                wakers.extend(self.grants.remove(&reserve).and_then(|promise| promise.keep(())));
            }
            Action::Idle => wakers.extend(self.idle.drain(..).filter_map(|promise| promise.keep(()))),
        }
    }
}

impl<K: Key> fmt::Debug for Shared<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Finishes an attempt whose task the runtime dropped: that runtime is at its end, and runs nothing more.
struct End<K: Key> {
    shared: Arc<Shared<K>>,
    id: AttemptId,
    finished: bool,
}

impl<K: Key> Drop for End<K> {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.halt();
            self.shared.finished(self.id, Err(Failure::transient("the runtime has dropped the attempt")));
        }
    }
}

/// The one task that lets time pass for the core.
struct Alarm<K: Key> {
    shared: Weak<Shared<K>>,
    sleep: Option<(Instant, BoxFuture<'static, ()>)>,
}

impl<K: Key> Future for Alarm<K> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(shared) = self.shared.upgrade() else { return Poll::Ready(()) };
            let next = {
                let mut board = shared.board.lock();
                if board.over {
                    return Poll::Ready(());
                }
                board.alarm = board.core.next_wake();
                board.alarm_waker = Some(context.waker().clone());
                board.alarm
            };
            let Some(at) = next else {
                self.sleep = None;
                return Poll::Pending;
            };
            if self.sleep.as_ref().is_none_or(|(set, _)| *set != at) {
                self.sleep = Some((at, shared.runtime.sleep_until(at)));
            }
            let Some((_, sleep)) = &mut self.sleep else { return Poll::Pending };
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.sleep = None;
            shared.with(|board| board.core.tick(shared.now()));
        }
    }
}
