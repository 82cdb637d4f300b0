//! The life of one mount.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fuser::{Config, Session, SessionACL};
use staithe_fs::Filesystem;
use staithe_lifecycle::Inside;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::adapter::Adapter;
use crate::config::FuseConfig;
use crate::dispatch::Dispatcher;
use crate::error::{MountError, MountErrorKind};
use crate::kernel::{Kernel, Line};
use crate::mounts::visible_at;
use crate::{connection, device, mountpoint, notify};

/// How often a detached mount is looked at.
const PATROL: Duration = Duration::from_millis(100);
/// A detached mount without a request for this long is only held open, not used.
const IDLE: Duration = Duration::from_secs(1);
/// How long an aborted session may take to end.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// A mounted filesystem.
///
/// Dropping it without [`unmount`](Self::unmount) takes the mount out of the tree; what has files open there
/// goes on using them until the process ends.
#[derive(Debug)]
pub struct FuseMount {
    mountpoint: PathBuf,
    minor: u32,
    ended: watch::Receiver<bool>,
    dispatcher: Arc<Dispatcher>,
}

/// How a mount ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounted {
    /// Nothing used it.
    Clean,
    /// It was in use, was taken out of the tree, and its users left in time.
    Detached,
    /// Its users did not leave; their requests were failed.
    Aborted,
}

impl FuseMount {
    /// Mounts `fs`; requests that must wait run on `runtime`. Blocks for as long as the kernel takes.
    ///
    /// A dead staithe mount at the same place is replaced.
    ///
    /// # Errors
    /// [`MountError`]: a mount point that cannot be used, no FUSE, no permission.
    pub fn mount(fs: Arc<Filesystem>, runtime: Handle, config: &FuseConfig) -> Result<Self, MountError> {
        let mountpoint = mountpoint::prepare(&config.mountpoint)?;
        let invalidations = fs.invalidations();
        let (timed, grace) = (Arc::clone(&fs), config.grace);
        let deadline = move || timed.op_deadline().saturating_add(grace);
        let condemned = Arc::clone(&fs);
        let refuses = move || condemned.refuse_condemned();
        let dispatcher = Arc::new(Dispatcher::new(runtime, deadline, refuses, fs.answers()));
        let line = Arc::new(Line::new());
        let adapter = Adapter {
            fs,
            dispatcher: Arc::clone(&dispatcher),
            line: Arc::clone(&line),
            batch: Arc::default(),
            batch_plus: Arc::default(),
            passthrough: Arc::default(),
            names_expire: Arc::default(),
        };
        let fuse = device::mount(&mountpoint, config)?;
        let started = start(adapter, fuse, &line, config, &mountpoint).and_then(|(session, minor)| {
            let ended = run(session)?;
            notify::spawn(line, invalidations, ended.clone()).map_err(|e| cannot("start a thread", e))?;
            Ok((ended, minor))
        });
        let (ended, minor) = match started {
            Ok(started) => started,
            Err(error) => {
                // The error says more than a failure to clean up would.
                let _ = device::detach(&mountpoint);
                return Err(error);
            }
        };
        connection::set_read_ahead(minor, config.read_ahead_kib);
        Ok(Self { mountpoint, minor, ended, dispatcher })
    }

    /// Where it is mounted, without links.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Whether the session is over.
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Waits until the session is over: unmounted, by us or from outside.
    ///
    /// # Cancel safety
    /// Safe: it only looks.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that the session's thread is gone, which is an end too.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Has no request wait for anything any more, and waits until those that do are answered; those that are answered at
    /// once go on.
    ///
    /// # Errors
    /// Who was not answered `within` that time, by operation.
    ///
    /// # Cancel safety
    /// Safe: call it again to go on waiting.
    pub async fn close(&self, within: Duration) -> Result<(), Inside> {
        self.dispatcher.close(within).await
    }

    /// Unmounts. A mount in use is taken out of the tree, so that nobody new comes in; who is in gets until
    /// `wait` to finish, or a moment if they only hold it open; then the connection is cut.
    ///
    /// # Errors
    /// [`MountError`] if the kernel does not let go of it.
    ///
    /// # Cancel safety
    /// Safe: call it again to go on.
    pub async fn unmount(&self, wait: Duration) -> Result<Unmounted, MountError> {
        if self.has_ended() {
            return Ok(Unmounted::Clean);
        }
        let (mountpoint, minor) = (self.mountpoint.clone(), self.minor);
        let taken = tokio::task::spawn_blocking(move || take_out(&mountpoint, minor)).await;
        let how =
            taken.map_err(|e| MountError::caused(MountErrorKind::Kernel, "unmounting panicked", e))??;
        if self.users_leave(wait).await {
            return Ok(how);
        }
        let waiting = self.dispatcher.waiting();
        tracing::warn!(mountpoint = %self.mountpoint.display(), ?waiting, "the mount is still held open; cutting it off");
        connection::abort(self.minor).map_err(|e| cannot("abort the connection", e))?;
        match tokio::time::timeout(LAST_WAIT, self.ended()).await {
            Ok(()) => Ok(Unmounted::Aborted),
            Err(late) => Err(MountError::caused(
                MountErrorKind::Kernel,
                "the session does not end though aborted",
                late,
            )),
        }
    }

    /// Waits for the end; false if it is overdue, or nobody has asked anything for a while.
    async fn users_leave(&self, wait: Duration) -> bool {
        let start = Instant::now();
        let (mut last_request, mut served) = (start, self.dispatcher.served());
        loop {
            if tokio::time::timeout(PATROL, self.ended()).await.is_ok() {
                return true;
            }
            let now = Instant::now();
            if !self.dispatcher.waiting().is_empty() || self.dispatcher.served() != served {
                (last_request, served) = (now, self.dispatcher.served());
            }
            if now - last_request >= IDLE || now - start >= wait {
                return false;
            }
        }
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        if let Ok(Some(mounted)) = visible_at(&self.mountpoint)
            && mounted.minor == self.minor
            && let Err(error) = device::detach(&self.mountpoint)
        {
            tracing::warn!(mountpoint = %self.mountpoint.display(), %error, "left mounted");
        }
    }
}

/// Unmounts, or detaches what is in use; only if what is visible there is ours.
fn take_out(mountpoint: &Path, minor: u32) -> Result<Unmounted, MountError> {
    let visible = visible_at(mountpoint).map_err(|e| cannot("read the mount table", e))?;
    match visible {
        Some(mounted) if mounted.minor == minor => {}
        // Unmounted from outside in this moment.
        None => return Ok(Unmounted::Clean),
        Some(other) => {
            let what = format!("has {} mounted over it, which must be unmounted first", other.fs_type);
            return Err(MountError::mount_point(mountpoint, &what));
        }
    }
    match device::unmount(mountpoint) {
        Ok(()) => Ok(Unmounted::Clean),
        Err(error) if error.kind() == MountErrorKind::Busy => {
            device::detach(mountpoint)?;
            Ok(Unmounted::Detached)
        }
        Err(error) => Err(error),
    }
}

fn start(
    adapter: Adapter,
    fuse: std::os::fd::OwnedFd,
    line: &Line,
    config: &FuseConfig,
    mountpoint: &Path,
) -> Result<(Session<Adapter>, u32), MountError> {
    let names_expire = Arc::clone(&adapter.names_expire);
    let mut settings = Config::default();
    settings.n_threads = Some(config.threads.max(1));
    // Who may enter is the kernel's decision. The session's own check would refuse the close of a descriptor
    // that was handed to another user.
    let session = Session::from_fd(adapter, fuse, SessionACL::All, settings)
        .map_err(|e| cannot("agree with the kernel on a session", e))?;
    let device = session.as_fd().try_clone_to_owned().map_err(|e| cannot("duplicate the device", e))?;
    // Empty until here: this is the only place that sets it.
    let _ = line.set(Kernel::new(device, session.notifier(), names_expire));
    let visible = visible_at(mountpoint).map_err(|e| cannot("read the mount table", e))?;
    let minor = visible
        .map(|m| m.minor)
        .ok_or_else(|| MountError::mount_point(mountpoint, "was unmounted while it was being mounted"))?;
    Ok((session, minor))
}

fn run(session: Session<Adapter>) -> Result<watch::Receiver<bool>, MountError> {
    let (end, ended) = watch::channel(false);
    let work = move || {
        if let Err(error) = session.run() {
            tracing::error!(%error, "the session ended with an error");
        }
        // Without a listener nobody needs to know.
        let _ = end.send(true);
    };
    thread::Builder::new()
        .name("staithe-fuse".to_owned())
        .spawn(work)
        .map_err(|e| cannot("start a thread", e))?;
    Ok(ended)
}

fn cannot(what: &str, error: std::io::Error) -> MountError {
    MountError::caused(MountErrorKind::Kernel, format!("cannot {what}"), error)
}
