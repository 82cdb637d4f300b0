//! What cannot be mounted, and what a bucket holds that no path can name: one clear sentence each.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use real::{BUCKET, Bucket, at, close, code, daemon, noise, run, sh, start, store};
use staithe_testkit::{S3Server, Standing, Versioning};

const FAILED: i32 = 1;
const USAGE: i32 = 2;

struct Bench {
    server: S3Server,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let server = S3Server::start_blocking().unwrap();
        assert!(server.create_bucket(BUCKET, Versioning::Off));
        let dir = tempfile::tempdir().unwrap();
        for name in ["mnt", "state", "bucket"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { server, dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn staithe(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_staithe"));
        command.args(arguments).envs(self.server.env()).env("HOME", self.dir.path());
        run(command.env_remove("XDG_STATE_HOME"))
    }

    /// The one line that a mount which must end with `exit` says.
    fn refusal(&self, exit: i32, source: &str, mountpoint: &str, options: &[&str]) -> String {
        let state = self.path("state");
        let own = options.iter().any(|o| o.starts_with("--state-dir"));
        let state = ["--state-dir", &state];
        let state: &[&str] = if own { &[] } else { &state };
        let arguments = [&["mount", source, mountpoint], state, options].concat();
        let output = self.staithe(&arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit), "{arguments:?} said {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?} said {said}");
        assert!(said.starts_with("staithe: "), "{arguments:?} said {said}");
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(&self.path("mnt")), "{arguments:?} mounted something");
        said
    }

    /// The same for our bucket on a good mount point.
    fn refused(&self, exit: i32, options: &[&str]) -> String {
        self.refusal(exit, &format!("s3://{BUCKET}"), &self.path("mnt"), options)
    }
}

/// A tiny disk, unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    fn new(at: impl Into<PathBuf>, size: &str) -> Self {
        let at = at.into();
        fs::create_dir_all(&at).unwrap();
        let script = format!("mount -t tmpfs -o size={size} tmpfs {}", at.display());
        sh(Path::new("/"), &script);
        Self(at)
    }

    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn relieve(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A test that fails already has said more.
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn wrong_usage_is_one_sentence_and_two() {
    let bench = Bench::new();
    let mnt = bench.path("mnt");
    for source in ["bucket", "gs://bucket", "s3://", "file://relative", "memory://x"] {
        bench.refusal(USAGE, source, &mnt, &[]);
    }
    for options in [
        &["--no-such-option"][..],
        &["--metrics", "x"],
        &["--write-mode", "x"],
        &["--staging-size", "1MiB"],
        &["--op-deadline", "x"],
    ] {
        assert!(bench.refused(USAGE, options).contains(options[0]));
    }
    let bucket = bench.path("bucket");
    let source = format!("file://{bucket}");
    fs::create_dir(format!("{bucket}/inside")).unwrap();
    bench.refusal(USAGE, &source, &format!("{bucket}/inside"), &[]);
    bench.refusal(USAGE, &source, &bucket, &[]);
    bench.refusal(USAGE, &format!("file://{mnt}/below"), &mnt, &[]);
}

#[test]
fn a_bucket_that_cannot_be_had_is_one_sentence_and_one() {
    let bench = Bench::new();
    let mnt = bench.path("mnt");
    let said = bench.refusal(FAILED, "s3://missing", &mnt, &[]);
    assert!(said.contains("missing"), "{said}");
    let said = bench.refusal(FAILED, &format!("file://{}", bench.path("nowhere")), &mnt, &[]);
    assert!(said.contains("nowhere"), "{said}");
    let key = bench.server.key_pair().access_key.clone();
    for standing in [Standing::Revoked, Standing::Expired, Standing::Forbidden] {
        bench.server.credentials().set(&key, standing);
        let said = bench.refused(FAILED, &[]);
        assert!(said.contains(BUCKET), "{standing:?}: {said}");
    }
    bench.server.credentials().set(&key, Standing::Good);
    bench.server.stop();
    bench.refused(FAILED, &[]);
}

#[test]
fn a_mount_point_that_is_none_is_named() {
    let bench = Bench::new();
    let source = format!("s3://{BUCKET}");
    fs::write(bench.path("file"), "x").unwrap();
    for (name, word) in [("file", "not a directory"), ("bucket/..", "not empty"), ("missing", "mkdir -p")] {
        let said = bench.refusal(FAILED, &source, &bench.path(name), &[]);
        assert!(said.contains(word), "{name}: {said}");
    }
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    let bench = Bench::new();
    let holder = start(daemon("memory://").state_dir(bench.path("state")));
    let said = bench.refused(FAILED, &[]);
    assert!(said.contains(&format!("process {}", holder.pid())), "{said}");
    drop(holder);
    fs::write(bench.path("state/format"), "99\n").unwrap();
    assert!(bench.refused(FAILED, &[]).contains("99"));
    fs::write(bench.path("file"), "x").unwrap();
    let below = format!("--state-dir={}", bench.path("file/state"));
    assert!(bench.refused(FAILED, &[&below]).contains("file/state"));
    assert!(bench.refused(FAILED, &["--state-dir=/proc/state"]).contains("/proc/state"));
    let disk = Disk::new(bench.path("disk"), "64k");
    disk.fill();
    let full = format!("--state-dir={}", bench.path("disk/state"));
    let said = bench.refused(FAILED, &[&full]);
    assert!(said.contains("No space left"), "{said}");
    drop(disk);
    // The same in the background: the sentence comes through.
    let below = format!("--state-dir={}", bench.path("file/state"));
    bench.refused(FAILED, &["--background", &below]);
}

#[test]
fn a_full_staging_disk_is_told_to_the_writer_and_nothing_is_lost() {
    let bench = Bench::new();
    let disk = Disk::new(bench.path("disk"), "64m");
    fs::create_dir(bench.path("disk/state")).unwrap();
    let options = daemon(&format!("s3://{BUCKET}")).env(bench.server.env());
    let mut mount = start(options.state_dir(bench.path("disk/state")));
    let bytes = noise(1, 1 << 20);
    store(&at(&mount, "before"), &bytes).unwrap();
    let quiet = real::quiet();
    let file = File::create(at(&mount, "file")).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    disk.fill();
    let mut end = bytes.len() as u64;
    let error = loop {
        match file.write_at(&[7; 4096], end) {
            Ok(n) => end += n as u64,
            Err(error) => break error,
        }
        assert!(end < 128 << 20, "the disk takes everything");
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    // What was taken is there, and can be stored; everybody else is served.
    let mut read = vec![0; bytes.len()];
    file.read_exact_at(&mut read, 0).unwrap_err();
    assert!(fs::read(at(&mount, "file")).unwrap()[..bytes.len()] == bytes[..]);
    assert!(fs::read(at(&mount, "before")).unwrap() == bytes);
    close(file).unwrap();
    drop(quiet);
    let stored = Bucket::of(&bench.server).get("file").unwrap();
    assert!(stored.len() as u64 == end && stored[..bytes.len()] == bytes[..]);
    disk.relieve();
    store(&at(&mount, "after"), &bytes).unwrap();
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}

#[test]
fn keys_that_no_path_can_name_are_hidden_and_listed_by_the_doctor() {
    let bench = Bench::new();
    let bucket = Bucket::of(&bench.server);
    let long = format!("d/{}", "n".repeat(256));
    let fits = "f".repeat(255);
    let hidden = ["a//b", "../e", "./z", "/rooted", "d/../up", &long, "x"];
    let shown = ["x/y", "d/plain", &fits, "..f", "a/c"];
    for key in hidden.iter().chain(&shown) {
        bucket.put(key, *key);
    }
    let mount = start(daemon(&format!("s3://{BUCKET}")).env(bench.server.env()));
    let found = sh(mount.path(), "find . -mindepth 1 -printf '%P %y\\n' | LC_ALL=C sort");
    let mut wanted: Vec<_> = shown.iter().map(|k| format!("{k} f")).collect();
    wanted.extend(["a d", "d d", "x d"].map(str::to_owned));
    wanted.sort();
    assert_eq!(found.lines().collect::<Vec<_>>(), wanted);
    assert_eq!(fs::read(at(&mount, "x/y")).unwrap(), b"x/y");
    assert!(at(&mount, "x").is_dir());
    assert_eq!(code(fs::metadata(at(&mount, &format!("d/{}", "n".repeat(256))))), libc::ENAMETOOLONG);
    // A directory with something in it that only looks empty is not removed, nor what is in it.
    sh(mount.path(), "rm d/plain a/c && ! rmdir d 2>&1 && ! rmdir a 2>&1");
    assert!(bucket.keys().contains(&"d/../up".to_owned()), "{:?}", bucket.keys());

    let output = bench.staithe(&["doctor", &format!("s3://{BUCKET}")]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for key in ["a//b", "../e", "./z", "/rooted", "d/../up"] {
        assert!(said.contains(key), "{key}: {said}");
    }
    assert!(said.contains("directory of the same name"), "{said}");
}

#[test]
fn the_doctor_says_what_is_missing() {
    let bench = Bench::new();
    let source = format!("s3://{BUCKET}");
    let output = bench.staithe(&["doctor", &source]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(Bucket::of(&bench.server).keys().is_empty());
    let output = bench.staithe(&["doctor", "s3://missing"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.lines().any(|l| l.starts_with("FAIL") && l.contains("missing")), "{said}");
}
