//! The end of a mount, step by step, each with a time of its own: one that overruns is named in the log and passed by. What
//! was never stored is made durable before anything else may end the process.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use staithe_fs::{DrainReport, Filesystem, Verdict};
use staithe_fuse::FuseMount;
use staithe_lifecycle::Steps;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::control::Server;
use crate::failure::{DONE, FAILED, Failure, KEPT, chain};
use crate::fate::{self, Chronicle};
use crate::options::OnGone;
use crate::systemd;
use crate::tasks::Tasks;

/// What is left for storing when users of the mount took all of the drain deadline to leave.
const LEAST_DRAIN: Duration = Duration::from_secs(1);
/// How long requests may go on after nothing is asked of the store any more.
const LAST_REQUESTS: Duration = Duration::from_secs(2);
/// How long commands may take to hang up.
const COMMANDS: Duration = Duration::from_secs(5);
/// How much longer than its users are waited for an unmount may take.
const UNMOUNTING: Duration = Duration::from_secs(10);
/// How long a slow disk may take for what was never stored, beyond the time for storing: nothing else is worth as much.
const KEEPING: Duration = Duration::from_hours(1);
/// How long tasks may take.
const TASKS: Duration = Duration::from_secs(2);
/// How long the audit log may take.
const RECORDS: Duration = Duration::from_secs(30);

/// The signals that end a daemon.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Has them delivered here from now on.
    pub(crate) fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|e| Failure::caused("signals cannot be received", &e));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    /// The name of the next one.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Why a mount ends.
pub(crate) enum Reason {
    /// Somebody wants it to.
    Asked(&'static str),
    /// There is nothing left to serve.
    Condemned(Verdict),
    /// One of its tasks has failed for good.
    Failed(Arc<str>),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked(why) => f.write_str(why),
            Self::Condemned(verdict) => write!(f, "{verdict}"),
            Self::Failed(task) => write!(f, "the task {task:?} has failed for good"),
        }
    }
}

/// What ends with a mount.
pub(crate) struct End {
    pub(crate) fs: Arc<Filesystem>,
    pub(crate) mount: Arc<FuseMount>,
    pub(crate) control: Option<Server>,
    pub(crate) chronicle: Arc<Chronicle>,
    pub(crate) tasks: Tasks,
    pub(crate) signals: Signals,
    pub(crate) on_gone: OnGone,
}

/// What a drain left, once it has ended.
type Left = Arc<Mutex<Option<DrainReport>>>;

impl End {
    /// Waits for a reason.
    pub(crate) async fn wait(&mut self) -> Reason {
        tokio::select! {
            biased;
            verdict = self.fs.condemned() => Reason::Condemned(verdict),
            () = self.mount.ended() => Reason::Asked("unmounted from outside"),
            name = self.signals.next() => Reason::Asked(name),
            task = self.tasks.given_up() => Reason::Failed(task),
        }
    }

    /// Ends it; the exit code. `patience`: for users of the mount to leave, and for storing.
    pub(crate) async fn run(mut self, reason: Reason, patience: Duration) -> u8 {
        match &reason {
            Reason::Asked(why) => tracing::info!(why, "asked to end"),
            Reason::Failed(_) => tracing::error!(%reason, "it ends, because nobody watches over it any more"),
            Reason::Condemned(verdict) => self.give_up(*verdict).await,
        }
        self.fs.watcher().drain(reason.to_string());
        systemd::stopping("unmounting");
        let _more_time = systemd::ask_for_time();
        let (began, report) = (Instant::now(), self.drain(patience).await);
        let mut steps = Steps::new();
        let code = match (self.fs.verdict(), &reason) {
            (Some(verdict), Reason::Condemned(_)) => fate::code_of(verdict),
            // It has turned out in between.
            (Some(verdict), _) => {
                steps = steps.step_blocking("verdict", RECORDS, self.record(verdict, began, report.clone()));
                fate::code_of(verdict)
            }
            (None, Reason::Failed(_)) if report.kept.is_empty() => FAILED,
            (None, _) => code_of_drain(&report),
        };
        if !report.kept.is_empty() {
            self.tell_kept(&report);
        }
        self.fs.watcher().exited(format!("exit code {code}"));
        let (chronicle, fs) = (Arc::clone(&self.chronicle), Arc::clone(&self.fs));
        let record = move || {
            chronicle.end(&fs, code, &report);
            FINE
        };
        steps.step_blocking("audit", RECORDS, record).run().await;
        code
    }

    /// Writes a verdict down, with what was never stored.
    fn record(
        &self,
        verdict: Verdict,
        began: Instant,
        report: DrainReport,
    ) -> impl FnOnce() -> Result<(), Infallible> + Send + use<> {
        let (fs, chronicle) = (Arc::clone(&self.fs), Arc::clone(&self.chronicle));
        move || {
            chronicle.condemned(&fs, verdict, began.elapsed(), &report);
            FINE
        }
    }

    /// The volume is of no use any more: keeps what was never stored, writes that down, and waits for somebody to unmount
    /// it where that is wanted.
    async fn give_up(&mut self, verdict: Verdict) {
        let began = Instant::now();
        let more_time = systemd::ask_for_time();
        let reason = self.fs.watcher().status().reason.to_string();
        tracing::error!(reason, "{verdict}: every operation fails from now on");
        let left = Left::default();
        let mount = Arc::clone(&self.mount);
        let requests = async move { mount.close(LAST_REQUESTS).await };
        let (fs, keeps) = (Arc::clone(&self.fs), Arc::clone(&left));
        let keep = async move {
            let report = fs.give_up().await;
            *keeps.lock() = Some(report);
            FINE
        };
        let steps = Steps::new().step("requests", LAST_REQUESTS * 2, requests);
        steps.step_detached("keep what was never stored", KEEPING, keep).run().await;
        let record = self.record(verdict, began, taken(&left));
        Steps::new().step_blocking("verdict", RECORDS, record).run().await;
        drop(more_time);
        if self.on_gone == OnGone::Unmount {
            return;
        }
        tracing::warn!("it stays mounted, so that nobody writes to what is below it; unmount it to end");
        tokio::select! {
            () = self.mount.ended() => {}
            name = self.signals.next() => tracing::info!(signal = name, "asked to end"),
        }
    }

    /// No commands, no new changes, then no new users, then everything into the store.
    async fn drain(&mut self, patience: Duration) -> DrainReport {
        let until = Instant::now() + patience;
        // First of all: nothing that a command has begun may go on below a mount that ends.
        let control = self.control.take();
        let commands = async move {
            if let Some(control) = control {
                control.end().await;
            }
            FINE
        };
        let (fs, mount) = (Arc::clone(&self.fs), Arc::clone(&self.mount));
        let unmount = async move {
            fs.begin_draining();
            // What is dirty is stored all the same; the kernel cuts the mount off when the process ends.
            let how = mount.unmount(patience).await.map_err(|error| chain(&error))?;
            tracing::info!(?how, "unmounted");
            Ok::<_, String>(())
        };
        let (fs, mount, left) = (Arc::clone(&self.fs), Arc::clone(&self.mount), Left::default());
        let leaves = Arc::clone(&left);
        let store = async move {
            if !mount.has_ended() {
                // It could not be unmounted: whoever is in it must not change what is looked at now.
                let _ = mount.close(LAST_REQUESTS).await;
            }
            let patience = (until - Instant::now()).max(LEAST_DRAIN);
            let report = fs.drain(patience).await;
            *leaves.lock() = Some(report);
            FINE
        };
        let tasks = self.tasks.end(TASKS);
        let steps = Steps::new().step("commands", COMMANDS, commands);
        let steps = steps.step("unmount", patience + UNMOUNTING, unmount);
        let steps = steps.step_detached("store", patience + KEEPING, store);
        steps.step("tasks", TASKS * 2, tasks).run().await;
        taken(&left)
    }

    fn tell_kept(&self, report: &DrainReport) {
        for path in &report.kept {
            tracing::warn!(path, "kept in the state directory");
        }
        let (files, state_dir): (_, &Path) = (report.kept.len(), self.fs.state_dir());
        let state_dir = state_dir.display();
        if self.fs.verdict().is_some() {
            tracing::warn!(files, %state_dir, "not everything is stored; `staithe rescue` exports it");
        } else {
            tracing::warn!(files, %state_dir, "not everything is stored; mount again to finish");
        }
    }
}

/// The end of a step that cannot fail.
const FINE: Result<(), Infallible> = Ok(());

/// What was left; of a step that did not come to its end, that it was under way.
fn taken(left: &Left) -> DrainReport {
    let under_way = || DrainReport { kept: vec!["what was under way when the time was over".to_owned()] };
    left.lock().take().unwrap_or_else(under_way)
}

fn code_of_drain(report: &DrainReport) -> u8 {
    if report.kept.is_empty() {
        tracing::info!("everything is stored");
        DONE
    } else {
        KEPT
    }
}
