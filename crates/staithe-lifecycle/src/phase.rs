//! The phases, and the one table of their legal moves.

use std::fmt;

/// Where what is watched is in its life. The order is that of getting worse, and then of ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It is not yet known to work.
    Starting,
    /// It works.
    Healthy,
    /// Too many operations fail, in a way that may pass.
    Degraded,
    /// One answer says that it is over for good. It is being asked again.
    Suspect,
    /// So many answers over so long agree that it is over for good. Nothing leads back.
    Condemned,
    /// Its end was asked for: what is under way is finished.
    Draining,
    /// It has ended. Final.
    Exited,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Healthy,
        Self::Degraded,
        Self::Suspect,
        Self::Condemned,
        Self::Draining,
        Self::Exited,
    ];

    /// The legal moves: every phase that may come after this one.
    ///
    /// | from | to |
    /// |---|---|
    /// | Starting | Healthy, Degraded, Suspect, Draining, Exited (it could not start) |
    /// | Healthy | Degraded, Suspect, Draining |
    /// | Degraded | Healthy, Suspect, Draining |
    /// | Suspect | Healthy, Degraded (the suspicion was cleared), Condemned (it was confirmed), Draining |
    /// | Condemned | Draining, Exited (a kill) |
    /// | Draining | Exited |
    /// | Exited | nothing |
    ///
    /// What is condemned while it drains keeps the phase Draining; the verdict is told all the same, see
    /// [`Core::verdict`](crate::Core::verdict).
    pub const fn next(self) -> &'static [Self] {
        use Phase::{Condemned, Degraded, Draining, Exited, Healthy, Starting, Suspect};
        match self {
            Starting => &[Healthy, Degraded, Suspect, Draining, Exited],
            Healthy => &[Degraded, Suspect, Draining],
            Degraded => &[Healthy, Suspect, Draining],
            Suspect => &[Healthy, Degraded, Condemned, Draining],
            Condemned => &[Draining, Exited],
            Draining => &[Exited],
            Exited => &[],
        }
    }

    /// Whether the table has this move.
    pub fn may_become(self, next: Self) -> bool {
        self.next().contains(&next)
    }

    /// Whether it has not ended, and its end was neither found nor asked for.
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Starting | Self::Healthy | Self::Degraded | Self::Suspect)
    }

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Suspect => "suspect",
            Self::Condemned => "condemned",
            Self::Draining => "draining",
            Self::Exited => "exited",
        }
    }

    /// The phase of a number in [`Phase::ALL`]; the last one for any number beyond.
    pub(crate) fn of(number: u32) -> Self {
        Self::ALL.get(number as usize).copied().unwrap_or(Self::Exited)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condemned_has_one_door_and_nothing_leads_back() {
        for phase in Phase::ALL {
            assert_eq!(phase.may_become(Phase::Condemned), phase == Phase::Suspect, "{phase}");
            assert!(!phase.may_become(phase), "{phase}");
            assert!(!phase.may_become(Phase::Starting), "{phase}");
        }
        for over in [Phase::Condemned, Phase::Draining, Phase::Exited] {
            assert!(over.next().iter().all(|next| !next.is_alive()), "{over}");
        }
    }

    #[test]
    fn whatever_lives_can_be_drained_and_is_suspected_only_alive() {
        for phase in Phase::ALL {
            assert_eq!(phase.may_become(Phase::Draining), phase < Phase::Draining, "{phase}");
            assert_eq!(phase.may_become(Phase::Suspect), phase < Phase::Suspect, "{phase}");
        }
    }

    #[test]
    fn names_and_numbers_are_those_of_the_list() {
        for (number, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!((Phase::of(number as u32), phase as usize), (phase, number));
            assert_eq!(phase.to_string(), format!("{phase:?}").to_lowercase());
        }
        assert_eq!(format!("{:>9}|", Phase::Healthy), "  healthy|");
    }
}
