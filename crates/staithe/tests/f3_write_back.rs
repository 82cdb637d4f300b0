//! F3: what is stored later never brings back a name that was renamed or removed, whatever the store does meanwhile, and
//! whenever the daemon ends.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use real::{Bench, at, noise, sh, start, store};
use rustix::process::Signal;
use staithe_testkit::{DaemonOptions, Fault, MountedDaemon, Operation, When, wait_until};

const SOON: Duration = Duration::from_secs(30);
const LARGE: usize = 40 << 20;
const ROUNDS: u32 = 40;

impl Bench {
    fn options(&self) -> DaemonOptions {
        self.daemon().arg("--write-mode=back").arg("--op-deadline=2s")
    }

    fn start(&self) -> MountedDaemon {
        start(self.options())
    }

    fn keys_become(&self, wanted: &[&str], mount: &MountedDaemon) {
        let bucket = self.bucket();
        let became = wait_until(SOON, || bucket.keys() == wanted);
        assert!(became, "{:?} instead of {wanted:?}: {}", bucket.keys(), mount.stderr());
    }
}

/// Kills the daemon, and leaves its mount where it is.
fn kill(mount: &mut MountedDaemon) {
    mount.signal(Signal::KILL).unwrap();
    assert_eq!(mount.wait(SOON).unwrap(), 137);
}

/// Write A/B/01, rename A to C, remove nothing else: A never comes back, and C can be removed.
fn alluxio(fault: Fault, failing: u32, operation: Operation) {
    let bench = Bench::new();
    let mount = bench.start();
    let failing = bench.server.faults().inject(When::operation(operation).times(failing.into()), fault);
    fs::create_dir_all(at(&mount, "A/B")).unwrap();
    let bytes = noise(1, 100_000);
    store(&at(&mount, "A/B/01"), &bytes).unwrap();
    // The store may refuse the rename as long as it fails: then nothing has moved.
    let renamed = wait_until(SOON, || fs::rename(at(&mount, "A"), at(&mount, "C")).is_ok());
    assert!(renamed, "{operation:?}: {}", mount.stderr());
    assert!(fs::read(at(&mount, "C/B/01")).unwrap() == bytes, "{operation:?}");
    assert!(!at(&mount, "A").exists());
    bench.keys_become(&["C/", "C/B/", "C/B/01"], &mount);
    failing.remove();
    assert!(bench.bucket().get("C/B/01").unwrap() == bytes);
    assert!(!at(&mount, "A").exists(), "{operation:?}: it came back");
    fs::create_dir(at(&mount, "A")).unwrap();
    fs::remove_dir(at(&mount, "A")).unwrap();
    fs::remove_dir_all(at(&mount, "C")).unwrap();
    bench.keys_become(&[], &mount);
    assert_eq!(bench.bucket().uploads(), 0);
}

#[test]
fn f3_a_renamed_directory_does_not_come_back_whatever_fails() {
    let operations =
        [Operation::PutObject, Operation::CopyObject, Operation::DeleteObjects, Operation::ListObjectsV2];
    for operation in operations {
        for failing in [1, 3] {
            alluxio(Fault::internal_error(), failing, operation);
        }
        alluxio(Fault::ResetAfter, 1, operation);
    }
}

#[test]
fn f3_a_rename_does_not_wait_for_an_upload_and_the_old_name_stays_gone() {
    let bench = Bench::new();
    let mount = bench.start();
    let hold = bench.server.faults().hold_requests(When::operation(Operation::UploadPart).after(1));
    let bytes = noise(1, LARGE);
    store(&at(&mount, "old"), &bytes).unwrap();
    assert!(hold.wait_for_blocking(1, SOON), "{}", mount.stderr());
    fs::rename(at(&mount, "old"), at(&mount, "new")).unwrap();
    assert!(fs::read(at(&mount, "new")).unwrap() == bytes);
    hold.release();
    bench.server.faults().clear();
    bench.keys_become(&["new"], &mount);
    assert!(bench.bucket().get("new").unwrap() == bytes);
    assert!(wait_until(SOON, || bench.bucket().uploads() == 0), "an upload was left: {}", mount.stderr());
    assert!(!at(&mount, "old").exists());
}

#[test]
fn f3_what_is_removed_during_its_upload_is_not_stored() {
    let bench = Bench::new();
    let mut mount = bench.start();
    let hold = bench.server.faults().hold_requests(When::operation(Operation::UploadPart).after(1));
    store(&at(&mount, "file"), noise(1, LARGE)).unwrap();
    assert!(hold.wait_for_blocking(1, SOON), "{}", mount.stderr());
    fs::remove_file(at(&mount, "file")).unwrap();
    hold.release();
    bench.server.faults().clear();
    assert!(wait_until(SOON, || bench.bucket().uploads() == 0), "an upload was left: {}", mount.stderr());
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert!(bench.bucket().keys().is_empty());
}

#[test]
fn f3_a_file_that_is_moved_over_another_is_the_only_one_in_the_end() {
    let bench = Bench::new();
    let mut mount = bench.start();
    let hold = bench.server.faults().hold_requests(When::operation(Operation::PutObject));
    store(&at(&mount, "target"), "what was there").unwrap();
    assert!(hold.wait_for_blocking(1, SOON), "{}", mount.stderr());
    store(&at(&mount, "temporary"), "the new text").unwrap();
    hold.release();
    bench.server.faults().clear();
    fs::rename(at(&mount, "temporary"), at(&mount, "target")).unwrap();
    assert_eq!(fs::read(at(&mount, "target")).unwrap(), b"the new text");
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert_eq!(bench.bucket().keys(), ["target"]);
    assert_eq!(bench.bucket().get("target").unwrap(), b"the new text");
}

/// What a program did and was told that it is done.
#[derive(Default)]
struct Manifest {
    synced: BTreeMap<String, Vec<u8>>,
    removed: BTreeSet<String>,
    directories: BTreeSet<String>,
}

/// Changes names and bytes until the daemon is gone; what was acknowledged is in the manifest. A change that is under way
/// when that happens may have been made or not.
fn work(root: &Path, manifest: &Mutex<Manifest>, limbo: &Mutex<BTreeSet<String>>) -> std::io::Result<()> {
    let note = |names: &[&str]| limbo.lock().unwrap().extend(names.iter().map(|name| (*name).to_owned()));
    let settle = |change: &dyn Fn(&mut Manifest)| {
        change(&mut manifest.lock().unwrap());
        limbo.lock().unwrap().clear();
    };
    let write = |name: &str, bytes: &[u8], sync: bool| {
        note(&[name]);
        let file = File::create(root.join(name))?;
        file.write_all_at(bytes, 0)?;
        if sync {
            file.sync_all()?;
        }
        real::close(file)?;
        settle(&|m| {
            m.removed.remove(name);
            m.synced.insert(name.to_owned(), bytes.to_vec());
        });
        std::io::Result::Ok(())
    };
    for round in 0..ROUNDS {
        let dir = format!("d{}", round % 4);
        if !manifest.lock().unwrap().directories.contains(&dir) {
            note(&[&dir]);
            fs::create_dir(root.join(&dir))?;
            settle(&|m| {
                m.directories.insert(dir.clone());
            });
        }
        let (a, b) = (format!("{dir}/a{}", round % 3), format!("{dir}/b{}", round % 2));
        write(&a, &noise(round, 3000), true)?;
        write(&b, &noise(1000 + round, 20_000), false)?;
        if round % 10 == 0 {
            write(&format!("large{round}"), &noise(round, 20 << 20), true)?;
        }
        let moved = format!("{dir}/m{round}");
        note(&[&a, &moved]);
        fs::rename(root.join(&a), root.join(&moved))?;
        settle(&|m| {
            let bytes = m.synced.remove(&a).unwrap_or_default();
            m.removed.insert(a.clone());
            m.synced.insert(moved.clone(), bytes);
        });
        // What was in the store before.
        let (old, kept, gone) = (format!("old{round}"), format!("{dir}/kept{round}"), format!("gone{round}"));
        note(&[&old, &kept]);
        fs::rename(root.join(&old), root.join(&kept))?;
        settle(&|m| {
            m.removed.insert(old.clone());
            m.synced.insert(kept.clone(), noise(round, 500));
        });
        note(&[&gone]);
        fs::remove_file(root.join(&gone))?;
        settle(&|m| {
            m.removed.insert(gone.clone());
        });
        if round % 3 == 2 {
            note(&[&b]);
            fs::remove_file(root.join(&b))?;
            settle(&|m| {
                m.synced.remove(&b);
                m.removed.insert(b.clone());
            });
        }
    }
    Ok(())
}

/// Works until the `n`th request of one sort comes, kills the daemon there, starts it again, and looks.
fn killed_at(operation: Operation, n: u64) {
    let bench = Bench::new();
    for round in 0..ROUNDS {
        bench.bucket().put(&format!("old{round}"), noise(round, 500));
        bench.bucket().put(&format!("gone{round}"), "gone");
    }
    let mut mount = bench.start();
    let hold = bench.server.faults().hold_requests(When::operation(operation).after(n));
    let (manifest, limbo) = (Mutex::<Manifest>::default(), Mutex::<BTreeSet<String>>::default());
    let root = mount.path().to_owned();
    std::thread::scope(|scope| {
        let working = scope.spawn(|| work(&root, &manifest, &limbo));
        assert!(hold.wait_for_blocking(1, SOON), "no {operation:?} came: {}", mount.stderr());
        kill(&mut mount);
        let _ = working.join().unwrap();
    });
    hold.release();
    bench.server.faults().clear();
    let (manifest, limbo) = (manifest.into_inner().unwrap(), limbo.into_inner().unwrap());
    let mut mount = bench.start();
    let look = |place: &str, said: &dyn Fn() -> String, read: &dyn Fn(&str) -> Option<Vec<u8>>| {
        for (name, bytes) in manifest.synced.iter().filter(|(name, _)| !limbo.contains(*name)) {
            assert!(read(name).as_ref() == Some(bytes), "{operation:?} {n}: {name} {place}: {}", said());
        }
        for name in manifest.removed.iter().filter(|name| !limbo.contains(*name)) {
            assert!(read(name).is_none(), "{operation:?} {n}: {name} came back {place}: {}", said());
        }
    };
    look("in the mount, at once", &|| mount.stderr(), &|name| fs::read(at(&mount, name)).ok());
    for dir in &manifest.directories {
        assert!(at(&mount, dir).is_dir(), "{operation:?} {n}: {dir}: {}", mount.stderr());
    }
    sh(mount.path(), "ls -R > /dev/null");
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    let bucket = bench.bucket();
    look("in the bucket", &|| mount.stderr(), &|name| bucket.get(name));
    assert_eq!(bucket.uploads(), 0, "{operation:?} {n}: an upload was left: {}", mount.stderr());
    assert!(!bucket.keys().iter().any(|key| key.contains(".conflict-")), "{:?}", bucket.keys());
}

#[test]
fn f3_killed_at_a_put() {
    for n in [0, 1, 2, 7, 20] {
        killed_at(Operation::PutObject, n);
    }
}

#[test]
fn f3_killed_in_an_upload_of_parts() {
    killed_at(Operation::CreateMultipartUpload, 0);
    killed_at(Operation::UploadPart, 0);
    killed_at(Operation::UploadPart, 2);
    killed_at(Operation::CompleteMultipartUpload, 0);
    killed_at(Operation::CompleteMultipartUpload, 1);
}

#[test]
fn f3_killed_in_a_rename_or_a_removal() {
    for n in [0, 1, 5] {
        killed_at(Operation::CopyObject, n);
        killed_at(Operation::DeleteObject, n);
    }
}

#[test]
fn f3_an_edited_file_that_is_killed_in_its_rename_is_whole_under_its_new_name() {
    for operation in [Operation::CopyObject, Operation::DeleteObject] {
        let bench = Bench::new();
        bench.bucket().put("old", "what was there, ");
        let mut mount = bench.start();
        // No job may be done with it before the rename begins.
        let puts =
            bench.server.faults().inject(When::operation(Operation::PutObject), Fault::internal_error());
        let hold = bench.server.faults().hold_requests(When::operation(operation));
        let file = File::options().append(true).open(at(&mount, "old")).unwrap();
        std::io::Write::write_all(&mut &file, b"and what was added").unwrap();
        real::close(file).unwrap();
        let (from, to) = (at(&mount, "old"), at(&mount, "new"));
        std::thread::scope(|scope| {
            let renaming = scope.spawn(move || fs::rename(from, to));
            assert!(hold.wait_for_blocking(1, SOON), "{operation:?}: {}", mount.stderr());
            kill(&mut mount);
            assert!(renaming.join().unwrap().is_err());
        });
        puts.remove();
        hold.release();
        bench.server.faults().clear();
        let mut mount = bench.start();
        assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
        let bucket = bench.bucket();
        let whole = ["new", "old"].map(|key| bucket.get(key));
        let edited = b"what was there, and what was added".to_vec();
        assert!(whole.contains(&Some(edited)), "{operation:?}: {whole:?}: {}", mount.stderr());
        assert!(!bucket.keys().iter().any(|key| key.contains(".conflict-")), "{:?}", bucket.keys());
    }
}

#[test]
fn f3_a_directory_whose_unstored_files_would_have_no_key_is_not_moved() {
    let bench = Bench::new();
    let mut mount = bench.start();
    let puts = bench.server.faults().inject(When::operation(Operation::PutObject), Fault::internal_error());
    let name = |letter: &str| letter.repeat(250);
    let deep = format!("{}/{}/{}", name("a"), name("b"), name("c"));
    fs::create_dir_all(at(&mount, &deep)).unwrap();
    fs::create_dir(at(&mount, "d")).unwrap();
    store(&at(&mount, &format!("d/{}", name("f"))), "unstored").unwrap();
    let refused = fs::rename(at(&mount, "d"), at(&mount, &format!("{deep}/{}", name("e"))));
    assert_eq!(real::code(refused), libc::ENAMETOOLONG);
    kill(&mut mount);
    puts.remove();
    let mut mount = bench.start();
    assert_eq!(fs::read(at(&mount, &format!("d/{}", name("f")))).unwrap(), b"unstored");
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}

#[test]
fn f3_a_directory_keeps_its_mode_whatever_came_before_it_in_the_journal() {
    let bench = Bench::new();
    let mut mount = bench.start();
    let failing = ["f", "d/", "d/f"].map(|key| {
        let put = When::operation(Operation::PutObject).key(key);
        bench.server.faults().inject(put, Fault::internal_error())
    });
    sh(mount.path(), "echo x > f && mkdir -m 700 d && mv f d/");
    kill(&mut mount);
    let mut mount = bench.start();
    sh(
        mount.path(),
        "test $(stat -c %a d) = 700 && touch d && test $(stat -c %a d) = 700 && test $(cat d/f) = x",
    );
    for fault in failing {
        fault.remove();
    }
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert_eq!(bench.bucket().meta("d/").unwrap().metadata["mode"], 0o40_700.to_string());
}
