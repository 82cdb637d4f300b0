//! Files that are wholly on the local disk, read by the kernel itself: and written to, cut, renamed, removed and
//! replaced meanwhile.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use real::{BUCKET, Bucket, at, daemon, noise, sh, spawn, start, state};
use staithe_testkit::{DaemonOptions, MountedDaemon, Operation, S3Server, Versioning, wait_until};

const SOON: Duration = Duration::from_secs(30);
const LEN: usize = 3 << 20;

struct Bench {
    server: S3Server,
    mount: MountedDaemon,
    disk: tempfile::TempDir,
}

/// State and cache are on one disk, as they must be for files that can be written to.
fn options(server: &S3Server, disk: &Path) -> DaemonOptions {
    let options = daemon(&format!("s3://{BUCKET}")).env(server.env()).state_dir(disk.join("state"));
    options.arg("--cache-dir").arg(disk.join("cache")).args(["--cache-size", "16MiB"])
}

impl Bench {
    /// A mount with a cache, and `file` in it, wholly.
    fn new() -> (Self, PathBuf, Vec<u8>) {
        let server = S3Server::start_blocking().unwrap();
        assert!(server.create_bucket(BUCKET, Versioning::Off));
        let disk = tempfile::tempdir().unwrap();
        fs::create_dir(disk.path().join("state")).unwrap();
        let mount = start(options(&server, disk.path()));
        let bench = Self { server, mount, disk };
        let (path, bytes) = (at(&bench.mount, "file"), noise(1, LEN));
        bench.bucket().put("file", bytes.clone());
        assert!(wait_until(SOON, || {
            assert!(fs::read(&path).unwrap() == bytes);
            bench.is_passed(&File::open(&path).unwrap())
        }));
        bench.wait_for_closed();
        (bench, path, bytes)
    }

    /// Kills the daemon, and starts another one with what it has left.
    fn crash(&mut self) {
        self.mount.kill9().unwrap();
        self.mount = start(options(&self.server, self.disk.path()));
    }

    /// Files below a directory of the disk.
    fn files(&self, below: &str) -> Vec<PathBuf> {
        let list = |dir: &Path| fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
        let (directories, files): (Vec<_>, Vec<_>) =
            list(&self.disk.path().join(below)).partition(|p| p.is_dir());
        files.into_iter().chain(directories.iter().flat_map(|dir| list(dir))).collect()
    }

    /// The kernel tells the daemon of a close after it has returned.
    fn wait_for_closed(&self) {
        let descriptors = || fs::read_dir(format!("/proc/{}/fd", self.mount.pid())).unwrap();
        let is_data = |link: &PathBuf| link.extension().is_some_and(|e| e == "data");
        let targets = || descriptors().filter_map(|d| fs::read_link(d.ok()?.path()).ok());
        assert!(wait_until(SOON, || !targets().any(|link| is_data(&link))));
    }

    fn bucket(&self) -> Bucket {
        Bucket::of(&self.server)
    }

    fn is_passed(&self, file: &File) -> bool {
        real::is_passed(&self.mount, file)
    }
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; 2 * LEN];
    let mut len = 0;
    loop {
        match file.read_at(&mut bytes[len..], len as u64).unwrap() {
            0 => break,
            n => len += n,
        }
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn a_cached_file_is_read_by_the_kernel_itself() {
    let (bench, path, bytes) = Bench::new();
    let before = bench.server.requests().count(Operation::GetObject);
    let (one, two) = (File::open(&path).unwrap(), File::open(&path).unwrap());
    assert!(bench.is_passed(&one) && bench.is_passed(&two));
    assert!(content(&one) == bytes && content(&two) == bytes);
    drop(one);
    assert!(bench.is_passed(&two));
    assert_eq!(bench.server.requests().count(Operation::GetObject), before);
}

#[test]
fn readers_see_what_is_written_and_the_store_gets_it() {
    let (bench, path, mut bytes) = Bench::new();
    let reader = File::open(&path).unwrap();
    assert!(bench.is_passed(&reader));
    {
        let writer = File::options().read(true).write(true).open(&path).unwrap();
        writer.write_all_at(b"changed", 100_000).unwrap();
        bytes[100_000..100_007].copy_from_slice(b"changed");
        assert!(content(&reader) == bytes && content(&writer) == bytes);
        writer.write_all_at(b"appended", LEN as u64).unwrap();
        bytes.extend_from_slice(b"appended");
        assert!(content(&reader) == bytes && content(&writer) == bytes);
        // Another reader, while it is being written.
        assert!(fs::read(&path).unwrap() == bytes);
    }
    assert!(bench.bucket().get("file").unwrap() == bytes, "stored by close");
    // Once more through a new writer, and by its path.
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .and_then(|mut f| std::io::Write::write_all(&mut f, b"!"))
        .unwrap();
    bytes.push(b'!');
    assert!(content(&reader) == bytes);
    assert!(bench.bucket().get("file").unwrap() == bytes);
    sh(bench.mount.path(), "truncate -s 1000 file");
    bytes.truncate(1000);
    assert!(content(&reader) == bytes);
    assert!(wait_until(SOON, || bench.bucket().get("file").unwrap() == bytes));
    drop(reader);
    assert!(fs::read(&path).unwrap() == bytes);
}

#[test]
fn stores_into_a_memory_map_of_a_file_that_is_being_read_are_stored() {
    let (bench, path, mut bytes) = Bench::new();
    let reader = File::open(&path).unwrap();
    assert!(bench.is_passed(&reader));
    // Python maps it shared, writes, and closes: no write call is ever made.
    sh(
        bench.mount.path(),
        "python3 -c \"
import mmap
with open('file', 'r+b') as f:
    with mmap.mmap(f.fileno(), 0) as m:
        m[2000000:2000006] = b'mapped'
        m.flush()
\"",
    );
    bytes[2_000_000..2_000_006].copy_from_slice(b"mapped");
    assert!(content(&reader) == bytes);
    assert!(wait_until(SOON, || bench.bucket().get("file").unwrap() == bytes));
    drop(reader);
    assert!(fs::read(&path).unwrap() == bytes);
}

/// Stores through a memory map between reads by which the kernel moves bytes by itself.
const MOVES: &str = r#"python3 -c "
import mmap, os
fd = os.open('file', os.O_RDWR)
m = mmap.mmap(fd, 0)
def sent():
    with open('{0}', 'wb+') as to:
        assert os.sendfile(to.fileno(), fd, 1000, 5) == 5
        return os.pread(to.fileno(), 5, 0)
def spliced():
    r, w = os.pipe()
    assert os.splice(fd, w, 5, 1000) == 5
    return os.read(r, 5)
def copied():
    with open('copy', 'wb+') as to:
        assert os.copy_file_range(fd, to.fileno(), 5, 1000, 0) == 5
        return os.pread(to.fileno(), 5, 0)
for n in range(3):
    for moved in sent, spliced, copied:
        stored = ('%s%d' % (moved.__name__, n)).encode()[-5:]
        m[1000:1005] = stored
        assert moved() == stored, (moved, n)
for n in range(3):
    os.pwrite(fd, b'%05d' % n, 1000)
    assert {f() for f in (sent, spliced, copied)} == {b'%05d' % n}
""#;

#[test]
fn sendfile_and_splice_show_what_was_stored_through_a_memory_map() {
    let (bench, path, mut bytes) = Bench::new();
    let reader = File::open(&path).unwrap();
    assert!(bench.is_passed(&reader));
    let to = bench.disk.path().join("to");
    sh(bench.mount.path(), &MOVES.replace("{0}", to.to_str().unwrap()));
    bytes[1000..1005].copy_from_slice(b"00002");
    assert!(content(&reader) == bytes);
    assert!(bench.bucket().get("file").unwrap() == bytes, "stored by close");
}

#[test]
fn length_and_time_of_a_file_that_the_kernel_writes_by_itself_are_seen_at_once() {
    let (bench, path, mut bytes) = Bench::new();
    let reader = File::open(&path).unwrap();
    assert!(bench.is_passed(&reader));
    let before = fs::metadata(&path).unwrap();
    let mut writer = File::options().read(true).append(true).open(&path).unwrap();
    assert!(bench.is_passed(&writer));
    let past = before.modified().unwrap() - Duration::from_secs(1000);
    writer.set_modified(past).unwrap();
    writer.write_all(b"appended").unwrap();
    bytes.extend_from_slice(b"appended");
    let now = fs::metadata(&path).unwrap();
    assert_eq!(now.len(), bytes.len() as u64);
    assert!(now.modified().unwrap() >= before.modified().unwrap());
    assert_eq!(state(&path), "dirty");
    assert!(content(&reader) == bytes);
    writer.set_modified(past).unwrap();
    writer.sync_all().unwrap();
    assert!(bench.bucket().get("file").unwrap() == bytes);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), past, "set after the last write");
    // A cut, by its name, and a write behind the end that this leaves.
    File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
    writer.write_all(b"again").unwrap();
    bytes.truncate(1000);
    bytes.extend_from_slice(b"again");
    assert_eq!(fs::metadata(&path).unwrap().len(), 1005);
    drop(writer);
    assert!(content(&reader) == bytes && bench.bucket().get("file").unwrap() == bytes);
}

#[test]
fn what_the_kernel_has_written_by_itself_is_set_aside_by_a_crash() {
    let (mut bench, path, mut bytes) = Bench::new();
    let reader = File::open(&path).unwrap();
    let writer = File::options().read(true).write(true).open(&path).unwrap();
    assert!(bench.is_passed(&reader) && bench.is_passed(&writer));
    writer.write_all_at(b"appended", LEN as u64).unwrap();
    bytes.extend_from_slice(b"appended");
    bench.crash();
    drop((reader, writer));
    let [lost] = &bench.files("state/lost+found")[..] else { panic!("{}", bench.mount.stderr()) };
    assert!(fs::read(lost).unwrap() == bytes);
}

/// As C programs do it: stores to a page that is dirty already, and through a map that outlives its descriptor.
const STORES: &str = r#"python3 -c "
import ctypes, os
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
fd = os.open('file', os.O_RDWR)
at = libc.mmap(None, 3 << 20, 3, 1, fd, 0)
ctypes.memmove(at + 1000, b'first', 5); os.fsync(fd)
ctypes.memmove(at + 1000, b'again', 5); os.fsync(fd)
os.close(fd)
ctypes.memmove(at + 2000000, b'late!', 5)
""#;

#[test]
fn stores_into_a_memory_map_are_stored_whenever_they_come() {
    let (mut bench, path, mut bytes) = Bench::new();
    let reader = File::open(&path).unwrap();
    assert!(bench.is_passed(&reader));
    sh(bench.mount.path(), STORES);
    bytes[1000..1005].copy_from_slice(b"again");
    let stored = bench.bucket().get("file").unwrap();
    assert!(stored[..2_000_000] == bytes[..2_000_000], "what was synced is in the store");
    bytes[2_000_000..2_000_005].copy_from_slice(b"late!");
    assert!(content(&reader) == bytes);
    drop(reader);
    assert!(fs::read(&path).unwrap() == bytes, "and here, after the last close too");
    assert_eq!(bench.mount.terminate().unwrap(), 0);
    assert!(bench.bucket().get("file").unwrap() == bytes);
}

#[test]
fn an_open_for_truncation_empties_it_for_its_readers_too() {
    let (bench, path, _) = Bench::new();
    let reader = File::open(&path).unwrap();
    assert!(bench.is_passed(&reader));
    fs::write(&path, "short").unwrap();
    assert_eq!(content(&reader), b"short");
    assert_eq!(bench.bucket().get("file").unwrap(), b"short");
}

#[test]
fn readers_outlive_the_name() {
    let (bench, path, bytes) = Bench::new();
    let reader = File::open(&path).unwrap();
    let moved = at(&bench.mount, "moved");
    fs::rename(&path, &moved).unwrap();
    assert!(content(&reader) == bytes);
    let again = File::open(&moved).unwrap();
    assert!(content(&again) == bytes);
    fs::remove_file(&moved).unwrap();
    assert!(content(&reader) == bytes && content(&again) == bytes);
    assert_eq!(bench.bucket().keys(), [""; 0]);
    // Its place is free for another, which they do not see.
    fs::write(&path, "another").unwrap();
    assert!(content(&reader) == bytes);
    assert_eq!(fs::read(&path).unwrap(), b"another");
}

#[test]
fn readers_keep_their_version_when_another_client_replaces_it() {
    let (bench, path, bytes) = Bench::new();
    let reader = File::open(&path).unwrap();
    assert!(bench.is_passed(&reader));
    let newer = noise(2, LEN - 5);
    bench.bucket().put("file", newer.clone());
    assert!(wait_until(SOON, || fs::read(&path).is_ok_and(|now| now == newer)));
    assert!(content(&reader) == bytes, "one open file is one version");
    let other = File::open(&path).unwrap();
    assert!(content(&other) == newer);
}

#[test]
fn a_file_that_somebody_reads_through_us_is_not_passed() {
    let (bench, path, bytes) = Bench::new();
    let writer = File::options().read(true).write(true).open(&path).unwrap();
    let reader = File::open(&path).unwrap();
    assert!(!bench.is_passed(&reader));
    assert!(content(&reader) == bytes && content(&writer) == bytes);
    drop((reader, writer));
    assert!(wait_until(SOON, || bench.is_passed(&File::open(&path).unwrap())));
}

/// Maps `file` shared, closes it if it only reads, and then does what each line says: `read FILE`, a copy of the memory,
/// or `write TEXT`, at 1,000.
const MAP: &str = r"
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
writes = sys.argv[1] == 'rw'
fd = os.open('file', os.O_RDWR if writes else os.O_RDONLY)
at = libc.mmap(None, 3 << 20, 3 if writes else 1, 1, fd, 0)
if not writes:
    os.close(fd)
print('mapped', flush=True)
for line in sys.stdin:
    what, argument = line.split()
    if what == 'read':
        open(argument, 'wb').write(ctypes.string_at(at, 3 << 20))
    else:
        ctypes.memmove(at + 1000, argument.encode(), len(argument))
    print('done', flush=True)
";

/// A program that has `file` mapped. Ends when it is dropped.
struct Mapped(Child);

impl Mapped {
    fn new(bench: &Bench, mode: &str) -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", MAP, mode]).current_dir(bench.mount.path());
        let mut mapped = Self(spawn(python.stdin(Stdio::piped()).stdout(Stdio::piped())));
        mapped.hear("mapped");
        mapped
    }

    fn hear(&mut self, word: &str) {
        let mut line = String::new();
        // One line at a time is said: none is lost with the buffer.
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), word);
    }

    fn say(&mut self, line: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.hear("done");
    }

    /// What is in the memory.
    fn bytes(&mut self, bench: &Bench) -> Vec<u8> {
        let copy = bench.disk.path().join("copy");
        self.say(&format!("read {}", copy.display()));
        fs::read(copy).unwrap()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_memory_map_keeps_its_version_without_its_descriptor_and_without_the_cache() {
    let (mut bench, path, bytes) = Bench::new();
    assert!(bench.is_passed(&File::open(&path).unwrap()));
    let old = bench
        .files("cache/objects")
        .into_iter()
        .find(|f| f.extension().is_some_and(|e| e == "data"))
        .unwrap();
    let mut mapped = Mapped::new(&bench, "r");
    bench.wait_for_closed();
    let newer = noise(2, LEN);
    bench.bucket().put("file", newer.clone());
    assert!(wait_until(SOON, || fs::read(&path).is_ok_and(|now| now == newer)));
    let others = (0..16).map(|n| format!("other{n}"));
    others.clone().for_each(|name| bench.bucket().put(&name, noise(3, LEN)));
    assert!(wait_until(SOON, || {
        others.clone().for_each(|name| assert!(fs::read(at(&bench.mount, &name)).unwrap() == noise(3, LEN)));
        !old.exists()
    }));
    assert!(mapped.bytes(&bench) == bytes);
    assert!(content(&File::open(&path).unwrap()) == newer);
    // Written to here, it is the new version that changes.
    fs::write(&path, "ours").unwrap();
    assert!(mapped.bytes(&bench) == bytes);
    drop(mapped);
    assert_eq!(bench.mount.terminate().unwrap(), 0, "{}", bench.mount.stderr());
}

#[test]
fn a_crash_sets_nothing_aside_of_a_file_that_was_only_open_for_writing() {
    let (mut bench, path, bytes) = Bench::new();
    let reader = File::open(&path).unwrap();
    let writer = File::options().read(true).write(true).open(&path).unwrap();
    let mut mapped = Mapped::new(&bench, "rw");
    assert!(content(&writer) == bytes && mapped.bytes(&bench) == bytes);
    assert_eq!(bench.files("state/staging").len(), 2, "the file, and its map");
    bench.crash();
    drop((reader, writer, mapped));
    assert!(bench.files("state/lost+found").is_empty(), "{}", bench.mount.stderr());
    assert!(bench.files("state/staging").is_empty());
    assert!(fs::read(at(&bench.mount, "file")).unwrap() == bytes);
}

#[test]
fn a_crash_sets_aside_what_was_written_by_a_call_or_through_a_memory_map() {
    for by_map in [false, true] {
        let (mut bench, path, mut bytes) = Bench::new();
        let reader = File::open(&path).unwrap();
        let mut mapped = Mapped::new(&bench, "rw");
        let writer = File::options().read(true).write(true).open(&path).unwrap();
        if by_map {
            mapped.say("write changed");
        } else {
            writer.write_all_at(b"changed", 1000).unwrap();
        }
        bytes[1000..1007].copy_from_slice(b"changed");
        assert!(content(&reader) == bytes);
        bench.crash();
        drop((reader, writer, mapped));
        let [lost] = &bench.files("state/lost+found")[..] else { panic!("{}", bench.mount.stderr()) };
        assert!(fs::read(lost).unwrap() == bytes);
        assert!(bench.files("state/staging").is_empty());
    }
}

#[test]
fn opens_reads_and_writes_in_any_order_end_in_the_same_bytes() {
    let (bench, path, mut bytes) = Bench::new();
    let mut random = fastrand::Rng::with_seed(11);
    let mut readers: Vec<File> = Vec::new();
    for round in 0..120 {
        match random.u8(..6) {
            0 | 1 => readers.push(File::open(&path).unwrap()),
            2 if !readers.is_empty() => drop(readers.swap_remove(random.usize(..readers.len()))),
            3 => {
                let writer = File::options().write(true).open(&path).unwrap();
                let (place, piece) = (random.usize(..bytes.len() - 5000), noise(round, 5000));
                writer.write_all_at(&piece, place as u64).unwrap();
                bytes[place..place + 5000].copy_from_slice(&piece);
            }
            _ => {
                let place = random.usize(..bytes.len() - 5000);
                for file in readers.iter().chain([&File::open(&path).unwrap()]) {
                    let mut piece = vec![0; 5000];
                    file.read_exact_at(&mut piece, place as u64).unwrap();
                    assert!(piece == bytes[place..place + 5000], "round {round}");
                }
            }
        }
    }
    drop(readers);
    assert!(fs::read(&path).unwrap() == bytes && bench.bucket().get("file").unwrap() == bytes);
}
