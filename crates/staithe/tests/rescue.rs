//! `staithe rescue`: what a mount never stored is brought out, byte for byte, whatever has become of its bucket.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use real::ledger::{Node, Tree, tree_of};
use real::{Bench, at, close, daemon, noise, refusal, run, spawn, start, store, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use staithe_testkit::{Fault, MountedDaemon, Operation, Versioning, When, wait_until};

const SOON: Duration = Duration::from_secs(30);
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const MIB: usize = 1 << 20;

/// A mount in write-back of a store that takes nothing.
fn away(bench: &Bench) -> MountedDaemon {
    let mount = start(bench.daemon().args(["--write-mode=back", "--op-deadline=2s"]));
    for operation in [Operation::PutObject, Operation::CopyObject, Operation::CreateMultipartUpload] {
        bench.server.faults().inject(When::operation(operation), Fault::internal_error());
    }
    mount
}

fn kill(mount: &mut MountedDaemon) {
    mount.signal(Signal::KILL).unwrap();
    assert_eq!(mount.wait(SOON).unwrap(), 137);
}

/// Runs the command on the state directory of a bench, in which nothing changes.
fn rescue(bench: &Bench, output: &str, options: &[&str]) -> Output {
    let before = bytes_below(bench.state.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_staithe"));
    command.arg("rescue").arg(bench.state.path()).args(["-o", output]).args(options).envs(bench.server.env());
    let done = run(&mut command);
    let after = bytes_below(bench.state.path());
    let changed: Vec<_> =
        before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
    assert!(changed.is_empty(), "changed {changed:?}");
    done
}

/// Mode, time of modification, bytes.
type Look = (u32, (i64, i64), Vec<u8>);

/// Everything below a directory; without the time of the lock.
fn bytes_below(dir: &Path) -> BTreeMap<PathBuf, Look> {
    let (mut all, mut dirs) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            // It is written down there that this was done.
            if path.ends_with("audit.log") {
                continue;
            }
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                dirs.push(path.clone());
            }
            let time = if path.ends_with("lock") { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) };
            let bytes = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            all.insert(path, (meta.mode(), time, bytes));
        }
    }
    all
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What programs made, by what a mount shows of it: times and extended attributes, too.
#[derive(Debug, PartialEq)]
struct Shown {
    tree: Tree,
    times: BTreeMap<String, (i64, i64)>,
    xattr: Vec<u8>,
}

fn shown(root: &Path) -> Shown {
    let tree = tree_of(root).unwrap();
    let times = tree.keys().filter(|path| !root.join(path).is_dir()).map(|path| {
        let meta = root.join(path).symlink_metadata().unwrap();
        (path.clone(), (meta.mtime(), meta.mtime_nsec()))
    });
    let times = times.collect();
    let mut xattr = vec![0; 64];
    let len = rustix::fs::getxattr(root.join("moved/sub/file"), "user.tag", &mut xattr[..]).unwrap();
    xattr.truncate(len);
    Shown { tree, times, xattr }
}

/// Files of several sizes and kinds, of which the store has none.
fn work(root: &Path) {
    fs::create_dir_all(root.join("moved/sub/empty")).unwrap();
    store(&root.join("moved/sub/file"), noise(1, 100_000)).unwrap();
    store(&root.join("moved/first"), "").unwrap();
    store(&root.join("large"), noise(2, 20 * MIB)).unwrap();
    store(&root.join("removed"), "nobody wants it").unwrap();
    symlink("sub/file", root.join("moved/link")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 30 << 20).unwrap();
    close(sparse).unwrap();
    let tagged = root.join("moved/sub/file");
    rustix::fs::setxattr(&tagged, "user.tag", b"\0red", rustix::fs::XattrFlags::empty()).unwrap();
    fs::set_permissions(&tagged, fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(root.join("moved/sub"), fs::Permissions::from_mode(0o750)).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    File::options().write(true).open(&tagged).unwrap().set_modified(then).unwrap();
    fs::remove_file(root.join("removed")).unwrap();
    fs::rename(root.join("moved/first"), root.join("moved/nothing")).unwrap();
}

#[test]
fn what_was_never_stored_is_rescued_whole_and_the_next_mount_stores_it_all_the_same() {
    let bench = Bench::new();
    let mut mount = away(&bench);
    work(mount.path());
    let made = shown(mount.path());
    kill(&mut mount);
    assert!(bench.bucket().keys().is_empty());
    let out = tempfile::tempdir().unwrap();
    let to = out.path().join("a/b");
    let done = rescue(&bench, text(&to), &[]);
    assert_eq!(done.status.code(), Some(0), "{}{}", said(&done.stdout), said(&done.stderr));
    let told = said(&done.stdout);
    assert!(told.contains("\"moved/sub/file\": 100000 bytes\n"), "{told}");
    assert!(
        told.ends_with(&format!("5 files, 3 directories, {} bytes rescued\n", 100_008 + 84 * MIB)),
        "{told}"
    );
    assert_eq!(shown(&to), made);
    assert!(to.join("sparse").metadata().unwrap().blocks() * 512 < MIB as u64);
    let again = rescue(&bench, text(&to), &[]);
    assert_eq!((again.status.code(), again.stdout.len()), (Some(FAILED), 0));
    assert!(said(&again.stderr).contains("is not empty"), "{}", said(&again.stderr));

    // Another bucket, on the same server.
    bench.server.faults().clear();
    assert!(bench.server.create_bucket("other", Versioning::Off));
    let done = rescue(&bench, "s3://other/below", &["--json"]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done.stderr));
    let last: Value = serde_json::from_str(said(&done.stdout).lines().last().unwrap()).unwrap();
    assert_eq!((&last["summary"]["files"], &last["summary"]["failed"]), (&json!(5), &json!(0)));
    let other = start(daemon("s3://other/below").env(bench.server.env()));
    assert_eq!(shown(other.path()), made);
    drop(other);

    let mut mount = start(bench.daemon().args(["--write-mode=back"]));
    assert_eq!(shown(mount.path()), made);
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert!(bench.bucket().get("moved/sub/file").unwrap() == noise(1, 100_000));
    let done = rescue(&bench, text(&out.path().join("none")), &[]);
    assert_eq!(
        (done.status.code(), said(&done.stdout)),
        (Some(0), "there is nothing that was not stored\n".into())
    );
}

#[test]
fn what_is_in_a_renamed_directory_has_its_new_name() {
    let bench = Bench::new();
    for n in 0..3_u32 {
        bench.bucket().put(&format!("old/stored{n}"), noise(n, 1000));
    }
    let mut mount = start(bench.daemon().args(["--write-mode=back", "--op-deadline=2s"]));
    let faults = bench.server.faults();
    let puts = When::operation(Operation::PutObject).key_where(|key| !key.ends_with('/'));
    faults.inject(puts, Fault::internal_error());
    fs::create_dir_all(at(&mount, "new/sub")).unwrap();
    store(&at(&mount, "new/sub/file"), "unstored").unwrap();
    store(&at(&mount, "old/file"), "unstored, too").unwrap();
    // One that is done, and one that is not.
    assert!(
        wait_until(SOON, || fs::rename(at(&mount, "new"), at(&mount, "other")).is_ok()),
        "{}",
        mount.stderr()
    );
    let hold = faults.hold_requests(When::operation(Operation::CopyObject).after(1));
    std::thread::scope(|scope| {
        let (from, to) = (at(&mount, "old"), at(&mount, "other/old"));
        let renaming = scope.spawn(move || fs::rename(from, to));
        assert!(hold.wait_for_blocking(1, SOON), "{}", mount.stderr());
        kill(&mut mount);
        renaming.join().unwrap().unwrap_err();
    });
    hold.release();
    faults.clear();
    let out = tempfile::tempdir().unwrap();
    let done = rescue(&bench, text(&out.path().join("to")), &[]);
    let told = said(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{told}{}", said(&done.stderr));
    assert!(told.contains("\"old/\": it was being renamed to \"other/old/\""), "{told}");
    let mut tree = tree_of(&out.path().join("to")).unwrap();
    tree.retain(|_, node| !matches!(node, Node::Dir { .. }));
    let files = [("other/old/file", "unstored, too"), ("other/sub/file", "unstored")];
    assert_eq!(tree, Tree::from(files.map(|(path, bytes)| (path.to_owned(), Node::file(bytes)))));
    let mut mount = start(bench.daemon().args(["--write-mode=back"]));
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    let bucket = bench.bucket();
    assert_eq!(bucket.get("other/old/file").unwrap(), b"unstored, too");
    assert!(
        bucket.get("other/old/stored2").unwrap() == noise(2, 1000) && bucket.get("old/stored2").is_none()
    );
}

#[test]
fn what_is_not_all_here_is_rescued_in_part_and_says_what_is_missing() {
    let bench = Bench::new();
    bench.bucket().put("dir/big", noise(1, 40 * MIB));
    bench.bucket().put("moded", "stored");
    let mut mount = away(&bench);
    let big = File::options().write(true).open(at(&mount, "dir/big")).unwrap();
    big.write_all_at(b"changed", 10 << 20).unwrap();
    close(big).unwrap();
    fs::set_permissions(at(&mount, "moded"), fs::Permissions::from_mode(0o600)).unwrap();
    store(&at(&mount, "bad\u{1b}[31m\nname"), "whole").unwrap();
    kill(&mut mount);
    let etag = bench.bucket().meta("dir/big").unwrap().version.etag;
    // Whatever became of it.
    bench.server.stop();
    let out = tempfile::tempdir().unwrap();
    let to = out.path().join("text");
    let done = rescue(&bench, text(&to), &[]);
    assert_eq!(done.status.code(), Some(FAILED));
    let (told, failure) = (said(&done.stdout), said(&done.stderr));
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(!told.contains('\u{1b}') && told.contains(r#""bad\u{1b}[31m\nname": 5 bytes"#), "{told}");
    let missing = 40 * MIB - 7;
    let line = format!(
        "\"dir/big\": 7 bytes, as \"dir/big.partial\"; only in part: {missing} bytes of the object \"dir/big\", version {}, \
         are not here: 0-10485759, 10485767-41943039\n",
        etag.as_str()
    );
    assert!(told.contains(&line), "{told}");
    assert!(
        told.contains("\"moded\": its attributes were to change, as \"unstored-attributes.json\" says\n"),
        "{told}"
    );
    assert_eq!(failure.lines().count(), 1);
    assert!(
        failure.ends_with("12 bytes rescued; 1 only in part; 1 changes of attributes written down\n"),
        "{failure}"
    );
    let mut model = vec![0; 40 * MIB];
    model[10 << 20..(10 << 20) + 7].copy_from_slice(b"changed");
    assert!(fs::read(to.join("dir/big.partial")).unwrap() == model);
    let attributes: Value =
        serde_json::from_slice(&fs::read(to.join("unstored-attributes.json")).unwrap()).unwrap();
    assert_eq!((&attributes[0]["key"], &attributes[0]["mode"]), (&json!("moded"), &json!("0600")));

    let done = rescue(&bench, text(&out.path().join("json")), &["--json"]);
    assert_eq!(done.status.code(), Some(FAILED));
    let lines: Vec<Value> =
        said(&done.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let big = lines.iter().find(|line| line["key"] == "dir/big").unwrap();
    assert_eq!(big["missing"]["ranges"], json!([[0, 10 << 20], [(10 << 20) + 7, 40 * MIB]]));
    assert_eq!(big["missing"]["etag"], etag.as_str());
    assert_eq!(lines.last().unwrap()["summary"]["partial"], 1);
}

#[test]
fn a_state_directory_in_use_and_an_output_that_cannot_be_are_refused() {
    let bench = Bench::new();
    let mut mount = away(&bench);
    store(&at(&mount, "file"), "bytes").unwrap();
    let (state, out) = (text(bench.state.path()), tempfile::tempdir().unwrap());
    let to = text(out.path()).to_owned() + "/to";
    let refused = refusal(FAILED, &["rescue", state, "-o", &to]);
    assert!(refused.contains(&format!("in use by process {}", mount.pid())), "{refused}");
    kill(&mut mount);
    let inside = format!("{state}/to");
    for (output, code, word) in [
        (&inside[..], USAGE, "stays as it is"),
        ("memory://", USAGE, "memory://"),
        ("gs://bucket", USAGE, "gs://"),
        ("file:///nowhere/at/all", FAILED, "nowhere"),
        ("/dev/null", FAILED, "/dev/null"),
    ] {
        let refused = refusal(code, &["rescue", state, "-o", output]);
        assert!(refused.contains(word), "{output}: {refused}");
    }
    refusal(USAGE, &["rescue", state, "-o", &to, "--region", "r"]);
    refusal(USAGE, &["rescue", state]);
    let refused = refusal(FAILED, &["rescue", "/usr", "-o", &to]);
    assert!(refused.contains("is no state directory"), "{refused}");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}

/// A small disk, unmounted at the end.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn new(at: &'a Path, size: &str) -> Self {
        let done =
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at));
        assert!(done.status.success(), "a small disk is needed: {}", said(&done.stderr));
        Self(at)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(self.0));
    }
}

#[test]
fn on_a_full_disk_nothing_is_half_and_what_is_missing_is_told() {
    let bench = Bench::new();
    let mut mount = away(&bench);
    let sizes = [("a", 1), ("b", 30), ("c", 2), ("d", 40), ("e", 3)];
    for (name, mib) in sizes {
        store(&at(&mount, name), noise(1, mib * MIB)).unwrap();
    }
    kill(&mut mount);
    let small = tempfile::tempdir().unwrap();
    let disk = Disk::new(small.path(), "16m");
    let done = rescue(&bench, text(&disk.0.join("to")), &[]);
    assert_eq!(done.status.code(), Some(FAILED));
    let (told, failure) = (said(&done.stdout), said(&done.stderr));
    assert!(
        failure.ends_with(&format!("3 files, 0 directories, {} bytes rescued; 2 not rescued\n", 6 * MIB)),
        "{failure}"
    );
    for name in ["b", "d"] {
        assert!(
            told.contains(&format!("{name:?}: not rescued: could not write {name:?}: No space left")),
            "{told}"
        );
    }
    let tree = tree_of(&disk.0.join("to")).unwrap();
    let whole =
        [("a", 1), ("c", 2), ("e", 3)].map(|(name, mib)| (name.to_owned(), Node::file(noise(1, mib * MIB))));
    assert_eq!(tree, Tree::from(whole));
}

#[test]
fn one_that_is_stopped_leaves_nothing_on_its_way() {
    let bench = Bench::new();
    let mut mount = away(&bench);
    store(&at(&mount, "file"), noise(1, MIB)).unwrap();
    kill(&mut mount);
    bench.server.faults().clear();
    assert!(bench.server.create_bucket("other", Versioning::Off));
    let hold = bench.server.faults().hold_requests(When::operation(Operation::PutObject).key("file"));
    let scratch = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_staithe"));
    command.arg("rescue").arg(bench.state.path()).args(["-o", "s3://other"]).envs(bench.server.env());
    command.env("TMPDIR", scratch.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let before = bytes_below(bench.state.path());
    let rescuing = spawn(&mut command);
    assert!(hold.wait_for_blocking(1, SOON));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    kill_process(Pid::from_child(&rescuing), Signal::TERM).unwrap();
    let done = rescuing.wait_with_output().unwrap();
    hold.release();
    assert_eq!((done.status.code(), done.stdout.len()), (Some(FAILED), 0));
    assert_eq!(said(&done.stderr), "staithe: stopped; what was told is rescued\n");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    assert!(bytes_below(bench.state.path()) == before);
}

#[test]
fn a_disk_that_can_only_be_read_is_enough() {
    let bench = Bench::new();
    let mut mount = away(&bench);
    store(&at(&mount, "file"), "bytes").unwrap();
    kill(&mut mount);
    drop(mount);
    let (seen, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let script = "mount --bind \"$1\" \"$2\" && mount -o remount,bind,ro \"$2\"";
    let done = run(Command::new("sh").args(["-c", script, "sh"]).arg(bench.state.path()).arg(seen.path()));
    assert!(done.status.success(), "{}", said(&done.stderr));
    let disk = Disk(seen.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_staithe"));
    let done = run(command.arg("rescue").arg(disk.0).arg("-o").arg(out.path()));
    assert_eq!(done.status.code(), Some(0), "{}", said(&done.stderr));
    assert_eq!(said(&done.stdout), "\"file\": 5 bytes\n1 files, 0 directories, 5 bytes rescued\n");
}
