//! `staithe warm`: what it refuses, and what it makes of a daemon's answers.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use real::{at, on_directory, record, refusal, spawn, staithe, store, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use staithe_testkit::{MountedDaemon, wait_until};

const SOON: Duration = Duration::from_secs(30);
const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// In the place of a daemon's control channel: what a daemon with a cache would say.
struct Script {
    listener: UnixListener,
}

impl Script {
    fn instead_of(mount: &MountedDaemon) -> Self {
        let socket = record(mount).with_extension("sock");
        fs::remove_file(&socket).unwrap();
        Self { listener: UnixListener::bind(socket).unwrap() }
    }

    /// Answers the question whether anybody is there, then takes a request to warm.
    fn asked(&self) -> (Value, UnixStream) {
        let (request, mut stream) = self.next();
        assert!(request["request"]["status"].is_object(), "{request}");
        say(&mut stream, &json!({"done": {}}));
        let (mut request, stream) = self.next();
        (request["request"]["warm"].take(), stream)
    }

    fn next(&self) -> (Value, UnixStream) {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let request: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(request["v"], 1, "{line}");
        (request, stream)
    }
}

fn say(stream: &mut UnixStream, reply: &Value) {
    writeln!(stream, "{reply}").unwrap();
}

fn warming(found: u64, done: u64, failures: &[(&str, &str)]) -> Value {
    let failed: Vec<_> =
        failures.iter().map(|(path, reason)| json!({"path": path, "reason": reason})).collect();
    json!({
        "files_found": found, "files_done": done, "bytes_wanted": found << 20, "bytes_done": done << 20,
        "bytes_fetched": 1 << 20, "failed": failures.len(), "failures": failed,
    })
}

fn tree(mount: &MountedDaemon) {
    fs::create_dir_all(at(mount, "d/e")).unwrap();
    store(&at(mount, "d/e/file"), b"bytes").unwrap();
}

#[test]
fn a_mount_without_a_cache_refuses_at_once() {
    let (_bucket, mount) = on_directory();
    tree(&mount);
    for path in [mount.path(), &at(&mount, "d"), &at(&mount, "d/e/file")] {
        let said = refusal(FAILED, &["warm", text(path)]);
        assert_eq!(said, "staithe: this mount has no cache directory; mount with --cache-dir\n");
    }
}

#[test]
fn paths_that_are_in_no_mount_or_in_two_are_refused() {
    let (_bucket, one) = on_directory();
    let (_bucket, other) = on_directory();
    let outside = tempfile::tempdir().unwrap();
    let said = refusal(USAGE, &["warm", text(one.path()), text(other.path())]);
    assert!(said.contains(text(one.path())) && said.contains(text(other.path())), "{said}");
    for paths in [&[outside.path()][..], &[one.path(), outside.path()]] {
        let arguments: Vec<_> = ["warm"].into_iter().chain(paths.iter().map(|path| text(path))).collect();
        assert!(refusal(FAILED, &arguments).contains("nothing of staithe"));
    }
    // A link in one mount may lead into the other.
    symlink(other.path(), at(&one, "link")).unwrap();
    store(&at(&one, "file"), b"bytes").unwrap();
    refusal(USAGE, &["warm", text(&at(&one, "file")), text(&at(&one, "link"))]);
    let said = refusal(FAILED, &["warm", text(&at(&one, "missing"))]);
    assert!(said.contains("missing") && said.contains("No such file"), "{said}");
    for wrong in [&["warm"][..], &["warm", "/mnt", "--jobs=0"], &["warm", "/mnt", "--jobs=65"]] {
        refusal(USAGE, wrong);
    }
}

#[test]
fn what_a_stopped_daemon_serves_is_not_waited_for() {
    let (_bucket, mut mount) = on_directory();
    real::stop(&mut mount);
    let path = at(&mount, "d/e");
    let said = refusal(FAILED, &["warm", text(&path)]);
    mount.signal(Signal::CONT).unwrap();
    assert!(said.contains("does not answer"), "{said}");
}

#[test]
fn paths_are_asked_for_from_the_root_of_the_mount_and_success_is_summed_up() {
    let (_bucket, mount) = on_directory();
    tree(&mount);
    symlink("e", at(&mount, "d/link")).unwrap();
    let script = Script::instead_of(&mount);
    let dir = at(&mount, "d");
    let daemon = thread::spawn(move || {
        let (request, mut stream) = script.asked();
        say(&mut stream, &json!({"news": warming(2, 0, &[])}));
        say(&mut stream, &json!({"done": warming(3, 3, &[])}));
        request
    });
    let output = staithe(&["warm", "e/file", ".", "link/", text(mount.path()), "--jobs", "3"], &dir);
    let wanted = json!({"paths": ["d/e/file", "d", "d/e", ""], "jobs": 3});
    assert_eq!(daemon.join().unwrap(), wanted);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "3 of 3 files, 3.0 MiB of 3.0 MiB are in the cache (1.0 MiB fetched)\n");
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn failures_are_listed_and_are_no_success() {
    let (_bucket, mount) = on_directory();
    tree(&mount);
    let ends = [
        json!({"done": warming(3, 1, &[("a", "the store\nis away"), ("b\u{1b}[2J", "gone")])}),
        // Not all that was found is there, whatever the reason.
        json!({"done": warming(3, 2, &[])}),
        json!({"error": "it is\nnot to be"}),
    ];
    let wanted: [&[&str]; 3] = [
        &[
            "staithe: \"a\": the store is away",
            "staithe: \"b\\u{1b}[2J\": gone",
            "staithe: 1 of 3 files, 1.0 MiB of 3.0 MiB are in the cache (1.0 MiB fetched), 2 failed",
        ],
        &["staithe: 2 of 3 files, 2.0 MiB of 3.0 MiB are in the cache (1.0 MiB fetched), 0 failed"],
        &["staithe: it is not to be"],
    ];
    let script = Script::instead_of(&mount);
    for (end, wanted) in ends.into_iter().zip(wanted) {
        let output = thread::scope(|scope| {
            scope.spawn(|| say(&mut script.asked().1, &end));
            staithe(&["warm", text(mount.path())], Path::new("/"))
        });
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().collect::<Vec<_>>(), wanted);
        assert_eq!((output.status.code(), output.stdout), (Some(FAILED), Vec::new()));
    }
    // A daemon that ends in the middle.
    let said = thread::scope(|scope| {
        scope.spawn(|| say(&mut script.asked().1, &json!({"news": warming(3, 1, &[])})));
        refusal(FAILED, &["warm", text(mount.path())])
    });
    assert!(said.contains("ended before"), "{said}");
}

#[test]
fn ctrl_c_hangs_up_and_says_how_far_it_came() {
    let (_bucket, mount) = on_directory();
    tree(&mount);
    let script = Script::instead_of(&mount);
    let mut command = Command::new(env!("CARGO_BIN_EXE_staithe"));
    command.arg("warm").arg(mount.path()).stderr(Stdio::piped()).stdout(Stdio::piped());
    let client = spawn(&mut command);
    let (_, mut stream) = script.asked();
    say(&mut stream, &json!({"news": warming(5, 2, &[])}));
    let pid = Pid::from_child(&client);
    // It listens to the signal from its request on, which has come.
    let handled = wait_until(SOON, || catches_interrupts(pid));
    assert!(handled);
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(FAILED), "{said}");
    assert!(said.contains("stopped at 2 of 5 files") && said.contains("stays there"), "{said}");
}

fn catches_interrupts(pid: Pid) -> bool {
    let status = PathBuf::from(format!("/proc/{}/status", pid.as_raw_nonzero()));
    let status = fs::read_to_string(status).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
    caught & 1 << (libc::SIGINT - 1) != 0
}
