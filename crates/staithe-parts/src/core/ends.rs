//! How a queue fails, closes, or begins anew.

use super::{Core, Phase, QueueState};
use crate::error::ReadError;

impl<V: Clone + Eq, E: Clone> Core<V, E> {
    /// The source is gone: nothing more comes; what is here is still served.
    pub(crate) fn fail(&mut self, error: E) {
        if matches!(self.phase, Phase::Streaming | Phase::Draining { .. }) {
            self.drop_tickets(0);
            self.fail_at(self.size, ReadError::Source(error));
        }
    }

    /// The reader is done.
    pub(crate) fn close(&mut self) {
        if matches!(self.phase, Phase::Streaming | Phase::Draining { .. }) {
            self.end(Phase::Ended);
        }
    }

    /// Begins a new generation: fetches in flight are superseded, bytes and history are forgotten, waiting
    /// reads are planned anew. Changes nothing once failed or ended.
    pub(crate) fn reset(&mut self) {
        if self.state() != QueueState::Streaming {
            return;
        }
        self.generation += 1;
        self.planner.forget();
        self.drop_everything();
        for demand in self.demands.values_mut() {
            demand.missing = demand.range.end - demand.range.start;
        }
    }

    pub(super) fn fail_at(&mut self, at: u64, error: ReadError<V, E>) {
        let (at, error) = match &self.phase {
            Phase::Streaming => (at, error),
            Phase::Draining { at: before, error } => (at.min(*before), error.clone()),
            Phase::Failed(_) | Phase::Ended => return,
        };
        tracing::debug!(at, "part queue fails ahead of its reader");
        self.phase = Phase::Draining { at, error };
        self.drop_tickets(at);
        let taken = self.shelf.truncate(at);
        self.drop_taken(taken);
        self.wake_everyone();
        self.settle_draining();
    }

    /// Removes what of the tickets lies at or beyond `at`.
    fn drop_tickets(&mut self, at: u64) {
        let mut dead = Vec::new();
        for (id, ticket) in &mut self.tickets {
            for pending in ticket.pending.overlaps(&(at..u64::MAX)).collect::<Vec<_>>() {
                ticket.pending.remove(&pending);
                self.covered.remove(&pending);
                self.effects.freed += pending.end - pending.start;
            }
            if ticket.pending.is_empty() {
                dead.push(*id);
            }
        }
        for id in dead {
            self.tickets.remove(&id);
        }
    }

    /// Draining ends when nothing below the failure is left to read or to come.
    pub(super) fn settle_draining(&mut self) {
        if let Phase::Draining { error, .. } = &self.phase {
            let pending = self.tickets.values().any(|t| !t.pending.is_empty());
            if !pending && self.shelf.unread().is_empty() {
                let failed = Phase::Failed(error.clone());
                self.end(failed);
            }
        }
    }

    fn end(&mut self, phase: Phase<V, E>) {
        self.phase = phase;
        self.drop_everything();
        self.demands.values_mut().for_each(|d| d.missing = d.range.end - d.range.start);
    }

    fn drop_everything(&mut self) {
        self.drop_tickets(0);
        self.tickets.clear();
        let taken = self.shelf.clear();
        self.drop_taken(taken);
        self.wake_everyone();
    }
}
