//! New files in write-back, written by the kernel itself: whatever is done to them meanwhile.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

#[path = "../real/mod.rs"]
mod real;
mod stored;
mod written;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use real::{Bench, staithe, stop, text};
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
