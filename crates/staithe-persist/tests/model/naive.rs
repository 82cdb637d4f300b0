//! What the queue should do, said as plainly as possible: one record a wish, one a job, and a walk over everything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use staithe_persist::{Class, Config, Needs, Overlap, Priority, Retargeted, State};

/// What became of a wish, without the failure itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Out {
    Done(u64),
    Failed,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    NotStarted,
    Aborted,
    TooLate(Out),
}

/// One enqueue, numbered.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) key: u8,
    pub(crate) generation: u64,
    /// Which life of the key it belongs to.
    pub(crate) life: u64,
    /// The attempt that was cancelled with it.
    pub(crate) orphan: bool,
    pub(crate) out: Option<Out>,
}

#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) generation: u64,
    pub(crate) number: u32,
    pub(crate) bytes: u64,
    pub(crate) before: Option<u64>,
    pub(crate) stop: bool,
    pub(crate) cancelled: bool,
    pub(crate) patient: bool,
    pub(crate) entered: bool,
    pub(crate) guarded: bool,
    pub(crate) result: Option<Result<(), Class>>,
    pub(crate) cancels: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Dependency {
    pub(crate) key: u8,
    pub(crate) life: u64,
    generation: u64,
    pub(crate) orphan: bool,
    needs: Needs,
}

#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) life: u64,
    pub(crate) wants: bool,
    pub(crate) wanted: u64,
    pub(crate) failed: bool,
    pub(crate) retry: Option<Instant>,
    pub(crate) run: Option<Run>,
    pub(crate) committed: Option<u64>,
    pub(crate) attempts: u32,
    pub(crate) outdated: u32,
    pub(crate) uncertain: bool,
    pub(crate) doomed: bool,
    pub(crate) priority: Priority,
    pub(crate) bytes: u64,
    pub(crate) after: Vec<Dependency>,
    /// The step in which it came to be in line.
    pub(crate) lined: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) keys: BTreeSet<u8>,
    pub(crate) committing: BTreeSet<u8>,
    pub(crate) quiet: bool,
}

#[derive(Debug)]
pub(crate) struct Barrier {
    /// It waits for the wishes before this.
    until: usize,
    pub(crate) failures: Vec<u8>,
    pub(crate) passed: bool,
}

#[derive(Debug)]
pub(crate) struct Cancel {
    pub(crate) left: usize,
    pub(crate) answers: Vec<(u8, Answer)>,
}

#[derive(Debug)]
pub(crate) struct Naive {
    pub(crate) config: Config,
    pub(crate) jobs: BTreeMap<u8, Job>,
    pub(crate) wishes: Vec<Wish>,
    pub(crate) holds: BTreeMap<usize, Hold>,
    pub(crate) barriers: Vec<Barrier>,
    pub(crate) cancels: Vec<Cancel>,
    /// Reservations that wait, and those that are granted.
    pub(crate) waiting: Vec<(usize, u64)>,
    pub(crate) granted: BTreeMap<usize, u64>,
    pub(crate) closed: bool,
    pub(crate) halted: bool,
    pub(crate) step: u64,
    pub(crate) passed: u32,
    lives: u64,
}

impl Job {
    pub(crate) fn state(&self) -> State {
        match &self.run {
            Some(run) if run.entered => State::Committing,
            Some(_) => State::Running,
            None if self.failed => State::Failed,
            None if self.retry.is_some() => State::RetryAt,
            None if !self.after.is_empty() => State::Blocked,
            None => State::Queued,
        }
    }
}

impl Naive {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            jobs: BTreeMap::new(),
            wishes: Vec::new(),
            holds: BTreeMap::new(),
            barriers: Vec::new(),
            cancels: Vec::new(),
            waiting: Vec::new(),
            granted: BTreeMap::new(),
            closed: false,
            halted: false,
            step: 0,
            passed: 0,
            lives: 0,
        }
    }

    pub(crate) fn held(&self, key: u8) -> bool {
        self.holds.values().any(|hold| hold.keys.contains(&key))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.jobs.values().map(|job| job.bytes).sum::<u64>() + self.granted.values().sum::<u64>()
    }

    fn fits(&self, bytes: u64) -> bool {
        let taken = self.jobs.len() + self.granted.len();
        taken < self.config.max_jobs && (taken == 0 || self.bytes() + bytes <= self.config.max_bytes)
    }

    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.waiting.is_empty() && self.fits(bytes)
    }

    /// Grants what fits, in order; which ones.
    pub(crate) fn grant(&mut self) -> Vec<usize> {
        let mut granted = Vec::new();
        while let Some(&(id, bytes)) = self.waiting.first().filter(|(_, bytes)| self.fits(*bytes)) {
            self.waiting.remove(0);
            self.granted.insert(id, bytes);
            granted.push(id);
        }
        granted
    }

    /// Whether a dependency of `key` leads back to it.
    pub(crate) fn cycle(&self, key: u8, after: &[(u8, Needs)]) -> bool {
        let mut reached: BTreeSet<u8> = after.iter().map(|(on, _)| *on).filter(|on| *on != key).collect();
        loop {
            let further: BTreeSet<u8> = reached
                .iter()
                .filter_map(|on| self.jobs.get(on))
                .flat_map(|job| job.after.iter().map(|dependency| dependency.key))
                .collect();
            let before = reached.len();
            reached.extend(further);
            if reached.len() == before {
                return reached.contains(&key) && self.jobs.contains_key(&key);
            }
        }
    }

    pub(crate) fn enqueue(
        &mut self,
        key: u8,
        generation: u64,
        (priority, bytes, overlap): (Priority, u64, Overlap),
        after: &[(u8, Needs)],
    ) {
        self.lives += 1;
        let fresh = Job {
            life: self.lives,
            wants: true,
            wanted: generation,
            failed: false,
            retry: None,
            run: None,
            committed: None,
            attempts: 0,
            outdated: 0,
            uncertain: false,
            doomed: false,
            priority,
            bytes,
            after: Vec::new(),
            lined: None,
        };
        let job = self.jobs.entry(key).or_insert(fresh);
        if !job.wants || generation >= job.wanted {
            (job.wanted, job.bytes) = (generation, bytes);
        }
        if !job.wants {
            job.committed = None;
        }
        (job.wants, job.failed) = (true, false);
        if let Some(run) = job.run.as_mut().filter(|run| !run.stop && !run.patient)
            && generation > run.generation
            && overlap == Overlap::Outdates
        {
            run.stop = true;
            job.outdated += 1;
        }
        let wish = Wish { key, generation, life: job.life, orphan: false, out: None };
        let reached = job.committed.filter(|committed| *committed >= generation);
        self.wishes.push(Wish { out: reached.map(Out::Done), ..wish });
        for (on, needs) in after.iter().filter(|(on, _)| *on != key) {
            self.depend(key, *on, *needs);
        }
        let Some(job) = self.jobs.get_mut(&key) else { return };
        if !job.after.is_empty() {
            job.retry = None;
        }
        if self.jobs[&key].doomed && self.jobs[&key].run.is_none() {
            self.fail(key);
        }
        if priority == Priority::Waited {
            self.hurry_alone(key);
        }
        self.hurry_what_it_needs(key);
    }

    fn depend(&mut self, key: u8, on: u8, needs: Needs) {
        let Some(other) = self.jobs.get(&on) else { return };
        let (life, failed) = (other.life, other.failed);
        let orphan = !other.wants;
        let generation =
            if orphan { other.run.as_ref().map_or(0, |run| run.generation) } else { other.wanted };
        let Some(job) = self.jobs.get_mut(&key) else { return };
        if failed {
            job.doomed |= needs == Needs::Done;
        } else {
            job.after.push(Dependency { key: on, life, generation, orphan, needs });
        }
    }

    pub(crate) fn hurry(&mut self, key: u8) {
        self.hurry_alone(key);
        self.hurry_what_it_needs(key);
    }

    fn hurry_what_it_needs(&mut self, key: u8) {
        let Some(job) = self.jobs.get(&key).filter(|job| job.priority == Priority::Waited) else { return };
        for Dependency { key: on, life, .. } in job.after.clone() {
            let slow =
                |job: &Job| job.life == life && (job.priority == Priority::Background || job.retry.is_some());
            if self.jobs.get(&on).is_some_and(slow) {
                self.hurry(on);
            }
        }
    }

    fn hurry_alone(&mut self, key: u8) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        job.retry = None;
        if job.priority == Priority::Background {
            (job.priority, job.lined) = (Priority::Waited, None);
        }
    }

    /// A job has failed for good.
    pub(crate) fn fail(&mut self, key: u8) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        (job.failed, job.wants, job.doomed, job.retry) = (true, false, false, None);
        job.after.clear();
        let life = job.life;
        for barrier in &mut self.barriers {
            let open =
                |wish: &Wish| wish.key == key && wish.life == life && !wish.orphan && wish.out.is_none();
            if self.wishes[..barrier.until].iter().any(open) {
                barrier.failures.push(key);
            }
        }
        self.resolve(key, life, false, u64::MAX, Out::Failed);
    }

    /// Resolves the wishes of a life up to a generation, and what depends on them.
    pub(crate) fn resolve(&mut self, key: u8, life: u64, orphan: bool, up_to: u64, out: Out) {
        for wish in &mut self.wishes {
            let of = wish.key == key && wish.life == life && wish.orphan == orphan && wish.out.is_none();
            if of && wish.generation <= up_to {
                wish.out = Some(out);
            }
        }
        let over = |dependency: &Dependency| {
            let of = dependency.key == key && dependency.life == life && dependency.orphan == orphan;
            of && dependency.generation <= up_to
        };
        let keys: Vec<u8> = self.jobs.keys().copied().collect();
        for dependent in keys {
            let Some(job) = self.jobs.get_mut(&dependent) else { continue };
            let needed = job.after.iter().any(|d| over(d) && d.needs == Needs::Done);
            job.after.retain(|dependency| !over(dependency));
            if needed && !matches!(out, Out::Done(_)) {
                job.doomed = true;
                if job.run.is_none() {
                    self.fail(dependent);
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, key: u8, out: Out) {
        if let Some(job) = self.jobs.remove(&key) {
            self.resolve(key, job.life, false, u64::MAX, out);
        }
    }

    pub(crate) fn retarget(&mut self, key: u8, generation: u64) -> Option<Retargeted> {
        let job = self.jobs.get_mut(&key)?;
        if !job.wants && !job.failed {
            return None;
        }
        job.wanted = job.wanted.max(generation);
        let Some(run) = &mut job.run else {
            return Some(if job.failed { Retargeted::Failed } else { Retargeted::Queued });
        };
        if run.generation >= generation {
            return Some(Retargeted::Queued);
        }
        run.stop = true;
        if run.entered {
            let wish = Wish { key, generation: job.wanted, life: job.life, orphan: false, out: None };
            let answer = Retargeted::TooLate(staithe_persist::Generation(run.generation));
            self.wishes.push(wish);
            return Some(answer);
        }
        Some(Retargeted::Outdated)
    }

    pub(crate) fn barrier(&mut self) {
        let failures = self.jobs.iter().filter(|(_, job)| job.failed).map(|(key, _)| *key).collect();
        self.barriers.push(Barrier { until: self.wishes.len(), failures, passed: false });
    }

    /// The barriers that are passed now and were not before.
    pub(crate) fn newly_passed(&mut self) -> Vec<usize> {
        let mut newly = Vec::new();
        for (number, barrier) in self.barriers.iter_mut().enumerate() {
            if !barrier.passed && self.wishes[..barrier.until].iter().all(|wish| wish.out.is_some()) {
                barrier.passed = true;
                newly.push(number);
            }
        }
        newly
    }

    /// Whether this barrier may be passed now; it is then.
    pub(crate) fn newly_passed_at(&mut self, at: usize) -> bool {
        let barrier = &mut self.barriers[at];
        let over = self.wishes[..barrier.until].iter().all(|wish| wish.out.is_some());
        !std::mem::replace(&mut barrier.passed, true) && over
    }

    /// Notes who has come to be in line, and who has left it.
    pub(crate) fn line_up(&mut self, now: Instant) {
        let keys: Vec<u8> = self.jobs.keys().copied().collect();
        for key in keys {
            let held = self.held(key);
            let (step, halted) = (self.step, self.halted);
            let Some(job) = self.jobs.get_mut(&key) else { continue };
            if job.retry.is_some_and(|at| at <= now && !halted) {
                job.retry = None;
            }
            let may = job.state() == State::Queued && !held;
            job.lined = may.then(|| job.lined.unwrap_or(step));
        }
    }

    /// Who may start next; several if they came to be in line in the same step.
    pub(crate) fn first(&self) -> Vec<u8> {
        let of = |priority| {
            let lined = self.jobs.iter().filter(|(_, job)| job.priority == priority);
            let lined: Vec<_> = lined.filter_map(|(key, job)| Some((*key, job.lined?))).collect();
            let first = lined.iter().map(|(_, step)| *step).min();
            lined.into_iter().filter(|(_, step)| Some(*step) == first).map(|(key, _)| key).collect::<Vec<_>>()
        };
        let (background, waited) = (of(Priority::Background), of(Priority::Waited));
        let turn = waited.is_empty() || (self.passed >= self.config.share && !background.is_empty());
        if turn { background } else { waited }
    }

    pub(crate) fn can_start(&self, key: u8) -> bool {
        let running: Vec<_> = self.jobs.values().filter_map(|job| job.run.as_ref()).collect();
        let bytes = running.iter().map(|run| run.bytes).sum::<u64>() + self.jobs[&key].bytes;
        let fits = running.is_empty() || bytes <= self.config.bytes_in_flight;
        !self.halted && running.len() < self.config.concurrency && fits
    }

    pub(crate) fn start(&mut self, key: u8) {
        let patience = self.config.patience;
        let Some(job) = self.jobs.get_mut(&key) else { return };
        (job.attempts, job.lined) = (job.attempts + 1, None);
        self.passed = if job.priority == Priority::Waited { self.passed + 1 } else { 0 };
        job.run = Some(Run {
            generation: job.wanted,
            number: job.attempts,
            bytes: job.bytes,
            before: job.committed,
            stop: false,
            cancelled: false,
            patient: job.outdated >= patience,
            entered: false,
            guarded: false,
            result: None,
            cancels: Vec::new(),
        });
    }
}
