//! The state machine of a queue. Pure: no lock, no task, no clock; every call in every order is answered.
//!
//! Events come in as methods that take `now`; what they cause is gathered as [`Action`]s, to be taken with
//! [`take_actions`](Core::take_actions) after every call. The states and their legal moves are [`State`]'s.
//!
//! Invariants:
//! 1. A key has at most one chain, a chain at most one attempt: two attempts of a key never overlap.
//! 2. `Committing` is entered only in [`begin_commit`](Core::begin_commit), by an attempt that nobody asked to stop
//!    and under no hold. Whatever makes an attempt stale (a newer generation, a cancel, a retarget) asks it to stop.
//! 3. A chain is in a line if and only if it is `Queued` and not held; in `timers` if and only if it is `RetryAt`.
//! 4. A job that is over is out of the slab; its watchers have been answered, its cancels too, its room is returned.
//! 5. An enqueue is counted in its epoch until the generation is committed, failed or cancelled, once.
//! 6. Every walk is in slot order or the caller's: the same events give the same actions.

mod attempt;
mod cancel;
mod chain;
mod enqueue;
mod epochs;
mod hold;
mod line;
mod list;
mod slab;
mod space;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use hashbrown::HashMap;

use crate::action::{Action, Outcome};
use crate::config::Config;
use crate::error::{Failure, Needed};
use crate::info::Stats;
use crate::job::{CancelId, HoldId, JobId, Key, ReserveId};
use crate::order::Needs;
use crate::retry::Waits;
use crate::states::State;

pub use attempt::Gate;

use cancel::Pending;
use chain::Chain;
use epochs::Epochs;
use hold::Hold;
use line::Lines;
use slab::Slab;
use space::Space;

/// The state machine of a queue; see the [module's source](crate) for what it keeps true. [`Queue`](crate::Queue) is
/// the shell that most callers want.
#[derive(Debug)]
pub struct Core<K: Key> {
    config: Config,
    waits: Waits,
    slab: Slab<K>,
    lines: Lines,
    timers: BTreeSet<(Instant, u32)>,
    space: Space,
    epochs: Epochs<K>,
    holds: BTreeMap<HoldId, Hold<K>>,
    cancels: HashMap<CancelId, Pending<K>>,
    /// Jobs by state.
    counts: [usize; State::ALL.len()],
    in_flight: u64,
    totals: Stats,
    closed: bool,
    halted: bool,
    next_id: u64,
    /// Dependencies that are over, to be passed on: without recursion, however long the chain of jobs.
    passed_on: VecDeque<PassedOn>,
    actions: Vec<Action<K>>,
}

/// A dependency of `job` is over.
#[derive(Debug)]
struct PassedOn {
    job: JobId,
    wait: u64,
    needs: Needs,
    outcome: Outcome,
}

impl<K: Key> Core<K> {
    /// A queue without jobs.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            waits: Waits::new(config.retry),
            slab: Slab::new(),
            lines: Lines::new(config.share),
            timers: BTreeSet::new(),
            space: Space::new(config.max_jobs, config.max_bytes),
            epochs: Epochs::new(),
            holds: BTreeMap::new(),
            cancels: HashMap::new(),
            counts: [0; State::ALL.len()],
            in_flight: 0,
            totals: Stats::default(),
            closed: false,
            halted: false,
            next_id: 0,
            passed_on: VecDeque::new(),
            actions: Vec::new(),
        }
    }

    /// Moves what is to be done to the end of `into`, in order.
    pub fn take_actions(&mut self, into: &mut Vec<Action<K>>) {
        into.append(&mut self.actions);
    }

    /// When [`tick`](Self::tick) has something to do next.
    pub fn next_wake(&self) -> Option<Instant> {
        if self.halted { None } else { self.timers.first().map(|(at, _)| *at) }
    }

    /// Lets time pass: attempts that are due start. O(due log jobs).
    pub fn tick(&mut self, now: Instant) {
        self.settle(now);
    }

    /// Takes no more enqueues, makes all retries due, and says [`Action::Idle`] once nothing is left but what failed;
    /// perhaps more than once.
    pub fn close(&mut self, now: Instant) {
        self.closed = true;
        self.retry_all(now);
    }

    /// Starts nothing more and asks everything that runs to stop. Jobs stay where they are, to be listed.
    pub fn halt(&mut self, now: Instant) {
        (self.closed, self.halted) = (true, true);
        let slots: Vec<u32> = self.slab.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.ask_to_stop(slot);
        }
        self.settle(now);
    }

    /// Reserves room for one job of so many bytes; [`Action::Granted`] says when it is there, in the order of asking.
    pub fn reserve(&mut self, bytes: u64) -> ReserveId {
        let reserve = ReserveId(self.fresh_id());
        if self.space.try_take(bytes) {
            self.actions.push(Action::Granted { reserve });
        } else {
            self.space.wait(reserve, bytes);
        }
        reserve
    }

    /// Returns a reservation, granted or not, of so many bytes.
    pub fn unreserve(&mut self, reserve: ReserveId, bytes: u64) {
        if !self.space.leave(reserve) {
            self.space.give(bytes);
        }
        self.grant();
    }

    // ---- inside ----

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn grant(&mut self) {
        while let Some(reserve) = self.space.grant() {
            self.actions.push(Action::Granted { reserve });
        }
    }

    fn unfinished(&self) -> usize {
        State::ALL
            .iter()
            .filter(|s| !s.is_final() && **s != State::Failed)
            .map(|s| self.counts[*s as usize])
            .sum()
    }

    /// What every event ends with: passes outcomes on, fires timers, starts what may start, lets barriers pass.
    fn settle(&mut self, now: Instant) {
        loop {
            while let Some(passed_on) = self.passed_on.pop_front() {
                self.pass_on(passed_on);
            }
            while let Some(&(at, slot)) = self.timers.first()
                && at <= now
                && !self.halted
            {
                self.shift(slot, State::Queued);
            }
            self.start_what_may();
            if self.passed_on.is_empty() {
                break;
            }
        }
        if self.epochs.is_awaited() {
            for (barrier, failures) in self.epochs.passed() {
                self.actions.push(Action::Passed { barrier, failures });
            }
        }
        if self.closed && self.unfinished() == 0 {
            self.actions.push(Action::Idle);
        }
    }

    /// Makes one move of the table, and keeps lines, timers and counts to it.
    fn shift(&mut self, slot: u32, to: State) {
        let Some(chain) = self.slab.get_mut(slot) else { return };
        let from = chain.state;
        if from == to {
            return;
        }
        debug_assert!(from.may_become(to), "{from:?} may not become {to:?}");
        chain.state = to;
        self.counts[from as usize] -= 1;
        self.counts[to as usize] += 1;
        if from == State::RetryAt
            && let Some(at) = chain.retry_at.take()
        {
            self.timers.remove(&(at, slot));
        }
        if from == State::Queued {
            self.lines.remove(&mut self.slab, slot);
        }
        if to == State::Queued {
            self.line_up(slot);
        }
    }

    /// Puts a chain into its line if it may start.
    fn line_up(&mut self, slot: u32) {
        let may = |c: &Chain<K>| c.state == State::Queued && c.holds.is_empty() && !c.lined;
        if self.slab.get(slot).is_some_and(may) {
            self.lines.push(&mut self.slab, slot);
        }
    }

    /// A job is over: `Done` or `Cancelled`. Whoever still waits gets `outcome`.
    fn remove(&mut self, slot: u32, last: State, outcome: &Outcome) {
        self.shift(slot, last);
        self.counts[last as usize] -= 1;
        let Some(chain) = self.slab.remove(slot) else { return };
        debug_assert!(chain.attempt.is_none() && last.is_final(), "an attempt outlives its job");
        if let Some(epoch) = chain.since {
            self.epochs.leave(epoch);
        }
        for (_, watch) in chain.watchers {
            self.tell(watch, outcome.clone());
        }
        self.space.give(chain.bytes);
        self.grant();
    }

    /// A job has failed for good and stays visible.
    fn fail(&mut self, slot: u32, failure: &Failure) {
        self.shift(slot, State::Failed);
        let Some(chain) = self.slab.get_mut(slot) else { return };
        (chain.wants, chain.doomed) = (false, None);
        chain.after.clear();
        chain.failure = Some(failure.clone());
        let watchers = std::mem::take(&mut chain.watchers);
        if let Some(epoch) = chain.since.take() {
            self.epochs.failed(epoch, &chain.key, failure);
            self.epochs.leave(epoch);
        }
        for (_, watch) in watchers {
            self.tell(watch, Outcome::Failed(failure.clone()));
        }
    }

    /// A dependency is over: the dependent is free of it, or fails with it.
    fn pass_on(&mut self, passed_on: PassedOn) {
        let PassedOn { job, wait, needs, outcome } = passed_on;
        let Some(slot) = self.slab.slot_of(job) else { return };
        let Some(chain) = self.slab.get_mut(slot) else { return };
        let Some(at) = chain.after.iter().position(|other| other.id == wait) else { return };
        chain.after.swap_remove(at);
        let (unblocked, active) = (chain.after.is_empty(), chain.attempt.is_some());
        let failure = match (needs, outcome) {
            (Needs::Settled, _) | (Needs::Done, Outcome::Done(_)) => {
                if unblocked && chain.state == State::Blocked {
                    self.shift(slot, State::Queued);
                }
                return;
            }
            (Needs::Done, Outcome::Failed(failure)) => ("has failed", Some(failure)),
            (Needs::Done, _) => ("was cancelled", None),
        };
        let failure = needed(failure);
        if active {
            chain.doomed = Some(failure);
        } else if chain.wants {
            self.fail(slot, &failure);
        }
    }
}

fn needed((what, failure): (&'static str, Option<Failure>)) -> Failure {
    match failure {
        // Shared down a chain of jobs, not wrapped once for each.
        Some(failure) if failure.cause().is::<Needed>() => failure,
        failure => Failure::permanent(Needed { what, failure }),
    }
}
