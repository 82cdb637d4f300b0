//! Sequences of events, four bytes each, for the property test and the fuzz target, checked step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use staithe_persist::{
    Action, After, Answer, AttemptId, BarrierId, CancelId, Class, Config, Core, Failure, Gate, Generation,
    HoldId, Needs, Order, Outcome, Overlap, Priority, Refused, ReserveId, State, TicketId,
};

use super::naive::{self, Naive, Out};

const KEYS: u8 = 6;

struct Driver {
    core: Core<u8>,
    naive: Naive,
    now: Instant,
    actions: Vec<Action<u8>>,
    /// Every attempt that was ever started, over or not.
    attempts: Vec<(AttemptId, u8)>,
    tickets: BTreeMap<TicketId, usize>,
    cancels: Vec<CancelId>,
    barriers: Vec<BarrierId>,
    holds: Vec<(HoldId, usize)>,
    reserves: BTreeMap<ReserveId, usize>,
    permits: Vec<(ReserveId, u64)>,
    count: usize,
}

/// Runs any bytes as a script.
pub(crate) fn run_bytes(bytes: &[u8]) {
    let mut config = Config {
        max_jobs: 5,
        max_bytes: 150,
        concurrency: 2,
        bytes_in_flight: 100,
        patience: 2,
        share: 2,
        ..Config::default()
    };
    config.retry.transient.base = Duration::from_secs(4);
    let mut driver = Driver {
        core: Core::new(config),
        naive: Naive::new(config),
        now: Instant::now(),
        actions: Vec::new(),
        attempts: Vec::new(),
        tickets: BTreeMap::new(),
        cancels: Vec::new(),
        barriers: Vec::new(),
        holds: Vec::new(),
        reserves: BTreeMap::new(),
        permits: Vec::new(),
        count: 0,
    };
    for raw in bytes.as_chunks::<4>().0.iter().take(150) {
        driver.naive.step += 1;
        driver.step(*raw);
        driver.check();
    }
}

fn failure(class: Class) -> Failure {
    Failure::new(class, "it did not work")
}

fn out(outcome: &Outcome) -> Out {
    match outcome {
        Outcome::Done(generation) => Out::Done(generation.0),
        Outcome::Failed(_) => Out::Failed,
        Outcome::Cancelled => Out::Cancelled,
        Outcome::Abandoned => panic!("the state machine abandons nothing"),
    }
}

fn answer(answer: &Answer) -> naive::Answer {
    match answer {
        Answer::NotStarted => naive::Answer::NotStarted,
        Answer::Aborted => naive::Answer::Aborted,
        Answer::TooLate(outcome) => naive::Answer::TooLate(out(outcome)),
    }
}

/// The keys of a bit mask.
fn set(mask: u8) -> Vec<u8> {
    (0..KEYS).filter(|key| mask >> key & 1 == 1).collect()
}

impl Driver {
    fn step(&mut self, [kind, a, b, c]: [u8; 4]) {
        let key = a % KEYS;
        let generation = u64::from(b % 16);
        match kind {
            0..=69 => drop(self.enqueue(key, generation, c, None)),
            70..=99 => self.begin(a),
            100..=104 => self.abandon(a),
            105..=124 => self.commit_over(a),
            125..=169 => self.finish(a, b),
            170..=175 => self.cancel_set(&set(b).into_iter().map(|key| (key, None)).collect::<Vec<_>>(), c),
            176..=179 => self.cancel_set(&[(key, Some(generation))], 0),
            180..=184 => {
                let found = self.core.retarget(self.now, &key, Generation(generation));
                assert_eq!(found, self.naive.retarget(key, generation), "what retarget finds of {key}");
            }
            185..=192 => self.hold(&set(b), c),
            193..=200 => self.release(a),
            201..=204 => {
                self.barriers.push(self.core.barrier());
                self.naive.barrier();
            }
            205..=208 => self.reserve(u64::from(c) % 60),
            209..=212 => self.use_permit(a, b, c),
            213..=222 => {
                self.now += Duration::from_millis(u64::from(b) * 20);
                self.core.tick(self.now);
            }
            223..=226 => {
                assert_eq!(self.core.hurry(self.now, &key), self.naive.jobs.contains_key(&key));
                self.naive.hurry(key);
            }
            227..=229 => self.retry(key, b),
            230..=239 => {
                let known = self.naive.acknowledge(key);
                assert_eq!(self.core.acknowledge(self.now, &key).is_some(), known);
            }
            240..=251 => self.watch(key, generation, c),
            252..=253 => {
                self.core.close(self.now);
                self.naive.closed = true;
                self.naive.jobs.values_mut().for_each(|job| job.retry = None);
            }
            _ => {
                self.core.halt(self.now);
                (self.naive.closed, self.naive.halted) = (true, true);
                self.naive
                    .jobs
                    .values_mut()
                    .filter_map(|job| job.run.as_mut())
                    .for_each(|run| run.stop = true);
            }
        }
    }

    fn enqueue(&mut self, key: u8, generation: u64, c: u8, reserved: Option<u64>) -> bool {
        let priority = if c & 1 == 1 { Priority::Waited } else { Priority::Background };
        let overlap = if c & 2 == 2 { Overlap::LetsFinish } else { Overlap::Outdates };
        let needs = if c & 4 == 4 { Needs::Done } else { Needs::Settled };
        let after: Vec<_> = if c & 8 == 8 { vec![((c >> 4) % KEYS, needs)] } else { Vec::new() };
        let bytes = u64::from(c) % 80;
        let order = Order {
            priority,
            after: after.iter().map(|(key, needs)| After { key: *key, needs: *needs }).collect(),
            bytes,
            overlap,
            not_before: (c & 16 == 16).then_some(self.now),
        };
        let expected = if self.naive.closed {
            Err(Refused::Closed)
        } else if self.naive.cycle(key, &after) {
            Err(Refused::Cycle)
        } else if reserved.is_none() && !self.naive.jobs.contains_key(&key) && !self.naive.has_room(bytes) {
            Err(Refused::Full)
        } else {
            Ok(())
        };
        let number = Generation(generation);
        let taken = match reserved {
            Some(reserved) => self.core.enqueue_reserved(self.now, reserved, key, number, order),
            None => self.core.enqueue(self.now, key, number, order),
        };
        assert_eq!(taken.map(drop), expected, "an enqueue of {key}");
        if expected.is_ok() {
            let wish = self.naive.wishes.len();
            self.naive.enqueue(key, generation, (priority, bytes, overlap), &after);
            let (_, ticket) = self.core.watch(&key, number).expect("it was enqueued");
            self.tickets.insert(ticket, wish);
        }
        expected.is_ok()
    }

    /// Somebody waits, and perhaps thinks better of it.
    fn watch(&mut self, key: u8, generation: u64, c: u8) {
        let watched = self.core.watch(&key, Generation(generation));
        assert_eq!(watched.is_some(), self.naive.jobs.contains_key(&key));
        if let Some((job, ticket)) = watched.filter(|_| c & 1 == 1) {
            self.core.forget(job, ticket);
        }
    }

    fn attempt(&self, a: u8) -> Option<(AttemptId, u8)> {
        // The latest ones are the likeliest to be under way.
        let last = self.attempts.len().checked_sub(1)?;
        self.attempts.get(last.saturating_sub(usize::from(a % 5))).copied()
    }

    fn run(&mut self, id: AttemptId, key: u8) -> Option<&mut naive::Run> {
        let job = self.core.job(&key, self.now)?.job;
        let run = self.naive.jobs.get_mut(&key)?.run.as_mut()?;
        (job == id.job && run.number == id.number).then_some(run)
    }

    fn begin(&mut self, a: u8) {
        let Some((id, key)) = self.attempt(a) else { return };
        let held = self.naive.held(key);
        let expected = match self.run(id, key) {
            Some(run) if !run.stop && run.result.is_none() && !run.entered => {
                if held {
                    Gate::Held
                } else {
                    (run.entered, run.guarded) = (true, true);
                    Gate::Open
                }
            }
            _ => Gate::Outdated,
        };
        assert_eq!(self.core.begin_commit(id), expected, "the door for {key}");
    }

    fn abandon(&mut self, a: u8) {
        let Some((id, key)) = self.attempt(a) else { return };
        if let Some(run) = self.run(id, key).filter(|run| run.entered && run.guarded) {
            (run.entered, run.guarded) = (false, false);
            self.naive.no_longer_committing(key);
        }
        self.core.abandon_commit(self.now, id);
        self.end(key);
    }

    fn commit_over(&mut self, a: u8) {
        let Some((id, key)) = self.attempt(a) else { return };
        if let Some(run) = self.run(id, key) {
            run.guarded = false;
        }
        self.core.commit_over(self.now, id);
        self.end(key);
    }

    fn finish(&mut self, a: u8, b: u8) {
        let Some((id, key)) = self.attempt(a) else { return };
        let result = match b % 8 {
            0..=3 => Ok(()),
            4..=5 => Err(Class::Transient),
            6 => Err(Class::Throttled),
            _ => Err(Class::Permanent),
        };
        if let Some(run) = self.run(id, key).filter(|run| run.result.is_none()) {
            run.result = Some(result);
        }
        self.core.finished(self.now, id, result.map_err(failure));
        self.end(key);
    }

    /// Ends the model's attempt if it is over now; the time of the retry is the queue's to choose.
    fn end(&mut self, key: u8) {
        let (core, now) = (&self.core, self.now);
        self.naive.end(key, || {
            let job = core.job(&key, now)?;
            // It may be due at once.
            job.retry_at.or(Some(now))
        });
    }

    fn cancel_set(&mut self, keys: &[(u8, Option<u64>)], c: u8) {
        let id = match keys {
            [(key, Some(below))] => self.core.supersede(self.now, [(*key, Generation(*below))]),
            _ if c & 1 == 1 => self.core.cancel(self.now, keys.iter().map(|(key, _)| *key)),
            _ => self.core.cancel_where(self.now, |key| keys.iter().any(|(other, _)| other == key)),
        };
        self.naive.cancel(keys);
        self.cancels.push(id);
    }

    fn hold(&mut self, keys: &[u8], c: u8) {
        let set: BTreeSet<u8> = keys.iter().copied().collect();
        let id = if c & 1 == 1 {
            self.core.hold(keys.iter().copied())
        } else {
            let set = set.clone();
            self.core.hold_where(move |key| set.contains(key))
        };
        let committing = |key: &u8| self.naive.jobs.get(key).is_some_and(|j| j.state() == State::Committing);
        let committing = set.iter().copied().filter(committing).collect();
        self.count += 1;
        self.holds.push((id, self.count));
        self.naive.holds.insert(self.count, naive::Hold { keys: set, committing, quiet: false });
    }

    fn release(&mut self, a: u8) {
        if self.holds.is_empty() {
            return;
        }
        let (id, number) = self.holds.remove(usize::from(a) % self.holds.len());
        self.core.release(self.now, id);
        self.naive.holds.remove(&number);
    }

    fn reserve(&mut self, bytes: u64) {
        self.count += 1;
        let id = self.core.reserve(bytes);
        self.reserves.insert(id, self.count);
        self.permits.push((id, bytes));
        self.naive.waiting.push((self.count, bytes));
    }

    /// Enqueues into reserved room, or returns it.
    fn use_permit(&mut self, a: u8, b: u8, c: u8) {
        if self.permits.is_empty() {
            return;
        }
        let at = usize::from(a) % self.permits.len();
        let (id, bytes) = self.permits[at];
        let number = self.reserves[&id];
        if c & 1 == 1 && self.naive.granted.contains_key(&number) {
            if self.enqueue(a % KEYS, u64::from(b % 16), c, Some(bytes)) {
                self.naive.granted.remove(&number);
                self.permits.remove(at);
            }
            return;
        }
        self.core.unreserve(id, bytes);
        self.permits.remove(at);
        self.naive.granted.remove(&number);
        self.naive.waiting.retain(|(other, _)| *other != number);
    }

    fn retry(&mut self, key: u8, b: u8) {
        let waits = |job: &naive::Job| job.retry.is_some();
        if b & 1 == 1 {
            let count = self.naive.jobs.values().filter(|job| waits(job)).count();
            assert_eq!(self.core.retry_all(self.now), count);
            self.naive.jobs.values_mut().for_each(|job| job.retry = None);
        } else {
            assert_eq!(self.core.retry(self.now, &key), self.naive.jobs.get(&key).is_some_and(waits));
            self.naive.jobs.entry(key).and_modify(|job| job.retry = None);
        }
    }

    /// Takes in what the queue did, and compares everything.
    fn check(&mut self) {
        let granted = self.naive.grant();
        self.naive.line_up(self.now);
        self.core.take_actions(&mut self.actions);
        let mut actual_grants = Vec::new();
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Start { attempt, key, generation, priority } => {
                    assert!(self.naive.first().contains(&key), "{key} starts out of turn");
                    assert!(self.naive.can_start(key), "{key} starts without room");
                    self.naive.start(key);
                    let job = &self.naive.jobs[&key];
                    assert_eq!((generation.0, priority), (job.wanted, job.priority));
                    self.attempts.push((attempt, key));
                }
                Action::Resolved { ticket, outcome } => {
                    if let Some(wish) = self.tickets.remove(&ticket) {
                        let wish = &self.naive.wishes[wish];
                        assert_eq!(Some(out(&outcome)), wish.out, "the outcome of {wish:?}");
                    }
                }
                Action::Cancelled { cancel, answers } => {
                    let at = self.cancels.iter().position(|id| *id == cancel).expect("it was asked for");
                    let expected = &mut self.naive.cancels[at];
                    assert_eq!(expected.left, 0, "a cancel is answered while attempts go on");
                    let mut answers: Vec<_> = answers.iter().map(|(key, a)| (*key, answer(a))).collect();
                    answers.sort_unstable();
                    expected.answers.sort_unstable();
                    assert_eq!(answers, expected.answers);
                    expected.left = usize::MAX;
                }
                Action::Granted { reserve } => actual_grants.push(self.reserves[&reserve]),
                Action::Quiet { hold } => {
                    let (_, number) = self.holds.iter().find(|(id, _)| *id == hold).expect("it is in force");
                    let hold = self.naive.holds.get_mut(number).expect("it is in force");
                    assert!(hold.committing.is_empty() && !hold.quiet, "{hold:?} is not quiet");
                    hold.quiet = true;
                }
                Action::Passed { barrier, failures } => {
                    let at = self.barriers.iter().position(|id| *id == barrier).expect("it is there");
                    assert!(self.naive.newly_passed_at(at), "barrier {at} is passed too early");
                    let mut keys: Vec<u8> = failures.iter().map(|(key, _)| *key).collect();
                    keys.sort_unstable();
                    let expected = &mut self.naive.barriers[at].failures;
                    expected.sort_unstable();
                    assert_eq!(&keys, expected, "the failures of barrier {at}");
                }
                Action::Idle => {
                    assert!(self.naive.closed && self.naive.jobs.values().all(|job| job.failed));
                }
                Action::Stop { attempt } => {
                    let (_, key) =
                        self.attempts.iter().find(|(id, _)| *id == attempt).copied().expect("known");
                    assert!(
                        self.run(attempt, key).is_some_and(|run| run.stop),
                        "{key} has no reason to stop"
                    );
                }
                Action::Proceed { .. } => {}
            }
        }
        assert_eq!(actual_grants, granted, "grants");
        self.compare();
    }

    fn compare(&mut self) {
        assert!(self.naive.newly_passed().is_empty(), "a barrier is not passed");
        for cancel in &self.naive.cancels {
            assert!(cancel.left > 0, "a cancel is not answered: {cancel:?}");
        }
        assert!(self.naive.holds.values().all(|hold| hold.quiet || !hold.committing.is_empty()));
        for wish in self.tickets.values() {
            let wish = &self.naive.wishes[*wish];
            assert_eq!(wish.out, None, "nobody is told of {wish:?}");
        }
        if let Some(first) = self.naive.first().first().filter(|_| self.naive.first().len() == 1) {
            assert!(!self.naive.can_start(*first), "{first} could start");
        }
        let jobs = self.core.jobs(self.now);
        assert_eq!(jobs.len(), self.naive.jobs.len());
        for job in &jobs {
            let naive = &self.naive.jobs[&job.key];
            assert_eq!(job.state, naive.state(), "the state of {}: {naive:?}", job.key);
            let wanted = (naive.wants || naive.failed).then_some(naive.wanted);
            assert_eq!(job.wanted.map(|g| g.0), wanted, "what is wanted of {}", job.key);
            assert_eq!(job.committed.map(|g| g.0), naive.committed, "what {} has committed", job.key);
            assert_eq!(job.running.map(|g| g.0), naive.run.as_ref().map(|run| run.generation));
            assert_eq!((job.attempts, job.bytes), (naive.attempts, naive.bytes), "{}", job.key);
            assert_eq!((job.priority, job.held), (naive.priority, self.naive.held(job.key)), "{}", job.key);
            assert_eq!(job.retry_at, naive.retry, "when {} is due", job.key);
            let on: BTreeSet<u8> = naive.after.iter().map(|dependency| dependency.key).collect();
            assert_eq!(
                job.blocked_on.iter().copied().collect::<BTreeSet<_>>(),
                on,
                "what {} waits for",
                job.key
            );
        }
        let stats = self.core.stats();
        assert_eq!(stats.bytes, self.naive.bytes());
        assert_eq!(
            (stats.unfinished() + stats.failed, stats.waiting),
            (jobs.len(), self.naive.waiting.len())
        );
    }
}
