//! Waiting: for a generation of a key, and for everything.

use super::Core;
use super::chain::Watch;
use crate::action::{Action, Outcome};
use crate::job::{BarrierId, Generation, JobId, Key, TicketId};
use crate::states::State;

impl<K: Key> Core<K> {
    /// Waits for `generation` of `key`, or a later one; for what is wanted now, if that is less.
    /// [`Action::Resolved`] tells. `None` if the key has nothing under way: then it was done, cancelled or never
    /// enqueued.
    pub fn watch(&mut self, key: &K, generation: Generation) -> Option<(JobId, TicketId)> {
        let slot = self.slab.find(key)?;
        let ticket = TicketId(self.fresh_id());
        let chain = self.slab.get_mut(slot)?;
        let job = chain.job;
        let now = match (&chain.failure, chain.committed) {
            (_, Some(committed)) if committed >= generation => Some(Outcome::Done(committed)),
            (Some(failure), _) if chain.state == State::Failed => Some(Outcome::Failed(failure.clone())),
            _ => None,
        };
        let watch = Watch::Ticket(ticket);
        match (now, &mut chain.attempt) {
            (Some(outcome), _) => self.actions.push(Action::Resolved { ticket, outcome }),
            (None, Some(attempt)) if !chain.wants => attempt.orphans.push((generation, watch)),
            (None, _) => chain.watchers.push((generation.min(chain.wanted), watch)),
        }
        Some((job, ticket))
    }

    /// Nobody waits with this ticket any more. The job is not touched. O(those who wait for the job).
    pub fn forget(&mut self, job: JobId, ticket: TicketId) {
        let Some(chain) = self.slab.slot_of(job).and_then(|slot| self.slab.get_mut(slot)) else { return };
        let other = |(_, watch): &(Generation, Watch)| *watch != Watch::Ticket(ticket);
        chain.watchers.retain(other);
        if let Some(attempt) = &mut chain.attempt {
            attempt.orphans.retain(other);
        }
    }

    /// [`Action::Passed`] once every enqueue before this is over: committed, failed for good, or cancelled. It lists
    /// the failures among these, those that are visible already included. O(failures).
    pub fn barrier(&mut self) -> BarrierId {
        let id = BarrierId(self.fresh_id());
        self.epochs.barrier(id, self.failures());
        for (barrier, failures) in self.epochs.passed() {
            self.actions.push(Action::Passed { barrier, failures });
        }
        id
    }

    /// Nobody waits at this barrier any more.
    pub fn forget_barrier(&mut self, barrier: BarrierId) {
        self.epochs.forget(barrier);
    }
}
