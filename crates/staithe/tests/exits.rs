//! How a mount ends: everything stored, or what is not is kept and said.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use real::{
    BUCKET, Bucket, at, close, code, daemon, noise, on, on_server, quiet, run, server, sh, spawn, start,
    store,
};
use rustix::process::Signal;
use staithe_testkit::{Fault, MountedDaemon, Operation, S3Server, Versioning, When, wait_until};

const SOON: Duration = Duration::from_secs(30);

fn umount(mountpoint: &Path) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_staithe")).arg("umount").arg(mountpoint))
}

/// The one line on standard error.
fn sentence(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn signals_and_unmounts_end_with_everything_stored() {
    type Way = fn(&mut MountedDaemon);
    let ways: [(&str, Way); 5] = [
        ("SIGTERM", |m| m.signal(Signal::TERM).unwrap()),
        ("SIGINT", |m| m.signal(Signal::INT).unwrap()),
        ("umount", |m| drop(sh(Path::new("/"), &format!("umount {}", m.path().display())))),
        ("fusermount3", |m| drop(sh(Path::new("/"), &format!("fusermount3 -u {}", m.path().display())))),
        ("staithe umount", |m| assert_eq!(umount(m.path()).status.code(), Some(0))),
    ];
    for (name, way) in ways {
        let (server, mut mount) = on_server(Versioning::Off);
        let bytes = noise(1, 300_000);
        fs::create_dir(at(&mount, "d")).unwrap();
        store(&at(&mount, "d/file"), &bytes).unwrap();
        // Closed by a thread that is gone, so that nothing but the mount can hold it.
        fs::write(at(&mount, "d/other"), &bytes).unwrap();
        way(&mut mount);
        assert_eq!(mount.wait(SOON).unwrap(), 0, "{name}: {}", mount.stderr());
        assert!(!mount.is_mounted(), "{name}");
        let bucket = Bucket::of(&server);
        assert_eq!(bucket.keys(), ["d/", "d/file", "d/other"], "{name}");
        assert!(bucket.get("d/file").unwrap() == bytes, "{name}");
    }
}

#[test]
fn a_busy_mount_is_unmounted_all_the_same_and_what_was_written_is_stored() {
    let (server, mut mount) = on_server(Versioning::Off);
    store(&at(&mount, "file"), "stored").unwrap();
    fs::create_dir(at(&mount, "d")).unwrap();
    let writer = File::create(at(&mount, "d/written")).unwrap();
    writer.write_all_at(b"never closed", 0).unwrap();
    let reader = File::open(at(&mount, "file")).unwrap();
    let mut sitting = spawn(Command::new("sleep").arg("60").current_dir(at(&mount, "d")));
    let start = Instant::now();
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert!(!mount.is_mounted());
    assert_eq!(Bucket::of(&server).get("d/written").unwrap(), b"never closed");
    sitting.kill().unwrap();
    sitting.wait().unwrap();
    drop((reader, writer));
}

#[test]
fn while_it_drains_nothing_new_is_begun() {
    let (server, mut mount) = on_server(Versioning::Off);
    let (path, second) = (at(&mount, "file"), at(&mount, "second"));
    let root = File::open(mount.path()).unwrap();
    let hold = server.faults().hold_requests(When::operation(Operation::PutObject));
    let quiet = quiet();
    let file = File::create(&path).unwrap();
    file.write_all_at(b"on its way", 0).unwrap();
    std::thread::scope(|scope| {
        let storing = scope.spawn(|| close(file));
        assert!(hold.wait_for_blocking(1, SOON));
        mount.signal(Signal::TERM).unwrap();
        // The mount is out of the tree by then, but who is inside may go on.
        let inside = format!("/proc/self/fd/{}/second", std::os::fd::AsRawFd::as_raw_fd(&root));
        assert!(wait_until(SOON, || !mount.is_mounted()));
        assert_eq!(code(File::create(inside)), libc::EROFS);
        hold.release();
        storing.join().unwrap().unwrap();
    });
    drop((root, quiet));
    assert_eq!(mount.wait(SOON).unwrap(), 0, "{}", mount.stderr());
    assert_eq!(Bucket::of(&server).keys(), ["file"]);
    assert!(!second.exists());
}

#[test]
fn what_cannot_be_stored_is_kept_said_and_stored_by_the_next_mount() {
    let server = server();
    let state = tempfile::tempdir().unwrap();
    let options = on(&server).args(["--op-deadline=1s", "--drain-deadline=2s"]).state_dir(state.path());
    let mut mount = start(options.clone());
    let (small, large) = (noise(1, 1000), noise(2, 20 << 20));
    Bucket::of(&server).put("known", noise(3, 2 << 20));
    fs::create_dir(at(&mount, "d")).unwrap();
    let quiet = quiet();
    let files = [File::create(at(&mount, "d/small")).unwrap(), File::create(at(&mount, "large")).unwrap()];
    let known = File::options().write(true).open(at(&mount, "known")).unwrap();
    server.stop();
    files[0].write_all_at(&small, 0).unwrap();
    files[1].write_all_at(&large, 0).unwrap();
    known.write_all_at(b"changed", 1 << 20).unwrap();
    mount.signal(Signal::TERM).unwrap();
    assert_eq!(mount.wait(SOON).unwrap(), 75, "{}", mount.stderr());
    drop((files, known, quiet));
    let said = mount.stderr();
    for name in ["d/small", "large", "known"] {
        assert!(said.lines().any(|l| l.contains("kept") && l.contains(name)), "{name}: {said}");
    }
    server.restart().unwrap();
    let bucket = Bucket::of(&server);
    assert_eq!(bucket.keys(), ["d/", "known"]);
    let mut mount = start(options);
    assert_eq!(bucket.keys(), ["d/", "d/small", "known", "large"]);
    assert!(bucket.get("d/small").unwrap() == small);
    assert!(bucket.get("large").unwrap() == large);
    let mut model = noise(3, 2 << 20);
    model[1 << 20..(1 << 20) + 7].copy_from_slice(b"changed");
    assert!(bucket.get("known").unwrap() == model);
    assert!(fs::read(at(&mount, "large")).unwrap() == large);
    assert_eq!(bucket.uploads(), 0);
    assert_eq!(mount.terminate().unwrap(), 0);
    assert_eq!(fs::read_dir(state.path().join("staging")).unwrap().count(), 0);
}

#[test]
fn a_commit_that_had_succeeded_when_the_mount_ended_is_not_done_twice() {
    let server = server();
    let state = tempfile::tempdir().unwrap();
    let options = on(&server).args(["--op-deadline=1s", "--drain-deadline=2s"]).state_dir(state.path());
    let mut mount = start(options.clone());
    let hold = server.faults().hold_responses(When::operation(Operation::PutObject));
    let quiet = quiet();
    let file = File::create(at(&mount, "file")).unwrap();
    file.write_all_at(b"once", 0).unwrap();
    mount.signal(Signal::TERM).unwrap();
    assert_eq!(mount.wait(SOON).unwrap(), 75, "{}", mount.stderr());
    drop((file, quiet));
    server.faults().clear();
    hold.release();
    let mount = start(options);
    let bucket = Bucket::of(&server);
    assert_eq!(bucket.keys(), ["file"], "{}", mount.stderr());
    assert_eq!(bucket.get("file").unwrap(), b"once");
}

#[test]
fn a_kept_file_that_lost_its_race_meanwhile_is_stored_beside_once() {
    let server = server();
    let state = tempfile::tempdir().unwrap();
    let options = on(&server).args(["--op-deadline=1s", "--drain-deadline=2s"]).state_dir(state.path());
    let mut mount = start(options.clone());
    let refusal = server.faults().inject(When::operation(Operation::PutObject), Fault::access_denied());
    let quiet = quiet();
    let file = File::create(at(&mount, "file")).unwrap();
    file.write_all_at(b"ours", 0).unwrap();
    mount.signal(Signal::TERM).unwrap();
    assert_eq!(mount.wait(SOON).unwrap(), 75, "{}", mount.stderr());
    drop((file, quiet));
    refusal.remove();
    let bucket = Bucket::of(&server);
    bucket.put("file", "theirs");
    for _ in 0..2 {
        let mut mount = start(options.clone());
        let keys = bucket.keys();
        assert_eq!(keys.len(), 2, "{keys:?}");
        assert_eq!(bucket.get("file").unwrap(), b"theirs");
        assert_eq!(bucket.get(&keys[1]).unwrap(), b"ours");
        assert!(!mount.stderr().contains("cannot be finished"), "{}", mount.stderr());
        assert_eq!(mount.terminate().unwrap(), 0);
    }
}

/// Leaves `d/unstored` in a state directory, and its server running again.
fn leave_unstored(server: &S3Server, state: &Path) {
    let mut mount = start(on(server).args(["--op-deadline=1s", "--drain-deadline=2s"]).state_dir(state));
    fs::create_dir(at(&mount, "d")).unwrap();
    let quiet = quiet();
    let file = File::create(at(&mount, "d/unstored")).unwrap();
    file.write_all_at(b"belongs to the first", 0).unwrap();
    server.stop();
    assert_eq!(code(close(file)), libc::ETIMEDOUT);
    drop(quiet);
    assert_eq!(mount.terminate().unwrap(), 75, "{}", mount.stderr());
    server.restart().unwrap();
}

/// What a mount says that must be refused.
fn refused(source: &str, server: &S3Server, state: &Path) -> String {
    let mountpoint = tempfile::tempdir().unwrap();
    let mut mount = Command::new(env!("CARGO_BIN_EXE_staithe"));
    mount.args(["mount", source]).arg(mountpoint.path()).arg("--state-dir").arg(state);
    let output = run(mount.arg("--log-level=off").envs(server.env()));
    assert_eq!(output.status.code(), Some(1), "{source}: {output:?}");
    sentence(&output)
}

#[test]
fn unstored_files_are_never_stored_in_another_volume() {
    let (server, other) = (server(), server());
    assert!(server.create_bucket("other", Versioning::Off));
    let (state, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    leave_unstored(&server, state.path());
    let file = format!("file://{}", directory.path().display());
    let bucket = format!("s3://{BUCKET}");
    for (source, server, name) in [
        (&*bucket, &other, &*bucket),
        ("s3://other", &server, "s3://other"),
        (&*file, &server, &*file),
        ("memory://", &server, "memory://"),
    ] {
        let said = refused(source, server, state.path());
        assert_eq!(said.matches("s3://bucket at http://").count(), 1 + usize::from(name == bucket), "{said}");
        assert!(said.contains(&format!("this is {name}")) && said.contains("--state-dir"), "{said}");
    }
    assert!(Bucket::of(&other).keys().is_empty());
    assert_eq!(
        fs::read_dir(directory.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name() != ".staithe-tmp")
            .count(),
        0
    );
    // The one they belong to stores them, and then the directory is free for another.
    let mut mount = start(on(&server).state_dir(state.path()));
    assert_eq!(Bucket::of(&server).get("d/unstored").unwrap(), b"belongs to the first");
    assert_eq!(mount.terminate().unwrap(), 0);
    let mut mount = start(daemon(&file).state_dir(state.path()));
    store(&at(&mount, "file"), "x").unwrap();
    assert_eq!(mount.terminate().unwrap(), 0);
    assert_eq!(fs::read(directory.path().join("file")).unwrap(), b"x");
}

#[test]
fn while_an_earlier_runs_file_cannot_be_stored_every_run_ends_with_75() {
    let server = server();
    let state = tempfile::tempdir().unwrap();
    leave_unstored(&server, state.path());
    let storing = When::operation(Operation::PutObject).key("d/unstored");
    let refusal = server.faults().inject(storing, Fault::access_denied());
    let mut mount = start(on(&server).state_dir(state.path()));
    assert!(mount.stderr().contains("cannot be finished yet"), "{}", mount.stderr());
    let output = umount(mount.path());
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert_eq!(mount.wait(SOON).unwrap(), 75);
    let said = mount.stderr();
    assert!(
        said.lines().any(|l| l.contains("kept in the state directory") && l.contains("d/unstored")),
        "{said}"
    );
    assert!(!said.contains(": everything is stored"), "{said}");
    // The same in the background.
    let mountpoint = tempfile::tempdir().unwrap();
    let mut background = Command::new(env!("CARGO_BIN_EXE_staithe"));
    background.args(["mount", &format!("s3://{BUCKET}"), "--background"]).arg(mountpoint.path());
    let output = run(background.arg("--state-dir").arg(state.path()).envs(server.env()));
    assert!(output.status.success(), "{output:?}");
    // What it warned of is said to who started it, and nothing else.
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cannot be finished yet") && said.contains("d/unstored"), "{said}");
    assert!(said.lines().all(|line| line.contains(" WARN ")), "{said}");
    let output = umount(mountpoint.path());
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    refusal.remove();
    let mut mount = start(on(&server).state_dir(state.path()));
    assert_eq!(Bucket::of(&server).get("d/unstored").unwrap(), b"belongs to the first");
    assert_eq!(mount.terminate().unwrap(), 0);
}

#[test]
fn umount_mirrors_how_the_daemon_ended() {
    let server = server();
    let mut mount = start(on(&server).args(["--op-deadline=1s", "--drain-deadline=2s"]));
    let quiet = quiet();
    let file = File::create(at(&mount, "file")).unwrap();
    file.write_all_at(b"unstored", 0).unwrap();
    server.stop();
    assert_eq!(code(close(file)), libc::ETIMEDOUT);
    drop(quiet);
    let output = umount(mount.path());
    assert_eq!(output.status.code(), Some(75), "{}", sentence(&output));
    assert!(sentence(&output).contains("mount"), "{}", sentence(&output));
    assert_eq!(mount.wait(Duration::from_secs(2)).unwrap(), 75);
}

#[test]
fn umount_of_what_is_not_ours_says_so() {
    let empty = tempfile::tempdir().unwrap();
    for path in [empty.path(), Path::new("/proc"), Path::new("/nonexistent")] {
        let output = umount(path);
        assert_eq!(output.status.code(), Some(1));
        assert!(sentence(&output).contains(path.to_str().unwrap()), "{}", sentence(&output));
    }
}
