//! What the store's answers say of the volume, and what operations get while it is in trouble, or when it is gone.
//!
//! | answer | is taken for |
//! |---|---|
//! | any that speaks of the object: found, missing, another version, forbidden, no room | the volume is well |
//! | throttled, unavailable, no answer in time; credentials that have expired | trouble, which may pass |
//! | no such bucket; another one of its name; credentials refused | a suspicion, which is confirmed or cleared by asking again |
//! | that a HEAD finds nothing (it has no body to say what is missing); what may come from this process; damage | nothing |
//!
//! By kind only, never by text. Access that is denied to one key says nothing of the others. That a HEAD finds nothing is
//! believed of the object while the volume is known to be there: from an answer a moment ago, or by asking for it.
//!
//! Invariants:
//! 1. Until a suspicion is confirmed, what gave rise to it is trouble: operations wait, as for a store that is away, up to
//!    their deadline.
//! 2. Once it is confirmed, nothing is asked of the store any more, and every operation fails at once.
//! 3. After trouble, nothing is changed in the store before it is known to be the same volume, where that can be known: where
//!    the store shows what tells it from others of its name, and that has been seen to stay while objects were written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use staithe_lifecycle::{Core, Outcome, Phase, Record, SystemClock, Watcher};
use staithe_store::{ErrorKind, ObjectStore, StoreError};

use crate::error::{FsError, FsErrorKind, Result};
use crate::filesystem::Filesystem;
use crate::identity::{Failures, Identity, Told};

/// For how long an answer says that the volume is there.
const MOMENT: Duration = Duration::from_secs(2);
/// Over how long credentials must be refused: while they are rotated, the old ones may be of no use before the new ones are
/// there, or known everywhere.
const ROTATION: Duration = Duration::from_mins(1);
/// How many names of answers are kept that gave a verdict.
const NAMES_KEPT: usize = 16;

/// What ends a mount for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The volume is not there any more.
    Gone,
    /// There is another one of its name.
    Replaced,
    /// The store does not take the credentials any more.
    CredentialsRefused,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gone => "the volume is gone",
            Self::Replaced => "the volume was made anew",
            Self::CredentialsRefused => "the credentials are refused",
        })
    }
}

impl Verdict {
    /// Over how long it must be confirmed, where that is longer than usual.
    fn over(self) -> Duration {
        match self {
            Self::Gone | Self::Replaced => Duration::ZERO,
            Self::CredentialsRefused => ROTATION,
        }
    }
}

/// How requests ended since the start, tries counted one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestCount {
    /// The verb of the port.
    pub operation: &'static str,
    /// `ok`, or the kind of the error.
    pub outcome: &'static str,
    /// How many.
    pub count: u64,
}

/// What is known of the volume.
#[derive(Debug)]
pub(crate) struct Fate {
    watcher: Watcher<Verdict>,
    /// Whether it is the same one.
    identity: Arc<Identity>,
    /// When the volume was last heard of.
    heard: Mutex<Instant>,
    /// Whether the last answer to a question about it was that the credentials are of no use.
    lacks_credentials: AtomicBool,
    /// What the store calls its last answers that gave a verdict: whoever runs it can find them.
    verdicts_of: Mutex<VecDeque<String>>,
    /// How requests ended. One short lock a request.
    counts: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
}

impl Fate {
    pub(crate) fn new(config: staithe_lifecycle::Config, identity: Identity) -> Self {
        let core = Core::new(config, Instant::now()).confirming_over(|verdict: &Verdict| verdict.over());
        let (watcher, identity) = (Watcher::of(core, SystemClock), Arc::new(identity));
        let doubts = Arc::clone(&identity);
        let begins = move |record: &Record<Verdict>| {
            if record.moved.from == Phase::Healthy {
                doubts.doubt();
            }
        };
        watcher.on_change(begins).keep();
        Self {
            watcher,
            identity,
            heard: Mutex::new(Instant::now()),
            lacks_credentials: AtomicBool::new(false),
            verdicts_of: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether there is no trouble.
    pub(crate) fn is_well(&self) -> bool {
        self.watcher.phase() == Phase::Healthy
    }

    pub(crate) fn watcher(&self) -> &Watcher<Verdict> {
        &self.watcher
    }

    /// Notes how a try that began then has ended.
    pub(crate) fn note<T>(&self, operation: &'static str, began: Instant, ended: &staithe_store::Result<T>) {
        self.count(operation, ended);
        let Some(outcome) = outcome_of(operation, ended.as_ref().err()) else { return };
        if outcome == Outcome::Ok {
            *self.heard.lock() = Instant::now();
            if is_change(operation) && ended.is_ok() {
                self.identity.written.notify_one();
            }
        }
        self.watcher.report(began, outcome);
    }

    /// Notes that a request has been without an answer for long.
    pub(crate) fn note_silence(&self, operation: &'static str, began: Instant) {
        let text = format!("{operation}: no answer for {} s", began.elapsed().as_secs());
        self.watcher.report(began, Outcome::Transient(Arc::from(text)));
    }

    /// Whether the volume was heard of a moment ago.
    pub(crate) fn was_heard(&self) -> bool {
        self.heard.lock().elapsed() < MOMENT
    }

    /// Whether it is not known to be the same volume as before the trouble.
    pub(crate) fn is_strange(&self) -> bool {
        self.identity.is_strange()
    }

    /// Finds out whether it is the same volume, before something is changed in it. If the store answers, and does not say
    /// that any more for a while, it is taken for the same.
    ///
    /// # Errors
    /// The store's, and `VolumeGone` for another one.
    ///
    /// # Cancel safety
    /// Dropping the future ends its request.
    pub(crate) async fn recognise(&self, store: &dyn ObjectStore) -> staithe_store::Result<()> {
        let mut failures = self.identity.asking.lock().await;
        if !self.is_strange() {
            return Ok(());
        }
        let began = Instant::now();
        let now = store.identity().await;
        self.count("identity", &now);
        let error = match now.map(|now| self.identity.hear(now.as_deref())) {
            Ok(Told::Same) => {
                *failures = Failures::default();
                return Ok(());
            }
            Ok(Told::Another(text)) => {
                self.watcher.report(began, Outcome::Permanent(Verdict::Replaced, Arc::from(text.as_str())));
                return Err(StoreError::new(ErrorKind::VolumeGone, "identity", text));
            }
            Ok(Told::Nothing) => {
                let text = "the store does not say when the volume was made, and has said it before";
                StoreError::new(ErrorKind::Unavailable, "identity", text)
            }
            Err(error) => error,
        };
        let is_heard = self.identity.is_doubted_before(*self.heard.lock());
        if !failures.are_enough(is_heard, Instant::now()) {
            return Err(error);
        }
        tracing::warn!(%error, "whether the volume was made anew cannot be found out; it is taken for the same");
        *failures = Failures::default();
        self.identity.believe();
        Ok(())
    }

    fn count<T>(&self, operation: &'static str, ended: &staithe_store::Result<T>) {
        let outcome = ended.as_ref().err().map_or("ok", |error| name_of(error.kind()));
        if let Some(id) =
            ended.as_ref().err().filter(|error| is_suspicion(error.kind())).and_then(StoreError::request_id)
        {
            let mut kept = self.verdicts_of.lock();
            if kept.len() == NAMES_KEPT {
                kept.pop_front();
            }
            kept.push_back(id.to_owned());
        }
        *self.counts.lock().entry((operation, outcome)).or_default() += 1;
    }

    /// Why nothing is to be asked any more; `None`: ask.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        if self.watcher.phase() < Phase::Condemned { None } else { self.watcher.verdict() }
    }

    pub(crate) fn counts(&self) -> Vec<RequestCount> {
        let counts = self.counts.lock();
        let count = |(&(operation, outcome), &count)| RequestCount { operation, outcome, count };
        counts.iter().map(count).collect()
    }

    /// Why nothing is to be stored that nobody waits for: nothing has been answered since the store fell silent. So an idle
    /// mount asks no more than the watcher does. `None`: try.
    pub(crate) fn holds_back(&self) -> Option<FsError> {
        let why =
            self.is_silent().then_some("the store does not answer; it is being asked whether it is back");
        why.map(|why| FsError::new(FsErrorKind::TimedOut, why))
    }

    fn is_silent(&self) -> bool {
        let is_troubled = matches!(self.watcher.phase(), Phase::Degraded | Phase::Suspect);
        is_troubled && self.watcher.status().silent_since.is_some()
    }

    /// Returns once it is confirmed that the volume is of no use any more.
    ///
    /// # Cancel safety
    /// Safe: it only looks.
    pub(crate) async fn condemned(&self) -> Verdict {
        loop {
            if let Some(verdict) = self.verdict() {
                return verdict;
            }
            if self.watcher.condemned().await.is_none() {
                return std::future::pending().await;
            }
        }
    }
}

/// Whether an error is no answer to the request, but a suspicion about the volume.
pub(crate) fn is_suspicion(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::VolumeGone | ErrorKind::CredentialsRefused | ErrorKind::CredentialsExpired)
}

/// Whether an operation changes something in the store.
pub(crate) fn is_change(operation: &str) -> bool {
    matches!(
        operation,
        "put"
            | "create_multipart"
            | "upload_part"
            | "upload_part_copy"
            | "complete_multipart"
            | "copy"
            | "delete"
            | "delete_batch"
    )
}

/// What the end of a request says of the volume; `None`: nothing.
pub(crate) fn outcome_of(operation: &str, error: Option<&StoreError>) -> Option<Outcome<Verdict>> {
    use ErrorKind as K;
    let Some(error) = error else { return Some(Outcome::Ok) };
    let text = || Arc::from(error.to_string());
    Some(match error.kind() {
        K::NotFound if matches!(operation, "head" | "checksum") => return None,
        K::Corrupt | K::Unsupported | K::Invalid => return None,
        K::VolumeGone => Outcome::Permanent(Verdict::Gone, text()),
        K::CredentialsRefused => Outcome::Permanent(Verdict::CredentialsRefused, text()),
        K::NotFound | K::VersionMismatch | K::AlreadyExists | K::Forbidden | K::OutOfSpace => Outcome::Ok,
        // What is not told apart yet is trouble.
        _ => Outcome::Transient(text()),
    })
}

/// The error that requests get when it is confirmed: whatever the verdict, the mount has no volume any more.
pub(crate) fn condemned(verdict: Verdict, operation: &'static str) -> StoreError {
    StoreError::new(ErrorKind::VolumeGone, operation, format!("{verdict}: nothing is asked of it any more"))
}

/// The name of an error's kind, for statistics.
fn name_of(kind: ErrorKind) -> &'static str {
    use ErrorKind as K;
    match kind {
        K::NotFound => "not_found",
        K::VolumeGone => "volume_gone",
        K::VersionMismatch => "version_mismatch",
        K::AlreadyExists => "already_exists",
        K::Forbidden => "forbidden",
        K::CredentialsExpired => "credentials_expired",
        K::CredentialsRefused => "credentials_refused",
        K::Throttled => "throttled",
        K::Unavailable => "unavailable",
        K::Timeout => "timeout",
        K::Corrupt => "corrupt",
        K::OutOfSpace => "out_of_space",
        K::Unsupported => "unsupported",
        K::Invalid => "invalid",
        _ => "other",
    }
}

impl Filesystem {
    /// What watches over the volume. Whoever runs the filesystem asks the store when the watcher wants it asked, and acts
    /// on its verdict.
    pub fn watcher(&self) -> &Watcher<Verdict> {
        self.fate.watcher()
    }

    /// Has everything that waits for its next try be stored as soon as the volume is well again.
    pub(crate) fn store_after_trouble(&self) {
        let me = self.me.clone();
        let recovers = move |record: &Record<Verdict>| {
            let Some(fs) = me.upgrade().filter(|_| record.moved.to == Phase::Healthy) else { return };
            let runtime = fs.runtime.clone();
            // It looks at every inode.
            runtime.spawn_blocking(move || fs.retry_failed(&fs.inodes.dirty()));
        };
        self.watcher().on_change(recovers).keep();
    }

    /// Returns once it is confirmed that the volume is of no use any more.
    ///
    /// # Cancel safety
    /// Safe: it only looks.
    pub async fn condemned(&self) -> Verdict {
        self.fate.condemned().await
    }

    /// What the store calls its last answers by which the volume is gone, or the credentials are of no use: at most 16.
    pub fn verdict_request_ids(&self) -> Vec<String> {
        self.fate.verdicts_of.lock().iter().cloned().collect()
    }

    /// What was confirmed of the volume; `None`: it is well, as far as is known.
    pub fn verdict(&self) -> Option<Verdict> {
        self.fate.verdict()
    }

    /// Asks the store, once, whether the volume is there, and after trouble also whether it is still the same one. The
    /// answer is the caller's to report.
    ///
    /// # Cancel safety
    /// Dropping the future ends its requests.
    pub async fn ask_volume(&self) -> Outcome<Verdict> {
        let began = Instant::now();
        let probed = self.store.probe().await;
        self.fate.count("probe", &probed);
        let kind = probed.as_ref().err().map(StoreError::kind);
        let lacks = matches!(kind, Some(ErrorKind::CredentialsRefused | ErrorKind::CredentialsExpired));
        self.fate.lacks_credentials.store(lacks, Ordering::Release);
        tracing::debug!(took = ?began.elapsed(), answer = ?kind, "asked whether the volume is there");
        if let Err(error) = &probed {
            let unclear = || Outcome::Transient(Arc::from(error.to_string()));
            return outcome_of("probe", Some(error)).unwrap_or_else(unclear);
        }
        *self.fate.heard.lock() = Instant::now();
        if !self.fate.is_strange() {
            return Outcome::Ok;
        }
        let now = self.store.identity().await;
        self.fate.count("identity", &now);
        match now.map(|now| self.fate.identity.hear(now.as_deref())) {
            Ok(Told::Another(text)) => Outcome::Permanent(Verdict::Replaced, Arc::from(text)),
            // Who changes something finds out what is not told.
            Ok(Told::Same | Told::Nothing) | Err(_) => Outcome::Ok,
        }
    }

    /// Whether the last answer to [`ask_volume`](Self::ask_volume) was that the credentials are of no use.
    pub fn lacks_credentials(&self) -> bool {
        self.fate.lacks_credentials.load(Ordering::Acquire)
    }

    /// Fails once it is confirmed that the volume is of no use any more: to be asked before each operation. A load, as
    /// long as it is not.
    ///
    /// # Errors
    /// `VolumeGone`.
    pub fn refuse_condemned(&self) -> Result<()> {
        match self.fate.verdict() {
            None => Ok(()),
            Some(verdict) => Err(FsError::new(FsErrorKind::VolumeGone, verdict.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_about_an_object_says_that_the_volume_is_well() {
        use ErrorKind as K;
        let of = |kind| outcome_of("get", Some(&StoreError::new(kind, "get", "x")));
        for kind in [K::NotFound, K::VersionMismatch, K::AlreadyExists, K::Forbidden] {
            assert_eq!(of(kind), Some(Outcome::Ok), "{kind:?}");
        }
        for kind in [K::Throttled, K::Unavailable, K::Timeout, K::CredentialsExpired] {
            assert!(matches!(of(kind), Some(Outcome::Transient(_))), "{kind:?}");
        }
        assert!(matches!(of(K::VolumeGone), Some(Outcome::Permanent(Verdict::Gone, _))));
        assert!(matches!(
            of(K::CredentialsRefused),
            Some(Outcome::Permanent(Verdict::CredentialsRefused, _))
        ));
        assert_eq!(outcome_of("get", None), Some(Outcome::Ok));
        for kind in [K::Corrupt, K::Invalid, K::Unsupported] {
            assert_eq!(of(kind), None, "{kind:?}");
        }
        // It has no body that says what is missing.
        assert_eq!(outcome_of("head", Some(&StoreError::new(K::NotFound, "head", "x"))), None);
    }
}
