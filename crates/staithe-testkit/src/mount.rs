use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::guard::GuardedChild;
use crate::wait_until;

/// How a daemon is started.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// The binary: `env!("CARGO_BIN_EXE_staithe")` in its own tests.
    pub binary: PathBuf,
    /// What is mounted: `s3://bucket`, `memory://`, ...
    pub source: String,
    /// Options after the mount point.
    pub args: Vec<OsString>,
    /// Variables beside the inherited ones; `S3Server::env` gives those of a server.
    pub env: Vec<(String, String)>,
    /// Where it mounts; `None` makes a temporary directory.
    pub mount_point: Option<PathBuf>,
    /// Its `--state-dir`; `None` makes a temporary directory. Name one to start again on the same state.
    pub state_dir: Option<PathBuf>,
    /// How long it may take to be ready.
    pub ready_deadline: Duration,
    /// How long it may take to end after SIGTERM.
    pub exit_deadline: Duration,
}

impl DaemonOptions {
    /// `binary mount source`, with temporary directories, 30 s to be ready and 60 s to end.
    pub fn new(binary: impl Into<PathBuf>, source: impl Into<String>) -> Self {
        Self {
            binary: binary.into(),
            source: source.into(),
            args: Vec::new(),
            env: Vec::new(),
            mount_point: None,
            state_dir: None,
            ready_deadline: Duration::from_secs(30),
            exit_deadline: Duration::from_mins(1),
        }
    }

    /// Adds an option.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds options.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds variables.
    #[must_use]
    pub fn env(mut self, env: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env.extend(env);
        self
    }

    /// Mounts here.
    #[must_use]
    pub fn mount_point(mut self, path: impl Into<PathBuf>) -> Self {
        self.mount_point = Some(path.into());
        self
    }

    /// Keeps state here.
    #[must_use]
    pub fn state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(path.into());
        self
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Errors
    /// As [`MountedDaemon::start`].
    pub fn start(self) -> Result<MountedDaemon, DaemonError> {
        MountedDaemon::start(self)
    }
}

/// Why a daemon could not be started or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The process or its directories could not be had.
    #[error("{0}: {1}")]
    System(String, #[source] io::Error),
    /// It ended before it was ready.
    #[error("the daemon ended with {status} before it was ready; its standard error:\n{stderr}")]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// It was not ready in time.
    #[error("the daemon was not ready in {after:?} ({missing}); its standard error:\n{stderr}")]
    NotReady {
        /// How long it had.
        after: Duration,
        /// What was missing.
        missing: &'static str,
        /// What it said.
        stderr: String,
    },
    /// It did not end in time after SIGTERM.
    #[error("the daemon did not end in {after:?} after SIGTERM; its standard error:\n{stderr}")]
    DidNotExit {
        /// How long it had.
        after: Duration,
        /// What it said.
        stderr: String,
    },
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> DaemonError {
    let what = what.into();
    move |error| DaemonError::System(what, error)
}

/// A daemon with its mount. When it is dropped, both are gone: it is asked to end, and if it does not, its mount
/// is detached and it is killed. They are gone too when the test process itself is killed.
///
/// Ready means both that it has printed a line with `ready` and that the mount is in the mount table.
#[derive(Debug)]
pub struct MountedDaemon {
    child: GuardedChild,
    mount_point: PathBuf,
    state_dir: PathBuf,
    exit_deadline: Duration,
    // Dropped last, after the mount is gone.
    _directories: Vec<TempDir>,
}

impl MountedDaemon {
    /// Starts the daemon as `binary mount SOURCE MOUNTPOINT --state-dir DIR ARGS...` and waits until it is ready.
    ///
    /// # Errors
    /// [`DaemonError`], with what it wrote to standard error.
    pub fn start(options: DaemonOptions) -> Result<Self, DaemonError> {
        let mut directories = Vec::new();
        let mount_point = directory(options.mount_point, &mut directories)?;
        let state_dir = directory(options.state_dir, &mut directories)?;
        let mut command = Command::new(&options.binary);
        command.arg("mount").arg(&options.source).arg(&mount_point).arg("--state-dir").arg(&state_dir);
        command.args(&options.args).envs(options.env);
        let child = GuardedChild::spawn(command, Some(&mount_point))
            .map_err(system(format!("cannot start {}", options.binary.display())))?;
        let exit_deadline = options.exit_deadline;
        let mut daemon = Self { child, mount_point, state_dir, exit_deadline, _directories: directories };
        daemon.wait_ready(options.ready_deadline)?;
        Ok(daemon)
    }

    fn wait_ready(&mut self, deadline: Duration) -> Result<(), DaemonError> {
        let mut ended = None;
        let is_ready = wait_until(deadline, || {
            ended = self.child.exited().ok().flatten();
            ended.is_some() || (self.child.stdout().has_line_with("ready") && is_mounted(&self.mount_point))
        });
        if let Some(status) = ended {
            // Its last words may still be in the pipe.
            wait_until(Duration::from_secs(1), || !self.stderr().is_empty());
            return Err(DaemonError::Exited { status, stderr: self.stderr() });
        }
        if is_ready {
            return Ok(());
        }
        let missing = if is_mounted(&self.mount_point) {
            "it is mounted, but has not printed `ready`"
        } else {
            "it is not in the mount table"
        };
        Err(DaemonError::NotReady { after: deadline, missing, stderr: self.stderr() })
    }

    /// The root of the mount.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Where it keeps its state.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard error (the last 4 MiB).
    pub fn stderr(&self) -> String {
        self.child.stderr().text()
    }

    /// What it has written to standard output (the last 4 MiB).
    pub fn stdout(&self) -> String {
        self.child.stdout().text()
    }

    /// Whether its mount is in the mount table.
    pub fn is_mounted(&self) -> bool {
        is_mounted(&self.mount_point)
    }

    /// Peak resident memory of the process, in bytes; `None` once it has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib << 10)
    }

    /// Kills it at once (SIGKILL), and detaches what is left of its mount, so that the mount point and the state
    /// directory can be used again.
    ///
    /// # Errors
    /// [`DaemonError::System`] when the process cannot be waited for.
    pub fn kill9(&mut self) -> Result<(), DaemonError> {
        self.child.kill().map_err(system("cannot kill the daemon"))?;
        detach(&self.mount_point);
        Ok(())
    }

    /// Sends a signal; nothing is waited for.
    ///
    /// # Errors
    /// [`DaemonError::System`] when it cannot be sent.
    pub fn signal(&mut self, signal: Signal) -> Result<(), DaemonError> {
        self.child.signal(signal).map_err(system("cannot signal the daemon"))
    }

    /// Waits until it ends by itself, and returns its exit code; 128 plus the signal for one that was killed.
    ///
    /// # Errors
    /// [`DaemonError::DidNotExit`] after the deadline.
    pub fn wait(&mut self, deadline: Duration) -> Result<i32, DaemonError> {
        let status = self.child.wait(deadline).map_err(system("cannot wait for the daemon"))?;
        match status {
            Some(status) => Ok(exit_code(status)),
            None => Err(DaemonError::DidNotExit { after: deadline, stderr: self.stderr() }),
        }
    }

    /// Sends SIGTERM and waits for the end; returns the exit code.
    ///
    /// # Errors
    /// [`DaemonError::DidNotExit`] after the exit deadline of the options.
    pub fn terminate(&mut self) -> Result<i32, DaemonError> {
        self.signal(Signal::TERM)?;
        self.wait(self.exit_deadline)
    }
}

impl Drop for MountedDaemon {
    fn drop(&mut self) {
        /// A test that drops its daemon does not care how it ends, only that it does.
        const PATIENCE: Duration = Duration::from_secs(10);
        let patience = PATIENCE.min(self.exit_deadline);
        let ended =
            self.child.signal(Signal::TERM).is_ok() && matches!(self.child.wait(patience), Ok(Some(_)));
        if !ended || is_mounted(&self.mount_point) {
            detach(&self.mount_point);
        }
        // The child itself is killed, if it still lives, when its guard is dropped.
    }
}

fn directory(given: Option<PathBuf>, made: &mut Vec<TempDir>) -> Result<PathBuf, DaemonError> {
    let path = if let Some(path) = given {
        path
    } else {
        let new = tempfile::Builder::new().prefix("staithe-").tempdir();
        let new = new.map_err(system("cannot make a temporary directory"))?;
        let path = new.path().to_owned();
        made.push(new);
        path
    };
    // The mount table has real paths.
    path.canonicalize().map_err(system(format!("cannot use {}", path.display())))
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(-1)
}

/// Takes a mount out of the tree, also one whose daemon is dead; what is not mounted stays so. Stacked mounts go
/// too.
fn detach(mount_point: &Path) {
    let end = Instant::now() + Duration::from_secs(5);
    while is_mounted(mount_point) && Instant::now() < end {
        if unmount(mount_point, UnmountFlags::DETACH).is_err() {
            return;
        }
    }
}

/// Whether this very path is in the mount table.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').nth(4)).any(|at| Path::new(&unescape(at)) == path)
}

/// The table writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 4).and_then(|d| u8::from_str_radix(d, 8).ok());
        plain.push(digits.map_or('\\', char::from));
        rest = &rest[at + if digits.is_some() { 4 } else { 1 }..];
    }
    plain + rest
}

/// Checks that this machine can mount: the FUSE device is there and may be used.
///
/// # Panics
/// With one sentence that says what is missing: a test that cannot run has not passed.
pub fn require_fuse() {
    let device = fs::metadata("/dev/fuse").is_ok_and(|meta| meta.file_type().is_char_device());
    assert!(
        device,
        "this test mounts a filesystem and needs /dev/fuse: load the fuse module, or add the device"
    );
    let root = rustix::process::geteuid().is_root();
    assert!(root, "this test mounts and detaches a filesystem and needs to run as root");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_read_as_it_is_written() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/plain\"), r"/plain\");
        assert!(is_mounted(Path::new("/proc")));
        assert!(!is_mounted(Path::new("/proc/self")));
    }
}
