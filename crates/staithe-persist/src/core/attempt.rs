//! Attempts: from their start through the door to their end.

use std::time::Instant;

use super::Core;
use super::chain::{Attempt, Chain};
use crate::action::{Action, Answer, Outcome};
use crate::error::{Class, Failure};
use crate::job::{AttemptId, Generation, Key};
use crate::order::Priority;
use crate::states::State;

/// What the door to `Committing` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// The attempt is committing.
    Open,
    /// A hold keeps it out: ask again after [`Action::Proceed`] or [`Action::Stop`].
    Held,
    /// It may not commit, now or later.
    Outdated,
}

impl<K: Key> Core<K> {
    pub(super) fn start_what_may(&mut self) {
        while !self.halted && self.active() < self.config.concurrency {
            let Some(slot) = self.lines.first() else { break };
            let fits = self.slab.get(slot).is_some_and(|chain| {
                let bytes = self.in_flight.saturating_add(chain.bytes);
                self.active() == 0 || bytes <= self.config.bytes_in_flight
            });
            if !fits {
                break;
            }
            self.start(slot);
        }
    }

    fn active(&self) -> usize {
        self.counts[State::Running as usize] + self.counts[State::Committing as usize]
    }

    fn start(&mut self, slot: u32) {
        self.shift(slot, State::Running);
        let patience = self.config.patience;
        let Some(chain) = self.slab.get_mut(slot) else { return };
        chain.attempts = chain.attempts.saturating_add(1);
        chain.not_before = None;
        chain.attempt = Some(Attempt {
            generation: chain.wanted,
            number: chain.attempts,
            bytes: chain.bytes,
            since: chain.since.take(),
            before: chain.committed,
            stop: false,
            cancelled: false,
            patient: chain.outdated >= patience,
            entered: false,
            guarded: false,
            result: None,
            cancels: Vec::new(),
            orphans: Vec::new(),
        });
        self.in_flight = self.in_flight.saturating_add(chain.bytes);
        self.totals.attempts += 1;
        self.lines.started(chain.priority);
        self.actions.push(Action::Start {
            attempt: chain.attempt_id(),
            key: chain.key.clone(),
            generation: chain.wanted,
            priority: chain.priority,
        });
    }

    fn under_way(&mut self, id: AttemptId) -> Option<(u32, &mut Chain<K>)> {
        let slot = self.slab.slot_of(id.job)?;
        let chain = self.slab.get_mut(slot)?;
        chain.attempt.as_ref().is_some_and(|attempt| attempt.number == id.number).then_some((slot, chain))
    }

    /// Makes it stale: it may not begin to commit any more.
    pub(super) fn ask_to_stop(&mut self, slot: u32) {
        let Some(chain) = self.slab.get_mut(slot) else { return };
        let (state, id) = (chain.state, chain.attempt_id());
        let Some(attempt) = chain.attempt.as_mut().filter(|attempt| !attempt.stop) else { return };
        attempt.stop = true;
        if state == State::Running {
            self.actions.push(Action::Stop { attempt: id });
        }
    }

    /// The door: an attempt asks to commit. Until [`commit_over`](Self::commit_over) it cannot be stopped, and its
    /// end is waited for even after it [`finished`](Self::finished).
    pub fn begin_commit(&mut self, id: AttemptId) -> Gate {
        let Some((slot, chain)) = self.under_way(id) else { return Gate::Outdated };
        if !chain.may_commit() || chain.state != State::Running {
            return Gate::Outdated;
        }
        if !chain.holds.is_empty() {
            return Gate::Held;
        }
        if let Some(attempt) = &mut chain.attempt {
            (attempt.entered, attempt.guarded) = (true, true);
        }
        self.shift(slot, State::Committing);
        Gate::Open
    }

    /// The commit was refused by the other side and has had no effect: the attempt is as if it had not begun it.
    pub fn abandon_commit(&mut self, now: Instant, id: AttemptId) {
        let Some((slot, chain)) = self.under_way(id) else { return };
        let id = chain.attempt_id();
        let Some(attempt) = chain.attempt.as_mut().filter(|attempt| attempt.entered && attempt.guarded)
        else {
            return;
        };
        (attempt.entered, attempt.guarded) = (false, false);
        let (stop, over) = (attempt.stop, attempt.result.is_some());
        self.quieten(slot);
        self.shift(slot, State::Running);
        if over {
            self.end(now, slot);
        } else if stop {
            self.actions.push(Action::Stop { attempt: id });
        }
        self.settle(now);
    }

    /// The door's guard is gone. The attempt stays `Committing` to its end.
    pub fn commit_over(&mut self, now: Instant, id: AttemptId) {
        let Some((slot, chain)) = self.under_way(id) else { return };
        let Some(attempt) = &mut chain.attempt else { return };
        attempt.guarded = false;
        if attempt.result.is_some() {
            self.end(now, slot);
            self.settle(now);
        }
    }

    /// The runner is done with this attempt: nothing of it goes on. `Ok` after the door means that its generation is
    /// committed; `Ok` without it, unless it was asked to stop, that there was nothing to commit.
    pub fn finished(&mut self, now: Instant, id: AttemptId, result: Result<(), Failure>) {
        let Some((slot, chain)) = self.under_way(id) else { return };
        let Some(attempt) = chain.attempt.as_mut().filter(|attempt| attempt.result.is_none()) else { return };
        attempt.result = Some(result);
        if !attempt.guarded {
            self.end(now, slot);
            self.settle(now);
        }
    }

    fn end(&mut self, now: Instant, slot: u32) {
        let Some(chain) = self.slab.get_mut(slot) else { return };
        let Some(mut attempt) = chain.attempt.take() else { return };
        let result = attempt.result.take().unwrap_or(Ok(()));
        let done = result.is_ok() && (attempt.entered || !attempt.stop);
        let counts = done && !attempt.cancelled;
        if counts {
            chain.committed = Some(attempt.generation);
            (chain.failures, chain.outdated) = (0, 0);
            (chain.uncertain, chain.failure) = (None, None);
        } else if let (Err(failure), true) = (&result, attempt.entered) {
            chain.uncertain = Some(failure.clone());
        }
        self.in_flight = self.in_flight.saturating_sub(attempt.bytes);
        self.totals.committed += u64::from(done);
        if attempt.entered {
            self.quieten(slot);
        }
        if attempt.cancels.is_empty() && !attempt.cancelled {
            self.leave_epoch(slot, attempt.since, done);
        } else {
            self.answer_cancels(slot, &mut attempt, done);
        }
        if counts {
            self.reached(slot, attempt.generation);
        }
        self.go_on(now, slot, &attempt, done, result.err());
    }

    /// Accounts for the enqueues that an attempt stood for: over, or back to be wanted.
    pub(super) fn leave_epoch(&mut self, slot: u32, since: Option<u64>, over: bool) {
        let Some(since) = since else { return };
        let Some(chain) = self.slab.get_mut(slot).filter(|_| !over) else { return self.epochs.leave(since) };
        if let Some(later) = chain.since.replace(since) {
            self.epochs.leave(later);
        }
    }

    /// What becomes of the chain after an attempt.
    fn go_on(&mut self, now: Instant, slot: u32, attempt: &Attempt, done: bool, error: Option<Failure>) {
        let Some(chain) = self.slab.get_mut(slot) else { return };
        let reached = done && !attempt.cancelled && chain.wanted <= attempt.generation;
        if !chain.wants {
            let outcome = if done { Outcome::Done(attempt.generation) } else { Outcome::Cancelled };
            self.remove(slot, if done { State::Done } else { State::Cancelled }, &outcome);
        } else if reached {
            self.remove(slot, State::Done, &Outcome::Done(attempt.generation));
        } else if let Some(failure) = chain.doomed.take() {
            self.fail(slot, &failure);
        } else if let Some(failure) = error.filter(|_| !attempt.stop || attempt.entered) {
            self.totals.failures += 1;
            self.failed_once(now, slot, attempt, &failure);
        } else {
            let state = chain.waiting_state();
            self.shift(slot, state);
            self.bide(now, slot);
        }
    }

    /// A job that may begin, but not yet, waits for its time.
    pub(super) fn bide(&mut self, now: Instant, slot: u32) {
        let Some(chain) = self.slab.get(slot) else { return };
        let waits = chain.state == State::Queued && chain.priority == Priority::Background;
        if let Some(at) = chain.not_before.filter(|at| waits && *at > now) {
            self.shift(slot, State::RetryAt);
            self.wake_at(slot, at);
        }
    }

    fn failed_once(&mut self, now: Instant, slot: u32, attempt: &Attempt, failure: &Failure) {
        let Some(chain) = self.slab.get_mut(slot) else { return };
        chain.failure = Some(failure.clone());
        chain.failures = chain.failures.saturating_add(1);
        let newer = attempt.cancelled || chain.wanted > attempt.generation;
        if newer && failure.class() == Class::Permanent {
            chain.failures = 0;
            let state = chain.waiting_state();
            self.shift(slot, state);
            return self.bide(now, slot);
        }
        match self.waits.after(chain.failures, failure).map(|wait| now + wait) {
            None => self.fail(slot, failure),
            Some(_) if !chain.after.is_empty() => self.shift(slot, State::Blocked),
            Some(at) => {
                self.shift(slot, State::RetryAt);
                self.wake_at(slot, at);
            }
        }
    }

    fn wake_at(&mut self, slot: u32, at: Instant) {
        if let Some(chain) = self.slab.get_mut(slot) {
            chain.retry_at = Some(at);
            self.timers.insert((at, slot));
        }
    }

    /// What a cancel of an attempt could still do, now that the attempt is over.
    pub(super) fn answer(attempt: &Attempt, done: bool, uncertain: Option<Failure>) -> Answer {
        let committed = if done { Some(attempt.generation) } else { attempt.before };
        match uncertain {
            Some(failure) if !done => Answer::TooLate(Outcome::Failed(failure)),
            _ => committed.map_or(Answer::Aborted, |committed| Answer::TooLate(Outcome::Done(committed))),
        }
    }

    fn reached(&mut self, slot: u32, generation: Generation) {
        let Some(chain) = self.slab.get_mut(slot) else { return };
        let over: Vec<_> = chain.watchers.extract_if(.., |(wanted, _)| *wanted <= generation).collect();
        for (_, watch) in over {
            self.tell(watch, Outcome::Done(generation));
        }
    }
}
