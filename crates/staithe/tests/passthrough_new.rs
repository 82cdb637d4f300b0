//! New files in write-back, written by the kernel itself: whatever is done to them meanwhile.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use real::{Bench, at, close, code, is_passed, noise, sh, staithe, start, state, stop, store, text};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::process::Signal;
use staithe_testkit::{DaemonOptions, MountedDaemon, wait_until};

const SOON: Duration = Duration::from_secs(30);
const LEN: usize = 3 << 20;

impl Bench {
    fn options(&self) -> DaemonOptions {
        self.daemon().args(["--write-mode=back", "--drain-deadline=10s"])
    }

    /// What the state directory has in a directory of its own.
    fn files(&self, of: &str) -> Vec<PathBuf> {
        let list = fs::read_dir(self.state.path().join(of)).into_iter().flatten();
        list.map(|entry| entry.unwrap().path()).collect()
    }

    /// Nothing waits here for the store any more.
    fn wait_for_settled(&self) {
        assert!(wait_until(SOON, || self.files("staging").is_empty()), "{:?}", self.files("staging"));
    }
}

/// Does something with a file that the daemon must not be needed for: it is stopped. Whether it was done all the same,
/// before the daemon went on; when this returns it is done.
fn by_itself(
    mount: &mut MountedDaemon,
    patience: Duration,
    file: &File,
    act: impl FnOnce(&File) + Send + 'static,
) -> bool {
    let (tell, told) = mpsc::channel();
    let file = file.try_clone().unwrap();
    // Whenever the kernel has asked for attributes, it asks before the next write whether privileges are to be taken away.
    (&file).write_all(b"!").unwrap();
    stop(mount);
    let acting = std::thread::spawn(move || {
        act(&file);
        let _ = tell.send(());
    });
    let is_done = told.recv_timeout(patience).is_ok();
    mount.signal(Signal::CONT).unwrap();
    acting.join().unwrap();
    is_done
}

/// Whether the kernel writes to a file by itself. Writes to its beginning.
fn is_written_by_itself(mount: &mut MountedDaemon, file: &File) -> bool {
    by_itself(mount, Duration::from_millis(500), file, move |file| file.write_all_at(b"!", 0).unwrap())
}

fn sync(mount: &MountedDaemon) {
    let output = staithe(&["sync", text(mount.path())], Path::new("/"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn status(mount: &MountedDaemon) -> String {
    let output = staithe(&["status", text(mount.path())], Path::new("/"));
    String::from_utf8(output.stdout).unwrap()
}

fn opened(options: &mut OpenOptions, path: &Path) -> File {
    options.open(path).unwrap()
}

#[test]
fn a_new_file_is_written_by_the_kernel_itself() {
    let bench = Bench::new();
    let mut mount = start(bench.options());
    let (path, bytes) = (at(&mount, "file"), noise(1, LEN));
    let file = File::create(&path).unwrap();
    let rest = bytes[1..].to_vec();
    assert!(by_itself(&mut mount, SOON, &file, move |mut file| {
        rest.chunks(100_000).for_each(|chunk| file.write_all(chunk).unwrap());
    }));
    file.write_all_at(&bytes[..1], 0).unwrap();
    // Others see it while it is being written, and read it as it is.
    assert_eq!(fs::metadata(&path).unwrap().len(), LEN as u64);
    let reader = File::open(&path).unwrap();
    assert!(is_passed(&mount, &reader));
    assert!(fs::read(&path).unwrap() == bytes);
    assert_eq!(state(&path), "dirty");
    assert!(bench.bucket().get("file").is_none());
    close(file).unwrap();
    drop(reader);
    sync(&mount);
    assert!(bench.bucket().get("file").unwrap() == bytes && fs::read(&path).unwrap() == bytes);
    assert_eq!(state(&path), "clean");
    bench.wait_for_settled();
    assert!(status(&mount).contains("passthrough on: the kernel writes new files by itself"));
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}

#[test]
fn what_cannot_be_written_by_the_kernel_itself_is_written_as_ever() {
    let bench = Bench::new();
    let mut mount = start(bench.options());
    let mut both = OpenOptions::new();
    both.read(true).write(true).create(true);
    let (mut appends, mut syncs, mut set_id) = (OpenOptions::new(), OpenOptions::new(), OpenOptions::new());
    appends.append(true).create(true);
    syncs.write(true).create(true).custom_flags(libc::O_SYNC);
    set_id.write(true).create(true).mode(0o4755);
    for (name, options) in [("both", both), ("appends", appends), ("syncs", syncs), ("set-id", set_id)] {
        let path = at(&mount, name);
        let file = options.open(&path).unwrap();
        assert!(!is_written_by_itself(&mut mount, &file), "{name}");
        // Nor does the kernel then for others, while it is open.
        let other = opened(OpenOptions::new().write(true), &path);
        assert!(!is_written_by_itself(&mut mount, &other), "{name}");
        drop((file, other));
        sync(&mount);
        let stored = bench.bucket().get(name).unwrap();
        assert!(stored.iter().all(|byte| *byte == b'!') && !stored.is_empty(), "{name}");
    }
    bench.wait_for_settled();
}

#[test]
fn a_mount_that_must_see_writes_says_why() {
    for (options, reason) in [
        (&["--write-mode=through"][..], "passthrough off: close stores what is written"),
        (&["--write-mode=back", "--staging-size=1GiB"], "passthrough off: what a kernel writes by itself"),
        (&["--read-only"], "passthrough off: nothing is written"),
    ] {
        let bench = Bench::new();
        let mut mount = start(bench.daemon().args(options));
        assert!(status(&mount).contains(reason), "{}", status(&mount));
        if options != ["--read-only"] {
            let file = File::create(at(&mount, "file")).unwrap();
            assert!(!is_written_by_itself(&mut mount, &file));
        }
    }
}

#[test]
fn whoever_opens_it_meanwhile_shares_it() {
    let bench = Bench::new();
    let mut mount = start(bench.options());
    let (path, mut bytes) = (at(&mount, "file"), noise(1, LEN));
    let first = File::create(&path).unwrap();
    first.write_all_at(&bytes, 0).unwrap();
    let second = opened(OpenOptions::new().write(true), &path);
    let reader = File::open(&path).unwrap();
    assert!(is_written_by_itself(&mut mount, &second));
    bytes[0] = b'!';
    let mut appending = opened(OpenOptions::new().append(true), &path);
    appending.write_all(b"appended").unwrap();
    bytes.extend_from_slice(b"appended");
    first.write_all_at(b"first", 1000).unwrap();
    bytes[1000..1005].copy_from_slice(b"first");
    assert!(is_passed(&mount, &reader) && fs::read(&path).unwrap() == bytes);
    drop((first, appending));
    // One that reads and writes may map it: its stores are told by nothing but checksums.
    sh(
        mount.path(),
        "python3 -c \"
import mmap
with open('file', 'r+b') as f:
    with mmap.mmap(f.fileno(), 0) as m:
        m[2000000:2000006] = b'mapped'
\"",
    );
    bytes[2_000_000..2_000_006].copy_from_slice(b"mapped");
    second.write_all_at(b"second", 5000).unwrap();
    bytes[5000..5006].copy_from_slice(b"second");
    drop(second);
    sync(&mount);
    assert!(bench.bucket().get("file").unwrap() == bytes && fs::read(&path).unwrap() == bytes);
    drop(reader);
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert!(bench.bucket().get("file").unwrap() == bytes);
}

#[test]
fn cuts_holes_and_room_made_meanwhile_show() {
    let bench = Bench::new();
    let mut mount = start(bench.options());
    let (path, mut bytes) = (at(&mount, "file"), noise(1, LEN));
    let file = File::create(&path).unwrap();
    let reader = File::open(&path).unwrap();
    let check = |bytes: &[u8]| {
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes.len() as u64);
        let mut read = vec![0; bytes.len()];
        reader.read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes && fs::read(&path).unwrap() == bytes);
    };
    file.write_all_at(&bytes, 0).unwrap();
    check(&bytes);
    file.set_len(1_000_000).unwrap();
    bytes.truncate(1_000_000);
    check(&bytes);
    file.write_all_at(b"behind", 1_500_000).unwrap();
    bytes.resize(1_500_000, 0);
    bytes.extend_from_slice(b"behind");
    check(&bytes);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 10_000, 50_000).unwrap();
    bytes[10_000..60_000].fill(0);
    check(&bytes);
    fallocate(&file, FallocateFlags::empty(), 0, 2_000_000).unwrap();
    bytes.resize(2_000_000, 0);
    check(&bytes);
    sh(mount.path(), "truncate -s 1999999 file");
    bytes.truncate(1_999_999);
    // Through a descriptor that empties it, while the others have it.
    let again = File::create(&path).unwrap();
    check(&[]);
    assert!(is_written_by_itself(&mut mount, &again) && is_written_by_itself(&mut mount, &file));
    check(b"!");
    drop((file, again));
    sync(&mount);
    assert_eq!(bench.bucket().get("file").unwrap(), b"!");
    drop(reader);
    bench.wait_for_settled();
}

#[test]
fn a_stored_file_that_is_written_anew_is_too() {
    let bench = Bench::new();
    let mut mount = start(bench.options());
    let path = at(&mount, "file");
    bench.bucket().put("file", noise(1, LEN));
    for round in 2..6 {
        let bytes = noise(round, LEN / round as usize);
        let file = File::create(&path).unwrap();
        let piece = bytes.clone();
        assert!(by_itself(&mut mount, SOON, &file, move |file| file.write_all_at(&piece, 0).unwrap()));
        drop(file);
        assert!(fs::read(&path).unwrap() == bytes);
        if round % 2 == 0 {
            sync(&mount);
            assert!(bench.bucket().get("file").unwrap() == bytes);
            bench.wait_for_settled();
        }
    }
    sync(&mount);
    assert!(bench.bucket().get("file").unwrap() == noise(5, LEN / 5));
}

#[test]
fn it_moves_and_goes_while_it_is_written() {
    let bench = Bench::new();
    let mut mount = start(bench.options());
    let (path, moved, bytes) = (at(&mount, "file"), at(&mount, "moved"), noise(1, LEN));
    let file = File::create(&path).unwrap();
    file.write_all_at(&bytes[..LEN / 2], 0).unwrap();
    fs::rename(&path, &moved).unwrap();
    file.write_all_at(&bytes[LEN / 2..], LEN as u64 / 2).unwrap();
    assert!(fs::read(&moved).unwrap() == bytes);
    drop(file);
    sync(&mount);
    assert!(bench.bucket().get("moved").unwrap() == bytes && bench.bucket().get("file").is_none());
    bench.wait_for_settled();
    let file = File::create(&path).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all_at(b"more", LEN as u64).unwrap();
    assert_eq!(file.metadata().unwrap().len(), LEN as u64 + 4);
    store(&path, "another").unwrap();
    file.write_all_at(b"and more", 0).unwrap();
    drop(file);
    sync(&mount);
    assert_eq!(bench.bucket().get("file").unwrap(), b"another");
    bench.wait_for_settled();
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}

#[test]
fn times_are_those_of_the_writes_and_those_that_are_set_stay() {
    let bench = Bench::new();
    let mount = start(bench.options());
    let path = at(&mount, "file");
    let file = File::create(&path).unwrap();
    let made = fs::metadata(&path).unwrap().modified().unwrap();
    file.write_all_at(b"bytes", 0).unwrap();
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    assert!(written >= made && written.elapsed().is_ok());
    let past = written - Duration::from_secs(1000);
    file.set_modified(past).unwrap();
    sync(&mount);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), past, "stored, and still open");
    drop(file);
    sync(&mount);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), past);
    let stored = bench.bucket().meta("file").unwrap().metadata["mtime"].clone();
    assert!(stored.starts_with(&fs::metadata(&path).unwrap().mtime().to_string()), "{stored}");
}

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
fn set_id_bits_fall_when_it_is_written_to_by_another() {
    let bench = Bench::new();
    let mut mount = start(bench.options().arg("--allow-other"));
    let path = at(&mount, "file");
    let file = File::create(&path).unwrap();
    assert!(is_written_by_itself(&mut mount, &file));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
    // Of root they stay.
    file.write_all_at(b"root", 0).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o6777);
    let inherited = file.try_clone().unwrap();
    let script = "import os; os.setuid(65534); os.write(1, b'nobody')";
    let mut python = std::process::Command::new("python3");
    let output =
        real::run(python.args(["-c", script]).stdout(inherited).stderr(std::process::Stdio::inherit()));
    assert!(output.status.success());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o777);
    drop(file);
    sync(&mount);
    assert_eq!(bench.bucket().meta("file").unwrap().metadata["mode"], (0o100_777).to_string());
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
