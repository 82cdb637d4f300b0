//! Watching over a mount's volume: asks the store when the watcher wants it asked, tells whoever keeps records, and ends
//! the mount when it is confirmed that there is nothing left to serve.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use staithe_fs::{Conflict, DrainReport, Filesystem, Verdict};
use staithe_lifecycle::{Incident, Outcome, Phase, Prober, Reason, Record, Subscription, What};

use crate::audit::{Audit, names};
use crate::failure::{GONE, REFUSED};
use crate::live::Live;
use crate::systemd;

/// The code of a deleted volume in audit records, as other mounts have it, too.
const VOLUME_NOT_EXIST: u32 = 100_404;
/// The code of credentials that are refused for good.
const CREDENTIALS_REFUSED: u32 = 100_401;

/// Asks the store how it fares.
pub(crate) struct Asker {
    fs: Arc<Filesystem>,
    live: Arc<Live>,
}

impl Asker {
    pub(crate) fn new(fs: &Arc<Filesystem>, live: &Arc<Live>) -> Self {
        Self { fs: Arc::clone(fs), live: Arc::clone(live) }
    }

    async fn ask(&self) -> Outcome<Verdict> {
        let asked = self.fs.ask_volume().await;
        if !self.fs.lacks_credentials() {
            return asked;
        }
        // Somebody may have left new ones where they are looked for.
        if !self.live.finds_other_credentials().await {
            return asked;
        }
        match self.live.reload(&[]).await {
            Ok(_) => self.fs.ask_volume().await,
            Err(failure) => {
                tracing::debug!(%failure, "the other credentials are no better");
                asked
            }
        }
    }
}

impl Prober<Verdict> for Asker {
    // Each probe opens a connection of its own.
    fn probe(&self, _fresh: bool) -> BoxFuture<'_, Outcome<Verdict>> {
        Box::pin(self.ask())
    }
}

/// What is written into the audit log.
enum Entry {
    Phase(Record<Verdict>),
    Conflict(Conflict),
    Incident(Incident),
    /// The last one.
    End,
}

/// Tells of a mount's fate: the audit log, the log, systemd. Nobody who has something to tell waits for the disk.
pub(crate) struct Chronicle {
    audit: Arc<Audit>,
    tell: Sender<Entry>,
    writer: Mutex<Option<JoinHandle<()>>>,
    watching: Mutex<Option<Subscription>>,
    /// Why what was confirmed is believed.
    why: Arc<Mutex<String>>,
}

impl Chronicle {
    /// Tells from now on.
    pub(crate) fn begin(audit: Arc<Audit>, fs: &Filesystem) -> Self {
        audit.hold_room();
        let (tell, told) = channel();
        let (phases, conflicts) = (tell.clone(), tell.clone());
        let why = Arc::new(Mutex::new(String::new()));
        let notes = Arc::clone(&why);
        let watching = fs.watcher().on_change(move |record| {
            if record.moved.to == Phase::Condemned {
                *notes.lock() = record.moved.reason.to_string();
            }

            // The writer ends when nobody tells any more.
            let _ = phases.send(Entry::Phase(record.clone()));
        });
        fs.on_conflict(move |conflict| {
            let _ = conflicts.send(Entry::Conflict(conflict));
        });
        let writes = Arc::clone(&audit);
        let writer = std::thread::Builder::new().name("staithe-audit".to_owned());
        let writer = writer.spawn(move || write_all(&writes, &told)).inspect_err(|error| {
            tracing::error!(%error, "phases and conflicts are not written to the audit log");
        });
        let (writer, watching) = (Mutex::new(writer.ok()), Mutex::new(Some(watching)));
        Self { audit, tell, writer, watching, why }
    }

    /// For whoever hears of tasks that panicked.
    pub(crate) fn of_incidents(&self) -> impl Fn(&Incident) + Send + Sync + 'static {
        let tell = self.tell.clone();
        move |incident| {
            let _ = tell.send(Entry::Incident(incident.clone()));
        }
    }

    /// Writes down what became of the volume, and how much of what was here it never had. It is on the disk when this
    /// returns. Blocks.
    pub(crate) fn condemned(&self, fs: &Filesystem, verdict: Verdict, took: Duration, report: &DrainReport) {
        let (event, code) = match verdict {
            Verdict::Gone | Verdict::Replaced => ("volume-gone", VOLUME_NOT_EXIST),
            Verdict::CredentialsRefused => ("credentials-refused-for-good", CREDENTIALS_REFUSED),
        };
        let (some, others) = names(&report.kept);
        let record = json!({
            "code": code,
            "verdict": verdict.to_string(),
                        "reason": self.why(),
            "request_ids": fs.verdict_request_ids(),
            "unstored": some,
            "seconds": took.as_secs_f64(),
        });
        self.audit.record_vital(&with_others((event, record), others));
    }

    fn why(&self) -> String {
        let why = self.why.lock().clone();
        // While it drains there is no move.
        if why.is_empty() { "confirmed while the mount was ending".to_owned() } else { why }
    }

    /// Writes down how it ended, after everything before. Blocks.
    pub(crate) fn end(&self, fs: &Filesystem, code: u8, report: &DrainReport) {
        *self.watching.lock() = None;
        fs.on_conflict(|_| {});
        // Nobody hears it: then the writer has ended.
        let _ = self.tell.send(Entry::End);
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            // A panic there has been reported.
            let _ = writer.join();
        }
        let (some, others) = names(&report.kept);
        let record = json!({"code": code, "unstored": some});
        self.audit.record_vital(&with_others(("exit", record), others));
    }
}

/// A record, and before it those with the names that it has no room for: it is the last of them.
fn with_others(record: (&'static str, Value), others: Vec<Value>) -> Vec<(&'static str, Value)> {
    let others = others.into_iter().map(|names| ("unstored", json!({"unstored": names})));
    others.chain([record]).collect()
}

fn write_all(audit: &Audit, told: &Receiver<Entry>) {
    while let Ok(entry) = told.recv() {
        match entry {
            Entry::Phase(record) => tell_phase(audit, &record),
            Entry::Conflict(Conflict { path, kept_as }) => {
                audit.record("conflict", json!({"path": path, "kept_as": kept_as}));
            }
            Entry::Incident(Incident { name, what, .. }) => {
                let what = match what {
                    What::Panicked(said) => format!("panicked: {said}"),
                    What::GivenUp => "is not started again".to_owned(),
                };
                audit.record("task", json!({"task": &*name, "what": what}));
            }
            Entry::End => return,
        }
    }
}

fn tell_phase(audit: &Audit, record: &Record<Verdict>) {
    let moved = &record.moved;
    let (from, to, reason) = (moved.from.to_string(), moved.to.to_string(), moved.reason.to_string());
    if matches!(moved.reason, Reason::Verdict { verdict: Verdict::CredentialsRefused, .. }) {
        audit.record("credentials-refused", json!({"reason": reason}));
    }
    audit.record("phase", json!({"phase": to, "from": from, "to": to, "reason": reason}));
    systemd::status(&format!("{to}: {reason}"));
    match moved.to {
        Phase::Degraded | Phase::Suspect => tracing::warn!(from, reason, "the mount is {to}"),
        Phase::Condemned => tracing::error!(from, reason, "the mount is {to}"),
        _ => tracing::info!(from, reason, "the mount is {to}"),
    }
}

/// The exit code of a mount that ended for that.
pub(crate) fn code_of(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Gone | Verdict::Replaced => GONE,
        Verdict::CredentialsRefused => REFUSED,
    }
}
