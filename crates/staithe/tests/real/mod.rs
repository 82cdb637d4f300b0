//! Real mounts of real stores, and real programs on them.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

mod bench;
mod bucket;
mod command;
pub(crate) mod fate;
mod keys;
pub(crate) mod ledger;
mod view;

use std::fs::{self, DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use rustix::process::Signal;
use staithe_testkit::{DaemonOptions, Moto, MountedDaemon, S3Server, Versioning, require_fuse, wait_until};

pub(crate) use bench::Bench;
pub(crate) use bucket::Bucket;
pub(crate) use command::{answer, record, refusal, staithe, status, text};
pub(crate) use keys::{Keys, pair};
pub(crate) use view::{Views, view};

/// The bucket that the tests mount.
pub(crate) const BUCKET: &str = "bucket";

/// A daemon of this build.
pub(crate) fn daemon(source: &str) -> DaemonOptions {
    require_fuse();
    DaemonOptions::new(env!("CARGO_BIN_EXE_staithe"), source)
}

/// Held shared while a program is started: it inherits every open file until it runs, and closes it then.
static PROGRAMS: RwLock<()> = RwLock::new(());

/// Nobody else in this process starts a program while this is held, and so closes a copy of a file that is being
/// written (which stores it). Nothing of this module that starts one may be called meanwhile.
pub(crate) fn quiet() -> RwLockWriteGuard<'static, ()> {
    PROGRAMS.write().unwrap_or_else(PoisonError::into_inner)
}

fn starting() -> RwLockReadGuard<'static, ()> {
    PROGRAMS.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn start(options: DaemonOptions) -> MountedDaemon {
    let _starting = starting();
    options.start().unwrap_or_else(|error| panic!("{error}"))
}

/// A server of ours with a bucket that keeps no versions.
pub(crate) fn server() -> S3Server {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    server
}

/// A daemon of its bucket.
pub(crate) fn on(server: &S3Server) -> DaemonOptions {
    daemon(&format!("s3://{BUCKET}")).env(server.env())
}

/// A mount of a server of ours, with the server.
pub(crate) fn on_server(versioning: Versioning) -> (S3Server, MountedDaemon) {
    let server = S3Server::start_blocking().unwrap();
    assert!(server.create_bucket(BUCKET, versioning));
    let mount = start(daemon(&format!("s3://{BUCKET}")).env(server.env()));
    (server, mount)
}

/// A mount of a server that others wrote, with the server.
pub(crate) fn on_moto() -> (Moto, MountedDaemon) {
    let moto = Moto::start().unwrap_or_else(|error| panic!("{error}"));
    moto.create_bucket(BUCKET).unwrap();
    let mount = start(daemon(&format!("s3://{BUCKET}")).env(moto.env()));
    (moto, mount)
}

/// A mount of a directory, with the directory.
pub(crate) fn on_directory() -> (tempfile::TempDir, MountedDaemon) {
    let bucket = tempfile::tempdir().unwrap();
    let mount = start(daemon(&format!("file://{}", bucket.path().display())));
    (bucket, mount)
}

/// Starts a program.
pub(crate) fn spawn(command: &mut Command) -> Child {
    let _starting = starting();
    command.spawn().unwrap()
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    let _starting = starting();
    command.output().unwrap()
}

/// Runs a script in `dir`; it must succeed.
pub(crate) fn sh(dir: &Path, script: &str) -> String {
    let output = try_sh(dir, script);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\nended with {}\n{out}\n{err}", output.status);
    out.trim_end().to_owned()
}

/// Runs a script in `dir`.
pub(crate) fn try_sh(dir: &Path, script: &str) -> Output {
    let _starting = starting();
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(dir);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", "/nonexistent");
    for (name, value) in [("GIT_AUTHOR_NAME", "A"), ("GIT_AUTHOR_EMAIL", "a@b"), ("GIT_COMMITTER_NAME", "A")]
    {
        command.env(name, value);
    }
    command.env("GIT_COMMITTER_EMAIL", "a@b").output().unwrap()
}

/// Bytes that differ from place to place and from seed to seed.
pub(crate) fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(2_654_435_761) | 1;
    let mut bytes = Vec::with_capacity(len + 4);
    while bytes.len() < len {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A path below a mount.
pub(crate) fn at(mount: &MountedDaemon, path: &str) -> PathBuf {
    mount.path().join(path)
}

/// Whether the kernel reads an open file by itself: a daemon that is stopped cannot.
pub(crate) fn is_passed(mount: &MountedDaemon, file: &File) -> bool {
    use std::os::unix::fs::FileExt as _;
    use std::sync::mpsc;
    let pid = rustix::process::Pid::from_raw(mount.pid().cast_signed()).unwrap();
    // What the kernel has of it already says nothing.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    let (file, len) = (file.try_clone().unwrap(), file.metadata().unwrap().len());
    let (tell, told) = mpsc::channel();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    // Until all of its threads have met that, one may answer.
    assert!(wait_until(Duration::from_secs(30), || has_stopped(mount.pid())));
    let reader = std::thread::spawn(move || {
        let mut piece = vec![0; 4096];
        file.read_exact_at(&mut piece, len / 2).unwrap();
        let _ = tell.send(());
    });
    let by_itself = told.recv_timeout(Duration::from_millis(500)).is_ok();
    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    reader.join().unwrap();
    by_itself
}

/// Stops a daemon (SIGSTOP), and waits until none of its threads can answer any more.
pub(crate) fn stop(mount: &mut MountedDaemon) {
    mount.signal(Signal::STOP).unwrap();
    assert!(wait_until(Duration::from_secs(30), || has_stopped(mount.pid())));
}

fn has_stopped(pid: u32) -> bool {
    let is_stopped = |task: DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
    };
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().all(is_stopped)
}

/// close(2), with its answer.
pub(crate) fn close(file: File) -> io::Result<()> {
    Ok(nix::unistd::close(file)?)
}

/// Writes a file anew, to the end of its close(2).
pub(crate) fn store(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = File::create(path)?;
    file.write_all(bytes.as_ref())?;
    close(file)
}

/// The error code of something that must fail.
pub(crate) fn code<T>(outcome: io::Result<T>) -> i32 {
    let error = outcome.err().unwrap();
    error.raw_os_error().unwrap_or_else(|| panic!("{error} has no code"))
}

/// What the mount says of a file: `clean`, `dirty`, `failed: ...`.
pub(crate) fn state(path: &Path) -> String {
    let mut value = vec![0; 4096];
    let len = rustix::fs::getxattr(path, "user.staithe.state", &mut value[..]).unwrap();
    String::from_utf8_lossy(&value[..len]).into_owned()
}
