//! What becomes of a verdict: suspected, confirmed, cleared, held back.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::Core;
use super::suspicion::{Held, Suspicion};
use crate::event::Action;
use crate::moves::Reason;
use crate::phase::Phase;

impl<V: Clone + Eq + fmt::Debug> Core<V> {
    /// An operation, or a probe that was not asked for the sake of a suspicion, says that it is over. That is reason to
    /// suspect it, and no confirmation: they may all come over one connection, or out of one cache.
    pub(super) fn told(&mut self, verdict: V, what: Arc<str>, now: Instant) {
        self.health.silent(now);
        match &self.suspicion {
            Some(suspicion) if suspicion.verdict == verdict => {}
            Some(_) => self.restart(verdict, now),
            None if self.suspicions.is_free(now) => self.suspect(verdict, what, now),
            None => self.hold(verdict, what, now),
        }
    }

    /// A probe that was asked for the sake of the suspicion gives this verdict.
    pub(super) fn confirm(&mut self, verdict: V, what: Arc<str>, now: Instant) {
        match &mut self.suspicion {
            Some(suspicion) if suspicion.verdict == verdict => {
                self.health.silent(now);
                let confirmed = suspicion.agreed(&self.config, now);
                let times = suspicion.agreeing;
                if let Some(over) = confirmed {
                    let reason = Reason::Confirmed { verdict: verdict.clone(), times, over, what };
                    self.condemn(verdict, reason, now);
                }
            }
            _ => self.told(verdict, what, now),
        }
    }

    /// Something is contrary to the suspicion.
    pub(super) fn clear(&mut self, now: Instant) {
        let Some(suspicion) = self.suspicion.take() else { return };
        self.probes.outstanding = None;
        // Of a recovery that was due meanwhile nothing is told but this move.
        let _recovered = self.health.recover(&self.config, now);
        if self.phase == Phase::Suspect {
            let reason = Reason::Contrary { verdict: suspicion.verdict, agreed: suspicion.agreeing };
            self.enter(self.says(), reason, now);
        }
    }

    /// Begins the suspicion that was held back, if it may begin.
    pub(super) fn take_up_held(&mut self, now: Instant) {
        if self.suspicion.is_none()
            && self.suspicions.is_free(now)
            && let Some(held) = self.held.take()
        {
            self.suspect(held.verdict, held.what, now);
        }
    }

    fn suspect(&mut self, verdict: V, what: Arc<str>, now: Instant) {
        self.held = None;
        self.suspicions.count(now);
        self.restart(verdict.clone(), now);
        // While it drains there is no move: only the verdict is of interest then.
        if self.phase.is_alive() {
            self.enter(Phase::Suspect, Reason::Verdict { verdict, what }, now);
        }
    }

    /// It is suspected from now on: whatever is outstanding was asked for before.
    fn restart(&mut self, verdict: V, now: Instant) {
        let over = self.config.over((self.over)(&verdict));
        self.suspicion = Some(Suspicion::new(&self.config, now, verdict, over));
        self.probes.outstanding = None;
    }

    fn hold(&mut self, verdict: V, what: Arc<str>, now: Instant) {
        self.failed(Arc::clone(&what), now);
        if self.held.as_ref().is_none_or(|held| held.verdict != verdict) {
            self.held = Some(Held { verdict, what, at: now });
        }
    }

    fn condemn(&mut self, verdict: V, reason: Reason<V>, now: Instant) {
        (self.suspicion, self.held, self.probes.outstanding) = (None, None, None);
        self.verdict = Some(verdict.clone());
        if self.phase == Phase::Suspect {
            self.enter(Phase::Condemned, reason, now);
        }
        self.actions.push(Action::Condemned(verdict));
    }
}
