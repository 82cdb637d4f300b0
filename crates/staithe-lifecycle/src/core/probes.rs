//! Probes: which one is outstanding, and when the next one is asked for.

use std::time::Instant;

use crate::config::Config;
use crate::core::pace::Pace;
use crate::event::ProbeId;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Outstanding {
    pub(crate) id: ProbeId,
    /// Whether it was asked for the sake of a suspicion.
    pub(crate) fresh: bool,
    pub(crate) asked: Instant,
    pub(crate) deadline: Instant,
}

#[derive(Clone, Debug)]
pub(crate) struct Probes {
    pub(crate) outstanding: Option<Outstanding>,
    last: u64,
    pace: Pace,
    /// The next one for the sake of a recovery, whatever the pace.
    next: Instant,
}

impl Probes {
    pub(crate) fn new(config: &Config, now: Instant) -> Self {
        Self { outstanding: None, last: 0, pace: Pace::new(config.probes_a_minute), next: now }
    }

    /// It is degraded from now on.
    pub(crate) fn degraded(&mut self, config: &Config, now: Instant) {
        self.next = now + config.first_probe;
    }

    /// One has succeeded, and a recovery needs more.
    pub(crate) fn sooner(&mut self, config: &Config, now: Instant) {
        self.next = self.next.min(now + config.soon());
    }

    /// When the next one for the sake of a recovery may be asked for.
    pub(crate) fn recovery_due(&self) -> Instant {
        self.pace.free().map_or(self.next, |free| free.max(self.next))
    }

    /// Asks for one. It counts for the pace, whatever it is for.
    pub(crate) fn ask(&mut self, config: &Config, now: Instant, fresh: bool) -> ProbeId {
        self.last += 1;
        let id = ProbeId(self.last);
        let deadline = now + config.probe_deadline;
        self.outstanding = Some(Outstanding { id, fresh, asked: now, deadline });
        self.pace.count(now);
        if !fresh {
            self.next = now + config.probe_every;
        }
        id
    }

    /// Takes the outstanding one if it is this.
    pub(crate) fn answered(&mut self, id: ProbeId) -> Option<Outstanding> {
        self.outstanding.take_if(|outstanding| outstanding.id == id)
    }

    /// Takes the outstanding one if its time is over.
    pub(crate) fn overdue(&mut self, now: Instant) -> Option<Outstanding> {
        self.outstanding.take_if(|outstanding| outstanding.deadline <= now)
    }
}
