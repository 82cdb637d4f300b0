//! Whether the volume is still the same one, where the store shows what tells it from others of its name: when it was made.
//!
//! Invariants:
//! 1. That counts once it has been seen to stay while objects were written (*proven*): some servers tell the time of the
//!    last write.
//! 2. After trouble, and after a start that could not ask, the volume is *strange*: not known to be the same. It is known
//!    again by an answer that says so; or if the store, which answers otherwise, does not say it any more for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use staithe_store::ObjectStore;

use crate::commit::with_causes;
use crate::error::Result;
use crate::filesystem::Filesystem;
use crate::patience::starting;
use crate::state_dir::{StateDir, note_identity};
use crate::upload::blocking;

/// How long after a write it is looked whether the identity has stayed. Times are told in whole seconds.
const PROOF: Duration = Duration::from_millis(2100);
/// How often, and for how long, a store that answers must not say which volume it is, until it is taken for the same.
const FAILURES_MOST: u32 = 5;
const FAILURES_FOR: Duration = Duration::from_secs(30);

/// What a start has found out.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What tells the volume from others, if the store shows that.
    pub(crate) identity: Option<String>,
    /// Whether the store has said so just now; else an earlier run has noted it.
    pub(crate) is_known: bool,
}

/// What is known of it.
#[derive(Debug)]
pub(crate) struct Identity {
    known: Option<String>,
    is_proven: AtomicBool,
    is_known: AtomicBool,
    /// Since when it may be another one.
    doubted: Mutex<Instant>,
    /// Who finds that out; how it could not be.
    pub(crate) asking: tokio::sync::Mutex<Failures>,
    /// Something was written.
    pub(crate) written: tokio::sync::Notify,
}

/// What an answer says.
pub(crate) enum Told {
    Same,
    /// There is another one, in a sentence.
    Another(String),
    /// The store does not show it.
    Nothing,
}

/// That the store, which answers, did not say which volume it is.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    count: u32,
    since: Option<Instant>,
}

impl Failures {
    /// One more; `heard`: whether the store answers otherwise. True if it is not to be expected any more.
    pub(crate) fn are_enough(&mut self, heard: bool, now: Instant) -> bool {
        if !heard {
            *self = Self::default();
            return false;
        }
        self.count += 1;
        let since = *self.since.get_or_insert(now);
        self.count > FAILURES_MOST && now.saturating_duration_since(since) >= FAILURES_FOR
    }
}

impl Identity {
    /// `is_proven`: an earlier run has seen that it stays.
    pub(crate) fn new(found: Found, is_proven: bool) -> Self {
        Self {
            known: found.identity,
            is_proven: AtomicBool::new(is_proven),
            is_known: AtomicBool::new(found.is_known),
            doubted: Mutex::new(Instant::now()),
            asking: tokio::sync::Mutex::default(),
            written: tokio::sync::Notify::new(),
        }
    }

    /// Trouble begins: it may be another one when that is over.
    pub(crate) fn doubt(&self) {
        *self.doubted.lock() = Instant::now();
        self.is_known.store(false, Ordering::Release);
    }

    /// Whether what was heard then was heard after the last trouble began.
    pub(crate) fn is_doubted_before(&self, heard: Instant) -> bool {
        *self.doubted.lock() < heard
    }

    /// Whether it is not known to be the same volume.
    pub(crate) fn is_strange(&self) -> bool {
        self.known.is_some()
            && self.is_proven.load(Ordering::Acquire)
            && !self.is_known.load(Ordering::Acquire)
    }

    /// It is taken for the same from now on.
    pub(crate) fn believe(&self) {
        self.is_known.store(true, Ordering::Release);
    }

    /// What an answer of the store says. One that names the same volume is believed.
    pub(crate) fn hear(&self, now: Option<&str>) -> Told {
        match (now, self.known.as_deref()) {
            (Some(now), Some(known)) if now == known => {
                self.believe();
                Told::Same
            }
            (Some(now), Some(known)) => {
                let text = "there is another volume of this name now";
                Told::Another(format!("{text}, {now}; this mount is of the one {known}"))
            }
            _ => Told::Nothing,
        }
    }
}

/// Asks which volume it is, again if that may have been a moment's trouble. A store that does not answer is taken to have
/// the one that an earlier run has noted, until it answers.
///
/// # Errors
/// The store's, if what is unfinished would be stored wherever it goes.
pub(crate) async fn find(store: &dyn ObjectStore, state_dir: &StateDir, has_intents: bool) -> Result<Found> {
    let error = match starting(|| store.identity()).await {
        Ok(identity) => return Ok(Found { identity, is_known: true }),
        Err(error) => error,
    };
    let noted = state_dir.identity(&store.volume())?;
    if has_intents && noted.is_some() {
        return Err(error.into());
    }
    tracing::warn!(%error, "whether the volume was made anew is not known yet");
    Ok(Found { identity: noted, is_known: false })
}

impl Filesystem {
    /// Sees whether what tells the volume from others stays as it is while objects are written, and makes it known to later
    /// runs then. A server that tells the time of the last write is found out.
    pub(crate) fn prove_identity(&self) {
        let identity = self.fate.identity();
        if identity.known.is_none() || identity.is_proven.load(Ordering::Acquire) {
            return;
        }
        let me = self.me.clone();
        self.chore("prove the identity", move || {
            let me = me.clone();
            async move {
                while let Some(fs) = me.upgrade() {
                    let (fate, me) = (Arc::clone(&fs.fate), Arc::downgrade(&fs));
                    drop(fs);
                    fate.identity().written.notified().await;
                    tokio::time::sleep(PROOF).await;
                    let Some(fs) = me.upgrade() else { return };
                    if fs.is_proven_now().await {
                        return;
                    }
                }
            }
        });
    }

    /// Whether there is nothing more to find out.
    async fn is_proven_now(&self) -> bool {
        let identity = self.fate.identity();
        let is_well = self.fate.is_well() && identity.is_known.load(Ordering::Acquire);
        let Some(now) = self.store.identity().await.ok().filter(|_| is_well) else { return false };
        if now == identity.known {
            self.note_identity(now.unwrap_or_default()).await;
            identity.is_proven.store(true, Ordering::Release);
        } else {
            tracing::info!("the store does not show when the volume was made: its word on that changes");
        }
        true
    }

    async fn note_identity(&self, identity: String) {
        let (volume, state_dir) = (Arc::clone(&self.volume), self.state_dir.path().to_owned());
        let noted = blocking(move || note_identity(&state_dir, &volume, &identity));
        if let Err(error) = noted.await {
            tracing::warn!(error = with_causes(&error), "which volume it is cannot be written down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proven() -> Identity {
        Identity::new(Found { identity: Some("made at 1".to_owned()), is_known: true }, true)
    }

    #[test]
    fn after_trouble_only_an_answer_makes_it_known() {
        let identity = proven();
        assert!(!identity.is_strange());
        identity.doubt();
        assert!(identity.is_strange());
        assert!(matches!(identity.hear(None), Told::Nothing));
        assert!(identity.is_strange());
        let Told::Another(text) = identity.hear(Some("made at 2")) else { panic!("it is another one") };
        assert!(text.contains("made at 2") && identity.is_strange(), "{text}");
        assert!(matches!(identity.hear(Some("made at 1")), Told::Same));
        assert!(!identity.is_strange());
    }

    #[test]
    fn what_was_noted_and_could_not_be_asked_is_strange() {
        let found = |is_known| Found { identity: Some("made at 1".to_owned()), is_known };
        assert!(Identity::new(found(false), true).is_strange());
        // Of what was never proven, nothing is to be expected.
        assert!(!Identity::new(found(false), false).is_strange());
        assert!(!Identity::new(Found::default(), true).is_strange());
    }

    #[test]
    fn a_store_that_is_away_says_nothing_by_that() {
        let (mut failures, begun) = (Failures::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        for second in 0..100 {
            assert!(!failures.are_enough(false, at(second)));
        }
        // One that answers and does not say it is believed after a while, and not before.
        assert!((100..130).all(|second| !failures.are_enough(true, at(second))));
        assert!(failures.are_enough(true, at(130)));
        // It was away in between: from the beginning.
        assert!(!failures.are_enough(false, at(131)));
        assert!(!failures.are_enough(true, at(200)));
    }
}
