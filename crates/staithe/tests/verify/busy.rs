//! What it says while others are at work, and when it is told to stop.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use staithe_testkit::{Operation, When};

use crate::real::{at, close, noise, spawn, staithe, start, store, text};
use crate::{FAILED, Place, SOON, agrees, found, verify};

/// Writes, renames, removes and reads until it is told to stop.
fn work(root: &Path, worker: u32, stop: &AtomicBool) {
    let dir = root.join(format!("w{worker}"));
    fs::create_dir(&dir).unwrap();
    for round in 0_u32.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let (file, moved) = (dir.join(format!("f{}", round % 5)), dir.join(format!("m{}", round % 3)));
        let len = if round % 16 == 7 { 18 << 20 } else { 1000 + round as usize % 200_000 };
        let bytes = noise(round, len);
        store(&file, &bytes).unwrap();
        assert!(fs::read(&file).unwrap() == bytes);
        fs::rename(&file, &moved).unwrap();
        assert!(fs::read(&moved).unwrap() == bytes);
        let mut more = File::options().append(true).open(&moved).unwrap();
        more.write_all(b"more").unwrap();
        close(more).unwrap();
        let (from, to) = (dir.join("sub"), dir.join(format!("sub{}", round % 2)));
        fs::create_dir(&from).unwrap();
        store(&from.join("inner"), &bytes[..500]).unwrap();
        fs::set_permissions(&moved, fs::Permissions::from_mode(0o600 + round % 8)).unwrap();
        let _ = fs::remove_dir_all(&to);
        fs::rename(&from, &to).unwrap();
        if round % 3 == 0 {
            fs::remove_file(&moved).unwrap();
        }
    }
}

#[test]
fn under_load_nothing_is_found_and_nothing_is_harmed() {
    for mode in ["--write-mode=through", "--write-mode=back"] {
        let place = Place::new();
        // With time for every request, however slow this machine is.
        let options = place.bench.daemon().arg("--cache-dir").arg(place.cache.path());
        let mut mount = start(options.args([mode, "--cache-size=40MiB", "--metadata-ttl=forever"]));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|worker| {
                    let (root, stop) = (mount.path(), &stop);
                    scope.spawn(move || work(root, worker, stop))
                })
                .collect();
            for round in 0..12 {
                let options: &[&str] = if round % 2 == 0 { &[] } else { &["--repair"] };
                let output = verify(&mount, options);
                assert_eq!(found(&output), [""; 0], "{mode} {round}: {}", mount.stderr());
                assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            }
            stop.store(true, Ordering::Release);
            for worker in workers {
                worker.join().unwrap();
            }
        });
        let synced = staithe(&["sync", text(mount.path())], Path::new("/"));
        assert!(synced.status.success(), "{}", mount.stderr());
        agrees(&mount, mode);
        assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
        assert!(!place.bench.state.path().join("lost+found").exists());
    }
}

#[test]
fn ctrl_c_ends_it_and_the_mount_goes_on() {
    let place = Place::new();
    place.bench.bucket().put("file", "bytes");
    let mount = start(place.options().args(["--metadata-ttl", "forever"]));
    fs::metadata(at(&mount, "file")).unwrap();
    let hold = place.bench.server.faults().hold_requests(When::operation(Operation::HeadObject).key("file"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_staithe"));
    let command = command.arg("verify").arg(mount.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let verifying = spawn(command);
    assert!(hold.wait_for_blocking(1, SOON));
    kill_process(Pid::from_child(&verifying), Signal::INT).unwrap();
    let output = verifying.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(FAILED), "{said}");
    assert!(said.starts_with("staithe: stopped after "), "{said}");
    place.bench.server.faults().clear();
    hold.release();
    assert_eq!(fs::read(at(&mount, "file")).unwrap(), b"bytes");
    agrees(&mount, "afterwards");
}
