//! The state machine of one queue. Pure: no lock, no waker, no clock; every call in every order is answered.
//!
//! ```text
//!              fail, foreign part                    last unread byte below the failure read,
//!  Streaming ───────────────────────▶ Draining ──────────────────────────────────────────▶ Failed
//!      │                                  │            none in flight                         │
//!      └───────────────── close ──────────┴─────▶ Ended            (terminal)      (terminal)─┘
//! ```
//! *Superseded* is the state of a ticket, not of the queue: a reset, or a reader that went elsewhere, removes
//! the ticket, and its next push is told so.
//!
//! Invariants:
//! 1. Bytes on the shelf are of `version`. A part of another one ends the streaming, at its offset.
//! 2. The pending ranges of tickets and the parts on the shelf are pairwise disjoint; `covered` is their union.
//! 3. A demand's `missing` is the number of its bytes that are not on the shelf. Bytes of a demand never leave
//!    the shelf, except when the queue fails or ends.
//! 4. `held()` is the bytes on the shelf plus the bytes pending. It grows only in [`Core::admit`]; every byte
//!    that it loses is reported once in [`Effects::freed`].
//! 5. A failure, once there, is never replaced; the offset that it starts at can only move down.

mod ends;

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use crate::error::{PushError, ReadError};
use crate::planner::{Planned, Planner, PlannerConfig};
use crate::shelf::{Shelf, Taken};
use crate::slices::ReadSlices;
use crate::spans::Spans;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TicketId(u64);

/// Ascends in the order in which reads began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReadId(u64);

/// Where a queue is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase<V, E> {
    Streaming,
    Draining { at: u64, error: ReadError<V, E> },
    Failed(ReadError<V, E>),
    Ended,
}

/// The state of a queue, without its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueueState {
    /// Parts come in, reads are served, fetches are planned.
    Streaming,
    /// The source failed ahead of the reader: what lies below is still served, nothing more is planned.
    Draining,
    /// Every read gets the same error.
    Failed,
    /// Closed.
    Ended,
}

#[derive(Debug)]
struct Ticket {
    range: Range<u64>,
    pending: Spans,
}

#[derive(Debug)]
struct Demand {
    range: Range<u64>,
    missing: u64,
}

/// What a call wants done outside of the lock.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Reads to poll again.
    pub(crate) wake: Vec<ReadId>,
    /// Whether there may be something new to fetch, or nothing ever again.
    pub(crate) replan: bool,
    /// Bytes no longer held.
    pub(crate) freed: u64,
    /// Buffers to drop.
    pub(crate) trash: Vec<Bytes>,
}

#[derive(Debug)]
pub(crate) struct Core<V, E> {
    size: u64,
    version: V,
    generation: u64,
    phase: Phase<V, E>,
    planner: Planner,
    shelf: Shelf,
    tickets: BTreeMap<TicketId, Ticket>,
    demands: BTreeMap<ReadId, Demand>,
    covered: Spans,
    next_id: u64,
    effects: Effects,
}

pub(crate) enum Begun<V, E> {
    Ready(Result<ReadSlices, ReadError<V, E>>),
    Waiting(ReadId),
}

impl<V: Clone + Eq, E: Clone> Core<V, E> {
    pub(crate) fn new(size: u64, version: V, config: PlannerConfig) -> Self {
        Self {
            size,
            version,
            generation: 0,
            phase: Phase::Streaming,
            planner: Planner::new(size, config),
            shelf: Shelf::default(),
            tickets: BTreeMap::new(),
            demands: BTreeMap::new(),
            covered: Spans::new(),
            next_id: 0,
            effects: Effects::default(),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn version(&self) -> &V {
        &self.version
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn planner(&self) -> &Planner {
        &self.planner
    }

    pub(crate) fn state(&self) -> QueueState {
        match self.phase {
            Phase::Streaming => QueueState::Streaming,
            Phase::Draining { .. } => QueueState::Draining,
            Phase::Failed(_) => QueueState::Failed,
            Phase::Ended => QueueState::Ended,
        }
    }

    /// Bytes on the shelf.
    pub(crate) fn present(&self) -> u64 {
        self.shelf.bytes()
    }

    /// Bytes on the shelf and pending.
    pub(crate) fn held(&self) -> u64 {
        self.covered.bytes()
    }

    pub(crate) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// Takes the count of freed bytes alone, for a caller that returns them at once.
    pub(crate) fn take_freed(&mut self) -> u64 {
        std::mem::take(&mut self.effects.freed)
    }

    /// Has every waiting read, and whoever waits for fetches, ask again.
    pub(crate) fn recall(&mut self) {
        self.wake_everyone();
    }

    pub(crate) fn waiting(&self) -> bool {
        self.demands.values().any(|d| d.missing > 0)
    }

    /// Whether a read waits for bytes that are neither here nor in flight.
    pub(crate) fn unplanned_demand(&self) -> bool {
        self.demands.values().any(|d| d.missing > 0 && !self.covered.contains(&d.range))
    }

    // ---- the reader ----

    /// Begins a read of `len` bytes at `offset`, clamped to the object.
    pub(crate) fn begin_read(&mut self, offset: u64, len: u64, keep: u64) -> Begun<V, E> {
        let start = offset.min(self.size);
        let range = start..start.saturating_add(len).min(self.size);
        let outcome = self.outcome(&range);
        if self.state() == QueueState::Streaming && !range.is_empty() {
            match outcome {
                Some(_) => self.planner.note_hit(&range),
                None => self.planner.note(&range),
            }
            self.give_up_uninteresting();
            self.effects.replan = true;
        }
        if let Some(outcome) = outcome {
            self.served(&range, &outcome);
            self.shed(keep);
            return Begun::Ready(outcome);
        }
        let id = ReadId(self.fresh_id());
        let present: u64 = self.present_in(&range);
        self.demands.insert(id, Demand { missing: range.end - range.start - present, range });
        Begun::Waiting(id)
    }

    /// Looks whether a waiting read is decided; if so, it is over.
    pub(crate) fn poll_read(&mut self, id: ReadId, keep: u64) -> Option<Result<ReadSlices, ReadError<V, E>>> {
        let Some(demand) = self.demands.get(&id) else { return Some(Err(self.error())) };
        if demand.missing > 0 && self.state() == QueueState::Streaming {
            return None;
        }
        let range = demand.range.clone();
        let outcome = self.outcome(&range)?;
        self.demands.remove(&id);
        self.served(&range, &outcome);
        self.shed(keep);
        Some(outcome)
    }

    /// Withdraws a read. What was fetched for it stays until it is of no interest.
    pub(crate) fn cancel_read(&mut self, id: ReadId) {
        self.demands.remove(&id);
    }

    /// Lets go of bytes already read, until `keep` of them are left.
    pub(crate) fn shed(&mut self, keep: u64) {
        let demands = &self.demands;
        let taken = self.shelf.evict(keep, |part| demands.values().any(|d| overlap(&d.range, part) > 0));
        self.drop_taken(taken);
    }

    fn outcome(&self, range: &Range<u64>) -> Option<Result<ReadSlices, ReadError<V, E>>> {
        match &self.phase {
            Phase::Failed(error) => Some(Err(error.clone())),
            Phase::Ended => Some(Err(ReadError::Ended)),
            Phase::Streaming => self.shelf.slices(range).map(Ok),
            Phase::Draining { at, error } => {
                if range.end > *at || !self.covered.contains(range) {
                    return Some(Err(error.clone()));
                }
                self.shelf.slices(range).map(Ok)
            }
        }
    }

    fn served(&mut self, range: &Range<u64>, outcome: &Result<ReadSlices, ReadError<V, E>>) {
        if outcome.is_ok() {
            self.shelf.consume(range);
            self.settle_draining();
        }
    }

    fn error(&self) -> ReadError<V, E> {
        match &self.phase {
            Phase::Draining { error, .. } | Phase::Failed(error) => error.clone(),
            Phase::Streaming | Phase::Ended => ReadError::Ended,
        }
    }

    fn present_in(&self, range: &Range<u64>) -> u64 {
        let mut here: Spans = self.covered.overlaps(range).collect();
        for pending in self.tickets.values().flat_map(|t| t.pending.iter()) {
            here.remove(pending);
        }
        here.bytes()
    }

    // ---- the planner ----

    /// What to fetch now. Empty unless streaming.
    pub(crate) fn plan(&self, cap: u64) -> Vec<Planned> {
        if self.state() != QueueState::Streaming {
            return Vec::new();
        }
        let demands: Vec<_> =
            self.demands.values().filter(|d| d.missing > 0).map(|d| d.range.clone()).collect();
        self.planner.plan(&self.covered, &demands, cap)
    }

    /// Whether `range` serves the read that has waited the longest.
    pub(crate) fn most_urgent(&self, range: &Range<u64>) -> bool {
        let oldest = self.demands.values().find(|d| d.missing > 0);
        oldest.is_some_and(|d| overlap(&d.range, range) > 0)
    }

    /// Takes a planned range into flight. Only what is not yet covered is charged; `None` if that is nothing.
    pub(crate) fn admit(&mut self, range: Range<u64>) -> Option<TicketId> {
        let pending: Spans = self.covered.gaps(&range).into_iter().collect();
        if pending.is_empty() || self.state() != QueueState::Streaming {
            return None;
        }
        self.covered.insert(range.clone());
        let id = TicketId(self.fresh_id());
        self.tickets.insert(id, Ticket { range, pending });
        Some(id)
    }

    /// Gives up unread bytes and fetches that no stream and no read is interested in any more.
    fn give_up_uninteresting(&mut self) {
        let planner = &self.planner;
        let first_pending = self.tickets.values().filter_map(|t| t.pending.first());
        // The common case, without an allocation: everything is ahead of some stream.
        let all_wanted = self.shelf.unread().iter().all(|span| planner.is_interested(span))
            && first_pending.into_iter().all(|p| planner.is_interested(&(p.start..p.start + 1)));
        if !all_wanted {
            self.give_up_beyond(self.planner.interests());
        }
    }

    /// Gives up everything that no waiting read touches: read-ahead, fetches, bytes kept for a seek back.
    pub(crate) fn give_up_all_but_demand(&mut self) {
        self.give_up_beyond(Spans::new());
        self.shed(0);
    }

    fn give_up_beyond(&mut self, mut keep: Spans) {
        for demand in self.demands.values() {
            keep.insert(demand.range.clone());
        }
        let stale: Vec<_> = self.shelf.unread().iter().flat_map(|span| keep.gaps(span)).collect();
        for range in stale {
            self.shelf.consume(&range);
        }
        let lost = |t: &Ticket| !t.pending.is_empty() && !t.pending.iter().any(|p| keep.intersects(p));
        let dead: Vec<_> = self.tickets.iter().filter(|(_, t)| lost(t)).map(|(id, _)| *id).collect();
        for id in dead {
            self.remove_ticket(id);
        }
    }

    // ---- the fetchers ----

    pub(crate) fn is_live(&self, id: TicketId) -> bool {
        self.tickets.contains_key(&id)
    }

    /// Takes in a part. Bytes that are here already, or were, are dropped: the first ones won.
    pub(crate) fn push(
        &mut self,
        id: TicketId,
        offset: u64,
        version: &V,
        part: &Bytes,
    ) -> Result<(), PushError> {
        let Some(ticket) = self.tickets.get_mut(&id) else { return Err(self.refusal()) };
        if *version != self.version {
            let at = offset.clamp(ticket.range.start, ticket.range.end);
            let expected = self.version.clone();
            self.fail_at(at, ReadError::VersionChanged { expected, found: version.clone(), offset: at });
            return Err(PushError::VersionChanged);
        }
        let Some(end) = offset.checked_add(part.len() as u64) else { return Err(PushError::OutOfRange) };
        if offset < ticket.range.start || end > ticket.range.end {
            return Err(PushError::OutOfRange);
        }
        let wanted: Vec<_> = ticket.pending.overlaps(&(offset..end)).collect();
        for piece in wanted {
            ticket.pending.remove(&piece);
            let bytes = part.slice((piece.start - offset) as usize..(piece.end - offset) as usize);
            self.shelf.insert(piece.start, bytes);
            for (read, demand) in &mut self.demands {
                let arrived = overlap(&demand.range, &piece);
                demand.missing -= arrived;
                if arrived > 0 && demand.missing == 0 {
                    self.effects.wake.push(*read);
                }
            }
        }
        Ok(())
    }

    /// Ends a fetch; what it did not deliver is planned again. Answers how many bytes that is.
    pub(crate) fn finish(&mut self, id: TicketId) -> u64 {
        let missing = self.remove_ticket(id);
        self.settle_draining();
        missing
    }

    /// Ends a fetch and the streaming with it, at the first byte that it did not deliver. `false` if the
    /// ticket is not live: nobody cares.
    pub(crate) fn fail_ticket(&mut self, id: TicketId, error: E) -> bool {
        let Some(ticket) = self.tickets.get(&id) else { return false };
        let at = ticket.pending.first().map_or(ticket.range.end, |p| p.start);
        self.fail_at(at, ReadError::Source(error));
        true
    }

    fn refusal(&self) -> PushError {
        match self.phase {
            Phase::Streaming => PushError::Superseded,
            Phase::Draining { .. } | Phase::Failed(_) => PushError::Failed,
            Phase::Ended => PushError::Ended,
        }
    }

    fn remove_ticket(&mut self, id: TicketId) -> u64 {
        let Some(ticket) = self.tickets.remove(&id) else { return 0 };
        let missing = ticket.pending.bytes();
        if missing == 0 {
            return 0;
        }
        for pending in ticket.pending.iter() {
            self.covered.remove(pending);
        }
        self.effects.freed += missing;
        self.effects.replan = true;
        let orphaned = |d: &Demand| ticket.pending.intersects(&d.range);
        self.effects.wake.extend(self.demands.iter().filter(|(_, d)| orphaned(d)).map(|(id, _)| *id));
        missing
    }

    // ---- shared by all of the above, and by the ends ----

    fn drop_taken(&mut self, taken: Vec<Taken>) {
        for (range, bytes) in taken {
            self.covered.remove(&range);
            self.effects.freed += range.end - range.start;
            self.effects.trash.push(bytes);
        }
    }

    fn wake_everyone(&mut self) {
        self.effects.wake.extend(self.demands.keys().copied());
        self.effects.replan = true;
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> u64 {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}
