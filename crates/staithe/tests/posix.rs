//! POSIX, by those who made it their business: pjdfstest for what system calls promise, fsx for what a file holds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod real;

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use real::{BUCKET, daemon, start};
use staithe_testkit::{MountedDaemon, S3Server, Versioning};

/// How many cases of pjdfstest pass. It can only rise.
const PASSES: usize = 183;

/// The word in the list for a case that may pass or fail.
const EITHER: &str = "either";

/// Longer than any run here takes, in seconds.
const DEADLINE: &str = "300";

/// The seeds that every run of fsx begins with; one that found something is added.
const SEEDS: [u64; 2] = [1, 20_240_229];

/// What a store is mounted from: it must live as long as the mount.
struct Mounted {
    mount: MountedDaemon,
    _server: Option<S3Server>,
    _directory: Option<tempfile::TempDir>,
}

fn on_a_directory() -> Mounted {
    let directory = tempfile::tempdir().unwrap();
    let mount = start(daemon(&format!("file://{}", directory.path().display())).arg("--allow-other"));
    Mounted { mount, _server: None, _directory: Some(directory) }
}

fn on_s3() -> Mounted {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let mount = start(daemon(&format!("s3://{BUCKET}")).env(server.env()).arg("--allow-other"));
    Mounted { mount, _server: Some(server), _directory: None }
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
    let new = RandomState::new().build_hasher().finish();
    for seed in SEEDS.into_iter().chain([new]) {
        let artifacts = tempfile::tempdir().unwrap();
        let file = mounted.mount.path().join(format!("file-{seed}"));
        let mut command = tool("fsx");
        command.arg("-f").arg(beside(config)).args(["-N", &operations.to_string(), "-S", &seed.to_string()]);
        let output = command.arg("-P").arg(artifacts.path()).arg(&file).output().unwrap();
        let stderr = mounted.mount.stderr();
        let said = said(&output);
        assert!(output.status.success(), "fsx -f {config} -N {operations} -S {seed}: {said}\n{stderr}");
        fs::remove_file(&file).unwrap();
    }
    mounted.end();
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
