//! What is done to such a file, by whoever has it open, and by others.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};

use crate::real::{Bench, at, close, is_passed, noise, sh, start, state, store};
use crate::{LEN, SOON, by_itself, is_written_by_itself, opened, status, sync};

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
    let output = crate::real::run(
        python.args(["-c", script]).stdout(inherited).stderr(std::process::Stdio::inherit()),
    );
    assert!(output.status.success());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o777);
    drop(file);
    sync(&mount);
    assert_eq!(bench.bucket().meta("file").unwrap().metadata["mode"], (0o100_777).to_string());
}
