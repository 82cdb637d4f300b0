//! The harness of real mounts, on a daemon that is as small as one can be: a script that mounts a tmpfs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails as a test does")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use staithe_testkit::{DaemonError, DaemonOptions, MountedDaemon, require_fuse};
use tempfile::TempDir;

/// Called as `script mount SOURCE MOUNTPOINT --state-dir DIR`.
const HEAD: &str = "#!/bin/sh\necho \"source $2\" >&2\n";
const MOUNT: &str = "mount -t tmpfs none \"$3\" || exit 1\n";
const READY: &str = "echo ready\n";
const SERVE: &str = "trap 'umount \"$3\"; exit 75' TERM\nwhile :; do sleep 0.1; done\n";
const DEAF: &str = "trap '' TERM\nwhile :; do sleep 0.1; done\n";

fn script(parts: &[&str]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("daemon");
    fs::write(&path, HEAD.to_owned() + &parts.concat()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (directory, path)
}

fn mounts_below(path: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(path.to_str().unwrap())).count()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn starts_serves_and_terminates() {
    require_fuse();
    let (_keep, binary) = script(&[MOUNT, READY, SERVE]);
    let mut daemon = DaemonOptions::new(binary, "memory://").start().unwrap();
    fs::write(daemon.path().join("file"), "x").unwrap();
    assert!(daemon.is_mounted());
    assert!(daemon.stderr().contains("source memory://"));
    assert_eq!(daemon.terminate().unwrap(), 75);
    assert!(!daemon.is_mounted());
}

#[test]
fn a_killed_daemon_leaves_no_mount() {
    require_fuse();
    let (_keep, binary) = script(&[MOUNT, READY, SERVE]);
    let mount_point = tempfile::tempdir().unwrap();
    let options = DaemonOptions::new(binary, "memory://").mount_point(mount_point.path());
    let mut daemon = options.clone().start().unwrap();
    daemon.kill9().unwrap();
    assert_eq!(mounts_below(mount_point.path()), 0);
    // The same place can be mounted again.
    let again = options.start().unwrap();
    assert!(again.is_mounted());
}

#[test]
fn a_panic_leaves_neither_mount_nor_process() {
    require_fuse();
    let (_keep, binary) = script(&[MOUNT, READY, DEAF]);
    let mount_point = tempfile::tempdir().unwrap();
    let mut options = DaemonOptions::new(binary, "memory://").mount_point(mount_point.path());
    options.exit_deadline = Duration::from_millis(300);
    let daemon = options.start().unwrap();
    let pid = daemon.pid();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        assert!(!daemon.is_mounted(), "the test fails here, with its daemon alive");
    }));
    assert!(panicked.is_err());
    assert!(!is_alive(pid));
    assert_eq!(mounts_below(mount_point.path()), 0);
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let (_keep, binary) = script(&["echo 'no such bucket' >&2\nexit 2\n"]);
    let error = DaemonOptions::new(binary, "s3://b").start().unwrap_err();
    assert!(matches!(error, DaemonError::Exited { .. }));
    assert!(error.to_string().contains("no such bucket"), "{error}");
    let error = DaemonOptions::new("/nowhere/daemon", "s3://b").start().unwrap_err();
    assert!(matches!(error, DaemonError::System(..)));
}

#[test]
fn ready_is_both_the_word_and_the_mount() {
    require_fuse();
    for parts in [[MOUNT, SERVE], [READY, SERVE]] {
        let (_keep, binary) = script(&parts);
        let mut options = DaemonOptions::new(binary, "memory://");
        options.ready_deadline = Duration::from_millis(300);
        assert!(matches!(MountedDaemon::start(options), Err(DaemonError::NotReady { .. })));
    }
}
