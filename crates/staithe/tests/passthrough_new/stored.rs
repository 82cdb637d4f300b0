//! When and how such a file is stored, and what is left of it when something goes wrong.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc;

use staithe_testkit::wait_until;

use crate::real::{Bench, at, close, code, noise, sh, start, state, store};
use crate::{LEN, SOON, sync};

#[test]
fn what_is_stored_while_it_is_written_is_stored_again() {
    let bench = Bench::new();
    let mut mount = start(bench.options());
    let (path, mut bytes) = (at(&mount, "file"), noise(1, LEN));
    let file = File::create(&path).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    sync(&mount);
    assert!(bench.bucket().get("file").unwrap() == bytes);
    assert_eq!(state(&path), "clean", "nobody has written since");
    // Neither length nor, within a tick of its clock, time of the file need differ.
    for round in 0..20_u8 {
        file.write_all_at(&[round; 7], 1000).unwrap();
        bytes[1000..1007].fill(round);
        file.sync_all().unwrap();
        if round % 5 == 0 {
            sync(&mount);
            assert!(bench.bucket().get("file").unwrap() == bytes, "round {round}");
        }
    }
    let writing = file.try_clone().unwrap();
    let (tell, told) = mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        let mut n = 0_u32;
        while told.try_recv() == Err(mpsc::TryRecvError::Empty) {
            n += 1;
            writing.write_all_at(&n.to_be_bytes(), 2000).unwrap();
        }
        n
    });
    for _ in 0..10 {
        sync(&mount);
    }
    tell.send(()).unwrap();
    bytes[2000..2004].copy_from_slice(&writer.join().unwrap().to_be_bytes());
    drop(file);
    sync(&mount);
    assert!(bench.bucket().get("file").unwrap() == bytes && fs::read(&path).unwrap() == bytes);
    assert_eq!(state(&path), "clean");
    bench.wait_for_settled();
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}

#[test]
fn it_is_not_stored_before_its_last_close() {
    let bench = Bench::new();
    let mount = start(bench.options());
    let (path, other) = (at(&mount, "file"), at(&mount, "other"));
    let file = File::create(&path).unwrap();
    file.write_all_at(b"half", 0).unwrap();
    // A descriptor of the same file is closed, as shells do it; and another file is stored meanwhile.
    close(file.try_clone().unwrap()).unwrap();
    store(&other, "other").unwrap();
    assert!(wait_until(SOON, || bench.bucket().get("other").is_some()));
    assert!(bench.bucket().get("file").is_none());
    file.write_all_at(b"whole", 0).unwrap();
    close(file).unwrap();
    assert!(wait_until(SOON, || bench.bucket().get("file").is_some_and(|bytes| bytes == b"whole")));
    bench.wait_for_settled();
}

#[test]
fn after_a_crash_it_is_what_was_synced_or_closed_last() {
    let bench = Bench::new();
    let mut mount = start(bench.options());
    let bytes = noise(1, LEN);
    // Of a new directory it is known without the store that it has no names.
    fs::create_dir(at(&mount, "d")).unwrap();
    bench.server.stop();
    let (synced, closed, unsaid) = (at(&mount, "d/synced"), at(&mount, "d/closed"), at(&mount, "d/unsaid"));
    let open: Vec<File> = [&synced, &closed, &unsaid].map(|path| File::create(path).unwrap()).into();
    for file in &open {
        file.write_all_at(&bytes, 0).unwrap();
    }
    open[0].sync_all().unwrap();
    close(open[1].try_clone().unwrap()).unwrap();
    for file in &open {
        file.write_all_at(b"lost", LEN as u64).unwrap();
    }
    store(&at(&mount, "d/whole"), &bytes).unwrap();
    let cut = File::create(at(&mount, "d/cut")).unwrap();
    cut.write_all_at(&bytes, 0).unwrap();
    cut.sync_all().unwrap();
    cut.set_len(1000).unwrap();
    mount.kill9().unwrap();
    bench.server.restart().unwrap();
    let mount = start(bench.options());
    // The programs live on, and so do their writes: to nothing that anybody sees.
    for file in open.iter().chain([&cut]) {
        let _ = file.write_all_at(b"from the dead", 0);
    }
    let check = || {
        for name in ["d/synced", "d/closed", "d/whole"] {
            assert!(fs::read(at(&mount, name)).unwrap() == bytes, "{name}");
        }
        assert!(fs::read(at(&mount, "d/cut")).unwrap() == bytes[..1000]);
        assert_eq!(code(fs::metadata(at(&mount, "d/unsaid"))), libc::ENOENT);
    };
    check();
    sync(&mount);
    check();
    for name in ["d/synced", "d/closed", "d/whole"] {
        assert!(bench.bucket().get(name).unwrap() == bytes, "{name}");
    }
    assert!(bench.bucket().get("d/cut").unwrap() == bytes[..1000]);
    let [lost] = &bench.files("lost+found")[..] else { panic!("{:?}", bench.files("lost+found")) };
    assert_eq!(fs::metadata(lost).unwrap().len(), LEN as u64 + 4);
    bench.wait_for_settled();
    drop((open, cut));
}

#[test]
fn a_lost_race_is_told_and_what_was_written_is_kept() {
    let bench = Bench::new();
    let mount = start(bench.options().arg("--metadata-ttl=0"));
    let (path, bytes) = (at(&mount, "file"), noise(1, 100_000));
    let file = File::create(&path).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    bench.bucket().put("file", "theirs");
    drop(file);
    let ours = || bench.bucket().keys().into_iter().find(|key| key.starts_with("file.conflict-"));
    assert!(wait_until(SOON, || ours().is_some()), "{}", mount.stderr());
    assert!(bench.bucket().get(&ours().unwrap()).unwrap() == bytes);
    assert!(wait_until(SOON, || fs::read(&path).is_ok_and(|now| now == b"theirs")));
    // Replaced when all was stored, while somebody still writes: who closes it hears of it.
    let other = at(&mount, "other");
    let file = File::create(&other).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    sync(&mount);
    bench.bucket().put("other", "theirs");
    assert!(wait_until(SOON, || fs::read(&other).is_ok_and(|now| now == b"theirs")));
    file.write_all_at(b"late", 0).unwrap();
    assert_eq!(code(file.sync_all()), libc::ESTALE);
    assert_eq!(code(close(file)), libc::ESTALE);
    assert_eq!(bench.bucket().get("other").unwrap(), b"theirs");
}

#[test]
fn a_full_disk_is_told_at_once_and_leaves_the_journal_its_part() {
    let bench = Bench::new();
    sh(bench.state.path(), "mount -t tmpfs -o size=64m tmpfs .");
    let mut mount = start(bench.options());
    let (path, piece) = (at(&mount, "file"), noise(1, 1 << 20));
    let mut file = File::create(&path).unwrap();
    let mut written = 0;
    let error = loop {
        match file.write(&piece) {
            Ok(len) => written += len,
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(fs::metadata(&path).unwrap().len(), written as u64);
    // As it is, it can be closed, and another one be made.
    close(file).unwrap();
    for n in 0..200 {
        store(&at(&mount, &format!("empty{n}")), "").unwrap();
    }
    sync(&mount);
    assert_eq!(bench.bucket().get("file").unwrap().len(), written);
    assert_eq!(bench.bucket().keys().len(), 201);
    bench.wait_for_settled();
    store(&path, &piece).unwrap();
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert!(bench.bucket().get("file").unwrap() == piece);
    sh(Path::new("/"), &format!("umount {}", bench.state.path().display()));
}

#[test]
fn the_end_of_the_mount_stores_what_is_still_open() {
    let bench = Bench::new();
    let mut mount = start(bench.options());
    let bytes = noise(1, LEN);
    let file = File::create(at(&mount, "file")).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert!(bench.bucket().get("file").unwrap() == bytes);
    drop(file);
}
