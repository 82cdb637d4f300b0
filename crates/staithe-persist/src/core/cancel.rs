//! Cancel and supersede: by key, by set, by predicate, each in one step.

use std::time::Instant;

use super::Core;
use super::chain::{Attempt, Chain};
use crate::action::{Action, Answer, Outcome};
use crate::error::Failure;
use crate::job::{CancelId, Generation, Key};
use crate::states::State;

/// A cancel that waits for attempts to end.
#[derive(Debug)]
pub(super) struct Pending<K> {
    left: usize,
    answers: Vec<(K, Answer)>,
}

impl<K: Key> Core<K> {
    /// Cancels what these keys have under way; [`Action::Cancelled`] answers when nothing of it can have any further
    /// effect. A job that failed is acknowledged by this. Enqueues after this are not touched. O(keys).
    pub fn cancel(&mut self, now: Instant, keys: impl IntoIterator<Item = K>) -> CancelId {
        let slots = keys.into_iter().filter_map(|key| Some((self.slab.find(&key)?, None))).collect();
        self.cancel_slots(now, slots)
    }

    /// [`cancel`](Self::cancel) of every key that `matches`. O(jobs).
    pub fn cancel_where(&mut self, now: Instant, mut matches: impl FnMut(&K) -> bool) -> CancelId {
        let matching = self.slab.iter().filter(|(_, chain)| matches(&chain.key));
        let slots = matching.map(|(slot, _)| (slot, None)).collect();
        self.cancel_slots(now, slots)
    }

    /// [`cancel`](Self::cancel) of whatever these keys have under way for less than their generation here: that is
    /// stale, and there is nothing to do instead. What is wanted of them for more stays.
    pub fn supersede(&mut self, now: Instant, keys: impl IntoIterator<Item = (K, Generation)>) -> CancelId {
        let slot = |(key, below)| Some((self.slab.find(&key)?, Some(below)));
        let slots = keys.into_iter().filter_map(slot).collect();
        self.cancel_slots(now, slots)
    }

    /// Takes note of a failure: the job is forgotten.
    pub fn acknowledge(&mut self, now: Instant, key: &K) -> Option<Failure> {
        let slot = self.slab.find(key)?;
        let chain = self.slab.get_mut(slot).filter(|chain| chain.state == State::Failed)?;
        let failure = chain.failure.take();
        self.remove(slot, State::Cancelled, &Outcome::Cancelled);
        self.settle(now);
        failure
    }

    fn cancel_slots(&mut self, now: Instant, slots: Vec<(u32, Option<Generation>)>) -> CancelId {
        let cancel = CancelId(self.fresh_id());
        let mut pending = Pending { left: 0, answers: Vec::with_capacity(slots.len()) };
        for (slot, below) in slots {
            let Some(chain) = self.slab.get(slot) else { continue };
            if chain.attempt.is_some() {
                pending.left += usize::from(self.cancel_active(slot, cancel, below));
            } else if below.is_none_or(|below| chain.wanted < below) {
                pending.answers.push((chain.key.clone(), idle_answer(chain)));
                self.totals.cancelled += 1;
                self.remove(slot, State::Cancelled, &Outcome::Cancelled);
            }
        }
        self.cancels.insert(cancel, pending);
        self.conclude(cancel);
        self.settle(now);
        cancel
    }

    /// Cancels a chain that has an attempt; whether the answer has to wait for it.
    fn cancel_active(&mut self, slot: u32, cancel: CancelId, below: Option<Generation>) -> bool {
        let Some(chain) = self.slab.get_mut(slot) else { return false };
        let all = below.is_none_or(|below| chain.wanted < below);
        let Some(attempt) = &mut chain.attempt else { return false };
        if !all && below.is_some_and(|below| attempt.generation >= below) {
            return false;
        }
        if attempt.cancels.last() == Some(&cancel) {
            return false;
        }
        attempt.cancels.push(cancel);
        if all {
            attempt.cancelled = true;
            attempt.orphans.append(&mut chain.watchers);
            (chain.wants, chain.doomed) = (false, None);
            chain.after.clear();
            chain.round = chain.round.wrapping_add(1);
            self.totals.cancelled += 1;
            if let Some(later) = chain.since.take()
                && attempt.since.replace(attempt.since.unwrap_or(later)).is_some()
            {
                self.epochs.leave(later);
            }
        }
        self.ask_to_stop(slot);
        true
    }

    /// An attempt that was cancelled is over.
    pub(super) fn answer_cancels(&mut self, slot: u32, attempt: &mut Attempt, done: bool) {
        let Some(chain) = self.slab.get_mut(slot) else { return };
        let uncertain = if attempt.cancelled { chain.uncertain.take() } else { chain.uncertain.clone() };
        let key = chain.key.clone();
        let answer = Self::answer(attempt, done, uncertain);
        for cancel in std::mem::take(&mut attempt.cancels) {
            if let Some(pending) = self.cancels.get_mut(&cancel) {
                pending.left -= 1;
                pending.answers.push((key.clone(), answer.clone()));
            }
            self.conclude(cancel);
        }
        self.leave_epoch(slot, attempt.since, done || attempt.cancelled);
        for (generation, watch) in std::mem::take(&mut attempt.orphans) {
            let outcome = match &answer {
                Answer::TooLate(Outcome::Done(g)) if generation > *g => Outcome::Cancelled,
                Answer::TooLate(outcome) => outcome.clone(),
                Answer::NotStarted | Answer::Aborted => Outcome::Cancelled,
            };
            self.tell(watch, outcome);
        }
    }

    fn conclude(&mut self, cancel: CancelId) {
        if self.cancels.get(&cancel).is_some_and(|pending| pending.left == 0)
            && let Some(Pending { answers, .. }) = self.cancels.remove(&cancel)
        {
            self.actions.push(Action::Cancelled { cancel, answers });
        }
    }
}

fn idle_answer<K>(chain: &Chain<K>) -> Answer {
    match (&chain.uncertain, chain.committed) {
        (Some(failure), _) => Answer::TooLate(Outcome::Failed(failure.clone())),
        (None, Some(committed)) => Answer::TooLate(Outcome::Done(committed)),
        (None, None) if chain.attempts > 0 => Answer::Aborted,
        (None, None) => Answer::NotStarted,
    }
}
