//! How jobs end in the naive model: cancelled, acknowledged, or with their attempt.

use std::time::Instant;

use staithe_persist::Class;

use super::naive::{Answer, Cancel, Naive, Out, Run, Wish};

impl Naive {
    pub(crate) fn cancel(&mut self, keys: &[(u8, Option<u64>)]) -> usize {
        let id = self.cancels.len();
        self.cancels.push(Cancel { left: 0, answers: Vec::new() });
        // One step: none of them learns of the end of another one.
        for (key, below) in keys {
            let Some(job) = self.jobs.get_mut(key) else { continue };
            if below.is_none_or(|below| job.wanted < below) {
                job.after.clear();
            }
        }
        for (key, below) in keys {
            let Some(job) = self.jobs.get_mut(key) else { continue };
            let all = below.is_none_or(|below| job.wanted < below);
            let Some(run) = &mut job.run else {
                if all {
                    let answer = match (job.uncertain, job.committed, job.attempts) {
                        (true, _, _) => Answer::TooLate(Out::Failed),
                        (false, Some(committed), _) => Answer::TooLate(Out::Done(committed)),
                        (false, None, 0) => Answer::NotStarted,
                        (false, None, _) => Answer::Aborted,
                    };
                    self.cancels[id].answers.push((*key, answer));
                    self.remove(*key, Out::Cancelled);
                }
                continue;
            };
            if !all && below.is_some_and(|below| run.generation >= below) {
                continue;
            }
            run.stop = true;
            run.cancels.push(id);
            self.cancels[id].left += 1;
            if all {
                run.cancelled = true;
                (job.wants, job.doomed) = (false, false);
                job.after.clear();
                let (life, key) = (job.life, *key);
                let mine = |wish: &&mut Wish| wish.key == key && wish.life == life && wish.out.is_none();
                self.wishes.iter_mut().filter(mine).for_each(|wish| wish.orphan = true);
                let depends = self.jobs.values_mut().flat_map(|job| &mut job.after);
                depends.filter(|d| d.key == key && d.life == life).for_each(|d| d.orphan = true);
            }
        }
        id
    }

    pub(crate) fn acknowledge(&mut self, key: u8) -> bool {
        let failed = self.jobs.get(&key).is_some_and(|job| job.failed);
        if failed {
            self.remove(key, Out::Cancelled);
        }
        failed
    }

    /// Ends the attempt if it is over. `retry` is the time that the queue chose for the next one.
    pub(crate) fn end(&mut self, key: u8, retry: impl FnOnce() -> Option<Instant>) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        let Some(run) = job.run.take_if(|run| run.result.is_some() && !run.guarded) else { return };
        let result = run.result.unwrap_or(Ok(()));
        let done = result.is_ok() && (run.entered || !run.stop);
        job.uncertain |= result.is_err() && run.entered;
        let life = job.life;
        if done && !run.cancelled {
            job.committed = Some(run.generation);
            (job.outdated, job.uncertain) = (0, false);
        }
        if run.entered {
            self.no_longer_committing(key);
        }
        let uncertain = self.jobs[&key].uncertain;
        let answer = match (done, uncertain, run.before) {
            (true, _, _) => Answer::TooLate(Out::Done(run.generation)),
            (false, true, _) => Answer::TooLate(Out::Failed),
            (false, false, Some(before)) => Answer::TooLate(Out::Done(before)),
            (false, false, None) => Answer::Aborted,
        };
        for cancel in &run.cancels {
            self.cancels[*cancel].left -= 1;
            self.cancels[*cancel].answers.push((key, answer));
        }
        if run.cancelled {
            self.orphans(key, life, answer);
            if let Some(job) = self.jobs.get_mut(&key) {
                job.uncertain = false;
            }
        } else if done {
            self.resolve(key, life, false, run.generation, Out::Done(run.generation));
        }
        self.go_on(key, &run, done, result, retry);
    }

    fn orphans(&mut self, key: u8, life: u64, answer: Answer) {
        let (up_to, out) = match answer {
            Answer::TooLate(Out::Done(generation)) => (generation, Out::Done(generation)),
            Answer::TooLate(out) => (u64::MAX, out),
            _ => (u64::MAX, Out::Cancelled),
        };
        self.resolve(key, life, true, up_to, out);
        self.resolve(key, life, true, u64::MAX, Out::Cancelled);
    }

    fn go_on(
        &mut self,
        key: u8,
        run: &Run,
        done: bool,
        result: Result<(), Class>,
        retry: impl FnOnce() -> Option<Instant>,
    ) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        let newer = run.cancelled || job.wanted > run.generation;
        if !job.wants || (done && !newer) {
            let out = if done { Out::Done(run.generation) } else { Out::Cancelled };
            return self.remove(key, out);
        }
        if job.doomed {
            return self.fail(key);
        }
        match result {
            Err(_) if run.stop && !run.entered => {}
            Err(Class::Permanent) if !newer => self.fail(key),
            Err(Class::Transient | Class::Throttled) if job.after.is_empty() => job.retry = retry(),
            _ => {}
        }
    }

    pub(crate) fn no_longer_committing(&mut self, key: u8) {
        for hold in self.holds.values_mut() {
            hold.committing.remove(&key);
        }
    }
}
