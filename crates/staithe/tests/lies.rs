//! A server that stores something else than it was sent, or says so: nothing is lost, and what it is sent again once it
//! is right again is stored.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use real::{Bench, at, close, code, noise, staithe, start, state, store, text};
use staithe_testkit::{DaemonOptions, Fault, Injected, MountedDaemon, Operation, When, wait_until};

const SOON: Duration = Duration::from_mins(1);
const LARGE: usize = 20 << 20;

impl Bench {
    fn options(&self) -> DaemonOptions {
        self.daemon().args(["--op-deadline=20s", "--drain-deadline=30s"])
    }

    fn start(&self) -> MountedDaemon {
        start(self.options())
    }

    fn start_back(&self) -> MountedDaemon {
        start(self.options().arg("--write-mode=back"))
    }
}

fn sync(mount: &MountedDaemon) {
    let output = staithe(&["sync", text(mount.path())], Path::new("/"));
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), mount.stderr());
}

/// What a server does wrongly, with how many bytes, and when.
fn lies() -> Vec<(Fault, Operation, usize)> {
    use Operation::{CompleteMultipartUpload, PutObject};
    let small = [Fault::WrongChecksum, Fault::LoseByte { at: 99 }, Fault::SpoilByte { at: 12_345 }];
    let put = small.clone().map(|fault| (fault, PutObject, 100_000));
    let whole = small.map(|fault| (fault, CompleteMultipartUpload, LARGE));
    put.into_iter().chain(whole).collect()
}

/// A lie that is about to be told of a file.
struct Lied {
    name: String,
    path: PathBuf,
    bytes: Vec<u8>,
    lie: Injected,
    what: String,
}

/// Every lie, each of a file of its own.
fn lied<'a>(bench: &'a Bench, mount: &'a MountedDaemon) -> impl Iterator<Item = Lied> + 'a {
    lies().into_iter().enumerate().map(|(n, (fault, operation, len))| {
        let (name, what) = (format!("file{n}"), format!("{fault:?} {operation:?}"));
        let lie = bench.server.faults().inject(When::operation(operation).key(&*name), fault);
        Lied { path: at(mount, &name), name, bytes: noise(n as u32, len), lie, what }
    })
}

impl Lied {
    /// The server lies no more: the file is stored.
    fn end(self, bench: &Bench, mount: &MountedDaemon) {
        let Self { name, path, bytes, lie, what } = self;
        assert!(fs::read(&path).unwrap() == bytes, "{what}");
        lie.remove();
        sync(mount);
        assert!(bench.bucket().get(&name).unwrap() == bytes, "{what}");
        assert_eq!(state(&path), "clean", "{what}");
    }
}

#[test]
fn close_says_so_and_the_file_is_stored_once_the_server_is_right_again() {
    let bench = Bench::new();
    let mut mount = bench.start();
    for lied in lied(&bench, &mount) {
        let Lied { path, bytes, lie, what, .. } = &lied;
        assert_eq!(code(store(path, bytes)), libc::EIO, "{what}: {}", mount.stderr());
        assert!(lie.hits() > 0, "{what}");
        // The last close tries once more, in the background.
        let says_why =
            || state(path).starts_with("failed: ") && state(path).contains("the server says it stored");
        assert!(wait_until(SOON, says_why), "{what}: {}", state(path));
        assert!(fs::read(path).unwrap() == *bytes, "{what}");
        // It lies again.
        assert!(!staithe(&["sync", text(mount.path())], Path::new("/")).status.success(), "{what}");
        lied.end(&bench, &mount);
    }
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert_eq!(bench.bucket().keys().len(), lies().len(), "{:?}", bench.bucket().keys());
    assert_eq!(bench.bucket().uploads(), 0);
}

#[test]
fn a_part_that_is_stored_wrongly_is_sent_again() {
    let bench = Bench::new();
    for n in 0..2_usize {
        let mut mount = if n == 0 { bench.start() } else { bench.start_back() };
        let (name, bytes) = (format!("file{n}"), noise(n as u32, LARGE));
        let when = When::operation(Operation::UploadPart).key(&*name).times(2);
        let lie = bench.server.faults().inject(when, Fault::LoseByte { at: 99 });
        store(&at(&mount, &name), &bytes).unwrap();
        sync(&mount);
        assert_eq!(lie.hits(), 2);
        assert!(bench.bucket().get(&name).unwrap() == bytes);
        assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    }
}

#[test]
fn in_write_back_it_is_tried_again_by_itself() {
    let bench = Bench::new();
    let mut mount = bench.start_back();
    for lied in lied(&bench, &mount) {
        let Lied { path, bytes, what, .. } = &lied;
        store(path, bytes).unwrap();
        let failed = || state(path).starts_with("failed: ");
        assert!(wait_until(SOON, failed), "{what}: {} {}", state(path), mount.stderr());
        lied.end(&bench, &mount);
    }
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert_eq!(bench.bucket().keys().len(), lies().len(), "{:?}", bench.bucket().keys());
}

#[test]
fn a_crash_after_a_lie_takes_nothing_stored_wrongly_for_stored() {
    for is_back in [false, true] {
        let bench = Bench::new();
        let begin = || if is_back { bench.start_back() } else { bench.start() };
        let mut mount = begin();
        let bytes = noise(1, 100_000);
        let when = When::operation(Operation::PutObject).key_prefix("file");
        let lie = bench.server.faults().inject(when, Fault::SpoilByte { at: 5 });
        let path = at(&mount, "file");
        if is_back {
            store(&path, &bytes).unwrap();
            assert!(wait_until(SOON, || state(&path).starts_with("failed: ")), "{}", mount.stderr());
        } else {
            assert_eq!(code(store(&path, &bytes)), libc::EIO);
        }
        assert!(bench.bucket().get("file").unwrap() != bytes);
        mount.kill9().unwrap();
        lie.remove();
        let mut mount = begin();
        assert!(fs::read(at(&mount, "file")).unwrap() == bytes);
        sync(&mount);
        assert!(bench.bucket().get("file").unwrap() == bytes, "back: {is_back}: {}", mount.stderr());
        assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
        assert_eq!(bench.bucket().keys(), ["file"]);
    }
}

/// The answer is lost, and what it would have been about is wrong.
#[test]
fn what_is_recognised_as_ours_is_compared_before_it_is_taken_for_stored() {
    for damage in [Fault::LoseByte { at: 7 }, Fault::SpoilByte { at: 7 }] {
        for (operation, len) in [(Operation::PutObject, 50_000), (Operation::CompleteMultipartUpload, LARGE)]
        {
            let bench = Bench::new();
            let mut mount = bench.start();
            let (path, bytes) = (at(&mount, "file"), noise(2, len));
            for fault in [damage.clone(), Fault::ResetAfter] {
                bench.server.faults().inject(When::operation(operation).key("file").once(), fault);
            }
            assert_eq!(code(store(&path, &bytes)), libc::EIO, "{operation:?} {}", mount.stderr());
            // The release of the last descriptor may have begun another try already.
            sync(&mount);
            assert!(bench.bucket().get("file").unwrap() == bytes, "{operation:?}");
            assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
        }
    }
    // And what is right is not sent again.
    let bench = Bench::new();
    let mount = bench.start();
    bench.server.faults().inject(When::operation(Operation::PutObject).key("file").once(), Fault::ResetAfter);
    store(&at(&mount, "file"), noise(3, 50_000)).unwrap();
    assert_eq!(state(&at(&mount, "file")), "clean");
    let puts = bench.server.requests().records();
    let puts =
        puts.iter().filter(|r| r.operation == Operation::PutObject && r.key.as_deref() == Some("file"));
    assert_eq!(puts.count(), 2, "the adapter's own second try met the first one");
}

#[test]
fn a_change_in_the_middle_of_a_large_file_survives_a_lie_about_the_whole() {
    let bench = Bench::new();
    let mut bytes = noise(4, 2 * LARGE);
    bench.bucket().put("file", bytes.clone());
    let mut mount = bench.start();
    let path = at(&mount, "file");
    let when = || When::operation(Operation::CompleteMultipartUpload).key("file");
    let lie = bench.server.faults().inject(when(), Fault::WrongChecksum);
    let write = |piece: &[u8], at: usize| {
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(piece, at as u64).unwrap();
        close(file)
    };
    bytes[LARGE..LARGE + 7].copy_from_slice(b"changed");
    assert_eq!(code(write(b"changed", LARGE)), libc::EIO, "{}", mount.stderr());
    lie.remove();
    sync(&mount);
    assert!(bench.bucket().get("file").unwrap() == bytes);
    // Really stored wrongly, the rest of it is nowhere any more: what was written is kept, and nothing wrong is added.
    let spoilt = bench.server.faults().inject(when(), Fault::SpoilByte { at: 3 });
    assert_eq!(code(write(b"again", LARGE)), libc::EIO, "{}", mount.stderr());
    spoilt.remove();
    assert!(!staithe(&["sync", text(mount.path())], Path::new("/")).status.success());
    assert!(state(&path).starts_with("failed: "), "{}", state(&path));
    assert_eq!(mount.terminate().unwrap(), 75, "{}", mount.stderr());
}

#[test]
fn what_could_not_be_made_rightly_is_not_left_there() {
    let bench = Bench::new();
    let mut mount = bench.start();
    let lie = bench
        .server
        .faults()
        .inject(When::operation(Operation::PutObject).key("link"), Fault::SpoilByte { at: 0 });
    assert_eq!(code(symlink("target", at(&mount, "link"))), libc::EIO);
    assert_eq!(bench.bucket().keys(), [""; 0]);
    lie.remove();
    symlink("target", at(&mount, "link")).unwrap();
    assert_eq!(fs::read_link(at(&mount, "link")).unwrap(), Path::new("target"));
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}
