//! `staithe verify`: finds what does not agree, mends what can be mended, and says nothing of what is under way.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod busy;
#[path = "../real/mod.rs"]
mod real;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use real::{Bench, at, close, code, noise, refusal, spawn, staithe, start, state, store, text};
use rustix::process::Signal;
use serde_json::Value;
use staithe_testkit::{DaemonOptions, Fault, MountedDaemon, Operation, When, wait_until};

const SOON: Duration = Duration::from_secs(30);
const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// A bench with a disk cache.
struct Place {
    bench: Bench,
    cache: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { bench: Bench::new(), cache: tempfile::tempdir().unwrap() }
    }

    fn options(&self) -> DaemonOptions {
        let options = self.bench.daemon().args(["--op-deadline=1s", "--drain-deadline=10s"]);
        options.arg("--cache-dir").arg(self.cache.path())
    }

    fn start(&self) -> MountedDaemon {
        start(self.options())
    }

    /// The files of the cache with this ending.
    fn cached(&self, ending: &str) -> Vec<PathBuf> {
        let directories = fs::read_dir(self.cache.path().join("objects")).unwrap();
        let files = directories.flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap());
        let files = files.map(|file| file.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|e| e == ending)).collect()
    }

    /// Stores a file and reads it into the cache; a daemon that knows nothing of that.
    fn cached_by_an_earlier_run(&self, name: &str, bytes: &[u8]) -> MountedDaemon {
        let mut mount = self.start();
        store(&at(&mount, name), bytes).unwrap();
        assert_eq!(mount.terminate().unwrap(), 0);
        // Dropped later, it would take the next one off the same place.
        drop(mount);
        let mut mount = self.start();
        assert!(fs::read(at(&mount, name)).unwrap() == bytes);
        assert!(wait_until(SOON, || self.cached("data").iter().any(|file| file
            .metadata()
            .unwrap()
            .blocks()
            > 0)));
        assert_eq!(mount.terminate().unwrap(), 0);
        drop(mount);
        self.start()
    }
}

fn verify(mount: &MountedDaemon, options: &[&str]) -> Output {
    staithe(&[&["verify", text(mount.path())], options].concat(), Path::new("/"))
}

/// What it finds, a difference a line.
fn found(output: &Output) -> Vec<String> {
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    said.lines().filter(|line| line.starts_with('"')).map(str::to_owned).collect()
}

fn agrees(mount: &MountedDaemon, what: &str) {
    let output = verify(mount, &[]);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{what}: {said}\n{}", mount.stderr());
    assert!(said.ends_with(" compared, 0 differ\n"), "{what}: {said}");
}

/// That one thing is found, is found again, is mended, and is not found any more.
fn is_mended(mount: &MountedDaemon, path: &str, detail: &str, done: &str) {
    for _ in 0..2 {
        let output = verify(mount, &[]);
        assert_eq!(found(&output), [format!("{path:?}: {detail}")], "{}", mount.stderr());
        assert_eq!(output.status.code(), Some(FAILED));
    }
    let output = verify(mount, &["--repair"]);
    assert_eq!(found(&output), [format!("{path:?}: {detail}; {done}")], "{}", mount.stderr());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    agrees(mount, detail);
}

/// Changes one byte.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

fn one(files: Vec<PathBuf>) -> PathBuf {
    let [file] = <[PathBuf; 1]>::try_from(files).unwrap();
    file
}

#[test]
fn what_agrees_is_found_to_agree() {
    let place = Place::new();
    place.bench.bucket().put("theirs", noise(1, 200_000));
    let mut mount = start(place.options().args(["--metadata-ttl", "forever"]));
    agrees(&mount, "an empty mount");
    fs::create_dir(at(&mount, "d")).unwrap();
    store(&at(&mount, "d/large"), noise(2, 20 << 20)).unwrap();
    for name in ["theirs", "d/large"] {
        fs::read(at(&mount, name)).unwrap();
    }
    fs::set_permissions(at(&mount, "theirs"), fs::Permissions::from_mode(0o600)).unwrap();
    let held = File::create(at(&mount, "open")).unwrap();
    held.write_all_at(b"not closed yet", 0).unwrap();
    agrees(&mount, "files, a directory, an open file");
    let output = verify(&mount, &["--repair"]);
    assert_eq!((output.status.code(), found(&output).len()), (Some(0), 0));
    close(held).unwrap();
    agrees(&mount, "after a close");
    assert_eq!(mount.terminate().unwrap(), 0);
}

#[test]
fn damaged_bytes_of_the_cache_are_found_and_dropped() {
    let place = Place::new();
    let bytes = noise(1, 600_000);
    let mount = place.cached_by_an_earlier_run("d-file", &bytes);
    let data = one(place.cached("data"));
    flip(&data, 300_000);
    is_mended(&mount, "d-file", "its cached bytes are damaged", "dropped from the cache");
    assert_eq!(place.cached("data"), [""; 0].map(PathBuf::from));
    assert!(fs::read(at(&mount, "d-file")).unwrap() == bytes);
    // Also while the daemon uses it.
    let whole = || place.cached("data").iter().any(|file| file.metadata().unwrap().blocks() * 512 >= 600_000);
    assert!(wait_until(SOON, whole));
    let held = File::open(at(&mount, "d-file")).unwrap();
    flip(&one(place.cached("data")), 5);
    let output = verify(&mount, &["--repair"]);
    assert_eq!(found(&output), ["\"d-file\": its cached bytes are damaged; dropped from the cache"]);
    // A kernel reads them still: who wrote to the file now would store them.
    let write = || OpenOptions::new().append(true).open(at(&mount, "d-file"));
    assert_eq!(code(write()), libc::EIO, "{}", mount.stderr());
    drop(held);
    assert!(wait_until(SOON, || write().is_ok()));
    assert!(fs::read(at(&mount, "d-file")).unwrap() == bytes);
    agrees(&mount, "read again");
}

#[test]
fn cached_bytes_that_nobody_knows_the_owner_of_are_dropped() {
    let place = Place::new();
    let mount = place.cached_by_an_earlier_run("file", &noise(1, 50_000));
    let map = one(place.cached("map"));
    flip(&map, 3);
    let detail = "cached bytes of which nobody knows whose they are";
    is_mended(&mount, text(&map), detail, "dropped from the cache");
}

/// CRC-32C, bit by bit (RFC 3720).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 * (sum & 1)))
    })
}

#[test]
fn cached_bytes_that_the_store_has_otherwise_are_dropped() {
    let place = Place::new();
    let bytes = noise(1, 50_000);
    let mount = place.cached_by_an_earlier_run("file", &bytes);
    // As if another disk had answered: its own checksum says that it is right.
    let mut wrong = bytes.clone();
    wrong[7] ^= 1;
    fs::write(one(place.cached("data")), &wrong).unwrap();
    let sum = crc32c(&wrong).to_le_bytes();
    let seal = crc32c(&[&[0; 8][..], &sum].concat()).to_le_bytes();
    let map = File::options().write(true).open(one(place.cached("map"))).unwrap();
    map.write_all_at(&[sum, seal].concat(), map.metadata().unwrap().len() - 8).unwrap();
    is_mended(&mount, "file", "its cached bytes are not those of the store", "dropped from the cache");
    assert!(fs::read(at(&mount, "file")).unwrap() == bytes);
}

#[test]
fn an_upload_that_nobody_completes_is_aborted() {
    let place = Place::new();
    let mut mount = place.start();
    let faults = place.bench.server.faults();
    let hold = faults.hold_requests(When::operation(Operation::UploadPart).after(1));
    // In another program: whoever starts one closes copies of its own files, and that stores them.
    let large = at(&mount, "large");
    let mut writer = spawn(Command::new("tee").arg(&large).stdin(Stdio::piped()).stdout(Stdio::null()));
    let mut writing = writer.stdin.take().unwrap();
    writing.write_all(&noise(1, 40 << 20)).unwrap();
    assert!(hold.wait_for_blocking(1, SOON));
    // It is under way, and so nobody's business.
    agrees(&mount, "an upload under way");
    mount.signal(Signal::KILL).unwrap();
    mount.wait(SOON).unwrap();
    drop(writing);
    writer.wait().unwrap();
    hold.release();
    faults.clear();
    faults.inject(When::operation(Operation::AbortMultipartUpload).key("large"), Fault::access_denied());
    let mut mount = place.start();
    assert_eq!(place.bench.bucket().uploads(), 1);
    let output = verify(&mount, &["--repair"]);
    assert_eq!(output.status.code(), Some(FAILED));
    let [line] = &found(&output)[..] else { panic!("{output:?}") };
    assert!(line.contains("\"large\": an upload that nobody completes any more; left as it is: "), "{line}");
    faults.clear();
    is_mended(&mount, "large", "an upload that nobody completes any more", "aborted");
    assert_eq!(place.bench.bucket().uploads(), 0);
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}

/// A mount that has an intent to store `file` which it could not carry out at its start.
fn with_an_intent(place: &Place, is_stored: bool) -> (MountedDaemon, Vec<u8>) {
    // In write-back the journal has it before anything is sent.
    let mut mount = start(place.options().arg("--write-mode=back"));
    let (bytes, faults) = (noise(1, 50_000), place.bench.server.faults());
    let about = |operation| When::operation(operation).key("file");
    let lost = if is_stored { Fault::ResetAfter } else { Fault::internal_error() };
    let mut file = File::create(at(&mount, "file")).unwrap();
    let lost = faults.inject(about(Operation::PutObject), lost);
    faults.inject(about(Operation::HeadObject), Fault::internal_error());
    file.write_all(&bytes).unwrap();
    close(file).unwrap();
    assert!(wait_until(SOON, || lost.hits() > 0), "{}", mount.stderr());
    assert!(wait_until(SOON, || place.bench.bucket().get("file").is_some() == is_stored));
    mount.kill9().unwrap();
    drop(mount);
    faults.clear();
    faults.inject(about(Operation::HeadObject), Fault::access_denied());
    faults.inject(about(Operation::PutObject), Fault::access_denied());
    let mount = place.start();
    faults.clear();
    (mount, bytes)
}

#[test]
fn an_intent_that_is_carried_out_is_struck_out() {
    let place = Place::new();
    let (mut mount, bytes) = with_an_intent(&place, true);
    is_mended(&mount, "file", "an intent that is carried out already", "struck out");
    assert!(place.bench.bucket().get("file").unwrap() == bytes);
    assert_eq!(fs::read_dir(place.bench.state.path().join("staging")).unwrap().count(), 0);
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}

#[test]
fn an_intent_whose_object_is_wrong_or_missing_is_left_to_the_next_mount() {
    for is_stored in [true, false] {
        let place = Place::new();
        let (mut mount, bytes) = with_an_intent(&place, is_stored);
        if is_stored {
            // The same metadata, so the same write id.
            let bucket = place.bench.bucket();
            let metadata = bucket.meta("file").unwrap().metadata;
            let metadata: Vec<_> = metadata.iter().map(|(k, v)| (&**k, &**v)).collect();
            bucket.put_with("file", noise(2, 49_999), &metadata);
        }
        let output = verify(&mount, &["--repair"]);
        let [line] = &found(&output)[..] else { panic!("{output:?}") };
        assert!(line.starts_with("\"file\": an intent "), "{line}");
        assert!(line.ends_with("; left as it is: the next mount finishes it"), "{line}");
        assert_eq!(output.status.code(), Some(FAILED));
        assert_eq!(mount.terminate().unwrap(), 75);
        let mut mount = place.start();
        assert!(fs::read(at(&mount, "file")).unwrap() == bytes);
        assert!(place.bench.bucket().get("file").unwrap() == bytes);
        agrees(&mount, "the next mount");
        assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    }
}

#[test]
fn bytes_that_no_intent_speaks_of_go_to_lost_and_found() {
    let place = Place::new();
    let mount = place.start();
    let (staging, aside) =
        (place.bench.state.path().join("staging"), place.bench.state.path().join("lost+found"));
    let (orphan, bytes) = (staging.join("orphan"), noise(1, 20_000));
    fs::write(&orphan, &bytes).unwrap();
    is_mended(&mount, text(&orphan), "bytes that no intent speaks of", "moved to lost+found");
    assert!(fs::read(aside.join("orphan")).unwrap() == bytes);
    let empty = staging.join("empty");
    File::create(&empty).unwrap().set_len(100_000).unwrap();
    let done = "removed: there is nothing in it that the store has not";
    is_mended(&mount, text(&empty), "bytes that no intent speaks of", done);
    assert!(!empty.exists() && !aside.join("empty").exists());
}

#[test]
fn what_nobody_is_storing_is_stored() {
    let place = Place::new();
    let refuse = |key: &str| {
        let when = When::operation(Operation::PutObject).key(key);
        place.bench.server.faults().inject(when, Fault::access_denied())
    };
    let mut mount = place.start();
    let refused = refuse("file");
    assert_eq!(code(store(&at(&mount, "file"), "bytes")), libc::EACCES);
    let output = verify(&mount, &["--repair"]);
    let [line] = &found(&output)[..] else { panic!("{output:?}") };
    assert!(line.starts_with("\"file\": not in the store: ") && line.contains("left as it is: "), "{line}");
    refused.remove();
    assert_eq!(found(&verify(&mount, &[])).len(), 1);
    let output = verify(&mount, &["--repair"]);
    assert!(found(&output)[0].ends_with("; stored"), "{output:?}");
    assert_eq!(place.bench.bucket().get("file").unwrap(), b"bytes");
    agrees(&mount, "stored");
    assert_eq!(mount.terminate().unwrap(), 0);

    let mut mount = start(place.options().arg("--write-mode=back"));
    let refused = refuse("back");
    store(&at(&mount, "back"), "bytes").unwrap();
    store(&at(&mount, "cancelled"), "bytes").unwrap();
    let failed = || state(&at(&mount, "back")).starts_with("failed: ");
    assert!(wait_until(SOON, failed), "{}", mount.stderr());
    let [line] = &found(&verify(&mount, &[]))[..] else { panic!("{}", mount.stderr()) };
    assert!(line.starts_with("\"back\": not in the store: "), "{line}");
    refused.remove();
    let output = verify(&mount, &["--repair"]);
    assert!(found(&output)[0].ends_with("; tried again"), "{output:?}");
    assert!(wait_until(SOON, || place.bench.bucket().get("back").is_some()), "{}", mount.stderr());
    agrees(&mount, "stored in the background");
    assert_eq!(mount.terminate().unwrap(), 0);
}

#[test]
fn what_somebody_cancelled_is_left() {
    let place = Place::new();
    let mount = start(place.options().arg("--write-mode=back"));
    let when = When::operation(Operation::PutObject).key("file");
    let hold = place.bench.server.faults().hold_requests(when);
    store(&at(&mount, "file"), "bytes").unwrap();
    assert!(hold.wait_for_blocking(1, SOON));
    // Being stored, however long that takes.
    agrees(&mount, "a job under way");
    let cancelled = staithe(&["jobs", text(mount.path()), "--cancel", text(mount.path())], Path::new("/"));
    assert!(cancelled.status.success());
    place.bench.server.faults().clear();
    hold.release();
    let output = verify(&mount, &["--repair"]);
    let [line] = &found(&output)[..] else { panic!("{output:?}") };
    assert!(line.contains("cancelled") && line.contains("left as it is"), "{line}");
    assert_eq!(output.status.code(), Some(FAILED));
    assert_eq!(place.bench.bucket().keys(), [""; 0]);
}

#[test]
fn what_is_remembered_otherwise_than_the_store_has_it_is_forgotten() {
    let place = Place::new();
    let bucket = place.bench.bucket();
    for name in ["same", "other", "mode", "gone"] {
        bucket.put_with(name, "bytes", &[("mode", "33188")]);
    }
    let mount = start(place.options().args(["--metadata-ttl", "forever"]));
    let mode = |name: &str| fs::metadata(at(&mount, name)).unwrap().permissions().mode() & 0o777;
    for name in ["same", "other", "mode", "gone"] {
        assert_eq!(mode(name), 0o644);
    }
    agrees(&mount, "nothing has changed");
    bucket.put("other", "longer than before");
    bucket.put_with("mode", "bytes", &[("mode", "33152")]);
    bucket.delete("gone");
    assert_eq!(mode("mode"), 0o644);
    let line = |name: &str| format!("{name:?}: it is remembered otherwise than the store has it");
    let mut lines = found(&verify(&mount, &[]));
    lines.sort();
    assert_eq!(lines, ["gone", "mode", "other"].map(line));
    assert_eq!(found(&staithe(&["verify", text(&at(&mount, "mode"))], Path::new("/"))), [line("mode")]);
    let output = verify(&mount, &["--repair"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(mode("mode"), 0o600);
    assert_eq!(fs::metadata(at(&mount, "other")).unwrap().len(), 18);
    assert!(fs::metadata(at(&mount, "gone")).is_err());
    agrees(&mount, "forgotten");
}

#[test]
fn only_what_is_asked_for_is_looked_at_and_json_says_the_same() {
    let place = Place::new();
    let mut mount = place.start();
    fs::create_dir(at(&mount, "d")).unwrap();
    for name in ["d/a", "d/b", "da"] {
        store(&at(&mount, name), noise(1, 50_000)).unwrap();
    }
    assert_eq!(mount.terminate().unwrap(), 0);
    let mut mount = place.start();
    for name in ["d/a", "d/b", "da"] {
        fs::read(at(&mount, name)).unwrap();
    }
    let is_there = |file: &PathBuf| file.metadata().unwrap().blocks() > 0;
    assert!(wait_until(SOON, || place.cached("data").iter().filter(|file| is_there(file)).count() == 3));
    assert_eq!(mount.terminate().unwrap(), 0);
    let mount = place.start();
    place.cached("data").iter().for_each(|file| flip(file, 1));
    let found_at = |path: &Path, options: &[&str]| {
        let output = staithe(&[&["verify", text(path)], options].concat(), Path::new("/"));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(found_at(&at(&mount, "d/a"), &[]).starts_with("\"d/a\": "));
    assert_eq!(found_at(&at(&mount, "d"), &[]).lines().count(), 2);
    assert_eq!(found_at(&at(&mount, "missing"), &[]), "0 compared, 0 differ\n");
    let told = found_at(mount.path(), &["--json", "--repair"]);
    let mut told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = told.pop().unwrap();
    assert_eq!((&summary["summary"]["differences"], &summary["summary"]["repaired"]), (&3.into(), &3.into()));
    told.sort_by_key(|difference| difference["path"].to_string());
    let paths: Vec<_> = told.iter().map(|difference| difference["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["d/a", "d/b", "da"]);
    assert_eq!((&told[0]["kind"], &told[0]["repaired"]), (&"cache".into(), &"dropped from the cache".into()));
    assert_eq!(told[0]["left"], Value::Null);
    agrees(&mount, "all of it mended");
}

#[test]
fn wrong_usage_and_wrong_mounts_are_told_apart() {
    let outside = tempfile::tempdir().unwrap();
    for wrong in [&["verify"][..], &["verify", "/mnt", "/mnt"], &["verify", "/mnt", "--mend"]] {
        refusal(USAGE, wrong);
    }
    assert!(refusal(FAILED, &["verify", text(outside.path())]).contains("nothing of staithe"));
    let place = Place::new();
    let mount = start(place.options().arg("--read-only"));
    agrees(&mount, "a read-only mount");
    let said = refusal(FAILED, &["verify", text(mount.path()), "--repair"]);
    assert!(said.contains("read-only"), "{said}");
}
