//! The disk cache, on real mounts of a real server: what it saves, what it survives, and that it is never believed.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use real::{BUCKET, Bucket, at, daemon, noise, run, staithe, start, text};
use staithe_testkit::{DaemonOptions, Operation, S3Server, Versioning, wait_until};

const SOON: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;

struct Bench {
    server: S3Server,
    cache: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let server = S3Server::start_blocking().unwrap();
        assert!(server.create_bucket(BUCKET, Versioning::Off));
        Self { server, cache: tempfile::tempdir().unwrap() }
    }

    fn options(&self) -> DaemonOptions {
        self.options_in(self.cache.path())
    }

    fn options_in(&self, cache: &Path) -> DaemonOptions {
        daemon(&format!("s3://{BUCKET}")).env(self.server.env()).arg("--cache-dir").arg(cache)
    }

    fn bucket(&self) -> Bucket {
        Bucket::of(&self.server)
    }

    /// Bytes of objects sent since `work` began.
    fn fetched(&self, work: impl FnOnce()) -> u64 {
        let before = self.server.requests().tally();
        work();
        self.server.requests().tally().since(&before).of(Operation::GetObject).bytes_out
    }

    /// The files of the cache with this ending, all of `size` bytes if that is not 0.
    fn files(&self, ending: &str, size: u64) -> Vec<PathBuf> {
        let directories = fs::read_dir(self.cache.path().join("objects")).unwrap();
        let files =
            directories.flat_map(|d| fs::read_dir(d.unwrap().path()).unwrap()).map(|f| f.unwrap().path());
        let is_it = |f: &PathBuf| {
            f.extension().is_some_and(|e| e == ending) && (size == 0 || f.metadata().unwrap().len() == size)
        };
        files.filter(is_it).collect()
    }

    /// Waits until so many bytes of files are on the disk.
    fn wait_for(&self, bytes: u64) {
        use std::os::unix::fs::MetadataExt;
        let on_disk =
            || self.files("data", 0).iter().map(|f| f.metadata().unwrap().blocks() * 512).sum::<u64>();
        assert!(wait_until(SOON, || on_disk() >= bytes), "only {} of {bytes} bytes arrive", on_disk());
    }
}

#[test]
fn what_was_read_is_not_fetched_again_after_a_restart_or_a_kill() {
    let bench = Bench::new();
    let (big, small) = (noise(1, 9 * MIB + 777), noise(2, 3000));
    bench.bucket().put("d/big", big.clone());
    bench.bucket().put("d/small", small.clone());
    let mut mount = start(bench.options());
    assert!(fs::read(at(&mount, "d/big")).unwrap() == big);
    assert!(fs::read(at(&mount, "d/small")).unwrap() == small);
    bench.wait_for(big.len() as u64);
    mount.kill9().unwrap();
    let mut mount = start(bench.options());
    let fetched = bench.fetched(|| {
        assert!(fs::read(at(&mount, "d/big")).unwrap() == big);
        assert!(fs::read(at(&mount, "d/small")).unwrap() == small);
    });
    // What was under way to the disk may have been lost.
    assert!(fetched < MIB as u64, "{fetched}");
    mount.terminate().unwrap();
    for _ in 0..2 {
        let mut mount = start(bench.options());
        let fetched = bench.fetched(|| {
            assert!(fs::read(at(&mount, "d/big")).unwrap() == big);
            assert!(fs::read(at(&mount, "d/small")).unwrap() == small);
        });
        assert_eq!(fetched, 0);
        assert_eq!(mount.terminate().unwrap(), 0);
    }
}

#[test]
fn damaged_and_cut_files_cost_a_request_and_no_wrong_byte() {
    let bench = Bench::new();
    let bytes = noise(3, 4 * MIB);
    bench.bucket().put("file", bytes.clone());
    let read_all = || {
        let mut mount = start(bench.options());
        let fetched = bench.fetched(|| assert!(fs::read(at(&mount, "file")).unwrap() == bytes));
        assert_eq!(mount.terminate().unwrap(), 0);
        fetched
    };
    assert_eq!(read_all(), bytes.len() as u64);
    let [data] = &bench.files("data", bytes.len() as u64)[..] else { panic!("no data") };
    let [map] = &bench.files("map", 0)[..] else { panic!("no map") };
    let damage: [Damage<'_>; 7] = [
        ("one bit", Box::new(|| flip(data, 2 * MIB as u64 + 5))),
        (
            "the first block",
            Box::new(|| File::options().write(true).open(data).unwrap().write_all_at(&[0; 1000], 0).unwrap()),
        ),
        (
            "the end cut off",
            Box::new(|| File::options().write(true).open(data).unwrap().set_len(MIB as u64 + 1).unwrap()),
        ),
        ("a record", Box::new(|| flip(map, map.metadata().unwrap().len() - 3))),
        ("the header", Box::new(|| flip(map, 30))),
        ("no map", Box::new(|| fs::remove_file(map).unwrap())),
        ("no data", Box::new(|| fs::remove_file(data).unwrap())),
    ];
    for (what, damage) in damage {
        damage();
        let fetched = read_all();
        assert!(fetched > 0 && fetched <= bytes.len() as u64, "{what}: {fetched}");
        assert_eq!(read_all(), 0, "{what}: it heals");
    }
}

/// What is done to the cache, and how.
type Damage<'a> = (&'static str, Box<dyn Fn() + 'a>);

/// Changes one bit.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[test]
fn a_new_version_is_never_answered_with_the_old_one() {
    let bench = Bench::new();
    let mount = start(bench.options().args(["--metadata-ttl", "0"]));
    for version in 0..6 {
        let bytes = noise(version, 2 * MIB);
        bench.bucket().put("file", bytes.clone());
        for _ in 0..2 {
            assert!(fs::read(at(&mount, "file")).unwrap() == bytes, "version {version}");
        }
    }
    fs::write(at(&mount, "file"), "ours").unwrap();
    assert_eq!(fs::read(at(&mount, "file")).unwrap(), b"ours");
    assert_eq!(bench.bucket().get("file").unwrap(), b"ours");
}

#[test]
fn it_stays_within_its_size_and_keeps_what_is_used() {
    let bench = Bench::new();
    let bytes = |n: u32| noise(n, MIB);
    for n in 0..16 {
        bench.bucket().put(&format!("f{n:02}"), bytes(n));
    }
    for n in 0..1500 {
        bench.bucket().put(&format!("small/{n}"), noise(n, if n % 2 == 0 { 1 } else { 4096 }));
    }
    let mut mount = start(bench.options().args(["--cache-size", "8MiB"]));
    for n in 0..16 {
        assert!(fs::read(at(&mount, &format!("f{n:02}"))).unwrap() == bytes(n));
        // One that is used again and again stays.
        assert!(fs::read(at(&mount, "f00")).unwrap() == bytes(0));
    }
    assert_eq!(mount.terminate().unwrap(), 0);
    // Of what is open, and of what was not foreseen.
    let slack = 64 << 10;
    assert!((6 << 20..=(8 << 20) + slack).contains(&du(bench.cache.path())), "{}", du(bench.cache.path()));
    let mut mount = start(bench.options().args(["--cache-size", "8MiB"]));
    assert_eq!(bench.fetched(|| assert!(fs::read(at(&mount, "f00")).unwrap() == bytes(0))), 0);
    assert!(bench.fetched(|| assert!(fs::read(at(&mount, "f01")).unwrap() == bytes(1))) > 0);
    for n in 0..1500 {
        let bytes = noise(n, if n % 2 == 0 { 1 } else { 4096 });
        assert!(fs::read(at(&mount, &format!("small/{n}"))).unwrap() == bytes);
        if n % 100 == 0 {
            assert!(du(bench.cache.path()) <= (8 << 20) + slack, "{n}: {}", du(bench.cache.path()));
        }
    }
    assert_eq!(mount.terminate().unwrap(), 0);
    assert!((6 << 20..=(8 << 20) + slack).contains(&du(bench.cache.path())), "{}", du(bench.cache.path()));
}

/// What a directory takes of the disk, with all that is in it, in bytes. What is removed meanwhile takes nothing.
fn du(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let below = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| du(&entry.path()));
    path.symlink_metadata().map_or(0, |meta| meta.blocks() * 512) + below.sum::<u64>()
}

#[test]
fn a_full_disk_costs_nothing_but_the_cache() {
    let bench = Bench::new();
    let small = tempfile::tempdir().unwrap();
    let tmpfs = Tmpfs::mount(small.path(), "4m");
    let bytes = noise(9, 12 * MIB);
    bench.bucket().put("file", bytes.clone());
    let mut mount = start(bench.options_in(tmpfs.0));
    for _ in 0..2 {
        assert!(fs::read(at(&mount, "file")).unwrap() == bytes);
    }
    assert_eq!(mount.terminate().unwrap(), 0);
    assert!(mount.stderr().contains("the cache cannot be written to"), "{}", mount.stderr());
}

struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    fn mount(at: &'a Path, size: &str) -> Self {
        let done = run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"])
            .arg(at));
        assert!(done.status.success(), "a small disk is needed: {}", String::from_utf8_lossy(&done.stderr));
        Self(at)
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(self.0));
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_refused_in_a_sentence() {
    let bench = Bench::new();
    let first = start(bench.options());
    let elsewhere = tempfile::tempdir().unwrap();
    let refuse = |options: DaemonOptions, code: i32, words: &[&str]| {
        let error = options.start().unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{error}");
        }
        assert!(error.contains(&format!("exit status: {code}")), "{error}");
    };
    let pid = first.pid().to_string();
    refuse(bench.options(), 1, &["the cache directory", "is in use by process", &pid]);
    let file = elsewhere.path().join("file");
    fs::write(&file, "").unwrap();
    refuse(bench.options_in(&file), 1, &["could not create the cache directory"]);
    fs::create_dir(elsewhere.path().join("other")).unwrap();
    fs::write(elsewhere.path().join("other/format"), "99\n").unwrap();
    refuse(bench.options_in(&elsewhere.path().join("other")), 1, &["has format 99"]);
    refuse(
        bench.options_in(&elsewhere.path().join("new")).args(["--cache-size", "1"]),
        2,
        &["at least 4MiB"],
    );
    let without = daemon(&format!("s3://{BUCKET}")).env(bench.server.env()).args(["--cache-size", "1GiB"]);
    refuse(without, 2, &["--cache-dir"]);
}

#[test]
fn a_directory_that_others_can_write_to_is_refused_in_a_sentence() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let bench = Bench::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let dir = elsewhere.path().join("cache");
    let refuse = |dir: &Path, words: [&str; 2]| {
        let error = bench.options_in(dir).start().unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert!(error.contains("exit status: 2"), "{error}");
    };
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    fs::create_dir(&dir).unwrap();
    for mode in [0o777, 0o1777, 0o757, 0o770] {
        set_mode(&dir, mode);
        refuse(
            &dir,
            [&format!("cache directory {} can be written to", dir.display()), &format!("(mode {mode:o})")],
        );
    }
    set_mode(&dir, 0o755);
    chown(&dir, Some(65_534), None).unwrap();
    refuse(&dir, [&format!("cache directory {} belongs to user 65534", dir.display()), "this is user 0"]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "nothing was made in it");
    chown(&dir, Some(0), None).unwrap();
    let mut mount = start(bench.options_in(&dir));
    assert_eq!(mount.terminate().unwrap(), 0);
    chown(dir.join("objects"), Some(65_534), None).unwrap();
    refuse(&dir, ["cache/objects belongs to user 65534", "this is user 0"]);
}

#[test]
fn warm_makes_files_whole_and_goes_on_where_it_ended() {
    let bench = Bench::new();
    let content = |n: u32| noise(n, 300_000 + n as usize);
    for n in 0..20 {
        bench.bucket().put(&format!("d/{}/f{n:02}", n % 3), content(n));
    }
    bench.bucket().put("d/empty", "");
    bench.bucket().put("big", noise(99, 20 * MIB));
    let total: u64 = (0..20).map(|n| content(n).len() as u64).sum();
    let mut mount = start(bench.options());
    let warm = |mount: &staithe_testkit::MountedDaemon, name: &str| {
        let output = staithe(&["warm", text(&at(mount, name))], Path::new("/"));
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), said)
    };
    let fetched = bench.fetched(|| {
        let (code, said) = warm(&mount, "d");
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("21 of 21 files"), "{said}");
    });
    assert_eq!(fetched, total, "each byte once");
    // Killed, it goes on where it was; what is there is not fetched again.
    let head = noise(99, 20 * MIB)[..MIB].to_vec();
    let mut piece = vec![0; MIB];
    File::open(at(&mount, "big")).unwrap().read_exact_at(&mut piece, 0).unwrap();
    assert!(piece == head);
    mount.terminate().unwrap();
    let mut mount = start(bench.options());
    let fetched = bench.fetched(|| assert_eq!(warm(&mount, "").0, Some(0)));
    assert!((1..=19 * MIB as u64).contains(&fetched), "{fetched}");
    let fetched = bench.fetched(|| {
        assert_eq!(warm(&mount, "").0, Some(0));
        for n in 0..20 {
            assert!(fs::read(at(&mount, &format!("d/{}/f{n:02}", n % 3))).unwrap() == content(n));
        }
        assert!(fs::read(at(&mount, "big")).unwrap() == noise(99, 20 * MIB));
    });
    assert_eq!(fetched, 0);
    assert_eq!(mount.terminate().unwrap(), 0);
}

#[test]
fn warm_says_what_does_not_fit() {
    let bench = Bench::new();
    for n in 0..4 {
        bench.bucket().put(&format!("f{n}"), noise(n, 2 * MIB));
    }
    let mount = start(bench.options().args(["--cache-size", "5MiB"]));
    let output = staithe(&["warm", text(mount.path())], Path::new("/"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("fit into the disk cache") || said.contains("more than the cache may hold"),
        "{said}"
    );
}

#[test]
fn status_says_what_the_cache_holds_and_whether_the_kernel_reads_it_by_itself() {
    let bench = Bench::new();
    bench.bucket().put("file", noise(1, MIB));
    let asked = |mount: &staithe_testkit::MountedDaemon| {
        let output = staithe(&["status", text(mount.path())], Path::new("/"));
        String::from_utf8(output.stdout).unwrap()
    };
    let disk = tempfile::tempdir().unwrap();
    let mut mount = start(bench.options_in(&disk.path().join("cache")).state_dir(disk.path()));
    fs::read(at(&mount, "file")).unwrap();
    assert!(
        wait_until(SOON, || asked(&mount).contains("1.0 MiB of 10.0 GiB in use, 1 files")),
        "{}",
        asked(&mount)
    );
    assert!(asked(&mount).contains("passthrough     on"), "{}", asked(&mount));
    mount.terminate().unwrap();

    // On two disks a file that is written to could not move from the one to the other.
    let small = tempfile::tempdir().unwrap();
    let tmpfs = Tmpfs::mount(small.path(), "16m");
    let mut mount = start(bench.options_in(tmpfs.0));
    for _ in 0..3 {
        assert!(fs::read(at(&mount, "file")).unwrap() == noise(1, MIB));
    }
    assert!(asked(&mount).contains("passthrough     off: files cannot move"), "{}", asked(&mount));
    mount.terminate().unwrap();
    let mut mount = start(bench.options_in(tmpfs.0).arg("--read-only"));
    assert!(asked(&mount).contains("passthrough     on"), "{}", asked(&mount));
    assert!(fs::read(at(&mount, "file")).unwrap() == noise(1, MIB));
    mount.terminate().unwrap();
}
