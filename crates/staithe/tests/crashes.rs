//! kill -9 at bad moments, and the start after it.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use real::{BUCKET, Bench, at, close, code, noise, quiet, run, sh, start, store};
use rustix::process::Signal;
use staithe_testkit::{DaemonOptions, Fault, MountedDaemon, Operation, When, wait_until};

const SOON: Duration = Duration::from_secs(30);

impl Bench {
    fn options(&self) -> DaemonOptions {
        self.daemon()
    }

    fn start(&self) -> MountedDaemon {
        start(self.options())
    }
}

/// Kills the daemon, and leaves its mount where it is.
fn kill(mount: &mut MountedDaemon) {
    mount.signal(Signal::KILL).unwrap();
    assert_eq!(mount.wait(SOON).unwrap(), 137);
}

#[test]
fn a_dead_mount_is_replaced_and_a_live_one_is_not() {
    let bench = Bench::new();
    let mut first = bench.start();
    store(&at(&first, "file"), "x").unwrap();
    let other_state = tempfile::tempdir().unwrap();
    let mut again = Command::new(env!("CARGO_BIN_EXE_staithe"));
    again.args(["mount", &format!("s3://{BUCKET}")]).arg(first.path());
    again.arg("--state-dir").arg(other_state.path()).envs(bench.server.env());
    let refused = run(&mut again);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("mounted already"), "{said}");
    assert_eq!(fs::read(at(&first, "file")).unwrap(), b"x");
    let held = File::open(at(&first, "file")).unwrap();
    kill(&mut first);
    assert!(first.is_mounted());
    assert!(fs::read(at(&first, "file")).is_err());
    let mut second = bench.start();
    assert_eq!(fs::read(at(&second, "file")).unwrap(), b"x");
    drop(held);
    assert_eq!(second.terminate().unwrap(), 0, "{}", second.stderr());
    assert!(!second.is_mounted());
}

#[test]
fn what_was_synced_survives() {
    let bench = Bench::new();
    let mut mount = bench.start();
    let (bytes, large) = (noise(1, 100_000), noise(2, 40 << 20));
    let quiet = quiet();
    let file = File::create(at(&mount, "synced")).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    file.sync_all().unwrap();
    let big = File::create(at(&mount, "large")).unwrap();
    big.write_all_at(&large, 0).unwrap();
    big.sync_data().unwrap();
    // Written over after the sync: the one or the other, never a mixture that was not there.
    file.write_all_at(b"later", 0).unwrap();
    kill(&mut mount);
    drop((file, big, quiet));
    let mount = bench.start();
    assert!(fs::read(at(&mount, "synced")).unwrap() == bytes);
    assert!(fs::read(at(&mount, "large")).unwrap() == large);
    assert_eq!(bench.bucket().keys(), ["large", "synced"]);
    assert_eq!(bench.bucket().uploads(), 0);
}

/// Renames a directory of 40 files, kills the daemon at the `n`th request of one sort, and starts it again.
fn rename_killed_at(operation: Operation, n: u64) {
    let bench = Bench::new();
    let mut mount = bench.start();
    let bucket = bench.bucket();
    fs::create_dir_all(at(&mount, "from/sub/deep")).unwrap();
    for i in 0..20_u32 {
        bucket.put(&format!("from/a{i}"), noise(i, 1000));
        bucket.put(&format!("from/sub/b{i}"), noise(i, 2000));
    }
    bucket.put("other", "stays");
    let before = bucket.keys();
    let hold = bench.server.faults().hold_requests(When::operation(operation).after(n));
    let (from, to) = (at(&mount, "from"), at(&mount, "to"));
    std::thread::scope(|scope| {
        let renaming = scope.spawn(move || fs::rename(from, to));
        assert!(hold.wait_for_blocking(1, SOON), "no {operation:?} came");
        kill(&mut mount);
        assert!(renaming.join().unwrap().is_err());
    });
    hold.release();
    bench.server.faults().clear();
    let mut mount = bench.start();
    let after = bucket.keys();
    let wanted: Vec<_> = before.iter().map(|k| k.replacen("from/", "to/", 1)).collect();
    let mut wanted = wanted;
    wanted.sort();
    assert_eq!(after, wanted, "{operation:?} {n}: {}", mount.stderr());
    for i in 0..20_u32 {
        assert!(fs::read(at(&mount, &format!("to/a{i}"))).unwrap() == noise(i, 1000));
        assert!(fs::read(at(&mount, &format!("to/sub/b{i}"))).unwrap() == noise(i, 2000));
    }
    assert!(at(&mount, "to/sub/deep").is_dir() && !at(&mount, "from").exists());
    sh(mount.path(), "test $(find to -type f | wc -l) = 40");
    assert_eq!(mount.terminate().unwrap(), 0);
    // And nothing of it is left for the start after that.
    let mount = bench.start();
    assert!(!mount.stderr().contains("earlier run"), "{}", mount.stderr());
}

#[test]
fn a_rename_killed_before_its_first_copy_is_finished() {
    rename_killed_at(Operation::CopyObject, 0);
}

#[test]
fn a_rename_killed_among_its_copies_is_finished() {
    rename_killed_at(Operation::CopyObject, 25);
}

#[test]
fn a_rename_killed_at_its_marker_is_finished() {
    rename_killed_at(Operation::PutObject, 0);
}

#[test]
fn a_rename_killed_at_its_deletes_is_finished() {
    rename_killed_at(Operation::DeleteObjects, 0);
}

#[test]
fn an_unfinished_upload_is_aborted_by_the_next_start() {
    let bench = Bench::new();
    let mut mount = bench.start();
    let bucket = bench.bucket();
    let hold = bench.server.faults().hold_requests(When::operation(Operation::UploadPart).after(1));
    let quiet = quiet();
    let file = File::create(at(&mount, "large")).unwrap();
    let bytes = noise(1, 40 << 20);
    file.write_all_at(&bytes, 0).unwrap();
    assert!(hold.wait_for_blocking(1, SOON));
    assert_eq!(bucket.uploads(), 1);
    kill(&mut mount);
    drop((file, quiet));
    hold.release();
    let mount = bench.start();
    assert_eq!(bucket.uploads(), 0, "{}", mount.stderr());
    assert!(bucket.keys().is_empty());
    // Neither closed nor synced, so not stored; but not thrown away either.
    let aside = bench.state.path().join("lost+found");
    assert_eq!(lost(&aside), 1, "{}", mount.stderr());
    assert!(mount.stderr().contains("lost+found"), "{}", mount.stderr());
}

/// Writes a file anew while the store is away; its close fails.
fn fail_to_store(mount: &MountedDaemon, path: &str, bytes: &[u8]) {
    let quiet = quiet();
    let file = File::create(at(mount, path)).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    assert_eq!(code(close(file)), libc::ETIMEDOUT);
    drop(quiet);
}

#[test]
fn what_a_failed_close_could_not_store_is_stored_after_a_crash() {
    let bench = Bench::new();
    let mut mount = start(bench.options().arg("--op-deadline=1s"));
    let bytes = noise(1, 100_000);
    bench.bucket().put("known", noise(2, 1 << 20));
    store(&at(&mount, "old"), "old").unwrap();
    let known = File::options().write(true).open(at(&mount, "known")).unwrap();
    let away = When::operation(Operation::PutObject);
    let away = bench.server.faults().inject(away, Fault::internal_error());
    for path in ["closed", "renamed", "removed", "rewritten", "old", "moded"] {
        fail_to_store(&mount, path, &bytes);
    }
    let quiet = quiet();
    known.write_all_at(b"changed", 1000).unwrap();
    assert_eq!(code(close(known)), libc::ETIMEDOUT);
    // What becomes of such a file afterwards is remembered too, and no mixture of old and new is ever stored.
    let rewritten = File::options().write(true).open(at(&mount, "rewritten")).unwrap();
    rewritten.write_all_at(b"half of something new", 10).unwrap();
    fs::set_permissions(at(&mount, "moded"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::rename(at(&mount, "renamed"), at(&mount, "other")).unwrap();
    fs::remove_file(at(&mount, "removed")).unwrap();
    kill(&mut mount);
    drop((rewritten, quiet));
    away.remove();
    let mut mount = bench.start();
    let bucket = bench.bucket();
    assert_eq!(bucket.keys(), ["closed", "known", "moded", "old", "other"], "{}", mount.stderr());
    for key in ["closed", "moded", "old", "other"] {
        assert!(bucket.get(key).unwrap() == bytes, "{key}");
    }
    assert_eq!(bucket.meta("moded").unwrap().metadata["mode"], 0o100_600.to_string());
    let mut model = noise(2, 1 << 20);
    model[1000..1007].copy_from_slice(b"changed");
    assert!(bucket.get("known").unwrap() == model);
    assert_eq!(lost(&bench.state.path().join("lost+found")), 1, "{}", mount.stderr());
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}

#[test]
fn what_was_stored_after_a_failed_close_is_not_stored_again_after_a_crash() {
    let bench = Bench::new();
    let mut mount = start(bench.options().arg("--op-deadline=1s"));
    let away = When::operation(Operation::PutObject);
    let away = bench.server.faults().inject(away, Fault::internal_error());
    fail_to_store(&mount, "file", b"first");
    away.remove();
    let bucket = bench.bucket();
    close(File::options().append(true).open(at(&mount, "file")).unwrap()).unwrap();
    assert_eq!(bucket.get("file").unwrap(), b"first");
    bucket.put("file", "theirs, later");
    kill(&mut mount);
    let mut mount = bench.start();
    assert_eq!(bucket.keys(), ["file"], "{}", mount.stderr());
    assert_eq!(bucket.get("file").unwrap(), b"theirs, later");
    assert!(!mount.stderr().contains("earlier run"), "{}", mount.stderr());
    assert_eq!(mount.terminate().unwrap(), 0);
}

fn lost(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

#[test]
fn a_journal_that_cannot_be_finished_yet_stays() {
    let bench = Bench::new();
    let mut mount = bench.start();
    let hold = bench.server.faults().hold_requests(When::operation(Operation::UploadPart));
    let quiet = quiet();
    let file = File::create(at(&mount, "large")).unwrap();
    file.write_all_at(&noise(1, 40 << 20), 0).unwrap();
    assert!(hold.wait_for_blocking(1, SOON));
    kill(&mut mount);
    drop((file, quiet));
    hold.release();
    bench.server.faults().clear();
    let refusal = When::operation(Operation::AbortMultipartUpload).key("large");
    let refusal = bench.server.faults().inject(refusal, Fault::access_denied());
    let mut mount = bench.start();
    assert!(wait_until(SOON, || mount.stderr().contains("cannot be finished yet")), "{}", mount.stderr());
    assert_eq!(bench.bucket().uploads(), 1);
    store(&at(&mount, "file"), "works all the same").unwrap();
    assert_eq!(mount.terminate().unwrap(), 75);
    assert!(mount.stderr().contains("abort an upload of large"), "{}", mount.stderr());
    refusal.remove();
    let mut mount = bench.start();
    assert_eq!(bench.bucket().uploads(), 0);
    assert_eq!(mount.terminate().unwrap(), 0);
}
