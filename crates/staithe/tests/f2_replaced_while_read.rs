//! F2: the object changed while it was being read.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use real::{BUCKET, at, noise, on_server};
use staithe_store::{DeleteRequest, Key, NewObject, ObjectStore, PutCondition};
use staithe_testkit::{S3Server, Versioning};

const SIZE: usize = 24 << 20;
const PIECE: usize = 64 << 10;

fn put(server: &S3Server, key: &str, body: Vec<u8>) {
    let store = server.store(BUCKET).unwrap();
    let key = Key::new(key).unwrap();
    futures::executor::block_on(store.put(&key, body.into(), NewObject::default(), PutCondition::default()))
        .unwrap();
}

fn is_stale(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::StaleNetworkFileHandle
}

/// Reads to the end, or to the error; every byte must be of `old`.
fn read_on(file: &File, from: usize, old: &[u8]) -> Result<(), (usize, std::io::Error)> {
    let mut at = from;
    let mut piece = vec![0; PIECE];
    while at < old.len() {
        let n = file.read_at(&mut piece, at as u64).map_err(|error| (at, error))?;
        assert!(n > 0, "an early end at {at}");
        assert!(piece[..n] == old[at..at + n], "bytes of another version at {at}");
        at += n;
    }
    Ok(())
}

#[test]
fn an_unversioned_object_is_stale_on_that_handle_alone() {
    let (server, mount) = on_server(Versioning::Off);
    let (old, new) = (noise(1, SIZE), noise(2, SIZE));
    put(&server, "other", noise(3, SIZE));
    for (round, phase) in [0, PIECE, SIZE / 2, SIZE - PIECE].into_iter().enumerate() {
        let name = format!("movie{round}");
        put(&server, &name, old.clone());
        let path = at(&mount, &name);
        let player = File::open(&path).unwrap();
        let neighbour = File::open(at(&mount, "other")).unwrap();
        let mut start = vec![0; phase];
        player.read_exact_at(&mut start, 0).unwrap();
        assert!(start == old[..phase]);
        put(&server, &name, new.clone());
        if let Err((_, error)) = read_on(&player, phase, &old) {
            assert!(is_stale(&error), "phase {phase}: {error}");
        }
        // Everybody else goes on; a new open has the new version.
        read_on(&neighbour, 0, &noise(3, SIZE)).unwrap();
        let again = staithe_testkit::wait_until(std::time::Duration::from_secs(10), || {
            fs::read(&path).is_ok_and(|bytes| bytes == new)
        });
        assert!(again, "phase {phase}: the new version does not appear");
    }
}

#[test]
fn a_versioned_object_is_read_to_its_end_after_replace_and_after_delete() {
    let (server, mount) = on_server(Versioning::On);
    let old = noise(1, SIZE);
    for (round, phase) in [0, PIECE, SIZE / 2].into_iter().enumerate() {
        let name = format!("movie{round}");
        put(&server, &name, old.clone());
        let player = File::open(at(&mount, &name)).unwrap();
        let mut start = vec![0; phase];
        player.read_exact_at(&mut start, 0).unwrap();
        put(&server, &name, noise(2, SIZE));
        let key = Key::new(&name).unwrap();
        futures::executor::block_on(server.store(BUCKET).unwrap().delete(DeleteRequest::latest(key)))
            .unwrap();
        read_on(&player, phase, &old).unwrap_or_else(|(at, e)| panic!("phase {phase}, at {at}: {e}"));
    }
}

#[test]
fn readers_of_a_file_replaced_all_the_time_never_see_two_versions() {
    let (server, mount) = on_server(Versioning::Off);
    const LEN: usize = 2 << 20;
    put(&server, "f", vec![0; LEN]);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for version in 1..=60_u8 {
                put(&server, "f", vec![version; LEN]);
            }
        });
        let mut whole = 0;
        while !writer.is_finished() || whole == 0 {
            let Ok(file) = File::open(at(&mount, "f")) else { continue };
            let mut bytes = vec![0; LEN];
            match file.read_exact_at(&mut bytes, 0) {
                Ok(()) => {
                    assert!(bytes.iter().all(|b| *b == bytes[0]), "two versions in one handle");
                    whole += 1;
                }
                Err(error) => assert!(is_stale(&error), "{error}"),
            }
        }
    });
}
