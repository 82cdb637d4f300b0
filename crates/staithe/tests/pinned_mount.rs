//! `staithe mount --snapshot`: a bucket as it was written down, whatever becomes of it.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use real::{BUCKET, Views, at, code, daemon, refusal, run, sh, store, text, view};
use staithe_testkit::{Operation, S3Server, Versioning};

const FAILED: i32 = 1;
const USAGE: i32 = 2;

fn fill(views: &Views) {
    let bucket = views.bucket();
    for n in 0..1200 {
        bucket.put(&format!("many/{n:04}"), format!("many {n}"));
    }
    for key in ["a/file", "a/sub/deep", "top"] {
        bucket.put(key, key.as_bytes());
    }
}

#[test]
fn look_ups_and_listings_ask_nothing_and_reads_are_of_the_pinned_versions() {
    let views = Views::new(Versioning::On);
    fill(&views);
    let pinned = views.bucket().meta("a/file").unwrap();
    views.take("v");
    let bucket = views.bucket();
    bucket.put("a/file", "replaced meanwhile");
    bucket.put("a/new", "new");
    for key in ["top", "a/sub/deep"] {
        bucket.delete(key);
    }
    let mount = views.mount("v");
    let before = views.server.requests().tally();
    assert_eq!(sh(mount.path(), "find . -type f | wc -l"), "1203");
    assert_eq!(sh(mount.path(), "ls -lR . > /dev/null; ls a"), "file\nsub");
    assert_eq!(code(fs::metadata(at(&mount, "a/new"))), libc::ENOENT);
    assert_eq!(code(fs::metadata(at(&mount, "a/file/x"))), libc::ENOTDIR);
    let seen = fs::metadata(at(&mount, "a/file")).unwrap();
    let modified = pinned.last_modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!((seen.len(), seen.mtime()), (pinned.size, modified.as_secs().cast_signed()));
    let asked = views.server.requests().tally().since(&before);
    assert_eq!(asked.total().requests, 0, "{asked:?}");
    // Also what is gone from the bucket, or another version there.
    for key in ["a/file", "a/sub/deep", "top"] {
        assert_eq!(fs::read(at(&mount, key)).unwrap(), key.as_bytes());
    }
    assert_eq!(fs::read(at(&mount, "many/0700")).unwrap(), b"many 700");
    let asked = views.server.requests().tally().since(&before);
    assert_eq!(asked.total().requests, asked.of(Operation::GetObject).requests, "{asked:?}");
    let shown = view(&mount);
    assert_eq!(
        (&shown["objects"], &shown["epoch"], &shown["old_epochs"]),
        (&1203.into(), &1.into(), &0.into())
    );
    assert_eq!(shown["file"], text(&views.file("v").canonicalize().unwrap()));
}

#[test]
fn nothing_can_be_changed() {
    let views = Views::new(Versioning::On);
    fill(&views);
    views.take("v");
    let mount = views.mount("v");
    let before = views.server.requests().tally();
    for outcome in [
        store(&at(&mount, "new"), "x"),
        store(&at(&mount, "top"), "x"),
        fs::create_dir(at(&mount, "d")),
        fs::remove_file(at(&mount, "top")),
        fs::rename(at(&mount, "a"), at(&mount, "b")),
    ] {
        assert_eq!(code(outcome), libc::EROFS);
    }
    assert_eq!(views.server.requests().tally().since(&before).total().requests, 0);
}

#[test]
fn without_versions_an_object_that_was_replaced_is_stale_and_not_another() {
    let views = Views::new(Versioning::Off);
    fill(&views);
    views.take("v");
    views.bucket().put("top", "replaced meanwhile");
    let mount = views.mount("v");
    assert_eq!(code(fs::read(at(&mount, "top"))), libc::ESTALE);
    assert_eq!(fs::read(at(&mount, "a/file")).unwrap(), b"a/file");
    assert_eq!(sh(mount.path(), "ls"), "a\nmany\ntop");
}

#[test]
fn with_full_attributes_what_is_gone_from_the_bucket_is_stale_and_stays_listed() {
    let views = Views::new(Versioning::Off);
    fill(&views);
    views.take("v");
    let mount = views.mount_with("full", "v");
    views.bucket().delete("a/file");
    for _ in 0..2 {
        assert_eq!(code(fs::metadata(at(&mount, "a/file"))), libc::ESTALE);
        assert_eq!(sh(mount.path(), "ls a"), "file\nsub");
    }
    assert_eq!(fs::read(at(&mount, "a/sub/deep")).unwrap(), b"a/sub/deep");
}

#[test]
fn a_prefix_is_mounted_with_a_manifest_of_it_and_attributes_are_those_of_the_version() {
    let views = Views::new(Versioning::On);
    views.bucket().put_with("p/f", "first", &[("mode", "33056")]);
    let below = format!("s3://{BUCKET}/p");
    views.done(&["create", &below, "-o", "p"]);
    views.bucket().put_with("p/f", "second", &[("mode", "33279")]);
    let options = daemon(&below).env(views.server.env()).args(["--attributes", "full", "--snapshot"]);
    let mount = real::start(options.arg(views.file("p")));
    assert_eq!(sh(mount.path(), "stat -c %a f && cat f"), "440\nfirst");
    // Of the whole bucket: another prefix.
    views.take("whole");
    let (place, whole) = (tempfile::tempdir().unwrap(), views.file("whole"));
    let arguments = ["mount", &below, text(place.path()), "--snapshot", text(&whole)];
    assert!(refusal(USAGE, &arguments).contains("prefix"));
}

#[test]
fn a_manifest_that_is_none_or_of_another_bucket_is_not_mounted() {
    let views = Views::new(Versioning::Off);
    fill(&views);
    views.take("v");
    let (other, place) = (S3Server::start_blocking().unwrap(), tempfile::tempdir().unwrap());
    assert!(other.create_bucket(BUCKET, Versioning::Off));
    let whole = fs::read(views.file("v")).unwrap();
    fs::write(views.file("cut"), &whole[..whole.len() - 9]).unwrap();
    fs::write(views.file("foreign"), "something else").unwrap();
    for (server, name, exit, word) in [
        (&other, "v", FAILED, "is a manifest of"),
        (&views.server, "cut", FAILED, "ends early"),
        (&views.server, "foreign", USAGE, "no manifest"),
        (&views.server, "missing", USAGE, "missing"),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_staithe"));
        command.args(["mount", &format!("s3://{BUCKET}")]).arg(place.path()).envs(server.env());
        command.arg("--state-dir").arg(views.file("state")).args(["--log-level", "off"]);
        let output = run(command.arg("--snapshot").arg(views.file(name)));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit), "{name}: {said}");
        assert!(said.contains(word) && said.lines().count() == 1, "{name}: {said}");
    }
    let arguments = ["mount", "s3://bucket", text(place.path()), "--write-mode", "back", "--snapshot", "v"];
    assert!(refusal(USAGE, &arguments).contains("--write-mode"));
}
