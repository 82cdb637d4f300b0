//! What `ls -l` costs on a bucket that an earlier mount has seen.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use real::{BUCKET, Bucket, at, daemon, sh, staithe, start, text};
use serde_json::Value;
use staithe_testkit::{MountedDaemon, Operation, S3Server, Tally, Versioning, wait_until};

const COUNT: u32 = 500;

fn put(bucket: &Bucket, n: u32, body: &str, mode: u32) {
    let (mode, mtime) = (mode.to_string(), (1_000_000_000 + n).to_string());
    bucket.put_with(&format!("d/{n:03}"), body, &[("mode", &mode), ("mtime", &mtime)]);
}

fn mounted(server: &S3Server, state: &Path) -> MountedDaemon {
    let options = daemon(&format!("s3://{BUCKET}/d")).env(server.env()).state_dir(state);
    start(options.args(["--metadata-ttl", "1h"]))
}

fn ls(server: &S3Server, mount: &MountedDaemon) -> (String, Tally) {
    let before = server.requests().tally();
    let said = sh(mount.path(), "ls -l --time-style=full-iso");
    (said, server.requests().tally().since(&before))
}

/// How much of a tally is not listing.
fn asked(spent: &Tally) -> u64 {
    spent.total().requests - spent.of(Operation::ListObjectsV2).requests
}

fn kept(mount: &MountedDaemon) -> u64 {
    let output = staithe(&["status", text(mount.path()), "--json"], Path::new("/"));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    told["attributes_kept"].as_u64().unwrap()
}

#[test]
fn a_bucket_that_was_seen_before_is_listed_and_no_object_is_asked_about() {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let bucket = Bucket::of(&server);
    for n in 0..COUNT {
        let mode = if n % 50 == 7 { 0o120_777 } else { 0o100_600 + n % 64 };
        put(&bucket, n, &format!("target{n}"), mode);
    }
    // Nothing is kept of an object within the second in which it was stored.
    let stored = SystemTime::now();
    let is_over = || stored.elapsed().is_ok_and(|age| age > Duration::from_secs(3));
    assert!(wait_until(Duration::from_secs(30), is_over));

    let state = tempfile::tempdir().unwrap();
    let mut mount = mounted(&server, state.path());
    let (first, spent) = ls(&server, &mount);
    assert!(asked(&spent) >= u64::from(COUNT), "{spent:?}");
    assert_eq!(mount.terminate().unwrap(), 0);

    let mut mount = mounted(&server, state.path());
    let (again, spent) = ls(&server, &mount);
    assert_eq!(again, first);
    assert_eq!(asked(&spent), 0, "{spent:?}");
    assert_eq!(kept(&mount), u64::from(COUNT));
    mount.kill9().unwrap();

    let mut mount = mounted(&server, state.path());
    let (again, spent) = ls(&server, &mount);
    assert_eq!(again, first);
    assert_eq!(asked(&spent), 0, "after kill -9: {spent:?}");
    assert_eq!(mount.terminate().unwrap(), 0);

    put(&bucket, 11, "other bytes", 0o100_440);
    let mount = mounted(&server, state.path());
    let (_, spent) = ls(&server, &mount);
    assert_eq!(asked(&spent), 1, "{spent:?}");
    assert_eq!(fs::metadata(at(&mount, "011")).unwrap().permissions().mode() & 0o777, 0o440);
}

#[test]
fn kill_9_right_after_the_first_look_loses_nothing_that_was_written() {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let bucket = Bucket::of(&server);
    for n in 0..20 {
        put(&bucket, n, "bytes", 0o100_640);
    }
    let stored = SystemTime::now();
    let is_over = || stored.elapsed().is_ok_and(|age| age > Duration::from_secs(3));
    assert!(wait_until(Duration::from_secs(30), is_over));
    let state = tempfile::tempdir().unwrap();
    let mut mount = mounted(&server, state.path());
    let (first, _) = ls(&server, &mount);
    assert!(wait_until(Duration::from_secs(30), || kept(&mount) == 20));
    mount.kill9().unwrap();
    let mount = mounted(&server, state.path());
    let (again, spent) = ls(&server, &mount);
    assert_eq!(again, first);
    assert_eq!(asked(&spent), 0, "{spent:?}");
}

fn numbers(mount: &MountedDaemon) -> String {
    sh(mount.path(), "find . -printf '%i %p\\n' | sort -k 2")
}

#[test]
fn what_stays_as_it_is_keeps_its_inode_number_over_restarts() {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let bucket = Bucket::of(&server);
    for key in ["a/b/one", "a/b/two", "a/three", "four"] {
        bucket.put(key, key);
    }
    for attributes in ["full", "listing"] {
        let state = tempfile::tempdir().unwrap();
        let mounted = || {
            let options = daemon(&format!("s3://{BUCKET}")).env(server.env()).state_dir(state.path());
            start(options.args(["--metadata-ttl", "1h", "--attributes", attributes]))
        };
        let mut mount = mounted();
        sh(
            mount.path(),
            "mkdir -p new/below && echo 1 > new/below/file && ln -sf four link && mv a/b new/moved",
        );
        let first = numbers(&mount);
        assert_eq!(mount.terminate().unwrap(), 0);

        let mut mount = mounted();
        assert_eq!(numbers(&mount), first, "{attributes}");
        sh(mount.path(), "mv new/moved a/b && echo more >> new/below/file && echo 5 > five");
        let second = numbers(&mount);
        let output = staithe(&["sync", text(mount.path())], Path::new("/"));
        assert!(output.status.success(), "{output:?}");
        mount.kill9().unwrap();

        let mut mount = mounted();
        assert_eq!(numbers(&mount), second, "{attributes}, after kill -9");
        assert_eq!(mount.terminate().unwrap(), 0);

        // What became something else has another number; the rest has not.
        bucket.put("four", "replaced");
        let mut mount = mounted();
        let third = numbers(&mount);
        let differ = second.lines().zip(third.lines()).filter(|(before, now)| before != now);
        assert_eq!(differ.map(|(_, now)| now.ends_with(" ./four")).collect::<Vec<_>>(), [true]);
        sh(mount.path(), "rm -r new link five");
        assert_eq!(mount.terminate().unwrap(), 0);
        bucket.put("four", "four");
    }
}
