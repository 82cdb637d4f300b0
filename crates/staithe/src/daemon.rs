//! The life of a mount: open, mount, serve, until there is a reason to end (see `end`).

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use staithe_fs::{Filesystem, FsError, FsErrorKind, PinnedStore};
use staithe_fuse::FuseMount;
use staithe_s3::S3Store;
use staithe_store::ObjectStore;
use tokio::runtime::Handle;

use tokio::time::Instant;

use crate::audit::Audit;
use crate::control::{Served, Server};
use crate::end::{End, Signals};
use crate::failure::Failure;
use crate::fate::{Asker, Chronicle};
use crate::live::{Live, Mounted};

use crate::registry::{Entry, Record};
use crate::settings::Settings;
use crate::source::{self, Access, Opened};
use crate::tasks::{Tasks, VITAL};
use crate::telemetry::{self, Logging};
use crate::{metrics, places, systemd};

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
    let mounted =
        Mounted { fs: Arc::clone(&fs), view: view.clone(), signed: signed.into(), read_only, logging };
    let chronicle = Chronicle::begin(audit, &fs);
    let tasks = Tasks::new(chronicle.of_incidents());
    let live = Arc::new(Live::new(mounted, settings.live.clone()));
    let served = Served {
        fs: Arc::clone(&fs),
        view,
        live: Arc::clone(&live),
        source: settings.name.clone(),
        mountpoint: mount.mountpoint().to_owned(),
        audit: settings.audit.to_string(),
        tasks: Arc::clone(tasks.supervisor()),
        started: Instant::now(),
    };
    let control = entry.as_ref().and_then(|entry| listen(entry, served));
    begin(&tasks, &fs, &live);
    ready(&settings, &mount);
    let (mount, chronicle, on_gone) = (Arc::new(mount), Arc::new(chronicle), settings.on_gone);
    let mut end = End { fs, mount, control, chronicle, tasks, signals, on_gone };
    let reason = end.wait().await;
    let code = end.run(reason, live.settings().drain_deadline).await;
    Ok((code, entry))
}

/// Begins what goes on beside serving.
fn begin(tasks: &Tasks, fs: &Arc<Filesystem>, live: &Arc<Live>) {
    let (watcher, asker) = (fs.watcher().clone(), Arc::new(Asker::new(fs, live)));
    tasks.spawn(VITAL, move || watcher.run(Arc::clone(&asker)));
    fs.watcher().ready();
    let shown = Arc::downgrade(fs);
    tasks.spawn("metrics", move || metrics::watch(shown.clone()));
    tasks.spawn("systemd watchdog", systemd::keep_alive);
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
    let opened =
        source::open(&settings.source, &settings.store, Access { may_write, tries_again: true }).await;
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
