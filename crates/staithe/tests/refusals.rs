//! What a store refuses, and what a writer and a reader hear of it.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use real::{BUCKET, Bucket, at, close, code, daemon, noise, on_server, quiet, start, state, store};
use staithe_testkit::{Fault, Operation, S3Server, Standing, Versioning, When, wait_until};

const SOON: Duration = Duration::from_secs(20);

fn failed(path: &Path) -> bool {
    state(path).starts_with("failed: ")
}

#[test]
fn a_forbidden_write_is_told_by_close_and_stored_after_recovery() {
    let (server, mount) = on_server(Versioning::Off);
    let (path, bytes) = (at(&mount, "file"), noise(1, 200_000));
    let _quiet = quiet();
    let refusal = server.faults().inject(When::operation(Operation::PutObject), Fault::access_denied());
    let keeper = File::create(&path).unwrap();
    keeper.write_all_at(&bytes, 0).unwrap();
    assert_eq!(code(close(keeper.try_clone().unwrap())), libc::EACCES);
    assert!(failed(&path), "{}", state(&path));
    // Nothing is lost meanwhile: this mount reads what it has.
    assert!(fs::read(&path).unwrap() == bytes);
    assert_eq!(code(keeper.sync_all()), libc::EACCES);
    assert!(Bucket::of(&server).get("file").is_none());
    refusal.remove();
    close(keeper).unwrap();
    assert_eq!(state(&path), "clean");
    assert!(Bucket::of(&server).get("file").unwrap() == bytes);
    assert!(mount.stderr().contains("file"), "{}", mount.stderr());
}

#[test]
fn what_the_last_close_could_not_store_is_stored_by_the_next() {
    let (server, mount) = on_server(Versioning::Off);
    let (path, bytes) = (at(&mount, "file"), noise(2, 50_000));
    let _quiet = quiet();
    let refusal = server.faults().inject(When::operation(Operation::PutObject), Fault::access_denied());
    let file = File::create(&path).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    assert_eq!(code(close(file)), libc::EACCES);
    assert!(wait_until(SOON, || failed(&path)));
    assert!(fs::read(&path).unwrap() == bytes);
    refusal.remove();
    close(File::options().append(true).open(&path).unwrap()).unwrap();
    assert_eq!(state(&path), "clean");
    assert!(Bucket::of(&server).get("file").unwrap() == bytes);
}

#[test]
fn credentials_that_expire_or_are_refused_have_their_own_codes_and_come_back() {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    // Refused for longer, they would be taken for refused for good.
    let mount = start(daemon(&format!("s3://{BUCKET}")).env(server.env()).arg("--op-deadline=1s"));
    let bucket = Bucket::of(&server);
    let access_key = server.key_pair().access_key.clone();
    let cases = [
        (Standing::Expired, libc::EKEYEXPIRED),
        (Standing::Revoked, libc::EKEYREJECTED),
        (Standing::Forbidden, libc::EACCES),
    ];
    let _quiet = quiet();
    for (round, (standing, errno)) in cases.into_iter().enumerate() {
        let (name, new) = (format!("there{round}"), format!("new{round}"));
        bucket.put(&name, "stored");
        let file = File::create(at(&mount, &new)).unwrap();
        file.write_all_at(b"written", 0).unwrap();
        server.credentials().set(&access_key, standing);
        assert_eq!(code(fs::read(at(&mount, &name))), errno, "{standing:?}");
        assert_eq!(code(file.sync_all()), errno, "{standing:?}");
        assert_eq!(code(fs::create_dir(at(&mount, &format!("d{round}")))), errno, "{standing:?}");
        server.credentials().set(&access_key, Standing::Good);
        close(file).unwrap();
        assert_eq!(fs::read(at(&mount, &name)).unwrap(), b"stored");
        assert_eq!(bucket.get(&new).unwrap(), b"written");
    }
}

#[test]
fn a_bucket_that_may_only_be_read_is_read() {
    let (server, mount) = on_server(Versioning::Off);
    Bucket::of(&server).put("d/file", "stored");
    server.credentials().set(&server.key_pair().access_key.clone(), Standing::ReadOnly);
    assert_eq!(fs::read(at(&mount, "d/file")).unwrap(), b"stored");
    for outcome in [
        store(&at(&mount, "d/new"), "x"),
        store(&at(&mount, "d/file"), "x"),
        fs::rename(at(&mount, "d"), at(&mount, "e")),
        fs::create_dir(at(&mount, "f")),
        fs::remove_dir_all(at(&mount, "d")),
    ] {
        assert_eq!(code(outcome), libc::EACCES);
    }
    assert_eq!(Bucket::of(&server).keys(), ["d/file"]);
    assert_eq!(Bucket::of(&server).get("d/file").unwrap(), b"stored");
}

#[test]
fn a_deleted_bucket_is_no_device() {
    let (server, mut mount) = on_server(Versioning::Off);
    Bucket::of(&server).put("file", "x");
    fs::write(at(&mount, "mine"), "x").unwrap();
    let quiet = quiet();
    let writer = File::create(at(&mount, "new")).unwrap();
    writer.write_all_at(b"unstored", 0).unwrap();
    assert!(server.delete_bucket(real::BUCKET));
    // Each waits until that is confirmed.
    std::thread::scope(|scope| {
        let asked = [
            scope.spawn(|| fs::read(at(&mount, "file")).map(drop)),
            scope.spawn(|| fs::create_dir(at(&mount, "d"))),
            scope.spawn(|| writer.sync_all()),
        ];
        for outcome in asked {
            assert_eq!(code(outcome.join().unwrap()), libc::ENODEV);
        }
    });
    assert_eq!(mount.wait(Duration::from_mins(1)).unwrap(), 143, "{}", mount.stderr());
    drop((writer, quiet));
    assert!(
        mount.stderr().lines().any(|line| line.contains("kept") && line.contains("new")),
        "{}",
        mount.stderr()
    );
}
