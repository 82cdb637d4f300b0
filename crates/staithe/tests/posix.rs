//! POSIX, by those who made it their business: pjdfstest for what system calls promise, fsx for what a file holds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod real;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use real::{BUCKET, Bucket, daemon, is_passed, noise, staithe, start, text};
use staithe_testkit::{MountedDaemon, S3Server, Versioning, wait_until};

/// How many cases of pjdfstest pass. It can only rise.
const PASSES: usize = 183;

/// The word in the list for a case that may pass or fail.
const EITHER: &str = "either";

/// Longer than any run here takes, in seconds.
const DEADLINE: &str = "300";

/// Longer than it takes until a file is read by the kernel itself.
const SOON: Duration = Duration::from_secs(30);

/// The seeds that every run of fsx begins with; one that found something is added.
const SEEDS: [u64; 3] = [1, 20_240_229, 13_494_563_675_889_344_835];

/// What a store is mounted from, and where its cache is: they must live as long as the mount.
struct Mounted {
    mount: MountedDaemon,
    server: Option<S3Server>,
    _directory: Option<tempfile::TempDir>,
}

fn on_a_directory() -> Mounted {
    let directory = tempfile::tempdir().unwrap();
    let mount = start(daemon(&format!("file://{}", directory.path().display())).arg("--allow-other"));
    Mounted { mount, server: None, _directory: Some(directory) }
}

fn on_s3() -> Mounted {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let mount = start(daemon(&format!("s3://{BUCKET}")).env(server.env()).arg("--allow-other"));
    Mounted { mount, server: Some(server), _directory: None }
}

/// With a disk cache, beside the state so that files can move from the one to the other.
fn on_s3_with_a_cache() -> Mounted {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let disk = tempfile::tempdir().unwrap();
    let (state, cache) = (disk.path().join("state"), disk.path().join("cache"));
    fs::create_dir(&state).unwrap();
    let options = daemon(&format!("s3://{BUCKET}")).env(server.env()).arg("--allow-other").state_dir(state);
    let mount = start(options.arg("--cache-dir").arg(cache));
    Mounted { mount, server: Some(server), _directory: Some(disk) }
}

/// New files are written by the kernel itself.
fn on_s3_in_write_back() -> Mounted {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let options = daemon(&format!("s3://{BUCKET}")).env(server.env()).arg("--allow-other");
    let mount = start(options.arg("--write-mode=back"));
    Mounted { mount, server: Some(server), _directory: None }
}

impl Mounted {
    /// Ends the daemon: what it was asked for is stored, and nothing went wrong that it did not say.
    fn end(mut self) {
        assert_eq!(self.mount.terminate().unwrap(), 0, "{}", self.mount.stderr());
    }
}

/// A file beside this test.
fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posix").join(name)
}

/// A program that `.ci/install` installs, killed when it takes too long.
fn tool(name: &str) -> Command {
    if let Err(error) = Command::new(name).arg("--version").output() {
        assert_ne!(error.kind(), io::ErrorKind::NotFound, "{name} is not on PATH: run .ci/install");
        panic!("cannot run {name}: {error}");
    }
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", DEADLINE, name]).env("RUST_BACKTRACE", "0").env("NO_COLOR", "1");
    command
}

fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}\n{err}", output.status)
}

/// The cases of a run of pjdfstest: those that passed, and what those that failed said.
#[derive(Debug, Default, PartialEq)]
struct Report {
    passed: Vec<String>,
    failed: BTreeMap<String, String>,
}

impl Report {
    /// Reads lines of a name and a verdict; what stands between two of them belongs to the first.
    fn read(text: &str) -> Self {
        let mut report = Self::default();
        let mut failing = None;
        for line in text.lines().take_while(|line| !line.starts_with("Summary: ")) {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                [name, "ok"] if name.contains("::") => {
                    report.passed.push(name.to_owned());
                    failing = None;
                }
                [name, "skipped"] if name.contains("::") => failing = None,
                [name, "FAILED"] if name.contains("::") => {
                    report.failed.insert(name.to_owned(), String::new());
                    failing = Some(name.to_owned());
                }
                _ => {
                    if let Some(said) = failing.as_ref().and_then(|name| report.failed.get_mut(name)) {
                        *said = format!("{said}{}\n", line.trim());
                    }
                }
            }
        }
        report
    }

    /// Where the report and the list of what must fail differ.
    fn differences(&self, list: &BTreeMap<&str, &str>) -> Vec<String> {
        let mut differences = Vec::new();
        for (name, said) in &self.failed {
            match list.get(name.as_str()) {
                None => differences.push(format!("{name} fails: {said}")),
                Some(&word) if word != EITHER && !said.contains(word) => {
                    differences.push(format!("{name} must fail with `{word}`, but says: {said}"));
                }
                Some(_) => {}
            }
        }
        let must_fail = list.iter().filter(|(_, word)| **word != EITHER);
        for (name, _) in must_fail.filter(|(name, _)| !self.failed.contains_key(**name)) {
            differences
                .push(format!("{name} does not fail any more: take it off the list, and raise PASSES"));
        }
        differences
    }
}

/// Reads lines of a name, a word, and a reason.
fn read_list(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let entries = lines.map(|line| {
        let mut columns = line.split_whitespace();
        match (columns.next(), columns.next(), columns.next()) {
            (Some(name), Some(word), Some(_reason)) => (name, word),
            _ => panic!("not a name, a word and a reason: {line}"),
        }
    });
    entries.collect()
}

fn pjdfstest(mounted: Mounted) {
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let has_user = accounts.lines().any(|line| line.starts_with("tests:"));
    assert!(has_user, "pjdfstest switches to the user `tests`, which is missing: run .ci/install");
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = tool("pjdfstest");
    command.arg("-c").arg(beside("pjdfstest.toml")).arg("-p").arg(mounted.mount.path());
    let output = command.arg("-s").arg(elsewhere.path()).output().unwrap();

    let said = said(&output);
    assert!(said.contains("Summary: "), "pjdfstest did not finish: {said}");
    let report = Report::read(&String::from_utf8_lossy(&output.stdout));
    let list = fs::read_to_string(beside("expected-failures.txt")).unwrap();
    let list = read_list(&list);
    let differences = report.differences(&list);
    assert!(differences.is_empty(), "{}\n{}", differences.join("\n"), mounted.mount.stderr());
    let passes = report.passed.iter().filter(|name| !list.contains_key(name.as_str())).count();
    assert!(passes >= PASSES, "only {passes} of {PASSES} cases pass: {said}");
    mounted.end();
}

/// Runs fsx with the fixed seeds and a new one.
fn fsx(mounted: Mounted, config: &str, operations: u32) {
    for seed in seeds() {
        let file = mounted.mount.path().join(format!("file-{seed}"));
        fsx_on(&mounted.mount, &file, &beside(config), operations, seed);
        fs::remove_file(&file).unwrap();
    }
    mounted.end();
}

/// The same on files that the kernel reads by itself for somebody else, to whom all that fsx does must show.
fn fsx_beside_a_reader(mounted: Mounted, config: &str, operations: u32) {
    let bucket = Bucket::of(mounted.server.as_ref().unwrap());
    for seed in seeds() {
        let name = format!("file-{seed}");
        let path = mounted.mount.path().join(&name);
        bucket.put(&name, noise(1, 200_000));
        let mut reader = None;
        assert!(wait_until(SOON, || {
            drop(reader.take());
            assert!(fs::read(&path).unwrap() == noise(1, 200_000));
            is_passed(&mounted.mount, reader.insert(File::open(&path).unwrap()))
        }));
        fsx_on(&mounted.mount, &path, &beside(config), operations, seed);
        let mut bytes = Vec::new();
        reader.unwrap().read_to_end(&mut bytes).unwrap();
        assert!(bytes == fs::read(&path).unwrap(), "the reader sees something else after fsx -S {seed}");
        assert!(bytes == bucket.get(&name).unwrap(), "the store has something else after fsx -S {seed}");
        fs::remove_file(&path).unwrap();
    }
    mounted.end();
}

/// The same on files that the kernel writes by itself for somebody else, who has made them.
fn fsx_beside_a_writer(mounted: Mounted, config: &str, operations: u32) {
    let bucket = Bucket::of(mounted.server.as_ref().unwrap());
    for seed in seeds() {
        let name = format!("file-{seed}");
        let path = mounted.mount.path().join(&name);
        let writer = File::create(&path).unwrap();
        writer.write_all_at(&noise(1, 100_000), 0).unwrap();
        let mut reader = File::open(&path).unwrap();
        assert!(is_passed(&mounted.mount, &reader));
        fsx_on(&mounted.mount, &path, &beside(config), operations, seed);
        writer.write_all_at(b"at last", 0).unwrap();
        drop(writer);
        let stored = staithe(&["sync", text(mounted.mount.path())], Path::new("/"));
        assert!(stored.status.success(), "{}", said(&stored));
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert!(bytes.starts_with(b"at last") && bytes == fs::read(&path).unwrap(), "fsx -S {seed}");
        assert!(bytes == bucket.get(&name).unwrap(), "the store has something else after fsx -S {seed}");
        fs::remove_file(&path).unwrap();
    }
    mounted.end();
}

fn seeds() -> impl Iterator<Item = u64> {
    SEEDS.into_iter().chain([RandomState::new().build_hasher().finish()])
}

fn fsx_on(mount: &MountedDaemon, file: &Path, config: &Path, operations: u32, seed: u64) {
    let artifacts = tempfile::tempdir().unwrap();
    let mut command = tool("fsx");
    command.arg("-f").arg(config).args(["-N", &operations.to_string(), "-S", &seed.to_string()]);
    let output = command.arg("-P").arg(artifacts.path()).arg(file).output().unwrap();
    let (said, stderr) = (said(&output), mount.stderr());
    assert!(
        output.status.success(),
        "fsx -f {} -N {operations} -S {seed}: {said}\n{stderr}",
        config.display()
    );
}

#[test]
fn pjdfstest_on_a_directory() {
    pjdfstest(on_a_directory());
}

#[test]
fn pjdfstest_on_s3() {
    pjdfstest(on_s3());
}

#[test]
fn pjdfstest_with_a_disk_cache() {
    pjdfstest(on_s3_with_a_cache());
}

#[test]
fn pjdfstest_in_write_back() {
    pjdfstest(on_s3_in_write_back());
}

#[test]
fn fsx_in_write_back() {
    fsx(on_s3_in_write_back(), "fsx.toml", 3_000);
}

#[test]
fn fsx_beside_a_writer_by_passthrough() {
    fsx_beside_a_writer(on_s3_in_write_back(), "fsx.toml", 3_000);
}

#[test]
fn fsx_with_a_disk_cache() {
    fsx(on_s3_with_a_cache(), "fsx.toml", 3_000);
}

#[test]
fn fsx_beside_a_reader_by_passthrough() {
    fsx_beside_a_reader(on_s3_with_a_cache(), "fsx.toml", 3_000);
}

#[test]
fn fsx_of_several_parts_beside_a_reader_by_passthrough() {
    fsx_beside_a_reader(on_s3_with_a_cache(), "fsx-large.toml", 100);
}

#[test]
fn fsx_on_a_directory() {
    fsx(on_a_directory(), "fsx.toml", 4_000);
}

#[test]
fn fsx_on_s3() {
    fsx(on_s3(), "fsx.toml", 5_000);
}

#[test]
fn fsx_of_several_parts_on_a_directory() {
    fsx(on_a_directory(), "fsx-large.toml", 200);
}

#[test]
fn fsx_of_several_parts_on_s3() {
    fsx(on_s3(), "fsx-large.toml", 200);
}

#[test]
fn a_report_is_compared_with_the_list() {
    let text = "open::a   ok\nopen::b   FAILED\n\tcalled: EPERM\n  left: 2\nopen::c   skipped\n\twhy\nopen::d  FAILED\n\tEIO\n";
    let report = Report::read(&format!("{text}\nSummary: 2 failed, 1 skipped, 1 passed"));
    assert_eq!(report.passed, ["open::a"]);
    assert_eq!(report.failed["open::b"], "called: EPERM\nleft: 2\n");
    assert!(report.differences(&read_list("# list\nopen::b EPERM makes\nopen::d EIO does")).is_empty());
    let differences = report.differences(&read_list("open::a EPERM links\nopen::b EIO links"));
    assert_eq!(differences.len(), 3, "{differences:?}");
    let list = "open::a either depends\nopen::b either depends\nopen::d EIO does";
    assert!(report.differences(&read_list(list)).is_empty());
}
