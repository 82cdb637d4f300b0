//! Group commit: writers that arrive while a commit is under way are committed together by the first of them.
//!
//! From `DeWitt` et al., "Implementation Techniques for Main Memory Database Systems" (SIGMOD 1984).
//!
//! Invariants:
//! 1. At most one thread commits. Batches are committed in the order in which they joined.
//! 2. Whoever joined is answered by a commit that began after it joined.

use std::mem;
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};

type Answer<E> = Arc<OnceLock<Result<(), E>>>;

#[derive(Debug)]
struct Waiting<T, E> {
    entries: Vec<T>,
    answers: Vec<Answer<E>>,
    led: bool,
}

#[derive(Debug)]
pub(super) struct Group<T, E> {
    waiting: Mutex<Waiting<T, E>>,
    over: Condvar,
}

impl<T: Clone, E: Clone> Group<T, E> {
    pub(super) fn new() -> Self {
        let waiting = Waiting { entries: Vec::new(), answers: Vec::new(), led: false };
        Self { waiting: Mutex::new(waiting), over: Condvar::new() }
    }

    /// Has `batch` committed, by this thread or another one; `commit` gets everything that has gathered.
    pub(super) fn join(&self, batch: &[T], commit: impl Fn(Vec<T>) -> Result<(), E>) -> Result<(), E> {
        let answer = Answer::<E>::default();
        let mut waiting = self.waiting.lock();
        waiting.entries.extend_from_slice(batch);
        waiting.answers.push(Arc::clone(&answer));
        loop {
            if let Some(answer) = answer.get() {
                return answer.clone();
            }
            if waiting.led {
                self.over.wait(&mut waiting);
                continue;
            }
            waiting.led = true;
            let (entries, answers) = (mem::take(&mut waiting.entries), mem::take(&mut waiting.answers));
            drop(waiting);
            let result = commit(entries);
            for answer in answers {
                // Each is answered once: only here, by the one who took it.
                let _ = answer.set(result.clone());
            }
            waiting = self.waiting.lock();
            waiting.led = false;
            self.over.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Every writer waits at its commit for the others to have joined: then one more commit is enough for all of them.
    #[test]
    fn those_who_wait_share_one_commit() {
        let group = Group::<u32, ()>::new();
        let commits = AtomicU32::new(0);
        let commit = |entries: Vec<u32>| {
            if commits.fetch_add(1, Ordering::SeqCst) == 0 {
                assert_eq!(entries, [0]);
                while group.waiting.lock().entries.len() < 7 {
                    std::thread::yield_now();
                }
            } else {
                assert_eq!(entries.len(), 7);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| group.join(&[0], commit));
            while commits.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            for n in 1..8 {
                let (group, commit) = (&group, &commit);
                scope.spawn(move || group.join(&[n], commit).unwrap());
            }
        });
        assert_eq!(commits.into_inner(), 2);
    }

    #[test]
    fn a_commit_that_fails_fails_for_all_who_shared_it_and_for_nobody_else() {
        let group = Group::<u32, &str>::new();
        assert_eq!(group.join(&[1], |_| Err("full")), Err("full"));
        assert_eq!(
            group.join(&[2], |entries| if entries == [2] { Ok(()) } else { Err("not its own") }),
            Ok(())
        );
    }
}
