//! How long to wait between tries, and for how long one try may last. Pure: the time of day and the dice are
//! arguments.

use std::time::Duration;

/// Full jitter over a doubling bound (Brooker, "Exponential Backoff and Jitter", 2015).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    /// Tries in all.
    pub(crate) attempts: u32,
    /// The same of what another write of the same object is in the way of.
    pub(crate) attempts_in_conflict: u32,
    /// Bound of the first pause.
    pub(crate) base: Duration,
    /// Bound of any pause.
    pub(crate) max: Duration,
}

impl Backoff {
    /// The pause after the failed try number `tried` (from 1), or `None` when there is no next one of `attempts`. `dice` is
    /// uniform in 0..1; `asked` is what the server asked for: never less than that, never more than the bound.
    pub(crate) fn pause(
        &self,
        (tried, attempts): (u32, u32),
        dice: f64,
        asked: Option<Duration>,
    ) -> Option<Duration> {
        if tried >= attempts {
            return None;
        }
        let doubled = self.base.saturating_mul(1 << tried.saturating_sub(1).min(20));
        let bound = doubled.min(self.max);
        Some(bound.mul_f64(dice.clamp(0.0, 1.0)).max(asked.unwrap_or_default()).min(self.max))
    }
}

/// How long one try of each sort may last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For the head of an answer.
    pub(crate) first_byte: Duration,
    /// For the next byte of a body.
    pub(crate) stall: Duration,
    /// For work that the server does before it answers.
    pub(crate) server_work: Duration,
    /// The slowest upload, in bytes a second; not 0.
    pub(crate) upload_floor: u64,
}

impl Patience {
    /// For a request that carries `bytes`.
    pub(crate) fn upload(&self, bytes: u64) -> Duration {
        self.first_byte + Duration::from_millis(bytes.saturating_mul(1000) / self.upload_floor.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        attempts: 4,
        attempts_in_conflict: 4,
        base: Duration::from_millis(100),
        max: Duration::from_millis(350),
    };

    #[test]
    fn the_bound_doubles_up_to_its_limit() {
        let bounds: Vec<_> =
            (1..5).map(|n| BACKOFF.pause((n, 4), 1.0, None).map(|d| d.as_millis())).collect();
        assert_eq!(bounds, [Some(100), Some(200), Some(350), None]);
        assert_eq!(BACKOFF.pause((3, 4), 0.0, None), Some(Duration::ZERO));
    }

    #[test]
    fn the_server_is_heard_within_the_bound() {
        let asked = |ms| Some(Duration::from_millis(ms));
        assert_eq!(BACKOFF.pause((1, 4), 0.0, asked(300)), asked(300));
        assert_eq!(BACKOFF.pause((1, 4), 0.0, asked(3000)), asked(350));
        assert_eq!(BACKOFF.pause((4, 4), 0.0, asked(1)), None);
    }

    #[test]
    fn a_big_upload_gets_more_time() {
        let patience = Patience {
            first_byte: Duration::from_secs(1),
            stall: Duration::from_secs(1),
            server_work: Duration::from_secs(1),
            upload_floor: 1 << 20,
        };
        assert_eq!(patience.upload(0), Duration::from_secs(1));
        assert_eq!(patience.upload(8 << 20), Duration::from_secs(9));
    }
}
