//! F1: a name that should be gone is still there; a create fails.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::sync::Barrier;
use std::thread;

use real::{BUCKET, at, noise, on_server};
use staithe_store::{DeleteRequest, HeadRequest, Key, NewObject, ObjectStore, PutCondition};
use staithe_testkit::{S3Server, Versioning};

fn stored(server: &S3Server, key: &str) -> Option<u64> {
    let store = server.store(BUCKET).unwrap();
    let head = store.head(HeadRequest::latest(Key::new(key).unwrap()));
    futures::executor::block_on(head).ok().map(|meta| meta.size)
}

/// One thread deletes every file of a directory; another at once creates one of the same name.
#[test]
fn a_name_deleted_by_one_thread_is_created_by_another() {
    let (_server, mount) = on_server(Versioning::Off);
    let dir = at(&mount, "dir");
    fs::create_dir(&dir).unwrap();
    const ROUNDS: u32 = 10_000;
    let turn = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                for name in ["a", "b"] {
                    fs::write(dir.join(name), round.to_string()).unwrap();
                }
                turn.wait();
                fs::remove_file(dir.join("a")).unwrap();
                fs::remove_file(dir.join("b")).unwrap();
                turn.wait();
                turn.wait();
            }
        });
        for round in 0..ROUNDS {
            turn.wait();
            // Looks while it is being deleted, so that the kernel has every reason to remember the name.
            let _ = fs::metadata(dir.join("a"));
            turn.wait();
            assert_eq!(
                fs::metadata(dir.join("a")).unwrap_err().kind(),
                ErrorKind::NotFound,
                "a ghost in {round}"
            );
            fs::write(dir.join("a"), "new").unwrap_or_else(|e| panic!("round {round}: {e}"));
            assert_eq!(fs::read(dir.join("a")).unwrap(), b"new");
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "round {round}");
            turn.wait();
        }
    });
}

/// Another client deletes the object while the kernel still believes in the name.
#[test]
fn a_name_deleted_by_another_client_can_be_created_within_its_time() {
    let (server, mount) = on_server(Versioning::Off);
    let store = server.store(BUCKET).unwrap();
    for round in 0..20 {
        let path = at(&mount, &format!("f{round}"));
        fs::write(&path, "old").unwrap();
        fs::metadata(&path).unwrap();
        let key = Key::new(format!("f{round}")).unwrap();
        futures::executor::block_on(store.delete(DeleteRequest::latest(key))).unwrap();
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&path);
        let file = file.as_mut().unwrap_or_else(|e| panic!("round {round}: {e}"));
        file.write_all(b"new").unwrap();
        // The name may have been taken over by the open, or made anew; what counts is what is there afterwards.
        let _ = file.sync_all();
        if fs::read(&path).is_err() {
            fs::write(&path, "new").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}

/// A read-only open of what another client deleted ends in ENOENT, not in a stale handle.
#[test]
fn a_read_of_a_name_deleted_by_another_client_is_an_honest_absence() {
    let (server, mount) = on_server(Versioning::Off);
    let path = at(&mount, "f");
    fs::write(&path, "old").unwrap();
    fs::metadata(&path).unwrap();
    let key = Key::new("f").unwrap();
    let store = server.store(BUCKET).unwrap();
    futures::executor::block_on(store.delete(DeleteRequest::latest(key))).unwrap();
    // Unlike fresh names, this one was just written here: its pages may be believed until its time is over.
    let gone = staithe_testkit::wait_until(
        std::time::Duration::from_secs(10),
        || matches!(File::open(&path), Err(e) if e.kind() == ErrorKind::NotFound),
    );
    assert!(gone, "{:?}", fs::metadata(&path));
}

/// close(2) returns when every other client can read the file: empty ones, and closes of duplicates too.
#[test]
fn what_is_closed_is_in_the_store() {
    let (server, mount) = on_server(Versioning::Off);
    for round in 0..50 {
        let name = format!("f{round}");
        let body = noise(round, 1000 * round as usize);
        fs::write(at(&mount, &name), &body).unwrap();
        assert_eq!(stored(&server, &name), Some(body.len() as u64));
    }
    let file = File::create(at(&mount, "dup")).unwrap();
    let mut twin = file.try_clone().unwrap();
    twin.write_all(b"through the twin").unwrap();
    drop(twin);
    assert_eq!(stored(&server, "dup"), Some(16));
    drop(file);
    real::sh(mount.path(), "( echo from a child > forked ) ; test -s forked; : > empty");
    assert_eq!(stored(&server, "forked"), Some(13));
    assert_eq!(stored(&server, "empty"), Some(0));
}

/// A directory ends by rmdir only, whoever made it.
#[test]
fn a_directory_outlives_its_last_file() {
    let (server, mount) = on_server(Versioning::Off);
    let store = server.store(BUCKET).unwrap();
    let key = Key::new("theirs/only").unwrap();
    futures::executor::block_on(store.put(&key, "x".into(), NewObject::default(), PutCondition::default()))
        .unwrap();
    fs::remove_file(at(&mount, "theirs/only")).unwrap();
    assert!(fs::metadata(at(&mount, "theirs")).unwrap().is_dir());
    assert_eq!(fs::read_dir(at(&mount, "theirs")).unwrap().count(), 0);
    fs::remove_dir(at(&mount, "theirs")).unwrap();
    assert_eq!(store.object_count(), 0);
}
