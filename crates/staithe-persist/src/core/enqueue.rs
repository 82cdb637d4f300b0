//! Enqueue, coalesce, retarget, hurry.

use std::time::Instant;

use super::Core;
use super::chain::{Chain, Wait, Watch};
use crate::action::Outcome;
use crate::error::Refused;
use crate::job::{Generation, JobId, Key};
use crate::order::{After, Needs, Order, Overlap, Priority, Retargeted};
use crate::states::State;

impl<K: Key> Core<K> {
    /// Asks for `generation` of `key`. What the key has queued is coalesced with this; what it has running is
    /// outdated or lets finish, as [`Order::overlap`] says, and the job runs once more after it. A generation that is
    /// no higher than one that is wanted changes nothing but the priority. O(1), and O(blocked) with dependencies.
    ///
    /// # Errors
    /// [`Refused`]: `Full` only if the key has nothing here yet.
    pub fn enqueue(
        &mut self,
        now: Instant,
        key: K,
        generation: Generation,
        order: Order<K>,
    ) -> Result<JobId, Refused> {
        self.admit(now, key, generation, order, None)
    }

    /// [`enqueue`](Self::enqueue) into room that was granted for `reserved` bytes, and is used up by this unless it
    /// is refused. The job may be of another weight than was reserved.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue), without `Full`.
    pub fn enqueue_reserved(
        &mut self,
        now: Instant,
        reserved: u64,
        key: K,
        generation: Generation,
        order: Order<K>,
    ) -> Result<JobId, Refused> {
        self.admit(now, key, generation, order, Some(reserved))
    }

    fn admit(
        &mut self,
        now: Instant,
        key: K,
        generation: Generation,
        order: Order<K>,
        reserved: Option<u64>,
    ) -> Result<JobId, Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        let found = self.slab.find(&key);
        if self.would_wait_for_itself(found, &order.after) {
            return Err(Refused::Cycle);
        }
        if found.is_none() && reserved.is_none() && !self.space.try_take(order.bytes) {
            return Err(Refused::Full);
        }
        if let Some(reserved) = reserved {
            self.space.give(reserved);
            if found.is_none() {
                self.space.take(order.bytes);
            }
        }
        self.totals.enqueued += 1;
        let slot = match found {
            Some(slot) => {
                self.coalesce(slot, generation, &order);
                slot
            }
            None => self.begin(now, key, generation, &order),
        };
        let job = self.slab.get(slot).map_or(JobId::new(slot, 0), |chain| chain.job);
        for after in order.after {
            self.depend(slot, job, &after);
        }
        self.take_up(now, slot, order.priority);
        self.grant();
        self.settle(now);
        Ok(job)
    }

    fn begin(&mut self, now: Instant, key: K, generation: Generation, order: &Order<K>) -> u32 {
        let holds = self.holds_over(&key);
        let slot = self.slab.insert(key, |key, job| Chain::new(key, job, generation, now));
        self.counts[State::Queued as usize] += 1;
        if let Some(chain) = self.slab.get_mut(slot) {
            chain.since = Some(self.epochs.enter());
            (chain.bytes, chain.holds) = (order.bytes, holds);
            chain.not_before = order.not_before;
            chain.priority = order.priority;
        }
        slot
    }

    /// Takes a newer wish into the chain; what it means for the chain's place is for [`take_up`](Self::take_up).
    fn coalesce(&mut self, slot: u32, generation: Generation, order: &Order<K>) {
        self.totals.coalesced += 1;
        let Some(chain) = self.slab.get_mut(slot) else { return };
        if !chain.wants || generation >= chain.wanted {
            self.space.change(chain.bytes, order.bytes);
            (chain.wanted, chain.bytes) = (generation, order.bytes);
        }
        if !chain.wants {
            (chain.wants, chain.committed) = (true, None);
        }
        if chain.state == State::Failed {
            (chain.failure, chain.failures) = (None, 0);
        }
        if chain.attempt.as_ref().is_some_and(|a| chain.since.is_none() && generation > a.generation) {
            chain.not_before = order.not_before;
        }
        let Some(attempt) = &mut chain.attempt else {
            chain.since.get_or_insert_with(|| self.epochs.enter());
            return;
        };
        if attempt.cancelled || generation > attempt.generation {
            chain.since.get_or_insert_with(|| self.epochs.enter());
        }
        let outdates = order.overlap == Overlap::Outdates && !attempt.patient && !attempt.stop;
        if outdates && generation > attempt.generation {
            chain.outdated = chain.outdated.saturating_add(1);
            self.ask_to_stop(slot);
        }
    }

    /// Brings the chain to where it belongs after an enqueue: blocked, due at once, or in another line.
    fn take_up(&mut self, now: Instant, slot: u32, priority: Priority) {
        let Some(chain) = self.slab.get(slot) else { return };
        match chain.state {
            State::Queued | State::RetryAt if !chain.after.is_empty() => self.shift(slot, State::Blocked),
            State::Failed => self.shift(slot, chain.waiting_state()),
            _ => {}
        }
        self.fail_if_doomed(slot);
        match priority {
            Priority::Waited => self.hurry_slot(slot),
            Priority::Background => {
                self.bide(now, slot);
                self.line_up(slot);
            }
        }
        self.hurry_what_it_needs(slot);
    }

    fn fail_if_doomed(&mut self, slot: u32) {
        let idle = |chain: &&mut Chain<K>| chain.attempt.is_none();
        if let Some(failure) = self.slab.get_mut(slot).filter(idle).and_then(|chain| chain.doomed.take()) {
            self.shift(slot, State::Blocked);
            self.fail(slot, &failure);
        }
    }

    /// Notes that `job` waits for what `after.key` has under way, unless it does already.
    fn depend(&mut self, slot: u32, job: JobId, after: &After<K>) {
        let id = self.fresh_id();
        let Some(other) = self.slab.find(&after.key).filter(|other| *other != slot) else { return };
        let Some(on) = self.slab.get(other) else { return };
        if on.state == State::Failed {
            let failure = on.failure.clone();
            if let Some(chain) = self.slab.get_mut(slot).filter(|_| after.needs == Needs::Done) {
                chain.doomed = Some(super::needed(("has failed", failure)));
            }
            return;
        }
        let leaving = on.attempt.as_ref().filter(|_| !on.wants).map(|attempt| attempt.generation);
        let generation = leaving.unwrap_or(on.wanted);
        // What is cancelled while it runs is of the round before.
        let round = on.round.wrapping_sub(u32::from(leaving.is_some()));
        let wait = Wait { id, on: on.job, round, generation, needs: after.needs };
        let Some(chain) = self.slab.get_mut(slot) else { return };
        if chain.after.iter().any(|other| Wait { id, ..*other } == wait) {
            return;
        }
        chain.after.push(wait);
        let watch = Watch::Dependent { job, wait: id, needs: after.needs };
        let Some(on) = self.slab.get_mut(other) else { return };
        match &mut on.attempt {
            Some(attempt) if leaving.is_some() => attempt.orphans.push((generation, watch)),
            _ => on.watchers.push((generation, watch)),
        }
    }

    /// Whether a dependency leads back to the chain. O(jobs that block).
    fn would_wait_for_itself(&self, slot: Option<u32>, after: &[After<K>]) -> bool {
        let Some(job) = slot.and_then(|slot| self.slab.get(slot)).map(|chain| chain.job) else {
            return false;
        };
        let others = after.iter().filter_map(|after| self.slab.find(&after.key)).filter(|s| Some(*s) != slot);
        let mut open: Vec<u32> = others.collect();
        let mut seen = hashbrown::HashSet::new();
        while let Some(slot) = open.pop() {
            let Some(chain) = self.slab.get(slot).filter(|_| seen.insert(slot)) else { continue };
            if chain.job == job {
                return true;
            }
            open.extend(chain.after.iter().filter_map(|wait| self.slab.slot_of(wait.on)));
        }
        false
    }

    /// Raises the generation of what `key` has queued or running, which stays queued: where its effect goes is for
    /// the caller to resolve when it commits. `None` if nothing of the key is wanted. Unlike an enqueue it outdates a
    /// running attempt whatever [`Config::patience`](crate::Config::patience) says.
    pub fn retarget(&mut self, now: Instant, key: &K, generation: Generation) -> Option<Retargeted> {
        let slot = self.slab.find(key)?;
        let chain = self.slab.get_mut(slot)?;
        let answer = match (&chain.attempt, chain.state) {
            (_, State::Failed) => Retargeted::Failed,
            _ if !chain.wants => return None,
            (Some(attempt), _) if attempt.generation >= generation => Retargeted::Queued,
            (Some(attempt), State::Committing) => {
                chain.since.get_or_insert_with(|| self.epochs.enter());
                Retargeted::TooLate(attempt.generation)
            }
            (Some(_), _) => Retargeted::Outdated,
            (None, _) => Retargeted::Queued,
        };
        chain.wanted = chain.wanted.max(generation);
        if matches!(answer, Retargeted::Outdated | Retargeted::TooLate(_)) {
            self.ask_to_stop(slot);
        }
        self.settle(now);
        Some(answer)
    }

    /// Puts what `key` has under way, and what that is blocked on, before what nobody waits for; a retry is due at
    /// once. Whether there is any.
    pub fn hurry(&mut self, now: Instant, key: &K) -> bool {
        let Some(slot) = self.slab.find(key) else { return false };
        self.hurry_slot(slot);
        self.hurry_what_it_needs(slot);
        self.settle(now);
        true
    }

    fn hurry_slot(&mut self, slot: u32) {
        let Some(chain) = self.slab.get(slot) else { return };
        if chain.priority == Priority::Background {
            self.lines.remove(&mut self.slab, slot);
        }
        let Some(chain) = self.slab.get_mut(slot) else { return };
        chain.priority = Priority::Waited;
        match chain.state {
            State::RetryAt => self.shift(slot, State::Queued),
            _ => self.line_up(slot),
        }
    }

    /// What a waited-for job is blocked on is waited for too. O(what it blocks on that was not).
    fn hurry_what_it_needs(&mut self, slot: u32) {
        let waits = |chain: &&Chain<K>| chain.priority == Priority::Waited && !chain.after.is_empty();
        let Some(chain) = self.slab.get(slot).filter(waits) else { return };
        let needed = |chain: &Chain<K>| chain.after.iter().map(|wait| wait.on).collect::<Vec<_>>();
        let mut open = needed(chain);
        while let Some(on) = open.pop() {
            let Some(slot) = self.slab.slot_of(on) else { continue };
            let Some(chain) = self.slab.get(slot) else { continue };
            if chain.priority == Priority::Background || chain.state == State::RetryAt {
                open.extend(needed(chain));
                self.hurry_slot(slot);
            }
        }
    }

    /// Makes the next attempt of `key` due now; whether it waited for its time.
    pub fn retry(&mut self, now: Instant, key: &K) -> bool {
        let Some(slot) = self.slab.find(key) else { return false };
        let waits = self.slab.get(slot).is_some_and(|chain| chain.state == State::RetryAt);
        if waits {
            self.shift(slot, State::Queued);
            self.settle(now);
        }
        waits
    }

    /// Makes every next attempt due now; how many there were. O(retries).
    pub fn retry_all(&mut self, now: Instant) -> usize {
        let due: Vec<u32> = self.timers.iter().map(|(_, slot)| *slot).collect();
        for slot in &due {
            self.shift(*slot, State::Queued);
        }
        self.settle(now);
        due.len()
    }

    /// Tells a watch what became of what it watched.
    pub(super) fn tell(&mut self, watch: Watch, outcome: Outcome) {
        match watch {
            Watch::Ticket(ticket) => {
                self.actions.push(crate::action::Action::Resolved { ticket, outcome });
            }
            Watch::Dependent { job, wait, needs } => {
                self.passed_on.push_back(super::PassedOn { job, wait, needs, outcome });
            }
        }
    }
}
