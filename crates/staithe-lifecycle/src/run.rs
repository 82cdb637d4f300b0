//! What drives a watcher on tokio.

use std::future::{Future, pending};
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::event::Outcome;
use crate::text::panicked;
use crate::watcher::{Verdict, Watcher};

/// Asks what is watched whether it is there.
pub trait Prober<V>: Send + Sync {
    /// Asks once. `fresh`: on a connection of its own, past every cache, so that the answer is evidence by itself. The
    /// future is dropped when the answer is of no interest any more, at the latest at
    /// [`Config::probe_deadline`](crate::Config::probe_deadline).
    fn probe(&self, fresh: bool) -> BoxFuture<'_, Outcome<V>>;
}

impl<V, P: Prober<V> + ?Sized> Prober<V> for Arc<P> {
    fn probe(&self, fresh: bool) -> BoxFuture<'_, Outcome<V>> {
        (**self).probe(fresh)
    }
}

impl<V: Verdict> Watcher<V> {
    /// Drives the watcher: lets time pass for it, makes the probes that it asks for, each a little later than asked (by up
    /// to a tenth of the time between them, so that many watchers do not probe in step), and ends after
    /// [`Phase::Exited`](crate::Phase::Exited). A probe that panics is a failure that may pass.
    ///
    /// Whoever begins to drive last drives; the future of one that did before ends. Within a tokio runtime that has
    /// timers.
    ///
    /// # Cancel safety
    /// Dropping the future drops the probe that is under way, which counts as unanswered. The watcher stands still until
    /// it is driven again.
    pub fn run<P: Prober<V>>(&self, prober: P) -> impl Future<Output = ()> + Send + use<V, P> {
        let watcher = self.clone();
        async move {
            let wheel = watcher.take_the_wheel();
            let mut jitter = Jitter::new();
            let mut probing = None;
            while let Some(turn) = watcher.turn_of(wheel).filter(|turn| !turn.over) {
                if let Some((id, fresh)) = turn.probe {
                    let wait = jitter.up_to(watcher.spacing(fresh) / 10);
                    probing = Some((id, Box::pin(probe(&prober, fresh, wait))));
                } else if probing.as_ref().is_some_and(|(id, _)| turn.outstanding != Some(*id)) {
                    probing = None;
                }
                let answer = async {
                    match &mut probing {
                        Some((id, probe)) => (*id, probe.await),
                        None => pending().await,
                    }
                };
                let alarm = async {
                    match turn.next {
                        Some(at) => tokio::time::sleep(watcher.until(at)).await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    (id, outcome) = answer => {
                        probing = None;
                        watcher.answer(id, outcome);
                    }
                    () = watcher.nudged_of(wheel) => {}
                    () = alarm => {}
                }
            }
        }
    }

    /// How far apart probes are at the least.
    fn spacing(&self, fresh: bool) -> Duration {
        if fresh { self.config().gap(self.config().confirm_over) } else { self.config().soon() }
    }
}

async fn probe<V, P: Prober<V>>(prober: &P, fresh: bool, wait: Duration) -> Outcome<V> {
    tokio::time::sleep(wait).await;
    let asking = async { prober.probe(fresh).await };
    AssertUnwindSafe(asking).catch_unwind().await.unwrap_or_else(|panic| {
        let what = panicked(&*panic);
        tracing::error!(what, "a probe panicked");
        Outcome::transient(format!("the probe panicked: {what}"))
    })
}

/// Marsaglia's xorshift (Journal of Statistical Software, 2003), seeded from the system: enough to keep probes of
/// many processes apart.
struct Jitter(u64);

impl Jitter {
    fn new() -> Self {
        Self(RandomState::new().hash_one(0) | 1)
    }

    /// Some time from none to this, which is at most an hour.
    fn up_to(&mut self, most: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        most.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}
