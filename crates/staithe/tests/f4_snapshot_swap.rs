//! F4: a view is swapped whole under its readers. Two datasets, with different bytes under the same names and with names
//! that only one has; 200 swaps; whatever anybody sees at once is of one of the two.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use real::{BUCKET, Views, at, code, daemon, noise, refusal, sh, start, status, text, view};
use staithe_testkit::{MountedDaemon, Operation, Versioning, wait_until};

const FAILED: i32 = 1;
const SWAPS: usize = 200;
const READERS: u32 = 8;
/// Names that both datasets have.
const SHARED: u32 = 40;
/// Names that one of them has.
const OWN: u32 = 30;
const SOON: Duration = Duration::from_mins(2);

/// A dataset: what its files hold, and what they are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    A,
    B,
}

impl Set {
    const BOTH: [Self; 2] = [Self::A, Self::B];

    fn name(self) -> &'static str {
        if self == Self::A { "a" } else { "b" }
    }

    /// Bytes of a file: of other lengths in the other set, some of many blocks.
    fn bytes(self, n: u32) -> Vec<u8> {
        let len = if n.is_multiple_of(20) { 3 << 20 } else { 100 + n as usize };
        noise(n * 2 + self as u32 + 1, len + if self == Self::A { 0 } else { 1000 })
    }

    fn names(self) -> BTreeSet<String> {
        let shared = (0..SHARED).map(|n| format!("f{n:03}"));
        let own = (0..OWN).map(|n| format!("{}{n:03}", self.name()));
        let dirs = ["same".to_owned(), format!("only-{}", self.name())];
        shared.chain(own).chain(dirs).collect()
    }

    fn store(self, views: &Views) {
        let bucket = views.bucket();
        for n in 0..SHARED {
            bucket.put(&format!("d/f{n:03}"), self.bytes(n));
        }
        let (name, other) = (self.name(), if self == Self::A { "b" } else { "a" });
        for n in 0..OWN {
            bucket.put(&format!("d/{name}{n:03}"), self.bytes(n));
            bucket.delete(&format!("d/{other}{n:03}"));
        }
        bucket.put(&format!("d/only-{name}/x"), "x");
        bucket.delete(&format!("d/only-{other}/x"));
        bucket.put("d/same/unchanged", "in both");
        for n in 0..2500 {
            bucket.put(&format!("large/{name}{n:04}"), "x");
            bucket.delete(&format!("large/{other}{n:04}"));
        }
        views.take(name);
    }

    /// The set whose file `n` has this length.
    fn of_len(n: u32, len: u64) -> Self {
        let of = Self::BOTH.into_iter().find(|set| set.bytes(n).len() as u64 == len);
        of.unwrap_or_else(|| panic!("file {n} has {len} bytes, as in no set"))
    }
}

fn both() -> (Views, MountedDaemon) {
    let views = Views::new(Versioning::On);
    for set in Set::BOTH {
        set.store(&views);
    }
    let mount = views.mount("a");
    (views, mount)
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What one reader does in one round.
fn observe(mount: &MountedDaemon, n: u32, seen: &AtomicU64) {
    // One open file is one version, whatever is swapped while it is read.
    let path = at(mount, &format!("d/f{n:03}"));
    let mut file = File::open(&path).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let set = Set::of_len(n, bytes.len() as u64);
    assert!(bytes == set.bytes(n), "file {n} is neither of the sets");
    // One stat.
    Set::of_len(n, fs::metadata(&path).unwrap().len());
    // One listing.
    let listed = names(&at(mount, "d"));
    let is_one = Set::BOTH.iter().any(|set| set.names() == listed);
    assert!(is_one, "a listing of two views: {listed:?}");
    // A name that only one has.
    let own = Set::BOTH[n as usize % 2];
    match fs::read(at(mount, &format!("d/{}{:03}", own.name(), n % OWN))) {
        Ok(bytes) => assert!(bytes == own.bytes(n % OWN)),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
    }
    assert_eq!(fs::read(at(mount, "d/same/unchanged")).unwrap(), b"in both");
    seen.fetch_or(1 << set as u32, Ordering::Relaxed);
}

#[test]
fn every_observation_is_of_one_view_through_200_swaps() {
    let (views, mount) = both();
    let (done, seen, rounds) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    observe(&mount, 0, &seen);
    let memory = |shown: &serde_json::Value| (shown["memory_bytes"].clone(), shown["old_epochs"].clone());
    let at_first = view(&mount);
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let (mount, done, seen, rounds) = (&mount, &done, &seen, &rounds);
            scope.spawn(move || {
                let mut n = reader;
                while !done.load(Ordering::Relaxed) {
                    observe(mount, n % SHARED, seen);
                    rounds.fetch_add(1, Ordering::Relaxed);
                    n += READERS + 1;
                }
            });
        }
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _end = End(&done);
        for swap in 0..SWAPS {
            let set = Set::BOTH[(swap + 1) % 2];
            views.swap(&mount, set.name());
            // Whoever looks now sees the new one.
            let n = swap as u32 % SHARED;
            let len = fs::metadata(at(&mount, &format!("d/f{n:03}"))).unwrap().len();
            assert_eq!(len, set.bytes(n).len() as u64, "swap {swap}");
            assert_eq!(names(&at(&mount, "d")), set.names(), "swap {swap}");
        }
    });
    assert_eq!(seen.load(Ordering::Relaxed), 0b11, "{rounds:?} rounds have seen one set only");
    let last = view(&mount);
    assert_eq!(last["epoch"], SWAPS as u64 + 1);
    // What was given up is let go by and by.
    assert!(wait_until(SOON, || memory(&view(&mount)) == memory(&at_first)), "{}", view(&mount));
}

#[test]
fn an_open_file_and_an_open_listing_go_on_in_the_view_that_they_began_in() {
    let (views, mount) = both();
    what_is_open_goes_on(&views, &mount);
    drop(mount);
    what_is_open_goes_on(&views, &views.mount_with("full", "a"));
}

fn what_is_open_goes_on(views: &Views, mount: &MountedDaemon) {
    let read_to_end = |file: &File| {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    // One that was read a little, and one that was not.
    let (begun, unread) =
        (File::open(at(mount, "d/f020")).unwrap(), File::open(at(mount, "d/a003")).unwrap());
    begun.read_exact_at(&mut [0; 10], 0).unwrap();
    let unchanged = File::open(at(mount, "d/same/unchanged")).unwrap();
    let before = std::os::unix::fs::MetadataExt::ino(&unchanged.metadata().unwrap());
    let mut large = fs::read_dir(at(mount, "large")).unwrap();
    let mut listed: BTreeSet<_> = large.by_ref().take(3).map(|e| e.unwrap().file_name()).collect();
    views.swap(mount, "b");
    assert_eq!(names(&at(mount, "d")), Set::B.names());
    assert_eq!(names(&at(mount, "large")).len(), 2500);
    assert_eq!(code(fs::metadata(at(mount, "d/a003"))), libc::ENOENT);
    assert!(read_to_end(&begun) == Set::A.bytes(20) && read_to_end(&unread) == Set::A.bytes(3));
    let again = std::os::unix::fs::MetadataExt::ino(&fs::metadata(at(mount, "d/same/unchanged")).unwrap());
    assert_eq!(before, again, "the inode of an unchanged file has not stayed");
    listed.extend(large.map(|entry| entry.unwrap().file_name()));
    let wanted: BTreeSet<_> = (0..2500).map(|n| format!("a{n:04}").into()).collect();
    assert!(listed == wanted, "{} names, and not those of the view that it began in", listed.len());
    // Back again.
    views.swap(mount, "a");
    assert_eq!(fs::read(at(mount, "d/f020")).unwrap(), Set::A.bytes(20));
    assert_eq!(names(&at(mount, "d")), Set::A.names());
    assert!(read_to_end(&unread) == Set::A.bytes(3));
}

#[test]
fn a_manifest_that_is_refused_leaves_the_view_as_it_was() {
    let (views, mount) = both();
    let whole = fs::read(views.file("b")).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 4;
    fs::write(views.file("damaged"), damaged).unwrap();
    fs::write(views.file("cut"), &whole[..whole.len() / 2]).unwrap();
    fs::write(views.file("foreign"), "nothing of the kind").unwrap();
    views.done(&["create", &format!("s3://{}/d", real::BUCKET), "-o", "below"]);
    fs::create_dir(views.file("tree")).unwrap();
    views.done(&["create", &format!("file://{}", text(&views.file("tree"))), "-o", "elsewhere"]);
    let mountpoint = text(mount.path());
    for (name, word) in [
        ("damaged", "damaged"),
        ("cut", "ends early"),
        ("foreign", "no manifest"),
        ("missing", "missing"),
        ("below", "prefix"),
        ("elsewhere", "is a manifest of"),
    ] {
        let said = views.refused(FAILED, &["swap", mountpoint, name]);
        assert!(said.contains(word), "{name}: {said}");
        assert_eq!(names(&at(&mount, "d")), Set::A.names());
    }
    assert_eq!(view(&mount)["epoch"], 1);
    views.swap(&mount, "b");
    assert_eq!(names(&at(&mount, "d")), Set::B.names());
    let shown = sh(Path::new("/"), &format!("{} status {mountpoint}", env!("CARGO_BIN_EXE_staithe")));
    assert!(shown.contains("epoch 2, ") && shown.contains(text(&views.file("b"))), "{shown}");
    assert!(refusal(FAILED, &["snapshot", "swap", "/proc", "x"]).contains("nothing of staithe"));
    let plain = real::start(real::daemon("memory://"));
    let arguments = ["swap", text(plain.path()), "b"];
    assert!(views.refused(FAILED, &arguments).contains("--snapshot"));
}

#[test]
fn without_versions_what_is_pinned_by_its_tag_is_read_or_stale_after_a_swap() {
    let views = Views::new(Versioning::Off);
    let bucket = views.bucket();
    for key in ["same", "changed"] {
        bucket.put(key, "first");
    }
    views.take("a");
    bucket.put("changed", "second, longer");
    bucket.put("new", "new");
    views.take("b");
    let mount = views.mount("b");
    let read = |name: &str| fs::read_to_string(at(&mount, name));
    assert_eq!(read("changed").unwrap(), "second, longer");
    views.swap(&mount, "a");
    assert_eq!(read("changed").unwrap_err().raw_os_error(), Some(libc::ESTALE));
    assert_eq!(read("new").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::metadata(at(&mount, "changed")).unwrap().len(), 5);
    assert_eq!(read("same").unwrap(), "first");
    views.swap(&mount, "b");
    assert_eq!(read("changed").unwrap(), "second, longer");
}

#[test]
fn what_the_disk_cache_has_of_both_views_is_not_fetched_again_when_they_are_swapped() {
    let views = Views::new(Versioning::On);
    let bucket = views.bucket();
    let (first, second) = (vec![b'a'; 3 << 20], vec![b'b'; (3 << 20) + 1]);
    bucket.put("f", &*first);
    views.take("a");
    bucket.put("f", &*second);
    views.take("b");
    let cache = tempfile::tempdir().unwrap();
    let options = daemon(&format!("s3://{BUCKET}")).env(views.server.env()).args(["--attributes", "listing"]);
    let options = options.arg("--cache-dir").arg(cache.path()).arg("--snapshot").arg(views.file("a"));
    let mount = start(options);
    let read = || fs::read(at(&mount, "f")).unwrap();
    assert!(read() == first);
    views.swap(&mount, "b");
    assert!(read() == second);
    let cached = || status(&mount)["cache"]["used_bytes"].as_u64().unwrap() >= 6 << 20;
    assert!(wait_until(SOON, cached), "{}", status(&mount));
    let before = views.server.requests().tally();
    for (name, bytes) in [("a", &first), ("b", &second), ("a", &first)] {
        views.swap(&mount, name);
        assert!(read() == *bytes, "{name}");
    }
    let asked = views.server.requests().tally().since(&before);
    assert_eq!(asked.of(Operation::GetObject).requests, 0, "{asked:?}");
}

#[test]
fn swaps_at_once_come_one_after_the_other_or_are_refused() {
    let (views, mount) = both();
    let mountpoint = text(mount.path());
    let said: Vec<_> = thread::scope(|scope| {
        let swap = |n: usize| {
            scope.spawn({
                let views = &views;
                move || views.staithe(&["swap", mountpoint, ["a", "b"][n % 2]])
            })
        };
        let swaps: Vec<_> = (0..8).map(swap).collect();
        swaps.into_iter().map(|swap| swap.join().unwrap()).collect()
    });
    assert!(said.iter().any(|output| output.status.success()));
    for output in said.iter().filter(|output| !output.status.success()) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("another view is being loaded") && said.lines().count() == 1, "{said}");
    }
    let listed = names(&at(&mount, "d"));
    assert!(Set::BOTH.iter().any(|set| set.names() == listed), "{listed:?}");
    views.swap(&mount, "b");
    assert_eq!(names(&at(&mount, "d")), Set::B.names());
}

#[test]
fn a_mount_that_ends_while_views_are_swapped_ends_well() {
    let (views, mut mount) = both();
    let mountpoint = text(mount.path()).to_owned();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for name in ["b", "a"].into_iter().cycle() {
                let output = views.staithe(&["swap", &mountpoint, name]);
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() || said.lines().count() == 1, "{said}");
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let begun = || view(&mount)["epoch"].as_u64().is_some_and(|epoch| epoch > 2);
        assert!(wait_until(SOON, begun));
        assert_eq!(mount.terminate().unwrap(), 0);
        done.store(true, Ordering::Relaxed);
    });
}
