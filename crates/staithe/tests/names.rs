//! Names that change their meaning while files are open, and what a mount refuses to name.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::time::Duration;

use real::{BUCKET, Bucket, at, close, code, daemon, noise, on_server, quiet, sh, start, store, try_sh};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use staithe_testkit::{Operation, S3Server, Versioning, When, wait_until};

const SOON: Duration = Duration::from_secs(20);
const LARGE: usize = 20 << 20;

fn read_all(file: &File, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_file_that_is_replaced_by_a_rename_is_read_to_its_end() {
    for versioning in [Versioning::Off, Versioning::On] {
        let (server, mount) = on_server(versioning);
        let (old, new) = (noise(1, LARGE), noise(2, LARGE));
        Bucket::of(&server).put("target", old.clone());
        Bucket::of(&server).put("source", new.clone());
        let reader = File::open(at(&mount, "target")).unwrap();
        fs::rename(at(&mount, "source"), at(&mount, "target")).unwrap();
        assert!(read_all(&reader, LARGE) == old);
        assert!(fs::read(at(&mount, "target")).unwrap() == new);
        assert_eq!(Bucket::of(&server).keys(), ["target"]);
        // A file that is deleted while it is open, likewise.
        let reader = File::open(at(&mount, "target")).unwrap();
        fs::remove_file(at(&mount, "target")).unwrap();
        assert!(read_all(&reader, LARGE) == new);
        assert_eq!(reader.metadata().unwrap().nlink(), 0);
        assert!(Bucket::of(&server).keys().is_empty());
    }
}

#[test]
fn an_open_dirty_file_lands_under_its_new_name_only() {
    let (server, mount) = on_server(Versioning::Off);
    let bucket = Bucket::of(&server);
    bucket.put("taken", "to be replaced");
    for (round, size) in [1000, 40 << 20].into_iter().enumerate() {
        let bytes = noise(1, size);
        let (old, new) =
            (format!("old{round}"), if round == 0 { "taken".into() } else { format!("new{round}") });
        let _quiet = quiet();
        let puts = server.requests().count(Operation::CopyObject);
        let file = File::create(at(&mount, &old)).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        fs::rename(at(&mount, &old), at(&mount, &new)).unwrap();
        assert!(!at(&mount, &old).exists());
        assert!(fs::read(at(&mount, &new)).unwrap() == bytes);
        file.write_all_at(b"after", 5).unwrap();
        close(file).unwrap();
        assert_eq!(server.requests().count(Operation::CopyObject), puts);
        let stored = bucket.get(&new).unwrap();
        assert!(&stored[5..10] == b"after" && stored[10..] == bytes[10..]);
    }
    assert_eq!(bucket.keys(), ["new1", "taken"]);
    assert!(wait_until(SOON, || bucket.uploads() == 0));
}

#[test]
fn the_close_of_a_reader_stores_nothing_of_a_file_that_is_being_written() {
    let (server, mount) = on_server(Versioning::Off);
    let _quiet = quiet();
    let file = File::create(at(&mount, "file")).unwrap();
    file.write_all_at(b"half of ", 0).unwrap();
    assert_eq!(fs::read(at(&mount, "file")).unwrap(), b"half of ");
    // A reader's release has no answer; that of a directory made after it shows that it is through.
    fs::create_dir(at(&mount, "d")).unwrap();
    file.write_all_at(b"it", 8).unwrap();
    assert_eq!(real::state(&at(&mount, "file")), "dirty");
    close(file).unwrap();
    let puts = server.requests().records();
    let puts =
        puts.iter().filter(|r| r.operation == Operation::PutObject && r.key.as_deref() == Some("file"));
    assert_eq!(puts.count(), 1);
    assert_eq!(Bucket::of(&server).get("file").unwrap(), b"half of it");
}

#[test]
fn a_commit_beside_a_writer_does_not_spoil_its_close() {
    let (server, mount) = on_server(Versioning::Off);
    let (path, mut bytes) = (at(&mount, "file"), noise(1, 40 << 20));
    let _quiet = quiet();
    let file = File::create(&path).unwrap();
    let other = file.try_clone().unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    std::thread::scope(|scope| {
        let hold = server.faults().hold_requests(When::operation(Operation::CompleteMultipartUpload));
        let closing = scope.spawn(|| close(other));
        assert!(hold.wait_for_blocking(1, SOON));
        // An upload ahead begins once more, and then finds that the file has been stored under it.
        file.write_all_at(b"after", 5).unwrap();
        hold.release();
        closing.join().unwrap().unwrap();
    });
    bytes[5..10].copy_from_slice(b"after");
    close(file).unwrap();
    assert!(Bucket::of(&server).get("file").unwrap() == bytes);
    assert!(wait_until(SOON, || Bucket::of(&server).uploads() == 0));
}

#[test]
fn an_open_dirty_file_that_is_unlinked_is_never_stored() {
    let (server, mut mount) = on_server(Versioning::Off);
    let bucket = Bucket::of(&server);
    let held = quiet();
    for (name, size) in [("small", 1000), ("large", 40 << 20)] {
        let bytes = noise(1, size);
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(at(&mount, name)).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        fs::remove_file(at(&mount, name)).unwrap();
        file.write_all_at(b"after", 0).unwrap();
        let mut wanted = bytes;
        wanted[..5].copy_from_slice(b"after");
        assert!(read_all(&file, size) == wanted);
        file.sync_all().unwrap();
        close(file).unwrap();
        assert!(bucket.keys().is_empty());
    }
    drop(held);
    assert!(wait_until(SOON, || bucket.uploads() == 0));
    let staging = mount.state_dir().join("staging");
    assert!(wait_until(SOON, || fs::read_dir(&staging).unwrap().count() == 0));
    assert_eq!(mount.terminate().unwrap(), 0);
    assert!(bucket.keys().is_empty());
}

#[test]
fn a_directory_is_renamed_with_open_files_in_it() {
    let (server, mount) = on_server(Versioning::Off);
    let bucket = Bucket::of(&server);
    let bytes = noise(1, LARGE);
    fs::create_dir_all(at(&mount, "d/sub")).unwrap();
    bucket.put("d/sub/read", bytes.clone());
    bucket.put("d/changed", "0123456789");
    let held = quiet();
    let reader = File::open(at(&mount, "d/sub/read")).unwrap();
    let changed = File::options().write(true).open(at(&mount, "d/changed")).unwrap();
    changed.write_all_at(b"ab", 2).unwrap();
    let fresh = File::create(at(&mount, "d/sub/fresh")).unwrap();
    fresh.write_all_at(b"fresh", 0).unwrap();
    fs::rename(at(&mount, "d"), at(&mount, "e")).unwrap();
    assert!(read_all(&reader, LARGE) == bytes);
    changed.write_all_at(b"cd", 4).unwrap();
    fresh.write_all_at(b" bytes", 5).unwrap();
    close(changed).unwrap();
    close(fresh).unwrap();
    drop(held);
    assert_eq!(bucket.keys(), ["e/", "e/changed", "e/sub/", "e/sub/fresh", "e/sub/read"]);
    assert_eq!(bucket.get("e/changed").unwrap(), b"01abcd6789");
    assert_eq!(bucket.get("e/sub/fresh").unwrap(), b"fresh bytes");
    assert_eq!(
        sh(mount.path(), "find . -type f | LC_ALL=C sort"),
        "./e/changed\n./e/sub/fresh\n./e/sub/read"
    );
}

#[test]
fn a_read_only_mount_refuses_every_change() {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let bucket = Bucket::of(&server);
    bucket.put("d/file", "stored");
    let mount = start(daemon(&format!("s3://{BUCKET}")).env(server.env()).arg("--read-only"));
    assert_eq!(fs::read(at(&mount, "d/file")).unwrap(), b"stored");
    let before = server.requests().tally();
    for script in [
        "echo x > new",
        "echo x >> d/file",
        ": > d/file",
        "truncate -s 1 d/file",
        "mkdir e",
        "rmdir d",
        "rm d/file",
        "mv d/file d/other",
        "mv d e",
        "ln -s d link",
        "ln d/file hard",
        "mknod fifo p",
        "chmod 600 d/file",
        "chown 1 d/file",
        "touch -d @1 d/file",
        "touch -d @1 d",
        "setfattr -n user.x -v y d/file",
    ] {
        let output = try_sh(mount.path(), script);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("Read-only file system"), "{script}: {said}");
    }
    let since = server.requests().tally().since(&before);
    assert!(since.iter().all(|(operation, _)| !operation.is_mutation()), "{since:?}");
    assert_eq!(bucket.keys(), ["d/file"]);
}

#[test]
fn what_an_object_cannot_be_is_not_permitted() {
    let (_server, mount) = on_server(Versioning::Off);
    let file = at(&mount, "file");
    store(&file, "x").unwrap();
    assert_eq!(code(fs::hard_link(&file, at(&mount, "hard"))), libc::EPERM);
    for (name, kind) in [
        ("fifo", FileType::Fifo),
        ("socket", FileType::Socket),
        ("char", FileType::CharacterDevice),
        ("block", FileType::BlockDevice),
    ] {
        let outcome = mknodat(CWD, at(&mount, name), kind, Mode::RUSR, 259);
        assert_eq!(outcome.unwrap_err().raw_os_error(), libc::EPERM, "{name}");
    }
    mknodat(CWD, at(&mount, "plain"), FileType::RegularFile, Mode::RUSR, 0).unwrap();
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 2);
}

#[test]
fn two_descriptors_append_and_nothing_is_overwritten() {
    let (server, mount) = on_server(Versioning::Off);
    let path = at(&mount, "log");
    Bucket::of(&server).put("log", "first\n");
    let open = || OpenOptions::new().append(true).open(&path).unwrap();
    std::thread::scope(|scope| {
        for who in ["a", "b"] {
            let mut file = open();
            scope.spawn(move || {
                use std::io::Write as _;
                for i in 0..200 {
                    file.write_all(format!("{who}{i:03}\n").as_bytes()).unwrap();
                }
                close(file).unwrap();
            });
        }
    });
    let stored = String::from_utf8(Bucket::of(&server).get("log").unwrap()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), stored);
    for who in ["a", "b"] {
        let lines: Vec<_> = stored.lines().filter(|l| l.starts_with(who)).collect();
        let wanted: Vec<_> = (0..200).map(|i| format!("{who}{i:03}")).collect();
        assert_eq!(lines, wanted);
    }
    assert!(stored.starts_with("first\n") && stored.lines().count() == 401);
}

#[test]
fn attributes_come_from_where_they_are_asked_for() {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let bucket = Bucket::of(&server);
    let s3fs = [("mode", "33184"), ("uid", "12"), ("gid", "34"), ("mtime", "981173106.500000000")];
    bucket.put_with("d/s3fs", "as s3fs writes it", &s3fs);
    bucket.put_with("d/link", "s3fs", &[("mode", "41471"), ("uid", "12"), ("gid", "34"), ("mtime", "1")]);
    bucket.put_with("d/boto", "as boto3 writes it", &[("colour", "blue")]);
    let on = || daemon(&format!("s3://{BUCKET}")).env(server.env());

    let mount = start(on().args(["--uid=7", "--gid=8", "--file-mode=600"]));
    let stat = "stat -c '%a %u %g %s' d/s3fs d/boto && stat -c %.1Y d/s3fs && readlink d/link && cat d/link";
    let seen = "640 12 34 17\n600 7 8 18\n981173106.5\ns3fs\nas s3fs writes it";
    assert_eq!(sh(mount.path(), stat), seen);
    // What is not ours stays when we write attributes.
    sh(mount.path(), "chmod 644 d/boto");
    assert_eq!(bucket.meta("d/boto").unwrap().metadata.get("colour").unwrap(), "blue");
    drop(mount);

    let mount = start(on().args(["--attributes=listing", "--uid=7", "--gid=8"]));
    let before = server.requests().tally();
    assert_eq!(sh(mount.path(), "ls d && stat -c '%a %u %g %s' d/s3fs"), "boto\nlink\ns3fs\n644 7 8 17");
    let since = server.requests().tally().since(&before);
    assert_eq!(since.of(Operation::HeadObject).requests, 0, "{since:?}");
    assert_eq!(fs::read(at(&mount, "d/s3fs")).unwrap(), b"as s3fs writes it");
}

#[test]
fn without_a_ttl_a_remote_change_is_seen_at_once() {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let bucket = Bucket::of(&server);
    let mount = start(daemon(&format!("s3://{BUCKET}")).env(server.env()).arg("--metadata-ttl=0"));
    for round in 0..10_u32 {
        let bytes = noise(round, 1000 + round as usize);
        assert!(!at(&mount, "d/file").exists());
        bucket.put("d/file", bytes.clone());
        assert_eq!(fs::metadata(at(&mount, "d/file")).unwrap().len(), bytes.len() as u64);
        assert!(fs::read(at(&mount, "d/file")).unwrap() == bytes);
        // The same length, so that only the version tells.
        let other = noise(round + 100, bytes.len());
        bucket.put("d/file", other.clone());
        assert!(fs::read(at(&mount, "d/file")).unwrap() == other);
        assert_eq!(fs::read_dir(at(&mount, "d")).unwrap().count(), 1);
        bucket.delete("d/file");
        assert!(!at(&mount, "d/file").exists());
    }
}

#[test]
fn two_mounts_see_each_others_closed_files() {
    let (server, first) = on_server(Versioning::Off);
    let second = start(daemon(&format!("s3://{BUCKET}")).env(server.env()));
    let see = |path: &Path, wanted: &[u8]| wait_until(SOON, || fs::read(path).is_ok_and(|b| b == wanted));
    fs::create_dir(at(&first, "d")).unwrap();
    for round in 0..5_u32 {
        let (ours, theirs) = (noise(round, 5000), noise(round + 50, 6000));
        store(&at(&first, "d/file"), &ours).unwrap();
        assert!(see(&at(&second, "d/file"), &ours), "round {round}");
        store(&at(&second, "d/file"), &theirs).unwrap();
        assert!(see(&at(&first, "d/file"), &theirs), "round {round}");
    }
    symlink("file", at(&second, "d/link")).unwrap();
    assert!(wait_until(SOON, || fs::read_link(at(&first, "d/link")).is_ok()));
    fs::rename(at(&second, "d"), at(&second, "e")).unwrap();
    assert!(wait_until(SOON, || !at(&first, "d/file").exists() && at(&first, "e/file").exists()));
    let mut text = Vec::new();
    File::open(at(&first, "e/link")).unwrap().read_to_end(&mut text).unwrap();
    assert!(text == noise(54, 6000));
    assert_eq!(Bucket::of(&server).keys(), ["e/", "e/file", "e/link"]);
}
