//! The queue: what callers hold.

use std::sync::Arc;
use std::time::Instant;

use futures::future::{Either, select};

use crate::config::Config;
use crate::core::Core;
use crate::error::{Failure, Refused};
use crate::guards::{Barrier, Cancelling, Hold, Permit, Ticket};
use crate::info::{JobInfo, Stats};
use crate::job::{CancelId, Generation, HoldId, Key};
use crate::order::{Order, Retargeted};
use crate::promise::promise;
use crate::runner::Runner;
use crate::runtime::Runtime;
use crate::shared::{Board, Shared};

/// A queue of cancellable jobs, one chain a key. See the [crate documentation](crate) for the whole picture.
///
/// Dropping it starts nothing more and asks what runs to stop; tickets that are open then say
/// [`Outcome::Abandoned`](crate::Outcome::Abandoned).
#[derive(Debug)]
pub struct Queue<K: Key> {
    shared: Arc<Shared<K>>,
}

impl<K: Key> Queue<K> {
    /// A queue whose jobs `runner` does, on `runtime`: with tokio, a `Handle`.
    pub fn new(config: Config, runner: Arc<dyn Runner<K>>, runtime: impl Runtime) -> Self {
        Self { shared: Shared::new(Core::new(config), runner, Box::new(runtime)) }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Board<K>, Instant) -> R) -> R {
        let now = self.shared.now();
        self.shared.with(|board| f(board, now))
    }

    /// Asks for `generation` of `key`. What the key has queued is coalesced with this; what it has running is
    /// outdated, or may finish ([`Order::overlap`]), and the job runs once more after it. Never blocks.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then. `Full` only if the key has nothing here yet.
    pub fn enqueue(&self, key: K, generation: Generation, order: Order<K>) -> Result<Ticket<K>, Refused> {
        self.admit(key, generation, |core, now, key| core.enqueue(now, key, generation, order))
    }

    /// [`enqueue`](Self::enqueue) into reserved room, which this uses up.
    ///
    /// # Errors
    /// `Closed` or `Cycle`; the room is returned then.
    pub fn enqueue_with(
        &self,
        permit: Permit<K>,
        key: K,
        generation: Generation,
        order: Order<K>,
    ) -> Result<Ticket<K>, Refused> {
        if !permit.is_of(&self.shared) {
            return self.enqueue(key, generation, order);
        }
        let ticket = self.admit(key, generation, |core, now, key| {
            core.enqueue_reserved(now, permit.bytes(), key, generation, order)
        })?;
        permit.used_up();
        Ok(ticket)
    }

    fn admit<J>(
        &self,
        key: K,
        generation: Generation,
        enqueue: impl FnOnce(&mut Core<K>, Instant, K) -> Result<J, Refused>,
    ) -> Result<Ticket<K>, Refused> {
        self.with(|board, now| {
            let watched = key.clone();
            enqueue(&mut board.core, now, key)?;
            self.watch(board, &watched, generation).ok_or(Refused::Closed)
        })
    }

    fn watch(&self, board: &mut Board<K>, key: &K, generation: Generation) -> Option<Ticket<K>> {
        let (job, id) = board.core.watch(key, generation)?;
        let (promise, reply) = promise();
        board.tickets.insert(id, promise);
        Some(Ticket::new(Arc::clone(&self.shared), job, id, reply))
    }

    /// Waits for room for one job of so many bytes; those who asked first get it first.
    ///
    /// # Errors
    /// `Closed` if the queue ends before there is any.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the line, or the room.
    pub async fn reserve(&self, bytes: u64) -> Result<Permit<K>, Refused> {
        let (permit, granted) = self.with(|board, _| {
            let id = board.core.reserve(bytes);
            let (promise, reply) = promise();
            board.grants.insert(id, promise);
            (Permit::new(Arc::clone(&self.shared), id, bytes), reply)
        });
        granted.await.ok_or(Refused::Closed)?;
        Ok(permit)
    }

    /// Waits for `generation` of `key` or a later one, puts its job before those that nobody waits for, and makes a
    /// retry due. `None` if the key has nothing under way: it was done, cancelled, or never enqueued.
    pub fn wait(&self, key: &K, generation: Generation) -> Option<Ticket<K>> {
        self.with(|board, now| {
            let ticket = self.watch(board, key, generation);
            board.core.hurry(now, key);
            ticket
        })
    }

    /// Is ready once every enqueue before this is over, with what of it failed for good.
    pub fn barrier(&self) -> Barrier<K> {
        self.with(|board, _| {
            let id = board.core.barrier();
            let (promise, reply) = promise();
            board.barriers.insert(id, promise);
            Barrier::new(Arc::clone(&self.shared), id, reply)
        })
    }

    /// Cancels what `key` has under way; the answers (none, or one) come when that can have no further effect. The
    /// cancel itself has happened when this returns, also if the answers are dropped.
    pub fn cancel(&self, key: &K) -> Cancelling<K> {
        self.cancelling(|core, now| core.cancel(now, [key.clone()]))
    }

    /// [`cancel`](Self::cancel) of many, in one step.
    pub fn cancel_all(&self, keys: impl IntoIterator<Item = K>) -> Cancelling<K> {
        let keys: Vec<K> = keys.into_iter().collect();
        self.cancelling(|core, now| core.cancel(now, keys))
    }

    /// [`cancel`](Self::cancel) of every key that `matches`, in one step. `matches` runs under the queue's lock and
    /// must not call it. O(jobs).
    pub fn cancel_where(&self, matches: impl FnMut(&K) -> bool) -> Cancelling<K> {
        self.cancelling(|core, now| core.cancel_where(now, matches))
    }

    /// [`cancel`](Self::cancel) of what `key` has under way for less than `generation`: that is stale, and there is
    /// nothing to do instead.
    pub fn supersede(&self, key: &K, generation: Generation) -> Cancelling<K> {
        self.cancelling(|core, now| core.supersede(now, [(key.clone(), generation)]))
    }

    /// [`supersede`](Self::supersede) of many, in one step.
    pub fn supersede_all(&self, keys: impl IntoIterator<Item = (K, Generation)>) -> Cancelling<K> {
        let keys: Vec<_> = keys.into_iter().collect();
        self.cancelling(|core, now| core.supersede(now, keys))
    }

    fn cancelling(&self, cancel: impl FnOnce(&mut Core<K>, Instant) -> CancelId) -> Cancelling<K> {
        self.with(|board, now| {
            let id = cancel(&mut board.core, now);
            let (promise, reply) = promise();
            board.cancels.insert(id, promise);
            Cancelling::new(reply)
        })
    }

    /// Raises the generation of what `key` has under way, which stays queued: where its effect goes is for the
    /// runner to resolve after [`begin_commit`](crate::Attempt::begin_commit). A running attempt is outdated and runs
    /// again. `None` if nothing is wanted of the key.
    pub fn retarget(&self, key: &K, generation: Generation) -> Option<Retargeted> {
        self.with(|board, now| board.core.retarget(now, key, generation))
    }

    /// [`retarget`](Self::retarget) of many, in one step: what it found of those that had something under way.
    pub fn retarget_all(&self, keys: impl IntoIterator<Item = (K, Generation)>) -> Vec<(K, Retargeted)> {
        let keys: Vec<_> = keys.into_iter().collect();
        self.with(|board, now| {
            let found = |(key, generation)| {
                let found = board.core.retarget(now, &key, generation)?;
                Some((key, found))
            };
            keys.into_iter().filter_map(found).collect()
        })
    }

    /// Keeps these keys from starting and from beginning to commit while the guard lives, jobs that are enqueued
    /// meanwhile included. [`Hold::quiet`] waits for those that are committing.
    pub fn hold(&self, keys: impl IntoIterator<Item = K>) -> Hold<K> {
        let keys: Vec<K> = keys.into_iter().collect();
        self.holding(|core| core.hold(keys))
    }

    /// [`hold`](Self::hold) of every key that `matches`, which runs under the queue's lock, must not call it, and
    /// must always say the same of a key.
    pub fn hold_where(&self, matches: impl Fn(&K) -> bool + Send + Sync + 'static) -> Hold<K> {
        self.holding(|core| core.hold_where(matches))
    }

    fn holding(&self, hold: impl FnOnce(&mut Core<K>) -> HoldId) -> Hold<K> {
        self.with(|board, _| {
            let id = hold(&mut board.core);
            let (promise, reply) = promise();
            board.quiet.insert(id, promise);
            Hold::new(Arc::clone(&self.shared), id, reply)
        })
    }

    /// Makes the next attempt of `key` due now; whether it waited for its time.
    pub fn retry(&self, key: &K) -> bool {
        self.with(|board, now| board.core.retry(now, key))
    }

    /// Makes every next attempt due now; how many there were.
    pub fn retry_all(&self) -> usize {
        self.with(|board, now| board.core.retry_all(now))
    }

    /// What failed for good and is not acknowledged.
    pub fn failures(&self) -> Vec<(K, Failure)> {
        self.with(|board, _| board.core.failures())
    }

    /// Takes note of a failure: the job is forgotten. `None` if `key` has no job that failed for good.
    pub fn acknowledge(&self, key: &K) -> Option<Failure> {
        self.with(|board, now| board.core.acknowledge(now, key))
    }

    /// Every job, by key. O(jobs log jobs).
    pub fn jobs(&self) -> Vec<JobInfo<K>> {
        let mut jobs = self.with(|board, now| {
            let mut jobs = board.core.jobs(now);
            for job in &mut jobs {
                board.add_progress(job);
            }
            jobs
        });
        jobs.sort_by(|a, b| a.key.cmp(&b.key));
        jobs
    }

    /// The job of one key.
    pub fn job(&self, key: &K) -> Option<JobInfo<K>> {
        self.with(|board, now| {
            let mut job = board.core.job(key, now)?;
            board.add_progress(&mut job);
            Some(job)
        })
    }

    /// The figures now.
    pub fn stats(&self) -> Stats {
        self.with(|board, _| board.core.stats())
    }

    /// Takes no more enqueues and makes every retry due; then waits until nothing is left but what failed, or for
    /// `deadline`, at which what runs is asked to stop and not waited for. Answers with what remains, failures
    /// included. The queue stays listable, and starts nothing more.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue draining, without a deadline.
    pub async fn drain(&self, deadline: Instant) -> Vec<JobInfo<K>> {
        let idle = self.with(|board, now| {
            let (promise, reply) = promise();
            board.idle.push(promise);
            board.core.close(now);
            reply
        });
        match select(idle, self.shared.runtime.sleep_until(deadline)).await {
            Either::Left(_) | Either::Right(_) => self.shared.halt(),
        }
        self.jobs()
    }
}

impl<K: Key> Drop for Queue<K> {
    fn drop(&mut self) {
        self.shared.end();
    }
}
