//! What goes wrong between the mount and its store, and passes: no wrong byte, no lost write, nobody stuck.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use real::{BUCKET, Bucket, at, close, code, daemon, noise, on_server, quiet, sh, start};
use staithe_testkit::{Fault, MountedDaemon, Operation, S3Server, Versioning, When, wait_until};

/// Much longer than anything here should take.
const SOON: Duration = Duration::from_secs(20);
/// Most that a request of two seconds may take, the last resort of the adapter included.
const OVERDUE: Duration = Duration::from_secs(15);
const LARGE: usize = 40 << 20;

fn hurried(server: &S3Server) -> MountedDaemon {
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    start(daemon(&format!("s3://{BUCKET}")).env(server.env()).arg("--op-deadline=2s"))
}

#[test]
fn a_put_whose_answer_is_lost_is_one_object() {
    for versioning in [Versioning::Off, Versioning::On] {
        let (server, mount) = on_server(versioning);
        let bucket = Bucket::of(&server);
        let path = at(&mount, "file");
        for round in 0..3 {
            let fault =
                server.faults().inject(When::operation(Operation::PutObject).once(), Fault::ResetAfter);
            let bytes = noise(round, 100_000);
            fs::write(&path, &bytes).unwrap();
            close(File::options().append(true).open(&path).unwrap()).unwrap();
            assert_eq!(fault.hits(), 1);
            assert_eq!(bucket.keys(), ["file"]);
            assert!(bucket.get("file").unwrap() == bytes);
            assert_eq!(real::state(&path), "clean");
        }
    }
}

#[test]
fn a_delete_that_a_busy_server_refuses_once_leaves_no_second_tree() {
    let (server, mount) = on_server(Versioning::Off);
    let bucket = Bucket::of(&server);
    for (name, files) in [("one", 1), ("many", 5)] {
        for n in 0..files {
            bucket.put(&format!("{name}/f{n}"), "bytes");
        }
        let busy = [Operation::DeleteObject, Operation::DeleteObjects]
            .map(|of| server.faults().inject(When::operation(of).times(2), Fault::slow_down(None)));
        fs::rename(at(&mount, name), at(&mount, "moved")).unwrap();
        assert!(busy.iter().any(|fault| fault.hits() == 2), "{name}");
        server.faults().clear();
        let keys = bucket.keys();
        assert!(keys.iter().all(|key| key.starts_with("moved/")) && keys.len() >= files, "{keys:?}");
        sh(mount.path(), &format!("! test -e {name} && test $(ls moved | wc -l) = {files} && rm -r moved"));
    }
}

#[test]
fn every_change_survives_the_loss_of_its_answer() {
    for versioning in [Versioning::Off, Versioning::On] {
        let (server, mount) = on_server(versioning);
        let bucket = Bucket::of(&server);
        sh(mount.path(), "mkdir d && echo a > d/a && echo b > b");
        for script in [
            "chmod 600 d/a && test $(stat -c %a d/a) = 600",
            "setfattr -n user.x -v y d/a && getfattr -n user.x d/a",
            "touch -d @1000000000 d/a && test $(stat -c %Y d/a) = 1000000000",
            "mkdir e",
            "ln -s d/a link && test $(readlink link) = d/a",
            "mv b c && test $(cat c) = b && ! test -e b",
            "mv d f && test $(cat f/a) = a && ! test -e d",
            "rm c && ! test -e c",
            "rmdir e && ! test -e e",
        ] {
            let fault = server.faults().inject(When::mutation().once(), Fault::ResetAfter);
            sh(mount.path(), script);
            assert_eq!(fault.hits(), 1, "{script}");
            server.faults().clear();
        }
        assert_eq!(bucket.keys(), ["f/", "f/a", "link"]);
        assert_eq!(bucket.get("f/a").unwrap(), b"a\n");
    }
}

#[test]
fn an_upload_in_parts_survives_the_loss_of_each_answer() {
    let (server, mount) = on_server(Versioning::Off);
    let bucket = Bucket::of(&server);
    let parts = [Operation::CreateMultipartUpload, Operation::UploadPart, Operation::CompleteMultipartUpload];
    for (round, operation) in parts.into_iter().enumerate() {
        let fault = server.faults().inject(When::operation(operation).once(), Fault::ResetAfter);
        let bytes = noise(round as u32, LARGE);
        let name = format!("large{round}");
        fs::write(at(&mount, &name), &bytes).unwrap();
        close(File::options().append(true).open(at(&mount, &name)).unwrap()).unwrap();
        assert_eq!(fault.hits(), 1, "{operation:?}");
        assert!(bucket.get(&name).unwrap() == bytes, "{operation:?}");
    }
    assert_eq!(bucket.keys(), ["large0", "large1", "large2"]);
}

#[test]
fn a_body_that_breaks_off_is_resumed() {
    let (server, mount) = on_server(Versioning::Off);
    let bytes = noise(1, LARGE);
    let faults = [
        Fault::CutBody { after: 0 },
        Fault::CutBody { after: 100_001 },
        Fault::CutBody { after: 3 << 20 },
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::internal_error(),
    ];
    for (round, fault) in faults.into_iter().enumerate() {
        let name = format!("large{round}");
        Bucket::of(&server).put(&name, bytes.clone());
        let when = When::operation(Operation::GetObject).key(name.clone()).times(3);
        let injected = server.faults().inject(when, fault.clone());
        assert!(fs::read(at(&mount, &name)).unwrap() == bytes, "{fault:?}");
        assert!(injected.hits() > 0, "{fault:?}");
    }
    // The same while an existing object is brought in to be changed.
    let injected = server
        .faults()
        .inject(When::operation(Operation::GetObject).times(2), Fault::CutBody { after: 50_000 });
    let file = File::options().write(true).open(at(&mount, "large0")).unwrap();
    file.write_all_at(b"changed", 123_456).unwrap();
    close(file).unwrap();
    let mut model = bytes;
    model[123_456..123_463].copy_from_slice(b"changed");
    assert!(Bucket::of(&server).get("large0").unwrap() == model);
    assert!(fs::read(at(&mount, "large0")).unwrap() == model);
    drop(injected);
}

#[test]
fn a_corrupt_byte_is_never_handed_on() {
    let (server, mount) = on_server(Versioning::Off);
    // Stored through the mount, so that the store has a checksum of it.
    let bytes = noise(5, 30_000);
    fs::write(at(&mount, "file"), &bytes).unwrap();
    drop(mount);
    let mount = start(daemon(&format!("s3://{BUCKET}")).env(server.env()));
    let when = When::operation(Operation::GetObject).key("file").times(1);
    let fault = server.faults().inject(when, Fault::CorruptByte { at: 7 });
    match fs::read(at(&mount, "file")) {
        Ok(read) => assert!(read == bytes, "a wrong byte was handed on"),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO)),
    }
    assert_eq!(fault.hits(), 1);
    assert!(fs::read(at(&mount, "file")).unwrap() == bytes);
}

#[test]
fn a_sick_server_is_ridden_out() {
    let sicknesses = [
        Fault::internal_error(),
        Fault::slow_down(None),
        Fault::slow_down(Some(Duration::from_secs(1))),
        Fault::ResetBefore,
    ];
    let (server, mount) = on_server(Versioning::Off);
    for (round, fault) in sicknesses.into_iter().enumerate() {
        let injected = server.faults().inject(When::any().times(6), fault.clone());
        let dir = at(&mount, &format!("d{round}"));
        fs::create_dir(&dir).unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        let bytes = noise(3, 300_000);
        fs::write(dir.join("file"), &bytes).unwrap();
        fs::rename(dir.join("file"), dir.join("moved")).unwrap();
        assert!(fs::read(dir.join("moved")).unwrap() == bytes);
        let bucket = Bucket::of(&server);
        assert_eq!(injected.hits(), 6, "{fault:?}");
        assert!(bucket.get(&format!("d{round}/moved")).unwrap() == bytes);
        injected.remove();
    }
    assert_eq!(Bucket::of(&server).keys().len(), 8);
}

#[test]
fn endless_throttling_is_busy_and_a_dead_server_is_a_timeout() {
    let server = S3Server::start_blocking().unwrap();
    let mount = hurried(&server);
    fs::write(at(&mount, "file"), "x").unwrap();
    server.faults().inject(When::any(), Fault::slow_down(None));
    assert_eq!(code(fs::write(at(&mount, "other"), "y")), libc::EBUSY);
    server.faults().clear();
    server.stop();
    assert_eq!(code(fs::metadata(at(&mount, "unknown"))), libc::ETIMEDOUT);
    server.restart().unwrap();
    assert!(wait_until(SOON, || fs::read_to_string(at(&mount, "file")).is_ok_and(|text| text == "x")));
}

#[test]
fn a_read_from_a_black_hole_times_out_and_others_go_on() {
    let server = S3Server::start_blocking().unwrap();
    let mount = hurried(&server);
    let bytes = noise(1, LARGE);
    for name in ["dark", "light"] {
        Bucket::of(&server).put(name, bytes.clone());
    }
    let dark = File::open(at(&mount, "dark")).unwrap();
    server.faults().inject(When::any().key("dark"), Fault::BlackHole);
    let start = Instant::now();
    let trying = dark.try_clone().unwrap();
    let reader = std::thread::spawn(move || code(trying.read_exact_at(&mut [0; 4096], LARGE as u64 / 2)));
    assert!(fs::read(at(&mount, "light")).unwrap() == bytes);
    fs::write(at(&mount, "new"), "written meanwhile").unwrap();
    assert!(!reader.is_finished(), "others did not go on before it was given up");
    assert_eq!(reader.join().unwrap(), libc::ETIMEDOUT);
    assert!(start.elapsed() < OVERDUE, "{:?}", start.elapsed());
    server.faults().clear();
    // What is open is read on, at once.
    let mut read = vec![0; LARGE];
    dark.read_exact_at(&mut read, 0).unwrap();
    assert!(read == bytes && fs::read(at(&mount, "dark")).unwrap() == bytes);
}

#[test]
fn a_write_into_a_black_hole_times_out_and_is_stored_later() {
    let server = S3Server::start_blocking().unwrap();
    let mount = hurried(&server);
    let _quiet = quiet();
    let hole = server.faults().inject(When::operation(Operation::PutObject), Fault::BlackHole);
    let bytes = noise(1, 1 << 20);
    let file = File::create(at(&mount, "file")).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let start = Instant::now();
    assert_eq!(code(file.sync_all()), libc::ETIMEDOUT);
    assert!(start.elapsed() < OVERDUE, "{:?}", start.elapsed());
    let path = at(&mount, "file");
    assert!(real::state(&path).starts_with("failed: "), "{}", real::state(&path));
    hole.remove();
    close(file).unwrap();
    assert!(Bucket::of(&server).get("file").unwrap() == bytes);
    assert_eq!(real::state(&at(&mount, "file")), "clean");
}

#[test]
fn a_commit_whose_answer_came_too_late_is_no_conflict_with_itself() {
    let server = S3Server::start_blocking().unwrap();
    let mount = hurried(&server);
    let bucket = Bucket::of(&server);
    let _quiet = quiet();
    for (operation, size) in [(Operation::PutObject, 1000), (Operation::CompleteMultipartUpload, LARGE)] {
        let mut bytes = noise(1, size);
        let name = format!("file{size}");
        let hold = server.faults().hold_responses(When::operation(operation).once());
        let file = File::create(at(&mount, &name)).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        assert_eq!(code(file.sync_all()), libc::ETIMEDOUT);
        assert!(bucket.get(&name).unwrap() == bytes);
        file.write_all_at(b"more", 10).unwrap();
        bytes[10..14].copy_from_slice(b"more");
        close(file).unwrap_or_else(|e| panic!("{operation:?}: {e}"));
        assert!(bucket.get(&name).unwrap() == bytes, "{operation:?}");
        hold.release();
    }
    let (from, to) = (at(&mount, "from"), at(&mount, "to"));
    let hold = server.faults().hold_responses(When::operation(Operation::PutObject).once());
    let file = File::create(&from).unwrap();
    file.write_all_at(b"moved", 0).unwrap();
    assert_eq!(code(file.sync_all()), libc::ETIMEDOUT);
    fs::rename(&from, &to).unwrap();
    close(file).unwrap();
    hold.release();
    let hold = server.faults().hold_responses(When::operation(Operation::PutObject).once());
    let file = File::create(&from).unwrap();
    file.write_all_at(b"gone", 0).unwrap();
    assert_eq!(code(file.sync_all()), libc::ETIMEDOUT);
    fs::remove_file(&from).unwrap();
    close(file).unwrap();
    hold.release();
    assert_eq!(bucket.keys(), ["file1000", &format!("file{LARGE}"), "to"]);
    assert_eq!(bucket.get("to").unwrap(), b"moved");
}

#[test]
fn readers_and_writers_go_on_after_a_restart_of_the_server() {
    let (server, mount) = on_server(Versioning::Off);
    let bytes = noise(1, LARGE);
    Bucket::of(&server).put("large", bytes.clone());
    let reader = File::open(at(&mount, "large")).unwrap();
    let mut read = vec![0; LARGE];
    reader.read_exact_at(&mut read[..1 << 20], 0).unwrap();
    let _quiet = quiet();
    let writer = File::create(at(&mount, "written")).unwrap();
    writer.write_all_at(&bytes[..LARGE / 2], 0).unwrap();
    server.stop();
    let threads = std::thread::scope(|scope| {
        let reading = scope.spawn(|| reader.read_exact_at(&mut read[1 << 20..], 1 << 20));
        let writing = scope.spawn(|| {
            writer.write_all_at(&bytes[LARGE / 2..], LARGE as u64 / 2)?;
            writer.sync_all()
        });
        let creating = scope.spawn(|| fs::write(at(&mount, "new"), "new"));
        // Writing needs no store, so its end shows that the others have met the outage.
        assert!(!wait_until(Duration::from_millis(300), || creating.is_finished()));
        server.restart().unwrap();
        [reading.join().unwrap(), writing.join().unwrap(), creating.join().unwrap()]
    });
    for outcome in threads {
        outcome.unwrap();
    }
    assert!(read == bytes);
    close(writer).unwrap();
    assert!(Bucket::of(&server).get("written").unwrap() == bytes);
    assert_eq!(Bucket::of(&server).get("new").unwrap(), b"new");
}
