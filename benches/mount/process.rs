//! Daemons: how one is started, what it has used, and that nothing of it stays.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use staithe_testkit::wait_until;
use tempfile::TempDir;

use crate::Result;
use crate::options::Options;

/// How long a daemon may take to be ready, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// What `/proc` counts CPU time in, on every Linux that we know.
const TICKS_A_SECOND: f64 = 100.0;
/// Should this process be killed, the end of the pipe wakes the guardian, which does what `Drop` could not.
const GUARDIAN: &str =
    r#"trap '' HUP INT TERM; cat >/dev/null; kill -9 "$1" 2>/dev/null; umount -l "$2" 2>/dev/null"#;

/// The release binary of staithe: the one that was named, or the workspace's, up to date.
pub(crate) fn staithe(options: &Options) -> Result<PathBuf> {
    if let Some(binary) = &options.binary {
        return Ok(binary.clone());
    }
    eprintln!("cargo build --release -p staithe (for minutes, if it is not there yet)");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).args(["build", "--release", "--quiet", "-p", "staithe"]).status()?;
    if !built.success() {
        return Err("staithe cannot be built".into());
    }
    // This program is in `deps` beside it.
    let here = std::env::current_exe()?;
    let binary = here.parent().and_then(Path::parent).ok_or("no target directory")?.join("staithe");
    if binary.exists() { Ok(binary) } else { Err(format!("{} is not there", binary.display()).into()) }
}

/// Whether a program is on the search path.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// CPU seconds that a process has used, all its threads together.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything.
    let fields = stat.rsplit_once(')').ok_or("no process name")?.1;
    let ticks = fields.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<u64, _>>()? as f64 / TICKS_A_SECOND)
}

/// CPU time of the whole machine since it started, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    all: u64,
    idle: u64,
}

impl Machine {
    /// As of now.
    pub(crate) fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().ok_or("no CPU time")?;
        // What guests use is in the first fields already.
        let ticks = line.split_ascii_whitespace().skip(1).take(8).map(str::parse::<u64>);
        let ticks = ticks.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { all: ticks.iter().sum(), idle: ticks.iter().skip(3).take(2).sum() })
    }

    /// The share of all cores that has been in use since `before`, from 0 to 1.
    pub(crate) fn busy_since(&self, before: &Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        1.0 - self.idle.saturating_sub(before.idle).min(all) as f64 / all as f64
    }
}

/// The most memory that a process has had resident, in bytes.
pub(crate) fn peak_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// Uses memory once and gives it back. A hypervisor that takes free memory from its guest fills it in again at the
/// first touch, several times slower than a page cache is filled: whoever came first would pay for that.
pub(crate) fn back_memory(bytes: usize) -> Result<()> {
    // In sum no more than half of what is free, or something else would have to go.
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).ok_or("no MemAvailable")?;
    let available = line.trim().trim_end_matches(" kB").parse::<usize>()? << 10;
    let mut memory = vec![0_u8; bytes.min(available / 2)];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
    Ok(())
}

/// A mount that somebody else's program serves. Dropping it unmounts, and ends the program.
pub(crate) struct PeerMount {
    child: Child,
    guardian: Child,
    path: PathBuf,
    _directory: TempDir,
}

impl PeerMount {
    /// Starts `command`, which stays in the foreground, for a mount at `path` within `directory`, and waits until
    /// it is there.
    pub(crate) fn start(mut command: Command, path: PathBuf, directory: TempDir) -> Result<Self> {
        let log = directory.path().join("log");
        let file = File::create(&log)?;
        let mut child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        let mut guardian = Command::new("sh");
        guardian.args(["-c", GUARDIAN, "guardian"]).arg(child.id().to_string()).arg(&path);
        let guardian = guardian.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let guardian = guardian.inspect_err(|_| {
            // It cannot have mounted anything yet that would matter more than this error.
            let _ = child.kill();
            let _ = child.wait();
        })?;
        let mut mount = Self { child, guardian, path, _directory: directory };
        let mut ended = None;
        let is_ready = wait_until(PATIENCE, || {
            ended = mount.child.try_wait().ok().flatten();
            ended.is_some() || mount.is_mounted()
        });
        if ended.is_some() || !is_ready {
            let mut text = String::new();
            File::open(&log)?.read_to_string(&mut text)?;
            return Err(format!("it did not mount: {}", text.trim()).into());
        }
        // Some are in the mount table before they answer.
        fs::read_dir(&mount.path)?.next();
        Ok(mount)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn is_mounted(&self) -> bool {
        let Ok(table) = fs::read_to_string("/proc/self/mounts") else { return false };
        let path = self.path.to_string_lossy();
        table.lines().any(|line| line.split(' ').nth(1) == Some(&*path))
    }
}

impl Drop for PeerMount {
    fn drop(&mut self) {
        // Nothing can be done about a step that fails but the next, harder one.
        if unmount(&self.path, UnmountFlags::empty()).is_err() {
            let _ = unmount(&self.path, UnmountFlags::DETACH);
        }
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if !wait_until(PATIENCE, || !matches!(self.child.try_wait(), Ok(None))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = self.guardian.kill();
        let _ = self.guardian.wait();
    }
}
