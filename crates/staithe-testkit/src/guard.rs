use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait_until;

/// The guardian waits for the end of its standard input. That comes only when this process has ended without
/// dismissing it: then the child and those it started are killed, and its mount is removed.
const GUARDIAN: &str =
    r#"trap '' HUP INT TERM; cat >/dev/null; kill -9 "-$1" 2>/dev/null; [ -z "$2" ] || umount -l "$2""#;

/// The most of a child's output that is kept; after that the oldest lines go.
const LOG_BYTES_MAX: usize = 4 << 20;

/// A child process that does not outlive its owner, not even when the owner is killed.
///
/// The owner's `Drop` ends it. Where no `Drop` runs (SIGKILL, abort), a second process, the guardian, does: it
/// holds one end of a pipe and acts when the other end closes. A parent-death signal would not do, for it is
/// sent when the *thread* ends that started the child.
#[derive(Debug)]
pub(crate) struct GuardedChild {
    child: Child,
    guardian: Child,
    stdout: Output,
    stderr: Output,
}

/// What a child has written so far, by lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Output(Arc<Mutex<String>>);

impl Output {
    pub(crate) fn text(&self) -> String {
        self.0.lock().clone()
    }

    pub(crate) fn has_line_with(&self, part: &str) -> bool {
        self.0.lock().contains(part)
    }

    fn follow(&self, source: impl Read + Send + 'static) {
        let log = self.clone();
        // Ends with the child: its end of the pipe closes.
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while matches!(source.read_until(b'\n', &mut line), Ok(n) if n > 0) {
                log.push(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
    }

    fn push(&self, line: &str) {
        let mut text = self.0.lock();
        text.push_str(line);
        if text.len() > LOG_BYTES_MAX {
            let half = text.len() / 2;
            let cut = text.bytes().skip(half).position(|b| b == b'\n').map_or(text.len(), |at| half + at + 1);
            text.drain(..cut);
        }
    }
}

impl GuardedChild {
    /// Starts `command` with its output captured. `mount`, if given, is detached should this process be killed.
    pub(crate) fn spawn(mut command: Command, mount: Option<&Path>) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let guardian = guardian(child.id(), mount).inspect_err(|_| {
            // Nobody would watch it: it must not stay. It cannot be waited for twice, nor fail to die.
            let _ = child.kill();
            let _ = child.wait();
        })?;
        let (stdout, stderr) = (Output::default(), Output::default());
        if let Some(source) = child.stdout.take() {
            stdout.follow(source);
        }
        if let Some(source) = child.stderr.take() {
            stderr.follow(source);
        }
        Ok(Self { child, guardian, stdout, stderr })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&self) -> &Output {
        &self.stdout
    }

    pub(crate) fn stderr(&self) -> &Output {
        &self.stderr
    }

    /// The exit status, once there is one.
    pub(crate) fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends a signal, unless the child has ended.
    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.exited()?.is_none()
            && let Some(pid) = Pid::from_raw(self.child.id() as i32)
        {
            kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// Waits for the end of the child; `None` when the deadline comes first.
    pub(crate) fn wait(&mut self, deadline: Duration) -> io::Result<Option<ExitStatus>> {
        let mut status = Ok(None);
        wait_until(deadline, || {
            status = self.child.try_wait();
            !matches!(status, Ok(None))
        });
        status
    }

    /// Kills the child and those it started (SIGKILL), and waits for its end.
    pub(crate) fn kill(&mut self) -> io::Result<ExitStatus> {
        if self.exited()?.is_none()
            && let Some(group) = Pid::from_raw(self.child.id() as i32)
        {
            kill_process_group(group, Signal::KILL)?;
        }
        self.child.wait()
    }
}

impl Drop for GuardedChild {
    fn drop(&mut self) {
        // What has ended already cannot be killed, and need not be.
        let _ = self.kill();
        let _ = self.guardian.kill();
        let _ = self.guardian.wait();
    }
}

fn guardian(pid: u32, mount: Option<&Path>) -> io::Result<Child> {
    let mut command = Command::new("sh");
    command.args(["-c", GUARDIAN, "guardian"]).arg(pid.to_string());
    command.arg(mount.unwrap_or(Path::new("")));
    // A group of its own: what ends the test's group must not end the guardian first.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::is_mounted;

    fn sleeper() -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo ready; echo trouble >&2; exec sleep 1000"]);
        command
    }

    fn lives(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn captures_output_and_ends_with_its_owner() {
        let child = GuardedChild::spawn(sleeper(), None).unwrap();
        assert!(wait_until(Duration::from_secs(10), || child.stderr().has_line_with("trouble")));
        assert!(wait_until(Duration::from_secs(10), || child.stdout().has_line_with("ready")));
        let (pid, guardian) = (child.id(), child.guardian.id());
        drop(child);
        assert!(!lives(pid) && !lives(guardian));
    }

    #[test]
    fn the_guardian_acts_when_its_pipe_closes() {
        let mut child = GuardedChild::spawn(sleeper(), None).unwrap();
        drop(child.guardian.stdin.take());
        let status = child.wait(Duration::from_secs(10)).unwrap().expect("killed by the guardian");
        assert!(!status.success());
    }

    #[test]
    fn the_guardian_removes_the_mount_too() {
        crate::require_fuse();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "mount -t tmpfs none \"$1\" && exec sleep 1000", "daemon"]).arg(&path);
        let mut child = GuardedChild::spawn(command, Some(&path)).unwrap();
        assert!(wait_until(Duration::from_secs(10), || is_mounted(&path)));
        drop(child.guardian.stdin.take());
        assert!(wait_until(Duration::from_secs(10), || !is_mounted(&path)));
        assert!(child.wait(Duration::from_secs(10)).unwrap().is_some());
    }

    #[test]
    fn a_long_log_loses_its_oldest_lines() {
        let log = Output::default();
        for n in 0..200_000 {
            log.push(&format!("this is the line with the number {n}\n"));
        }
        let text = log.text();
        assert!(text.len() <= LOG_BYTES_MAX);
        assert!(text.starts_with("this is the line"));
        assert!(text.ends_with("199999\n"));
    }
}
