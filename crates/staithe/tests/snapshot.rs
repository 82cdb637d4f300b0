//! `staithe snapshot`: what a bucket holds, written down and compared, over HTTP.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use real::{BUCKET, Views, sh, spawn, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use staithe_testkit::{Fault, Operation, Versioning, When, wait_until};

const SOON: Duration = Duration::from_secs(30);

const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// Keys that a manifest lists.
fn keys(place: &Views, name: &str) -> Vec<String> {
    let listed = place.done(&["list", name]);
    let lines: Vec<_> = listed.lines().collect();
    let (objects, last) = lines.split_at(lines.len() - 1);
    assert!(last[0].starts_with(&format!("{} objects", objects.len())), "{listed}");
    objects.iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
}

/// Writes the bucket down, with more arguments.
fn create(place: &Views, name: &str, arguments: &[&str]) -> String {
    place.done(&[&["create", &format!("s3://{BUCKET}"), "-o", name], arguments].concat())
}

#[test]
fn a_bucket_is_written_down_whole_and_compared_with_what_it_was() {
    for versioning in [Versioning::Off, Versioning::On] {
        let place = Views::new(versioning);
        let bucket = place.bucket();
        // More than two pages of a listing.
        let names: Vec<_> = (0..2100).map(|n| format!("many/{n:04}")).collect();
        for name in &names {
            bucket.put(name, name.as_bytes());
        }
        for key in ["changed", "gone", "same", "d/\u{7}bell"] {
            bucket.put(key, "old");
        }
        assert!(create(&place, "a", &[]).starts_with("2104 objects, "));
        bucket.put("changed", "changed bytes");
        bucket.put("new", "new");
        bucket.delete("gone");
        create(&place, "b", &[]);
        // What a terminal would obey is not printed as it is.
        let shown = |key: String| if key.contains('\u{7}') { format!("{key:?}") } else { key };
        assert_eq!(keys(&place, "b"), bucket.keys().into_iter().map(shown).collect::<Vec<_>>());
        let diff = place.done(&["diff", "a", "b"]);
        assert_eq!(
            diff,
            "~ changed (3 B -> 13 B)\n- gone (3 B)\n+ new (3 B)\n1 added, 1 removed, 1 changed\n"
        );
        let lines = place.done(&["diff", "a", "b", "--json"]);
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["change"], &lines[0]["key"]), (&"changed".into(), &"changed".into()));
        assert_eq!((&lines[0]["from"]["size"], &lines[0]["to"]["size"]), (&3.into(), &13.into()));
        assert_eq!((&lines[1]["to"], &lines[2]["from"]), (&Value::Null, &Value::Null));
        let id = &lines[0]["to"]["version_id"];
        let now = bucket.meta("changed").unwrap().version;
        assert_eq!(id.as_str(), now.id.as_ref().map(staithe_store::VersionId::as_str));
        assert_eq!(lines[0]["to"]["etag"], now.etag.as_str());
        assert_eq!(id.is_null(), versioning == Versioning::Off);
        assert_eq!(place.done(&["diff", "b", "b"]), "0 added, 0 removed, 0 changed\n");
        assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 2, "something was left behind");
    }
}

#[test]
fn a_prefix_and_a_moment_are_all_that_a_manifest_is_of() {
    let place = Views::new(Versioning::On);
    let bucket = place.bucket();
    for key in ["in/a", "in/b", "in", "inner", "out"] {
        bucket.put(key, "x");
    }
    let below = format!("s3://{BUCKET}/in");
    place.done(&["create", &below, "-o", "p"]);
    assert_eq!(keys(&place, "p"), ["in/a", "in/b"]);
    create(&place, "before", &["--as-of", "2001-01-01T00:00:00Z"]);
    assert_eq!(keys(&place, "before"), [""; 0]);
    bucket.delete("out");
    create(&place, "after", &["--as-of", "2999-01-01 00:00:00"]);
    assert_eq!(keys(&place, "after"), bucket.keys());
    assert!(place.refused(FAILED, &["diff", "p", "after"]).contains("two places"));
    let unversioned = Views::new(Versioning::Off);
    let arguments = ["create", "s3://bucket", "-o", "x", "--as-of", "2001-01-01T00:00:00Z"];
    assert!(unversioned.refused(FAILED, &arguments).contains("keeps no versions"));
    assert!(!unversioned.file("x").exists());
}

#[test]
fn a_moment_between_two_versions_has_the_first_and_what_was_deleted_since() {
    let place = Views::new(Versioning::On);
    let bucket = place.bucket();
    bucket.put("both", "first");
    bucket.put("gone", "gone");
    // Versions are told apart by the second.
    let stored = bucket.meta("gone").unwrap().last_modified;
    let moment = stored + Duration::from_secs(2);
    assert!(wait_until(SOON, || SystemTime::now() > moment + Duration::from_secs(1)));
    bucket.put("both", "second and longer");
    bucket.put("new", "new");
    bucket.delete("gone");
    create(&place, "then", &["--as-of", &humantime::format_rfc3339_seconds(moment).to_string()]);
    create(&place, "now", &[]);
    let diff = place.done(&["diff", "then", "now"]);
    assert!(diff.ends_with("1 added, 1 removed, 1 changed\n"), "{diff}");
    let mount = place.mount("then");
    assert_eq!(sh(mount.path(), "ls; cat both gone"), "both\ngone\nfirstgone");
    place.swap(&mount, "now");
    assert_eq!(sh(mount.path(), "ls; cat both new"), "both\nnew\nsecond and longernew");
    place.swap(&mount, "then");
    assert_eq!(sh(mount.path(), "cat both gone"), "firstgone");
}

#[test]
fn a_directory_is_written_down_too() {
    let place = Views::new(Versioning::Off);
    fs::create_dir_all(place.file("tree/d")).unwrap();
    fs::write(place.file("tree/d/f"), "x").unwrap();
    let source = format!("file://{}", text(&place.file("tree")));
    place.done(&["create", &source, "-o", "v"]);
    assert!(keys(&place, "v").contains(&"d/f".to_owned()));
}

#[test]
fn what_is_no_whole_manifest_is_refused_in_one_sentence() {
    let place = Views::new(Versioning::Off);
    for n in 0..50 {
        place.bucket().put(&format!("{n}"), "x");
    }
    create(&place, "whole", &[]);
    let whole = fs::read(place.file("whole")).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    let mut newer = whole.clone();
    newer[16] = 9;
    for (name, bytes, word) in [
        ("foreign", b"PK\x03\x04 something else".to_vec(), "no manifest"),
        ("cut", whole[..whole.len() - 1].to_vec(), "ends early"),
        ("damaged", damaged, "damaged"),
        ("newer", newer, "version 9"),
    ] {
        fs::write(place.file(name), bytes).unwrap();
        for arguments in [&["list", name][..], &["diff", name, "whole"], &["diff", "whole", name, "--json"]] {
            let said = place.refused(FAILED, arguments);
            assert!(said.contains(word) && said.contains(name), "{said}");
        }
    }
    assert!(place.refused(FAILED, &["list", "missing"]).contains("missing"));
    for arguments in [&["create", "s3://bucket"][..], &["create", "-o", "x"], &["list"], &["diff", "whole"]] {
        place.refused(USAGE, arguments);
    }
    let wrong_time = ["create", "s3://bucket", "-o", "x", "--as-of", "yesterday"];
    assert!(place.refused(USAGE, &wrong_time).contains("yesterday"));
}

#[test]
fn a_listing_that_fails_leaves_the_manifest_that_was_there() {
    let place = Views::new(Versioning::Off);
    for n in 0..1500 {
        place.bucket().put(&format!("{n:04}"), "x");
    }
    create(&place, "v", &[]);
    let before = fs::read(place.file("v")).unwrap();
    place.server.faults().inject(When::operation(Operation::ListObjectsV2).nth(2), Fault::access_denied());
    place.refused(FAILED, &["create", &format!("s3://{BUCKET}"), "-o", "v"]);
    assert!(before == fs::read(place.file("v")).unwrap());
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 1, "something was left behind");
}

#[test]
fn whoever_ends_it_leaves_nothing() {
    let place = Views::new(Versioning::Off);
    for signal in [Signal::INT, Signal::TERM] {
        let held = place.server.faults().hold_requests(When::operation(Operation::ListObjectsV2));
        let mut command = Command::new(env!("CARGO_BIN_EXE_staithe"));
        command.args(["snapshot", "create", &format!("s3://{BUCKET}"), "-o", "v"]).envs(place.server.env());
        let creating = spawn(command.current_dir(place.dir.path()).stderr(Stdio::piped()));
        assert!(held.wait_for_blocking(1, SOON));
        kill_process(Pid::from_child(&creating), signal).unwrap();
        let output = creating.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(FAILED), "{signal:?} {output:?}");
        assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 0, "{signal:?}");
        held.release();
    }
}

#[test]
fn only_a_file_is_replaced_and_a_link_is_followed() {
    let place = Views::new(Versioning::Off);
    place.bucket().put("k", "x");
    let source = format!("s3://{BUCKET}");
    fs::create_dir(place.file("d")).unwrap();
    assert!(place.refused(FAILED, &["create", &source, "-o", "d"]).contains("no file"));
    fs::write(place.file("file"), "").unwrap();
    symlink("file", place.file("link")).unwrap();
    create(&place, "link", &[]);
    assert!(place.file("link").is_symlink());
    assert_eq!(keys(&place, "file"), ["k"]);
}

#[test]
fn an_inventory_of_the_bucket_is_a_manifest_of_it() {
    let place = Views::new(Versioning::Off);
    for key in ["p/a b+c", "p/z", "q"] {
        place.bucket().put(key, key.as_bytes());
    }
    let line = |key: &str, encoded: &str| {
        let meta = place.bucket().meta(key).unwrap();
        let etag = meta.version.etag.as_str().trim_matches('"').to_owned();
        format!("\"{BUCKET}\",\"{encoded}\",\"{}\",\"2026-01-01T00:00:00.000Z\",\"{etag}\"\n", meta.size)
    };
    let lines = [line("q", "q"), line("p/z", "p/z"), line("p/a b+c", "p/a+b%2Bc")].concat();
    fs::write(place.file("data.csv"), lines).unwrap();
    real::sh(place.dir.path(), "gzip data.csv");
    let json = serde_json::json!({
        "sourceBucket": BUCKET, "fileFormat": "CSV", "creationTimestamp": "1767225600000",
        "fileSchema": "Bucket, Key, Size, LastModifiedDate, ETag",
        "files": [{ "key": "inventories/data/data.csv.gz" }],
    });
    fs::write(place.file("manifest.json"), json.to_string()).unwrap();
    let arguments = ["create", "--from-inventory", "manifest.json", "-o"];
    place.done(&[&arguments[..], &["inventory"]].concat());
    create(&place, "listed", &[]);
    assert_eq!(place.done(&["diff", "inventory", "listed"]), "0 added, 0 removed, 0 changed\n");
    let below = format!("s3://{BUCKET}/p");
    place.done(&[&arguments[..], &["below", &below]].concat());
    assert_eq!(keys(&place, "below").len(), 2);
    for (source, word) in [("s3://other", "other"), ("memory://", "bucket")] {
        assert!(place.refused(USAGE, &[&arguments[..], &["x", source]].concat()).contains(word));
    }
    assert!(place.refused(FAILED, &["list", "manifest.json"]).contains("no manifest"));
}
