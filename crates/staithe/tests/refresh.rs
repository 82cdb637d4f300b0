//! `staithe refresh`, on mounts whose kernel and daemon believe for ever.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use real::{
    BUCKET, Bucket, answer, at, close, code, daemon, quiet, record, refusal, run, sh, staithe, start, state,
    text,
};
use rustix::process::Signal;
use serde_json::json;
use staithe_testkit::{MountedDaemon, Operation, S3Server, Versioning};

const FAILED: i32 = 1;
const USAGE: i32 = 2;

fn for_ever(versioning: Versioning) -> (S3Server, Bucket, MountedDaemon) {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, versioning));
    let bucket = Bucket::of(&server);
    bucket.put("beside/known", b"beside".to_vec());
    for key in ["d/changed", "d/gone", "d/opened", "d/sub/deep"] {
        bucket.put_with(key, b"old".to_vec(), &[("mode", "33188")]);
    }
    let options = daemon(&format!("s3://{BUCKET}")).env(server.env());
    let mount = start(options.args(["--metadata-ttl", "forever"]));
    (server, bucket, mount)
}

fn refresh(paths: &[&Path]) -> String {
    let arguments: Vec<_> = ["refresh"].into_iter().chain(paths.iter().map(|path| text(path))).collect();
    let output = staithe(&arguments, Path::new("/"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?} said {said}");
    assert_eq!(said, "");
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that a user of the mount can believe: names, attributes, absences.
fn look_at_everything(mount: &MountedDaemon) -> String {
    sh(
        mount.path(),
        "ls -lR . && cat beside/known && ! stat d/new && ! stat d/sub/new && ! stat top && ! stat beside/no",
    )
}

fn change_everything(bucket: &Bucket) {
    bucket.put_with("d/changed", b"changed bytes".to_vec(), &[("mode", "33024")]);
    bucket.put("d/opened", b"their bytes".to_vec());
    bucket.delete("d/gone");
    for key in ["d/new", "d/sub/new", "top"] {
        bucket.put(key, b"new".to_vec());
    }
}

/// What `ls`, `stat` and `cat` show below `d` after [`change_everything`].
fn assert_seen(mount: &MountedDaemon) {
    let (changed, new) = (at(mount, "d/changed"), at(mount, "d/new"));
    assert_eq!(fs::read(&new).unwrap(), b"new");
    assert_eq!(fs::read(at(mount, "d/sub/new")).unwrap(), b"new");
    assert_eq!(fs::metadata(&changed).unwrap().permissions().mode() & 0o777, 0o400);
    assert_eq!(fs::read(&changed).unwrap(), b"changed bytes");
    assert_eq!(code(fs::metadata(at(mount, "d/gone"))), libc::ENOENT);
    assert_eq!(sh(mount.path(), "ls d"), "changed\nnew\nopened\nsub");
    assert_eq!(fs::read(at(mount, "d/opened")).unwrap(), b"their bytes");
}

#[test]
fn a_kernel_that_believes_for_ever_looks_again_below_the_path_and_nowhere_else() {
    let (server, bucket, mount) = for_ever(Versioning::On);
    look_at_everything(&mount);
    let reader = File::open(at(&mount, "d/opened")).unwrap();
    change_everything(&bucket);
    let before = server.requests().tally();
    look_at_everything(&mount);
    let spent = server.requests().tally().since(&before);
    assert_eq!(spent.total().requests, 0, "believed for ever: {spent:?}");

    let said = refresh(&[&at(&mount, "d")]);
    assert!(said.contains(" names, "), "{said}");
    assert_eq!(server.requests().tally().since(&before).total().requests, 0, "a refresh asks nothing");
    assert_seen(&mount);
    let mut old = [0; 3];
    reader.read_exact_at(&mut old, 0).unwrap();
    assert_eq!(&old, b"old", "an open file is one version");

    let before = server.requests().tally();
    sh(mount.path(), "ls -l beside && cat beside/known && ! stat beside/no && ! stat top");
    let spent = server.requests().tally().since(&before);
    assert_eq!(spent.total().requests, 0, "beside the path: {spent:?}");
    refresh(&[mount.path()]);
    assert_eq!(fs::read(at(&mount, "top")).unwrap(), b"new");
}

fn refresh_quietly(mount: &MountedDaemon, path: &str) {
    let last = answer(mount, &json!({"refresh": {"paths": [path]}}));
    assert_eq!(last["done"]["failures"], json!([]), "{last}");
}

#[test]
fn what_is_not_stored_yet_is_not_forgotten() {
    let (server, bucket, mount) = for_ever(Versioning::Off);
    look_at_everything(&mount);
    let _quiet = quiet();
    let (new, known) = (at(&mount, "d/mine"), at(&mount, "d/changed"));
    let mut created = File::options().read(true).write(true).create_new(true).open(&new).unwrap();
    created.write_all(b"unstored").unwrap();
    let mut changed = File::options().read(true).write(true).open(&known).unwrap();
    changed.write_all(b"O").unwrap();
    let before = server.requests().tally();
    refresh_quietly(&mount, "");
    for path in [&new, &known] {
        assert_eq!(state(path), "dirty");
    }
    let text = |mut file: &File| {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(text(&created), "unstored");
    assert_eq!(text(&changed), "Old");
    assert_eq!(server.requests().tally().since(&before).of(Operation::PutObject).requests, 0);
    close(created).unwrap();
    close(changed).unwrap();
    assert_eq!(bucket.get("d/mine").unwrap(), b"unstored");
    assert_eq!(bucket.get("d/changed").unwrap(), b"Old");
}

#[test]
fn the_mount_point_a_file_and_several_mounts_can_be_refreshed() {
    let (_one_server, one_bucket, one) = for_ever(Versioning::Off);
    let (_other_server, other_bucket, other) = for_ever(Versioning::Off);
    for (mount, bucket) in [(&one, &one_bucket), (&other, &other_bucket)] {
        look_at_everything(mount);
        change_everything(bucket);
    }
    refresh(&[&at(&one, "d/changed"), &at(&one, "d/gone"), other.path()]);
    assert_eq!(fs::read(at(&one, "d/changed")).unwrap(), b"changed bytes");
    assert_eq!(code(fs::metadata(at(&one, "d/gone"))), libc::ENOENT);
    assert_eq!(code(fs::metadata(at(&one, "d/new"))), libc::ENOENT, "that was not refreshed");
    assert_seen(&other);
    assert_eq!(fs::read(at(&other, "top")).unwrap(), b"new");
    let output = run(std::process::Command::new(env!("CARGO_BIN_EXE_staithe"))
        .args(["refresh", "."])
        .current_dir(at(&one, "d")));
    assert!(output.status.success(), "{output:?}");
    assert_seen(&one);
}

#[test]
fn who_works_in_a_refreshed_directory_keeps_it() {
    let (_server, bucket, mount) = for_ever(Versioning::Off);
    look_at_everything(&mount);
    let program = env!("CARGO_BIN_EXE_staithe");
    bucket.put("d/sub/new", b"new".to_vec());
    let script = format!("cd d/sub; {program} refresh .. >&2; pwd -P; /bin/pwd; cat new");
    let here = at(&mount, "d/sub");
    assert_eq!(sh(mount.path(), &script), format!("{0}\n{0}\nnew", here.display()));
    assert_eq!(fs::read_link("/proc/self/cwd").unwrap(), std::env::current_dir().unwrap());
    // Until the name means another one, or nothing.
    for key in ["d/sub/new", "d/sub/deep"] {
        bucket.delete(key);
    }
    refresh(&[mount.path()]);
    assert_eq!(code(fs::metadata(&here)), libc::ENOENT);
}

#[test]
fn what_is_mounted_below_a_refreshed_directory_stays_there() {
    let (_server, bucket, mount) = for_ever(Versioning::Off);
    look_at_everything(&mount);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("inside"), "theirs").unwrap();
    let below = at(&mount, "d/sub");
    rustix::mount::mount_bind(elsewhere.path(), &below).unwrap();
    let reader = File::open(at(&mount, "d/opened")).unwrap();
    change_everything(&bucket);
    bucket.put("d/sub/deep", b"covered".to_vec());
    refresh(&[mount.path()]);
    assert_eq!(fs::read(at(&mount, "d/new")).unwrap(), b"new");
    assert_eq!(fs::read(at(&mount, "d/sub/inside")).unwrap(), b"theirs");
    sh(mount.path(), "ls -lR .");
    assert_eq!(fs::read(at(&mount, "d/sub/inside")).unwrap(), b"theirs");
    rustix::mount::unmount(&below, rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(fs::read(at(&mount, "d/sub/deep")).unwrap(), b"covered");
    drop(reader);
}

#[test]
fn nothing_is_forgotten_by_a_refresh_that_is_refused() {
    let (server, _bucket, mut mount) = for_ever(Versioning::Off);
    look_at_everything(&mount);
    let before = server.requests().tally();
    let outside = tempfile::tempdir().unwrap();
    let said = refusal(FAILED, &["refresh", text(mount.path()), text(outside.path())]);
    assert!(said.contains("nothing of staithe"), "{said}");
    refusal(USAGE, &["refresh"]);
    look_at_everything(&mount);
    let spent = server.requests().tally().since(&before);
    assert_eq!(spent.total().requests, 0, "{spent:?}");

    let missing = at(&mount, "d/missing");
    let said = refusal(FAILED, &["refresh", text(&missing), text(&at(&mount, "d/changed"))]);
    assert!(said.contains(text(&missing)) && said.contains("there is no"), "{said}");
    let spent = server.requests().tally().since(&before);
    assert!(spent.of(Operation::HeadObject).requests >= 1, "it was looked for: {spent:?}");
    let said = refusal(FAILED, &["refresh", text(&at(&mount, "d/changed/below"))]);
    assert!(said.contains("directory"), "{said}");

    real::stop(&mut mount);
    let said = refusal(FAILED, &["refresh", text(mount.path())]);
    mount.signal(Signal::CONT).unwrap();
    assert!(said.contains("does not answer"), "{said}");
    let socket = record(&mount).with_extension("sock");
    fs::remove_file(&socket).unwrap();
    let said = refusal(FAILED, &["refresh", text(mount.path())]);
    assert!(said.contains("takes no commands"), "{said}");
}

#[test]
fn a_mount_that_cannot_be_reached_holds_up_no_other() {
    let (_server, bucket, mount) = for_ever(Versioning::Off);
    let (_other_server, _other_bucket, dead) = for_ever(Versioning::Off);
    look_at_everything(&mount);
    change_everything(&bucket);
    fs::remove_file(record(&dead).with_extension("sock")).unwrap();
    let said = refusal(FAILED, &["refresh", text(dead.path()), text(mount.path())]);
    assert!(said.contains("takes no commands"), "{said}");
    assert_seen(&mount);
    let mut bytes = String::new();
    File::open(at(&mount, "top")).unwrap().read_to_string(&mut bytes).unwrap();
    assert_eq!(bytes, "new");
}
