//! What the lock of a watcher guards: the state machine, the history, and who waits.

use std::collections::VecDeque;
use std::fmt;
use std::task::Waker;
use std::time::{Instant, SystemTime};

use super::callbacks::Callbacks;
use crate::core::Core;
use crate::event::{Action, ProbeId};
use crate::moves::Record;
use crate::phase::Phase;
use crate::wait::{Waiting, Woken};

/// Moves that are kept.
pub(super) const KEPT: usize = 64;

pub(super) struct Board<V> {
    pub(super) core: Core<V>,
    history: VecDeque<Record<V>>,
    /// Whoever waits for a move or a verdict.
    pub(super) waiting: Waiting,
    pub(super) callbacks: Callbacks<V>,
    /// The last move that callbacks were told of, or that there was nobody to tell of.
    pub(super) told: u64,
    /// Some thread is telling.
    pub(super) telling: bool,
    pub(super) driver: Driver,
}

/// What whoever drives the watcher has to know.
#[derive(Debug, Default)]
pub(super) struct Driver {
    /// The probe to begin with.
    pub(super) asked: Option<(ProbeId, bool)>,
    /// When it will look again by itself.
    pub(super) alarm: Option<Instant>,
    /// It is to look again at once.
    pub(super) nudged: bool,
    pub(super) waker: Option<Waker>,
    /// Who drives: the last to begin.
    pub(super) wheel: u64,
}

impl<V: Clone + Eq + fmt::Debug> Board<V> {
    pub(super) fn new(core: Core<V>) -> Self {
        Self {
            core,
            history: VecDeque::new(),
            waiting: Waiting::default(),
            callbacks: Vec::new(),
            told: 0,
            telling: false,
            driver: Driver::default(),
        }
    }

    /// Takes in what the state machine tells: who is to be woken for it.
    pub(super) fn act(&mut self, actions: &[Action<V>], wall: impl Fn() -> SystemTime) -> Woken {
        let mut changed = false;
        for action in actions {
            match action {
                Action::Probe { id, fresh } => self.driver.asked = Some((*id, *fresh)),
                Action::Moved(moved) => {
                    if self.history.len() == KEPT {
                        self.history.pop_front();
                    }
                    self.history.push_back(Record { moved: moved.clone(), wall: wall(), missed: 0 });
                    changed = true;
                }
                Action::Condemned(_) => changed = true,
            }
        }
        if changed { self.waiting.take() } else { Woken::default() }
    }

    /// The driver's waker, if it has to look again earlier than it would.
    pub(super) fn nudge(&mut self) -> Option<Waker> {
        let next = self.core.next_tick();
        let earlier = next.is_some_and(|next| self.driver.alarm.is_none_or(|alarm| next < alarm));
        let over = self.core.phase() == Phase::Exited;
        if earlier || over || self.driver.asked.is_some() {
            self.driver.nudged = true;
            return self.driver.waker.take();
        }
        None
    }

    pub(super) fn history(&self) -> Vec<Record<V>> {
        self.history.iter().cloned().collect()
    }

    /// The number of the last move.
    pub(super) fn last(&self) -> u64 {
        self.history.back().map_or(0, |record| record.moved.number)
    }

    /// The moves after this one, and how many of them are not kept any more.
    pub(super) fn since(&self, number: u64) -> (impl Iterator<Item = &Record<V>>, u64) {
        let first = self.history.front().map_or(0, |record| record.moved.number);
        let missed = first.saturating_sub(number + 1);
        let skipped = (number + 1).saturating_sub(first) as usize;
        (self.history.iter().skip(skipped), missed)
    }
}
