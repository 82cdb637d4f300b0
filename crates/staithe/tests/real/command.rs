//! Commands of the program, and where the daemon of a mount is to be found.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use staithe_testkit::MountedDaemon;

use super::run;

/// Runs the program in a directory.
pub(crate) fn staithe(arguments: &[&str], dir: &Path) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_staithe")).args(arguments).current_dir(dir))
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The one sentence of a command that must end with `code`.
pub(crate) fn refusal(code: i32, arguments: &[&str]) -> String {
    let output = staithe(arguments, Path::new("/"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?} said {said}");
    assert_eq!(said.lines().count(), 1, "{arguments:?} said {said}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    said
}

/// The record of a mount's daemon; its socket is beside it.
pub(crate) fn record(mount: &MountedDaemon) -> PathBuf {
    let records = fs::read_dir("/run/staithe").unwrap().map(|entry| entry.unwrap().path());
    let of_mount = |path: &PathBuf| {
        let record = fs::read(path).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        record.is_some_and(|r| r["mountpoint"] == text(mount.path()))
    };
    records.filter(|p| p.extension().is_some_and(|e| e == "json")).find(of_mount).unwrap()
}

/// What the daemon answers to a request, asked without starting a program: that would close a copy of every open file, and
/// so store it.
pub(crate) fn answer(mount: &MountedDaemon, request: &Value) -> Value {
    let mut daemon = UnixStream::connect(record(mount).with_extension("sock")).unwrap();
    writeln!(daemon, "{}", json!({"v": 1, "request": request})).unwrap();
    let replies = BufReader::new(daemon).lines();
    serde_json::from_str(&replies.last().unwrap().unwrap()).unwrap()
}

/// What `staithe status` says of a mount.
pub(crate) fn status(mount: &MountedDaemon) -> Value {
    let output = staithe(&["status", "--json", text(mount.path())], Path::new("/"));
    assert!(output.status.success(), "{output:?}: {}", mount.stderr());
    serde_json::from_slice(&output.stdout).unwrap()
}
