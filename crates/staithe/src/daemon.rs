//! The life of a mount: open, mount, serve, drain, in this order and back; or, if the volume was deleted meanwhile, keep
//! what was never stored, and leave.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use staithe_fs::{DrainReport, Filesystem, FsError, FsErrorKind, PinnedStore, Verdict};
use staithe_fuse::FuseMount;
use staithe_s3::S3Store;
use staithe_store::ObjectStore;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::audit::Audit;
use crate::control::{Served, Server};
use crate::failure::{DONE, Failure, KEPT, chain};
use crate::fate::{self, Asker, Chronicle};
use crate::live::{Live, Mounted};
use crate::options::OnGone;
use crate::registry::{Entry, Record};
use crate::settings::Settings;
use crate::source::{self, Opened};
use crate::telemetry::{self, Logging};
use crate::{metrics, places, systemd};

/// What is left for storing when users of the mount took all of the drain deadline to leave.
const LEAST_DRAIN: Duration = Duration::from_secs(1);
/// How much longer than the drain deadline the end may take: users that are cut off, and files that are made durable.
const STOPPING: Duration = Duration::from_secs(30);
/// How long leftover tasks may hold up the exit.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Mounts, and serves until it is unmounted or told to end. Returns the exit code.
///
/// # Errors
/// One sentence if it could not start.
pub(crate) fn run(settings: Settings) -> Result<u8, Failure> {
    let logging = telemetry::start(settings.log_format, settings.live.log_level);
    let audit = open_audit(&settings)?;
    #[cfg(debug_assertions)]
    crate::failpoint::arm()?;
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("staithe")
        .build()
        .map_err(|e| Failure::caused("the runtime cannot start", &e))?;
    let (code, entry) = runtime.block_on(live(settings, logging, audit))?;
    runtime.shutdown_timeout(LAST_WAIT);
    // The gate opens last: whoever waits may mount again at once.
    if let Some(mut entry) = entry
        && let Err(error) = entry.finish(code)
    {
        tracing::warn!(%error, "the exit code could not be left for `staithe umount`");
    }
    Ok(code)
}

/// The audit log, in the state directory unless another place is named.
fn open_audit(settings: &Settings) -> Result<Arc<Audit>, Failure> {
    let dir = &settings.fs.state_dir;
    let unusable = |e| Failure::caused(format!("the state directory {} cannot be used", dir.display()), &e);
    places::create_private(dir).map_err(unusable)?;
    let mountpoint = settings.fuse.mountpoint.to_string_lossy();
    let about = [("volume", &*settings.name), ("mountpoint", &*mountpoint)];
    Audit::open(settings.audit.clone(), &about).map(Arc::new)
}

/// Open files hold descriptors here too: as many as the system lets us have.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// The signals that end a daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|e| Failure::caused("signals cannot be received", &e));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

async fn live(
    settings: Settings,
    logging: Logging,
    audit: Arc<Audit>,
) -> Result<(u8, Option<Entry>), Failure> {
    let mut signals = Signals::new()?;
    settings.metrics.map(metrics::serve).transpose()?;
    let Started { fs, mount, view, signed } = tokio::select! {
        started = start(&settings) => started?,
        name = signals.next() => return Err(Failure::failed(format!("{name} came before the mount was ready"))),
    };
    let entry = register(&settings, &mount);
    let read_only = settings.fs.read_only;
    let mounted = Mounted { fs: Arc::clone(&fs), view: view.clone(), signed, read_only, logging };
    let live = Arc::new(Live::new(mounted, settings.live.clone()));
    let served = Served {
        fs: Arc::clone(&fs),
        view,
        live: Arc::clone(&live),
        source: settings.name.clone(),
        mountpoint: mount.mountpoint().to_owned(),
        audit: settings.audit.to_string(),
        started: Instant::now(),
    };
    let control = entry.as_ref().and_then(|entry| listen(entry, served));
    let chronicle = Chronicle::begin(audit, &fs);
    let watcher = fs.watcher().clone();
    let watching = tokio::spawn(watcher.run(Asker::new(&fs, &live)));
    watcher.ready();
    metrics::watch(&fs);
    fate::keep_alive();
    ready(&settings, &mount);
    let mut end = End { settings: &settings, fs: &fs, mount: &mount, control, chronicle, signals };
    let reason = end.wait().await;
    let code = end.run(reason, live.settings().drain_deadline).await;
    watching.abort();
    Ok((code, entry))
}

/// What a daemon serves.
struct Started {
    fs: Arc<Filesystem>,
    mount: FuseMount,
    view: Option<Arc<PinnedStore>>,
    /// The store, if its credentials can be renewed.
    signed: Option<S3Store>,
}

async fn start(settings: &Settings) -> Result<Started, Failure> {
    let cannot =
        |error: &dyn std::error::Error| Failure::caused(format!("cannot mount {}", settings.name), error);
    // The cheapest question first: a start that cannot mount must not ask the store for anything.
    let mountpoint = settings.fuse.mountpoint.clone();
    let checking = tokio::task::spawn_blocking(move || staithe_fuse::prepare_mountpoint(&mountpoint));
    checking.await.map_err(|e| cannot(&e))?.map_err(|e| cannot(&e))?;
    let may_write = !settings.fs.read_only;
    let opened = source::open(&settings.source, &settings.store, may_write).await;
    let Opened { store, signed } = opened.map_err(|e| cannot(&e))?;
    let (store, view) = match &settings.view {
        None => (store, None),
        Some(file) => {
            let view = show(store, settings, file).await.map_err(|e| cannot(&e))?;
            (Arc::clone(&view) as Arc<dyn ObjectStore>, Some(view))
        }
    };
    let fs = Filesystem::open(store, settings.fs.clone()).await.map_err(|e| cannot(&e))?;
    let (serving, fuse, runtime) = (Arc::clone(&fs), settings.fuse.clone(), Handle::current());
    let mounting = tokio::task::spawn_blocking(move || FuseMount::mount(serving, runtime, &fuse));
    let mount = mounting.await.map_err(|e| cannot(&e))?.map_err(|e| cannot(&e))?;
    Ok(Started { fs, mount, view, signed })
}

/// What the manifest in `file` lists of `store`.
async fn show(
    store: Arc<dyn ObjectStore>,
    settings: &Settings,
    file: &Path,
) -> Result<Arc<PinnedStore>, FsError> {
    let (file, prefix, attributes) = (file.to_owned(), settings.fs.prefix.clone(), settings.fs.attributes);
    let opening = move || PinnedStore::open(store, &prefix, attributes, &file);
    let opened = tokio::task::spawn_blocking(opening).await;
    opened.map_err(|e| FsError::caused(FsErrorKind::Io, "the view cannot be loaded", e))?.map(Arc::new)
}

fn register(settings: &Settings, mount: &FuseMount) -> Option<Entry> {
    let record = Record {
        pid: std::process::id(),
        source: settings.name.clone(),
        mountpoint: mount.mountpoint().to_owned(),
        state_dir: settings.fs.state_dir.clone(),
        exit_code: None,
    };
    let created = Entry::create(record);
    if let Err(error) = &created {
        tracing::warn!(%error, "no command will find this daemon, and `staithe umount` not wait for it");
    }
    created.ok()
}

/// Takes commands.
fn listen(entry: &Entry, served: Served) -> Option<Server> {
    let started = Server::start(entry.socket(), served);
    if let Err(error) = &started {
        tracing::warn!(%error, "this daemon takes no commands");
    }
    started.ok()
}

fn ready(settings: &Settings, mount: &FuseMount) {
    let mountpoint = mount.mountpoint().display();
    tracing::info!(source = settings.name, %mountpoint, "ready");
    systemd::ready(&format!("{} on {mountpoint}", settings.name));
    // Nobody may be listening; that is no reason to unmount.
    let _ = writeln!(std::io::stdout(), "ready: {} on {mountpoint}", settings.name);
}

/// Why a mount ends.
enum Reason {
    /// Somebody wants it to.
    Asked(&'static str),
    /// There is nothing left to serve.
    Condemned(Verdict),
}

/// The end of a mount.
struct End<'m> {
    settings: &'m Settings,
    fs: &'m Filesystem,
    mount: &'m FuseMount,
    control: Option<Server>,
    chronicle: Chronicle,
    signals: Signals,
}

impl End<'_> {
    /// Waits for a reason.
    async fn wait(&mut self) -> Reason {
        tokio::select! {
            () = self.mount.ended() => Reason::Asked("unmounted from outside"),
            name = self.signals.next() => Reason::Asked(name),
            verdict = self.fs.condemned() => Reason::Condemned(verdict),
        }
    }

    /// Ends it; the exit code.
    async fn run(mut self, reason: Reason, patience: Duration) -> u8 {
        match reason {
            Reason::Asked(why) => tracing::info!(why, "asked to end"),
            Reason::Condemned(verdict) => self.give_up(verdict).await,
        }
        self.fs.watcher().drain(match reason {
            Reason::Asked(why) => why.to_owned(),
            Reason::Condemned(verdict) => verdict.to_string(),
        });
        systemd::stopping("unmounting", patience + STOPPING);
        if let Some(control) = self.control.take() {
            // First of all: nothing that a command has begun may go on below a mount that ends.
            control.end().await;
        }
        let report = self.drain(patience).await;
        // It may have turned out in between.
        let code = self.fs.verdict().map_or_else(|| code_of_drain(&report), fate::code_of);
        if !report.kept.is_empty() {
            self.tell_kept(&report);
        }
        self.fs.watcher().exited(format!("exit code {code}"));
        let (chronicle, fs) = (self.chronicle, self.fs);
        tokio::task::block_in_place(|| chronicle.end(fs, code, &report));
        code
    }

    /// The volume is of no use any more: keeps what was never stored, writes that down, and waits for somebody to unmount
    /// it where that is wanted.
    async fn give_up(&mut self, verdict: Verdict) {
        let began = Instant::now();
        let reason = self.fs.watcher().status().reason.to_string();
        tracing::error!(reason, "{verdict}: every operation fails from now on");
        if let Err(inside) = self.mount.close(LAST_WAIT).await {
            tracing::warn!(%inside, "requests are still under way, and were to fail at once");
        }
        let report = self.fs.give_up().await;
        let seconds = began.elapsed().as_secs_f64();
        tokio::task::block_in_place(|| self.chronicle.condemned(verdict, &reason, seconds, &report));
        if self.settings.on_gone == OnGone::Unmount {
            return;
        }
        tracing::warn!("it stays mounted, so that nobody writes to what is below it; unmount it to end");
        tokio::select! {
            () = self.mount.ended() => {}
            name = self.signals.next() => tracing::info!(signal = name, "asked to end"),
        }
    }

    /// No new changes, then no new users, then everything into the store.
    async fn drain(&self, patience: Duration) -> DrainReport {
        let until = Instant::now() + patience;
        self.fs.begin_draining();
        match self.mount.unmount(patience).await {
            Ok(how) => tracing::info!(?how, "unmounted"),
            // What is dirty is stored all the same; the kernel cuts the mount off when the process ends.
            Err(error) => tracing::error!(error = chain(&error), "cannot unmount"),
        }
        self.fs.drain((until - Instant::now()).max(LEAST_DRAIN)).await
    }

    fn tell_kept(&self, report: &DrainReport) {
        for path in &report.kept {
            tracing::warn!(path, "kept in the state directory");
        }
        let (files, state_dir) = (report.kept.len(), self.settings.fs.state_dir.display());
        if self.fs.verdict().is_some() {
            tracing::warn!(files, %state_dir, "not everything is stored; `staithe rescue` exports it");
        } else {
            tracing::warn!(files, %state_dir, "not everything is stored; mount again to finish");
        }
    }
}

fn code_of_drain(report: &DrainReport) -> u8 {
    if report.kept.is_empty() {
        tracing::info!("everything is stored");
        DONE
    } else {
        KEPT
    }
}
