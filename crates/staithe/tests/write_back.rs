//! `--write-mode back`: close(2) before the store has the file, and the commands that say and decide what becomes of it.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use real::{Bench, at, close, code, daemon, noise, refusal, sh, spawn, staithe, start, store, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use staithe_testkit::{DaemonOptions, Fault, MountedDaemon, Operation, RequestRecord, When, wait_until};

const SOON: Duration = Duration::from_secs(30);
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const CANCELLED: &str = "failed: cancelled; its bytes are kept here";

impl Bench {
    fn options(&self) -> DaemonOptions {
        self.daemon().arg("--drain-deadline=2s")
    }

    /// A mount in write-back that soon says of a store that it is away.
    fn start(&self) -> MountedDaemon {
        start(self.options().args(["--op-deadline=1s", "--write-mode=back"]))
    }

    /// Every request about a key.
    fn about(&self, key: &str) -> Vec<RequestRecord> {
        let mut records = self.server.requests().records();
        records.retain(|record| record.key.as_deref() == Some(key));
        records
    }
}

/// A command about a whole mount.
fn told(mount: &MountedDaemon, command: &str, options: &[&str]) -> Output {
    staithe(&[&[command, text(mount.path())], options].concat(), Path::new("/"))
}

/// What a command that must go well prints.
fn said(mount: &MountedDaemon, command: &str, options: &[&str]) -> String {
    let output = told(mount, command, options);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The same in JSON.
fn json(mount: &MountedDaemon, command: &str) -> Value {
    serde_json::from_str(&said(mount, command, &["--json"])).unwrap()
}

/// The job of a path, if it has one.
fn job(mount: &MountedDaemon, path: &str) -> Option<Value> {
    let jobs = json(mount, "jobs");
    jobs["jobs"].as_array().unwrap().iter().find(|job| job["path"] == path).cloned()
}

fn is_in(mount: &MountedDaemon, path: &str, state: &str) -> bool {
    job(mount, path).is_some_and(|job| job["state"] == state)
}

/// `staithe sync`, under way.
fn begin_sync(mount: &MountedDaemon) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_staithe"));
    spawn(command.args(["sync", text(mount.path())]).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

fn sync(mount: &MountedDaemon) {
    said(mount, "sync", &[]);
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}

#[test]
fn close_returns_while_the_store_is_away_and_sync_waits_for_it() {
    let bench = Bench::new();
    let mount = bench.start();
    let (path, bytes) = (at(&mount, "file"), noise(1, 300_000));
    let mut file = File::create(&path).unwrap();
    bench.server.stop();
    file.write_all(&bytes).unwrap();
    close(file).unwrap();
    assert!(fs::read(&path).unwrap() == bytes);
    let mut syncing = begin_sync(&mount);
    assert!(wait_until(SOON, || is_in(&mount, "file", "retrying")), "{}", mount.stderr());
    let waiting = job(&mount, "file").unwrap();
    assert_eq!(waiting["size_bytes"], 300_000);
    assert!(waiting["tries"].as_u64().unwrap() >= 1 && !waiting["failure"].as_str().unwrap().is_empty());
    assert!(wait_until(SOON, || real::state(&path).starts_with("failed: ")), "{}", real::state(&path));
    assert!(fs::read(&path).unwrap() == bytes);
    assert!(syncing.try_wait().unwrap().is_none());
    bench.server.restart().unwrap();
    let output = syncing.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(lines(&output.stdout), ["1 files and directories were stored"]);
    assert!(bench.bucket().get("file").unwrap() == bytes);
    assert_eq!(real::state(&path), "clean");
    assert_eq!(json(&mount, "jobs")["jobs"], Value::Array(Vec::new()));
}

#[test]
fn a_job_that_waits_long_is_hurried() {
    let bench = Bench::new();

    let mut mount = start(bench.options().arg("--write-mode=back"));
    let throttle = Fault::slow_down(Some(Duration::from_mins(10)));
    let throttled = bench.server.faults().inject(When::operation(Operation::PutObject).key("file"), throttle);
    store(&at(&mount, "file"), b"bytes").unwrap();
    assert!(wait_until(SOON, || is_in(&mount, "file", "retrying")), "{}", mount.stderr());
    let waiting = job(&mount, "file").unwrap();
    assert!(waiting["next_try_seconds"].as_u64().is_some_and(|s| s > 60), "{waiting}");
    let table = said(&mount, "jobs", &[]);
    let rows: Vec<_> = table.lines().collect();
    assert!(rows[0].starts_with("STATE") && rows[0].ends_with("PATH"), "{table}");
    assert!(rows[1].starts_with("retrying") && rows[1].contains("\"file\": "), "{table}");
    assert_eq!(rows[2], "0 failed, 1 retrying, 0 running, 0 waiting");
    throttled.remove();
    let elsewhere = at(&mount, "elsewhere");
    assert_eq!(said(&mount, "jobs", &["--retry", text(&elsewhere)]), "0 are tried again\n");
    assert!(bench.bucket().get("file").is_none());
    assert_eq!(said(&mount, "jobs", &["--retry"]), "1 are tried again\n");
    assert!(wait_until(SOON, || bench.bucket().get("file").is_some()), "{}", mount.stderr());
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}

#[test]
fn what_is_cancelled_is_kept_here_until_it_is_wanted_again() {
    let bench = Bench::new();
    let mount = bench.start();
    let (path, bytes) = (at(&mount, "d/file"), noise(1, 100_000));
    fs::create_dir(at(&mount, "d")).unwrap();
    let hold = bench.server.faults().hold_requests(When::operation(Operation::PutObject).key("d/file"));
    store(&path, &bytes).unwrap();
    assert!(hold.wait_for_blocking(1, SOON));
    assert_eq!(real::state(&path), "persisting");
    assert!(is_in(&mount, "d/file", "running"));
    // Its request is on its way: the cancel waits until nothing can come of it any more.
    let said_of_it = said(&mount, "jobs", &["--cancel", text(&at(&mount, "d"))]);
    assert!(said_of_it.starts_with("1 cancelled") && said_of_it.contains("kept here"), "{said_of_it}");
    bench.server.faults().clear();
    hold.release();
    assert_eq!(real::state(&path), CANCELLED);
    assert!(is_in(&mount, "d/file", "failed"));
    assert!(fs::read(&path).unwrap() == bytes);
    // Neither by a look nor by the end of another file is it stored.
    store(&at(&mount, "other"), b"other").unwrap();
    assert!(wait_until(SOON, || bench.bucket().get("other").is_some()));
    assert_eq!(real::state(&path), CANCELLED);
    assert_eq!(json(&mount, "status")["jobs"]["failed"], 1);
    let again = said(&mount, "jobs", &["--retry", text(&path)]);
    assert_eq!(again, "1 are tried again\n");
    assert!(wait_until(SOON, || real::state(&path) == "clean"), "{}", mount.stderr());
    assert!(bench.bucket().get("d/file").unwrap() == bytes);
    assert_eq!(said(&mount, "jobs", &["--cancel", text(&path)]).split(' ').next(), Some("0"));
}

#[test]
fn what_is_cancelled_outlives_a_crash_and_is_stored_by_the_next_mount() {
    let bench = Bench::new();
    let mut mount = bench.start();
    let ours = |key: &str| key == "file";
    let away = bench.server.faults().inject(When::mutation().key_where(ours), Fault::internal_error());
    store(&at(&mount, "file"), b"bytes").unwrap();
    assert!(said(&mount, "jobs", &["--cancel", text(mount.path())]).starts_with("1 cancelled"));
    mount.kill9().unwrap();
    away.remove();
    assert_eq!(bench.bucket().keys(), [""; 0]);
    let mount = bench.start();
    assert_eq!(fs::read(at(&mount, "file")).unwrap(), b"bytes");
    sync(&mount);
    assert_eq!(bench.bucket().get("file").unwrap(), b"bytes");
}

#[test]
fn what_changes_before_it_is_stored_is_asked_for_once_or_never() {
    let bench = Bench::new();
    let mount = bench.start();
    // What is in a new directory waits for that, however slow this machine is.
    let hold = bench.server.faults().hold_requests(When::operation(Operation::PutObject).key("d/"));
    fs::create_dir(at(&mount, "d")).unwrap();
    store(&at(&mount, "d/gone"), b"bytes").unwrap();
    for round in 0..10 {
        store(&at(&mount, "d/file"), noise(round, 10_000)).unwrap();
    }
    store(&at(&mount, "d/before"), b"bytes").unwrap();
    assert!(hold.wait_for_blocking(1, SOON));
    assert_eq!(
        (real::state(&at(&mount, "d")), real::state(&at(&mount, "d/file"))),
        ("persisting".into(), "dirty".into())
    );
    fs::remove_file(at(&mount, "d/gone")).unwrap();
    fs::rename(at(&mount, "d/before"), at(&mount, "d/after")).unwrap();
    hold.release();
    sync(&mount);
    let bucket = bench.bucket();
    assert_eq!(bucket.keys(), ["d/", "d/after", "d/file"]);
    assert!(bucket.get("d/file").unwrap() == noise(9, 10_000));
    let puts = |key: &str| bench.about(key).iter().filter(|r| r.operation == Operation::PutObject).count();
    assert_eq!((puts("d/"), puts("d/file"), puts("d/after")), (1, 1, 1));
    assert_eq!((bench.about("d/gone"), bench.about("d/before")), (Vec::new(), Vec::new()));
}

#[test]
fn a_race_that_is_lost_after_close_is_stored_beside_and_leaves_nothing_to_do() {
    let bench = Bench::new();
    let mut mount = bench.start();
    let hold = bench.server.faults().hold_requests(When::operation(Operation::PutObject).key("d/"));
    fs::create_dir(at(&mount, "d")).unwrap();
    store(&at(&mount, "d/file"), b"ours").unwrap();
    assert!(hold.wait_for_blocking(1, SOON));
    bench.bucket().put("d/file", "theirs");
    hold.release();
    sync(&mount);
    let keys = bench.bucket().keys();
    assert_eq!((keys.len(), &*keys[1]), (3, "d/file"), "{keys:?}");
    assert!(keys[2].starts_with("d/file.conflict-"), "{keys:?}");
    assert_eq!(bench.bucket().get("d/file").unwrap(), b"theirs");
    assert_eq!(bench.bucket().get(&keys[2]).unwrap(), b"ours");
    assert!(wait_until(SOON, || fs::read(at(&mount, "d/file")).is_ok_and(|bytes| bytes == b"theirs")));
    assert_eq!(json(&mount, "jobs")["jobs"], Value::Array(Vec::new()));
    assert_eq!(json(&mount, "status")["dirty_files"], 0);
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}

#[test]
fn what_the_store_refuses_keeps_umount_flush_from_unmounting() {
    let bench = Bench::new();
    let mut mount = start(bench.options().args(["--write-mode=back", "--staging-size=64MiB"]));
    let refused = When::operation(Operation::PutObject).key("d/refused");
    let refused = bench.server.faults().inject(refused, Fault::access_denied());
    let bytes = noise(1, 100_000);
    fs::create_dir(at(&mount, "d")).unwrap();
    for name in ["d/refused", "taken"] {
        store(&at(&mount, name), &bytes).unwrap();
    }
    for (command, options, last) in
        [("sync", &[][..], "1 of 3 could not be stored"), ("umount", &["--flush"], "stays mounted")]
    {
        let output = told(&mount, command, options);
        let complaints = lines(&output.stderr);
        assert_eq!((output.status.code(), complaints.len()), (Some(FAILED), 2), "{complaints:?}");
        assert!(complaints[0].starts_with("staithe: \"d/refused\": "), "{complaints:?}");
        assert!(complaints[1].contains(last) || command == "umount", "{complaints:?}");
        assert!(complaints[1].contains("could not be stored"), "{complaints:?}");
        assert!(mount.is_mounted());
    }
    assert_eq!(bench.bucket().keys(), ["d/", "taken"]);
    assert!(real::state(&at(&mount, "d/refused")).starts_with("failed: "));
    let status = json(&mount, "status");
    assert_eq!((&status["write_mode"], &status["dirty_files"]), (&Value::from("back"), &Value::from(1)));
    assert_eq!((&status["dirty_bytes"], &status["jobs"]["failed"]), (&Value::from(100_000), &Value::from(1)));
    assert!(status["staging"]["used_bytes"].as_u64().unwrap() >= 100_000, "{status}");
    assert_eq!(status["staging"]["limit_bytes"], 64 << 20);
    let status = said(&mount, "status", &[]);
    assert!(status.contains("dirty files     1, 97.7 KiB\n"), "{status}");
    assert!(status.contains("jobs            1 failed, 0 retrying, 0 running, 0 waiting\n"), "{status}");
    assert!(status.contains("KiB of 64.0 MiB in use\n"), "{status}");
    refused.remove();
    said(&mount, "umount", &["--flush"]);
    assert_eq!(mount.wait(SOON).unwrap(), 0, "{}", mount.stderr());
    assert!(bench.bucket().get("d/refused").unwrap() == bytes);
}

#[test]
fn what_the_store_refuses_under_one_name_is_tried_at_once_under_another() {
    let bench = Bench::new();
    let mount = bench.start();
    fs::create_dir(mount.path().join("old")).unwrap();
    sync(&mount);
    let refused = When::operation(Operation::PutObject).key("old/file");
    let _refusals = bench.server.faults().inject(refused, Fault::access_denied());
    fs::write(mount.path().join("old/file"), "bytes").unwrap();
    assert!(wait_until(SOON, || is_in(&mount, "old/file", "failed")));
    fs::rename(mount.path().join("old"), mount.path().join("new")).unwrap();
    assert!(wait_until(SOON, || bench.bucket().get("new/file").is_some()));
    assert_eq!(bench.bucket().get("new/file").unwrap(), b"bytes");
    assert_eq!(bench.bucket().get("old/file"), None);
}

#[test]
fn what_a_plain_umount_cannot_store_is_stored_by_the_next_mount() {
    let bench = Bench::new();
    let mut mount = bench.start();
    let bytes = noise(1, 100_000);
    let mut file = File::create(at(&mount, "file")).unwrap();
    file.write_all(&bytes).unwrap();
    bench.server.stop();
    close(file).unwrap();
    let output = told(&mount, "umount", &[]);
    assert_eq!(output.status.code(), Some(75), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(mount.wait(SOON).unwrap(), 75);
    bench.server.restart().unwrap();
    assert_eq!(bench.bucket().keys(), [""; 0]);
    let mut mount = bench.start();
    assert!(fs::read(at(&mount, "file")).unwrap() == bytes);
    sync(&mount);
    assert!(bench.bucket().get("file").unwrap() == bytes);
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}

#[test]
fn names_and_attributes_are_in_the_store_after_sync() {
    let bench = Bench::new();
    bench.bucket().put("theirs", b"bytes");
    let mount = bench.start();
    let away = bench.server.faults().inject(When::mutation(), Fault::internal_error());
    sh(
        mount.path(),
        "mkdir -p a/b && ln -s ../theirs a/link && echo x > a/b/f && chmod 600 theirs a/b/f && chmod 700 a",
    );
    assert_eq!(bench.bucket().keys(), ["theirs"]);
    assert_ne!(real::state(&at(&mount, "a")), "clean");
    away.remove();
    sync(&mount);
    let bucket = bench.bucket();
    assert_eq!(bucket.keys(), ["a/", "a/b/", "a/b/f", "a/link", "theirs"]);
    let mode = |key: &str| {
        let meta = bucket.meta(key).unwrap();
        meta.metadata.get("mode").unwrap().parse::<u32>().unwrap() & 0o7777
    };
    assert_eq!((mode("a/"), mode("a/b/f"), mode("theirs")), (0o700, 0o600, 0o600));
    assert_eq!(bucket.get("a/link").unwrap(), b"../theirs");
    for path in ["a", "a/b", "a/b/f", "theirs"] {
        assert_eq!(real::state(&at(&mount, path)), "clean", "{path}");
    }
    assert_eq!(fs::metadata(at(&mount, "theirs")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_was_closed_is_there_at_once_after_a_crash_and_stored_then() {
    let bench = Bench::new();
    let mut mount = bench.start();
    bench.bucket().put("known", noise(2, 50_000));
    let ours = |key: &str| !key.starts_with(".staithe-probe");
    let away = bench.server.faults().inject(When::mutation().key_where(ours), Fault::internal_error());
    let bytes = noise(1, 200_000);
    fs::create_dir(at(&mount, "d")).unwrap();
    store(&at(&mount, "d/file"), &bytes).unwrap();
    let known = File::options().write(true).open(at(&mount, "known")).unwrap();
    known.write_all_at(b"changed", 40_000).unwrap();
    close(known).unwrap();
    mount.kill9().unwrap();
    let mut mount = bench.start();
    let mut model = noise(2, 50_000);
    model[40_000..40_007].copy_from_slice(b"changed");
    assert!(fs::read(at(&mount, "d/file")).unwrap() == bytes);
    assert!(fs::read(at(&mount, "known")).unwrap() == model);
    assert_eq!(bench.bucket().keys(), ["known"]);
    assert!(bench.bucket().get("known").unwrap() == noise(2, 50_000));
    away.remove();
    sync(&mount);
    assert_eq!(bench.bucket().keys(), ["d/", "d/file", "known"]);
    assert!(bench.bucket().get("d/file").unwrap() == bytes && bench.bucket().get("known").unwrap() == model);
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert_eq!(fs::read_dir(bench.state.path().join("staging")).unwrap().count(), 0);
}

#[test]
fn waiting_ends_with_ctrl_c_or_with_the_daemon_and_nothing_else_does() {
    let bench = Bench::new();
    let mut mount = bench.start();
    let hold = bench.server.faults().hold_requests(When::operation(Operation::PutObject).key("file"));
    store(&at(&mount, "file"), b"bytes").unwrap();
    assert!(hold.wait_for_blocking(1, SOON));
    let syncing = begin_sync(&mount);
    let pid = Pid::from_raw(syncing.id().cast_signed()).unwrap();
    assert!(wait_until(SOON, || is_listening_for_ctrl_c(syncing.id())));
    kill_process(pid, Signal::INT).unwrap();
    let output = syncing.wait_with_output().unwrap();
    let complaint = lines(&output.stderr).concat();
    assert_eq!(output.status.code(), Some(FAILED), "{complaint}");
    assert!(complaint.contains("stopped waiting"), "{complaint}");
    assert!(job(&mount, "file").is_some());
    let syncing = begin_sync(&mount);
    assert!(wait_until(SOON, || is_listening_for_ctrl_c(syncing.id())));
    mount.signal(Signal::KILL).unwrap();
    mount.wait(SOON).unwrap();
    let output = syncing.wait_with_output().unwrap();
    let complaint = lines(&output.stderr).concat();
    assert_eq!(output.status.code(), Some(FAILED), "{complaint}");
    assert!(complaint.contains("the daemon of"), "{complaint}");
    assert!(refusal(FAILED, &["umount", text(mount.path()), "--flush"]).contains("stays mounted"));
    hold.release();
}

/// Whether a process catches SIGINT: the second bit of what its status says it catches.
fn is_listening_for_ctrl_c(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
    u64::from_str_radix(caught, 16).unwrap() & 2 != 0
}

#[test]
fn write_through_has_no_jobs_but_what_failed_can_be_seen_and_stored() {
    let bench = Bench::new();
    let mount = start(bench.options());
    let path = at(&mount, "file");
    let refused = bench.server.faults().inject(When::operation(Operation::PutObject), Fault::access_denied());
    assert_eq!(code(store(&path, b"bytes")), libc::EACCES);
    assert!(is_in(&mount, "file", "failed"));
    let output = told(&mount, "sync", &[]);
    assert_eq!((output.status.code(), lines(&output.stderr).len()), (Some(FAILED), 2));
    refused.remove();
    assert_eq!(said(&mount, "sync", &[]), "1 files and directories were stored\n");
    assert_eq!(bench.bucket().get("file").unwrap(), b"bytes");
    assert_eq!(real::state(&path), "clean");
    let outside = tempfile::tempdir().unwrap();
    let elsewhere = start(daemon("memory://"));
    let mountpoint = text(mount.path());
    let said = refusal(USAGE, &["jobs", mountpoint, "--cancel", text(elsewhere.path())]);
    assert!(said.contains("is not in"), "{said}");
    let said = refusal(FAILED, &["jobs", mountpoint, "--retry", text(outside.path())]);
    assert!(said.contains("nothing of staithe"), "{said}");
}

#[test]
fn writers_wait_for_room_and_are_refused_only_when_none_comes() {
    let bench = Bench::new();
    let away = bench
        .server
        .faults()
        .inject(When::operation(Operation::PutObject).key("first"), Fault::internal_error());
    let options = bench.options().args(["--op-deadline=1s", "--write-mode=back", "--staging-size=16MiB"]);
    let mut mount = start(options);
    let bytes = noise(1, 12 << 20);
    store(&at(&mount, "first"), &bytes).unwrap();
    let refused = store(&at(&mount, "second"), &bytes);
    assert_eq!(real::code(refused), libc::ENOSPC, "{}", mount.stderr());
    away.remove();
    let written = wait_until(SOON, || store(&at(&mount, "second"), &bytes).is_ok());
    assert!(written, "room never came: {}", mount.stderr());
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    for key in ["first", "second"] {
        assert!(bench.bucket().get(key).unwrap() == bytes, "{key}");
    }
}

#[test]
fn a_file_beyond_the_largest_object_is_refused_by_its_close() {
    let bench = Bench::new();
    let mut mount = bench.start();
    let path = at(&mount, "file");
    let file = File::create(&path).unwrap();
    // The kernel writes by itself, and asks nobody.
    file.write_all_at(b"!", 5 << 40).unwrap();
    assert_eq!(code(file.sync_all()), libc::EFBIG);
    assert_eq!(code(close(file)), libc::EFBIG);
    assert!(bench.bucket().get("file").is_none());
    File::options().write(true).open(&path).unwrap().set_len(3).unwrap();
    sync(&mount);
    assert_eq!(bench.bucket().get("file").unwrap(), [0; 3]);
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}
