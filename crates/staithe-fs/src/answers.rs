//! Answers that are on their way to a kernel: between the moment when it is decided that one may be believed, and the moment
//! when the kernel has it, nobody can take it back. Who tells the kernel to doubt what it has been told waits for those
//! first.
//!
//! Invariants:
//! 1. [`Answers::settled`] returns when every guard that was taken before it was called is gone. It may wait for some that
//!    were taken just afterwards, never for those that come all the while.
//! 2. Taking and leaving a guard is two additions, whoever waits.
//!
//! The two counters that take turns are those of sleepable read-copy-update (LWN, "Sleepable RCU", 2006).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks whether all have left.
const LOOK_EVERY: Duration = Duration::from_micros(100);

/// The answers of one filesystem that are being made and sent.
#[derive(Debug, Clone, Default)]
pub struct Answers(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    turn: AtomicUsize,
    inside: [AtomicUsize; 2],
}

/// An answer is being made, and sent. To be held from before the filesystem is asked, in one poll, until the kernel has
/// the answer; not while the filesystem waits for something.
#[derive(Debug)]
pub struct Answering<'a> {
    counters: &'a Counters,
    side: usize,
}

impl Answers {
    /// Begins an answer.
    pub fn begin(&self) -> Answering<'_> {
        let side = self.0.turn.load(Ordering::SeqCst) & 1;
        self.0.inside[side].fetch_add(1, Ordering::SeqCst);
        Answering { counters: &self.0, side }
    }

    /// Waits until what was begun before is with the kernel, but no longer than `patience`. Blocks.
    pub(crate) fn settled(&self, patience: Duration) {
        let until = Instant::now() + patience;
        // Twice: who has read whose turn it is, and not counted itself yet, is found in the second round.
        for _ in 0..2 {
            let side = self.0.turn.fetch_add(1, Ordering::SeqCst) & 1;
            while self.0.inside[side].load(Ordering::SeqCst) > 0 && Instant::now() < until {
                thread::sleep(LOOK_EVERY);
            }
        }
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.counters.inside[self.side].fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{TryRecvError, channel};

    use super::*;

    const LONG: Duration = Duration::from_mins(10);

    #[test]
    fn who_waits_waits_for_those_before_and_has_an_end() {
        let answers = Answers::default();
        answers.settled(LONG);
        let before = answers.begin();
        let turn = || answers.0.turn.load(Ordering::SeqCst);
        let (tell, told) = channel();
        thread::scope(|scope| {
            let at = turn();
            scope.spawn(|| {
                answers.settled(LONG);
                tell.send(()).unwrap();
            });
            while turn() == at {
                thread::yield_now();
            }
            assert_eq!(told.try_recv(), Err(TryRecvError::Empty), "one is on its way");
            drop(before);
            while turn() == at + 1 {
                thread::yield_now();
            }
            // Who comes now holds nobody up.
            let after = answers.begin();
            told.recv().unwrap();
            drop(after);
        });
        let _for_ever = answers.begin();
        answers.settled(Duration::ZERO);
    }
}
