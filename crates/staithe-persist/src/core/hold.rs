//! Holds: keys of which nothing may start or begin to commit.

use std::fmt;
use std::time::Instant;

use hashbrown::HashSet;

use super::Core;
use crate::action::Action;
use crate::job::{HoldId, Key};
use crate::states::State;

/// Which keys.
pub(super) enum Scope<K> {
    Keys(HashSet<K>),
    Where(Box<dyn Fn(&K) -> bool + Send + Sync>),
}

impl<K: Key> Scope<K> {
    fn covers(&self, key: &K) -> bool {
        match self {
            Self::Keys(keys) => keys.contains(key),
            Self::Where(matches) => matches(key),
        }
    }
}

impl<K: fmt::Debug> fmt::Debug for Scope<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(keys) => f.debug_set().entries(keys).finish(),
            Self::Where(_) => f.write_str("a predicate"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Hold<K> {
    scope: Scope<K>,
    /// Attempts that were committing when it began, and still are.
    committing: usize,
}

impl<K: Key> Core<K> {
    /// Keeps these keys from starting and from beginning to commit until [`release`](Self::release), jobs that are
    /// enqueued meanwhile included; [`Action::Quiet`] says when nothing of them is committing. Attempts that run go
    /// on, up to the door. O(keys).
    pub fn hold(&mut self, keys: impl IntoIterator<Item = K>) -> HoldId {
        let keys: HashSet<K> = keys.into_iter().collect();
        let mut slots: Vec<u32> = keys.iter().filter_map(|key| self.slab.find(key)).collect();
        slots.sort_unstable();
        self.hold_slots(Scope::Keys(keys), &slots)
    }

    /// [`hold`](Self::hold) of every key that `matches`, which must always say the same of a key. O(jobs).
    pub fn hold_where(&mut self, matches: impl Fn(&K) -> bool + Send + Sync + 'static) -> HoldId {
        let slots: Vec<u32> =
            self.slab.iter().filter(|(_, chain)| matches(&chain.key)).map(|(slot, _)| slot).collect();
        self.hold_slots(Scope::Where(Box::new(matches)), &slots)
    }

    fn hold_slots(&mut self, scope: Scope<K>, slots: &[u32]) -> HoldId {
        let id = HoldId(self.fresh_id());
        let mut committing = 0;
        for slot in slots {
            self.lines.remove(&mut self.slab, *slot);
            if let Some(chain) = self.slab.get_mut(*slot) {
                chain.holds.push(id);
                committing += usize::from(chain.state == State::Committing);
            }
        }
        self.holds.insert(id, Hold { scope, committing });
        if committing == 0 {
            self.actions.push(Action::Quiet { hold: id });
        }
        // It may have taken one out of the line that kept others waiting for room.
        self.start_what_may();
        id
    }

    /// Ends a hold: what it kept goes on. O(keys), O(jobs) for a predicate.
    pub fn release(&mut self, now: Instant, id: HoldId) {
        let Some(hold) = self.holds.remove(&id) else { return };
        let mut slots: Vec<u32> = match &hold.scope {
            Scope::Keys(keys) => keys.iter().filter_map(|key| self.slab.find(key)).collect(),
            Scope::Where(_) => self.slab.iter().map(|(slot, _)| slot).collect(),
        };
        slots.sort_unstable();
        for slot in slots {
            let Some(chain) = self.slab.get_mut(slot) else { continue };
            let before = chain.holds.len();
            chain.holds.retain(|hold| *hold != id);
            if !chain.holds.is_empty() || chain.holds.len() == before {
                continue;
            }
            if chain.state == State::Running {
                let attempt = chain.attempt_id();
                self.actions.push(Action::Proceed { attempt });
            }
            self.line_up(slot);
        }
        self.settle(now);
    }

    pub(super) fn holds_over(&self, key: &K) -> Vec<HoldId> {
        self.holds.iter().filter(|(_, hold)| hold.scope.covers(key)).map(|(id, _)| *id).collect()
    }

    /// An attempt is not committing any more: holds that waited for it may be quiet now.
    pub(super) fn quieten(&mut self, slot: u32) {
        let Some(chain) = self.slab.get(slot) else { return };
        for id in &chain.holds {
            if let Some(hold) = self.holds.get_mut(id) {
                hold.committing -= 1;
                if hold.committing == 0 {
                    self.actions.push(Action::Quiet { hold: *id });
                }
            }
        }
    }
}
