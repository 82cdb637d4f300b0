//! The shell around the state machine: one lock, the wakers, the memory account.
//!
//! Invariants:
//! 1. `permit.bytes()` equals `core.held()` whenever the lock is free.
//! 2. No waker runs and no buffer is freed under the lock: they are collected in an [`Aftermath`] first.
//! 3. Lock order: this lock, then the budget's. The budget calls back only with neither held.
//! 4. A waker is registered under the same lock acquisition that found nothing to return: no wake-up is lost.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::budget::{Account, Budget, Hopeful, Permit, Pressure, Priority};
use crate::core::{Begun, Core, QueueState, ReadId, TicketId};
use crate::error::{PushError, ReadError};
use crate::fetch::{Fetch, Generation, NextFetches};
use crate::planner::{Pattern, Planned, PlannerConfig};
use crate::read::{Read, ReadWith};
use crate::slices::ReadSlices;
use crate::sync::Mutex;

/// A queue of parts of one version of one object, between fetchers that run in parallel and out of order and
/// one reader, which may have several reads under way at once.
///
/// `V` names the version (an ETag, a version id); `E` is what the source says when it fails for good. See the
/// [crate documentation](crate) for the whole picture.
#[derive(Debug)]
pub struct PartQueue<V, E> {
    state: Mutex<State<V, E>>,
    account: Arc<Account>,
}

#[derive(Debug)]
struct State<V, E> {
    core: Core<V, E>,
    permit: Permit,
    wakers: Vec<(ReadId, Waker)>,
    drivers: Vec<Waker>,
    /// This queue stands in the budget's line.
    queued: bool,
}

/// A queue's figures, in bytes unless they say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Where the queue is in its life.
    pub state: QueueState,
    /// Bytes here, read or not.
    pub present: u64,
    /// Bytes that fetches have yet to deliver.
    pub in_flight: u64,
    /// How the latest stream of reads moves; `None` before the first read.
    pub pattern: Option<Pattern>,
    /// The read-ahead of that stream, before memory bounds it.
    pub window: u64,
    /// The generation, counted from 0.
    pub generation: Generation,
}

impl<V, E> PartQueue<V, E>
where
    V: Clone + Eq + Send + 'static,
    E: Clone + Send + 'static,
{
    /// A queue for `size` bytes of `version`, with its memory on `budget`.
    pub fn new(size: u64, version: V, config: PlannerConfig, budget: &Arc<Budget>) -> Arc<Self> {
        let account = budget.account();
        let state = State {
            core: Core::new(size, version, config),
            permit: Permit::none(&account),
            wakers: Vec::new(),
            drivers: Vec::new(),
            queued: false,
        };
        Arc::new(Self { state: Mutex::new(state), account })
    }

    /// Reads `len` bytes at `offset`: exactly these, fewer only at the end of the object. The demand is
    /// recorded when the future is first polled; call [`take_fetches`](Self::take_fetches) after every poll,
    /// ready or pending, or use [`read_with`](Self::read_with), which does.
    ///
    /// Any number of reads may be under way at once.
    ///
    /// # Errors
    /// [`ReadError`]: the version changed or the source failed at or before the end of this range, or the queue
    /// was closed.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the read; no byte is lost or marked as read. Polled again after it was
    /// ready, it begins the same read anew.
    pub fn read(self: &Arc<Self>, offset: u64, len: u64) -> Read<V, E> {
        Read::new(Arc::clone(self), offset, len)
    }

    /// [`read`](Self::read) that hands every new fetch to `spawn`, after each poll.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    /// As [`read`](Self::read). Fetches already handed to `spawn` go on.
    pub fn read_with<S: FnMut(Fetch<V, E>)>(
        self: &Arc<Self>,
        offset: u64,
        len: u64,
        spawn: S,
    ) -> ReadWith<V, E, S> {
        ReadWith::new(self.read(offset, len), spawn)
    }

    /// [`read`](Self::read) for a thread that may block. Somebody else must run the fetches.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_blocking(self: &Arc<Self>, offset: u64, len: u64) -> Result<ReadSlices, ReadError<V, E>> {
        crate::read::block_on(self.read(offset, len))
    }

    /// What to fetch now, most urgent first: each is a ticket that the caller's fetch task owns. Empty when
    /// there is nothing to fetch, when memory is short, or when the queue is no longer streaming.
    pub fn take_fetches(self: &Arc<Self>) -> Vec<Fetch<V, E>> {
        let (generation, issued) = self.with(|state| self.issue(state));
        self.account.nudge();
        self.tickets(generation, issued)
    }

    /// Waits until there is something to fetch; `None` once there never will be. For a driver task that does
    /// nothing else; callers of [`read_with`](Self::read_with) do not need it.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready loses nothing.
    pub fn next_fetches(self: &Arc<Self>) -> NextFetches<V, E> {
        NextFetches::new(Arc::clone(self))
    }

    /// The source is gone for good: what is here is still served, any other read gets `error`, and once the
    /// unread bytes are used up, every read does. Changes nothing if the queue has failed or ended already.
    pub fn fail(&self, error: E) {
        self.with(|state| state.core.fail(error));
    }

    /// The reader is done: every read, waiting or later, gets [`ReadError::Ended`]; fetchers learn it at their
    /// next push; memory is returned now.
    pub fn close(&self) {
        self.with(|state| state.core.close());
    }

    /// Begins a new generation: fetches in flight are superseded, bytes and read history are forgotten, waiting
    /// reads are planned anew. Changes nothing once the queue has failed or ended.
    pub fn reset(&self) {
        self.with(|state| state.core.reset());
    }

    /// The size of the object, in bytes.
    pub fn size(&self) -> u64 {
        self.state.lock().core.size()
    }

    /// The version that this queue serves.
    pub fn version(&self) -> V {
        self.state.lock().core.version().clone()
    }

    /// The figures now.
    pub fn stats(&self) -> QueueStats {
        let state = self.state.lock();
        let current = state.core.planner().current();
        QueueStats {
            state: state.core.state(),
            present: state.core.present(),
            in_flight: state.core.held() - state.core.present(),
            pattern: current.map(|(pattern, _)| pattern),
            window: current.map_or(0, |(_, window)| window),
            generation: Generation(state.core.generation()),
        }
    }

    // ---- for the futures ----

    pub(crate) fn poll_read(
        &self,
        id: &mut Option<ReadId>,
        offset: u64,
        len: u64,
        context: &Context<'_>,
    ) -> Poll<Result<ReadSlices, ReadError<V, E>>> {
        self.with(|state| {
            let keep = self.keep(state);
            let outcome = match *id {
                Some(id) => state.core.poll_read(id, keep).ok_or(id),
                None => match state.core.begin_read(offset, len, keep) {
                    Begun::Ready(outcome) => Ok(outcome),
                    Begun::Waiting(id) => Err(id),
                },
            };
            match outcome {
                Ok(outcome) => {
                    if let Some(id) = id.take() {
                        Self::left(state, id);
                    }
                    Poll::Ready(outcome)
                }
                Err(waiting) => {
                    *id = Some(waiting);
                    state.register(waiting, context.waker());
                    Poll::Pending
                }
            }
        })
    }

    pub(crate) fn cancel_read(&self, id: ReadId) {
        self.with(|state| {
            state.core.cancel_read(id);
            Self::left(state, id);
        });
    }

    pub(crate) fn poll_fetches(self: &Arc<Self>, context: &Context<'_>) -> Poll<Option<Vec<Fetch<V, E>>>> {
        let (ended, (generation, issued)) = self.with(|state| {
            let issued = self.issue(state);
            let ended = state.core.state() != QueueState::Streaming;
            if issued.1.is_empty() && !ended && !state.drivers.iter().any(|w| w.will_wake(context.waker())) {
                state.drivers.push(context.waker().clone());
            }
            (ended, issued)
        });
        self.account.nudge();
        if issued.is_empty() {
            return if ended { Poll::Ready(None) } else { Poll::Pending };
        }
        Poll::Ready(Some(self.tickets(generation, issued)))
    }

    // ---- for the fetches ----

    pub(crate) fn push(&self, id: TicketId, offset: u64, version: &V, part: &Bytes) -> Result<(), PushError> {
        self.with(|state| state.core.push(id, offset, version, part))
    }

    pub(crate) fn finish(&self, id: TicketId) -> u64 {
        self.with(|state| state.core.finish(id))
    }

    pub(crate) fn fail_ticket(&self, id: TicketId, error: E) {
        self.with(|state| state.core.fail_ticket(id, error));
    }

    pub(crate) fn is_live(&self, id: TicketId) -> bool {
        self.state.lock().core.is_live(id)
    }

    // ---- inside ----

    fn tickets(
        self: &Arc<Self>,
        generation: Generation,
        issued: Vec<(TicketId, Planned)>,
    ) -> Vec<Fetch<V, E>> {
        let ticket = |(id, planned)| Fetch::new(Arc::downgrade(self), id, planned, generation);
        issued.into_iter().map(ticket).collect()
    }

    /// Runs `f` under the lock, and what it caused after the lock is released.
    fn with<R>(&self, f: impl FnOnce(&mut State<V, E>) -> R) -> R {
        let (answer, aftermath) = {
            let mut state = self.state.lock();
            let answer = f(&mut state);
            let gone = state.queued && !state.core.waiting();
            if gone {
                state.queued = false;
                self.account.leave_quietly();
            }
            (answer, state.settle(gone))
        };
        aftermath.run(&self.account);
        answer
    }

    /// Plans, asks for memory, and takes into flight what was granted.
    fn issue(self: &Arc<Self>, state: &mut State<V, E>) -> (Generation, Vec<(TicketId, Planned)>) {
        let mut issued = Vec::new();
        let (mut short, mut starved) = (false, false);
        // What memory refuses to read-ahead may hide a demand behind it: the second pass plans demand alone.
        for cap in [self.window_cap(), 0] {
            for planned in state.core.plan(cap) {
                let wanted = planned.clone();
                let granted = self.grant(state, planned);
                short |= granted.as_ref() != Some(&wanted);
                starved |= granted.is_none() && wanted.demanded > 0;
                let Some(planned) = granted else { continue };
                if let Some(id) = state.core.admit(planned.range.clone()) {
                    issued.push((id, planned));
                }
            }
            if !short || starved {
                break;
            }
        }
        if starved {
            let this: Weak<dyn Hopeful> = Arc::<Self>::downgrade(self);
            self.account.wait(this);
            state.queued = true;
        } else if state.queued {
            self.account.leave_quietly();
            state.queued = false;
        }
        (Generation(state.core.generation()), issued)
    }

    /// Asks the budget for one planned range; under want, only for what a read waits for.
    fn grant(&self, state: &mut State<V, E>, planned: Planned) -> Option<Planned> {
        if self.charge(state, &planned, Priority::ReadAhead) {
            return Some(planned);
        }
        if planned.demanded == 0 {
            return None;
        }
        let range = planned.range.start..planned.range.start + planned.demanded;
        let needed = Planned { range, demanded: planned.demanded };
        if self.charge(state, &needed, Priority::Demand) {
            return Some(needed);
        }
        // Bytes kept for a seek back are worth less than bytes that are waited for.
        state.core.shed(0);
        state.return_freed();
        let urgent = state.core.most_urgent(&needed.range);
        if urgent && !self.account.fits(planned.demanded) {
            state.core.give_up_all_but_demand();
            state.return_freed();
        }
        let priority = if urgent { Priority::Progress } else { Priority::Demand };
        self.charge(state, &needed, priority).then_some(needed)
    }

    fn charge(&self, state: &mut State<V, E>, planned: &Planned, priority: Priority) -> bool {
        let Some(granted) = self.account.try_acquire(planned.range.end - planned.range.start, priority)
        else {
            return false;
        };
        // Both are of `self.account`, so that this cannot be refused.
        state.permit.merge(granted).is_ok()
    }

    /// The read-ahead that memory allows each stream now.
    fn window_cap(&self) -> u64 {
        let share = self.account.allowance();
        match self.account.budget().pressure() {
            Pressure::Low => share,
            Pressure::Moderate => share / 2,
            Pressure::High => share / 4,
        }
    }

    /// The bytes to keep for a seek back.
    fn keep(&self, state: &State<V, E>) -> u64 {
        let configured = state.core.planner().config().back_window;
        match self.account.budget().pressure() {
            Pressure::Low => configured,
            Pressure::Moderate => configured / 2,
            Pressure::High => 0,
        }
    }

    /// A read is over. What it kept waiting asks again.
    fn left(state: &mut State<V, E>, id: ReadId) {
        state.wakers.retain(|(other, _)| *other != id);
        if state.core.unplanned_demand() {
            state.core.recall();
        }
    }
}

impl<V, E> Hopeful for PartQueue<V, E>
where
    V: Clone + Eq + Send + 'static,
    E: Clone + Send + 'static,
{
    fn ask_again(&self) {
        self.with(|state| state.core.recall());
    }
}

impl<V: Clone + Eq, E: Clone> State<V, E> {
    fn register(&mut self, id: ReadId, waker: &Waker) {
        match self.wakers.iter_mut().find(|(other, _)| *other == id) {
            Some((_, registered)) => registered.clone_from(waker),
            None => self.wakers.push((id, waker.clone())),
        }
    }

    /// Gathers what the core wants done, to be run without the lock.
    fn settle(&mut self, nudge: bool) -> Aftermath {
        let effects = self.core.take_effects();
        let mut wakers = Vec::new();
        for id in effects.wake {
            if let Some(at) = self.wakers.iter().position(|(other, _)| *other == id) {
                wakers.push(self.wakers.swap_remove(at).1);
            }
        }
        if effects.replan {
            wakers.append(&mut self.drivers);
        }
        let freed = (effects.freed > 0).then(|| self.permit.split(effects.freed));
        Aftermath { wakers, freed, trash: effects.trash, nudge }
    }

    /// Returns freed bytes at once, so that they can be asked for again under the same lock.
    fn return_freed(&mut self) {
        let freed = self.core.take_freed();
        self.permit.return_quietly(freed);
    }
}

/// What is done after the lock is released.
#[derive(Debug)]
struct Aftermath {
    wakers: Vec<Waker>,
    freed: Option<Permit>,
    trash: Vec<Bytes>,
    nudge: bool,
}

impl Aftermath {
    fn run(self, account: &Account) {
        drop(self.trash);
        drop(self.freed);
        if self.nudge {
            account.nudge();
        }
        self.wakers.into_iter().for_each(Waker::wake);
    }
}
