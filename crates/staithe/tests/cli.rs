//! What the command line answers without a mount: wrong usage, what is not there yet, what cannot start.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::path::Path;
use std::process::{Command, Output};

const FAILED: i32 = 1;
const USAGE: i32 = 2;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        std::fs::create_dir(dir.path().join("bucket")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn staithe(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_staithe"))
            .args(arguments)
            .env("HOME", self.dir.path())
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_RUNTIME_DIR")
            .output()
            .unwrap()
    }

    /// The one sentence that a run which must end with `code` says.
    fn refusal(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.staithe(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?} said {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?} said {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        said.strip_prefix("staithe: ").unwrap_or_else(|| panic!("{arguments:?} said {said}")).to_owned()
    }

    /// The same for `staithe mount memory://` with these options.
    fn refused_option(&self, options: &[&str]) -> String {
        let mnt = self.path("mnt");
        self.refusal(USAGE, &[&["mount", "memory://", &mnt], options].concat())
    }
}

#[test]
fn no_command_and_wrong_commands() {
    let bench = Bench::new();
    assert!(bench.refusal(USAGE, &[]).contains("--help"));
    assert!(bench.refusal(USAGE, &["mont"]).contains("mont"));
    assert!(bench.refusal(USAGE, &["mount", "memory://"]).contains("<MOUNTPOINT>"));
    for command in ["umount", "sync", "jobs", "reload"] {
        assert!(bench.refusal(USAGE, &[command]).contains("<MOUNTPOINT>"));
    }
    let mnt = bench.path("mnt");
    for options in [&["--cancel"][..], &["--retry", "--json"], &["--retry", "--cancel", "/mnt/f"]] {
        assert!(bench.refusal(USAGE, &[&["jobs", &mnt], options].concat()).contains("--"));
    }
    assert!(bench.refused_option(&["--colour"]).contains("--colour"));
}

#[test]
fn help_and_version_are_answers() {
    let bench = Bench::new();
    for arguments in [&["--help"][..], &["--version"], &["mount", "--help"], &["doctor", "--help"]] {
        let output = bench.staithe(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_shows_the_commands_and_hides_what_is_not_for_people() {
    let bench = Bench::new();
    let help = [bench.staithe(&["--help"]).stdout, bench.staithe(&["mount", "--help"]).stdout].concat();
    let help = String::from_utf8(help).unwrap();
    assert!(!help.contains("--detached"));
    for shown in [
        "  top",
        "  sync",
        "  jobs",
        "  reload",
        "  verify",
        "  rescue",
        "--staging-size",
        "- back:",
        "--metrics",
        "--audit-log",
    ] {
        assert!(help.contains(shown), "{shown}: {help}");
    }
}

#[test]
fn wrong_values_are_named() {
    let bench = Bench::new();
    for (option, value) in [
        ("--metadata-ttl", "soon"),
        ("--negative-ttl", "-1s"),
        ("--memory-limit", "much"),
        ("--memory-limit", "1MiB"),
        ("--op-deadline", "0"),
        ("--op-deadline", "forever"),
        ("--drain-deadline", "x"),
        ("--file-mode", "888"),
        ("--dir-mode", "rwx"),
        ("--uid", "me"),
        ("--attributes", "some"),
        ("--write-mode", "sideways"),
        ("--staging-size", "much"),
        ("--staging-size", "15MiB"),
        ("--on-conflict", "fight"),
        ("--log-format", "xml"),
        ("--log-level", "loud"),
        ("--endpoint-url", "localhost:9000"),
    ] {
        let option_and_value = format!("{option}={value}");
        let said = bench.refused_option(&[&option_and_value]);
        assert!(said.contains(option), "{option_and_value}: {said}");
    }
    assert!(bench.refused_option(&["--region", "eu-west-1"]).contains("s3://"));
    for (option, value, advice) in [
        ("--metadata-ttl", "-1", "write 1s, 5min, 0 or forever"),
        ("--negative-ttl", "-1s", "write 1s, 5min, 0 or forever"),
        ("--op-deadline", "forever", "write 30s or 5min"),
        ("--op-deadline", "-5", "write 30s or 5min"),
        ("--drain-deadline", "-5", "write 30s, 5min or 0"),
        ("--memory-limit", "-1", "write 512MiB or 2GiB"),
        ("--staging-size", "-1", "write 512MiB or 2GiB"),
    ] {
        let said = bench.refused_option(&[option, value]);
        assert_eq!(said.trim_end().rsplit("; ").next(), Some(advice), "{option} {value}: {said}");
    }
}

#[test]
fn wrong_sources_are_named() {
    let bench = Bench::new();
    let mnt = bench.path("mnt");
    for source in ["bucket", "s3://", "gs://bucket", "file://directory", "memory://x"] {
        bench.refusal(USAGE, &["mount", source, &mnt]);
        bench.refusal(USAGE, &["doctor", source]);
    }
}

#[test]
fn a_mount_point_in_its_source_is_refused() {
    let bench = Bench::new();
    let inside = bench.path("bucket/mnt");
    std::fs::create_dir(&inside).unwrap();
    let source = format!("file://{}", bench.path("bucket"));
    let said = bench.refusal(USAGE, &["mount", &source, &inside]);
    assert!(said.contains("lie in one another"), "{said}");
}

#[test]
fn what_cannot_start_says_why() {
    let bench = Bench::new();
    let quiet = "--log-level=off";
    let source = format!("file://{}", bench.path("nowhere"));
    let said = bench.refusal(FAILED, &["mount", &source, &bench.path("mnt"), quiet]);
    assert!(said.contains("nowhere"), "{said}");
    let said = bench.refusal(FAILED, &["mount", "memory://", &bench.path("missing"), quiet]);
    assert!(said.contains("mkdir -p"), "{said}");
    let said = bench.refusal(FAILED, &["mount", "memory://", &bench.path("missing"), "--background"]);
    assert!(said.contains("mkdir -p"), "{said}");
}

#[test]
fn what_is_not_mounted_is_not_unmounted() {
    let bench = Bench::new();
    let mnt = bench.path("mnt");
    for arguments in [&["umount", &mnt][..], &["umount", &mnt, "--flush"], &["sync", &mnt], &["jobs", &mnt]] {
        let said = bench.refusal(FAILED, arguments);
        assert!(said.contains("nothing of staithe"), "{arguments:?}: {said}");
    }
}

#[test]
fn the_doctor_reports_on_a_directory() {
    let bench = Bench::new();
    std::fs::write(Path::new(&bench.path("bucket")).join("a"), "x").unwrap();
    let output = bench.staithe(&["doctor", &format!("file://{}", bench.path("bucket"))]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("create if absent") && said.contains("objects"), "{said}");
    assert!(!said.contains("hidden"), "{said}");
    std::fs::create_dir(bench.path("bucket/d")).unwrap();
    std::os::unix::fs::symlink("a", bench.path("bucket/d/link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bench.path("bucket/socket")).unwrap();
    let output = bench.staithe(&["doctor", &format!("file://{}", bench.path("bucket"))]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("symbolic link") && said.contains("d/link") && said.contains("socket"), "{said}");
    let output = bench.staithe(&["doctor", &format!("file://{}", bench.path("nowhere"))]);
    assert_eq!(output.status.code(), Some(FAILED));
}
