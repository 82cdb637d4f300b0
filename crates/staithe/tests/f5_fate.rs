//! F5: deleted is not down. An outage is ridden out, a deletion is confirmed, drained, written down, and ends with 143;
//! nobody hangs, and nothing that was acknowledged is lost.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use real::fate::{audit, becomes, of_event, phase, phases};
use real::{
    BUCKET, Bucket, at, code, daemon, noise, on, refusal, run, server, sh, spawn, start, status, store, text,
};
use rustix::process::Signal;
use serde_json::Value;
use staithe_testkit::{Fault, MountedDaemon, Operation, Versioning, When, wait_until};

const SOON: Duration = Duration::from_mins(1);
const GONE: i32 = 143;

/// Looks at a path all the time, until that is an error other than that it is not there.
fn looks_on(path: &Path) -> i32 {
    let mut was_there = false;
    loop {
        match fs::metadata(path) {
            Ok(_) => was_there = true,
            // Nothing that was there is gone before the bucket is.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                assert!(!was_there, "{} has vanished", path.display());
            }
            Err(error) => return error.raw_os_error().unwrap_or_default(),
        }
    }
}

/// Waits until the mount has seen that what tells its bucket from others of its name stays while it writes.
fn is_told_apart(mount: &MountedDaemon) {
    store(&at(mount, "written"), b"written").unwrap();
    let identity = mount.state_dir().join("identity");
    assert!(wait_until(SOON, || identity.exists()), "{}", mount.stderr());
}

/// Readers and writers on a mount, none of which may get an error.
struct Work<'m> {
    mount: &'m MountedDaemon,
    ends: AtomicBool,
    reads: AtomicU64,
    writes: AtomicU64,
}

impl<'m> Work<'m> {
    const FILES: u32 = 12;

    fn prepare(mount: &'m MountedDaemon, bucket: &Bucket) -> Self {
        for n in 0..Self::FILES {
            bucket.put(&format!("read/{n}"), noise(n, 100_000));
        }
        Self { mount, ends: AtomicBool::new(false), reads: 0.into(), writes: 0.into() }
    }

    fn read(&self) {
        let mut n = 0;
        while !self.ends.load(Ordering::Relaxed) {
            n = (n + 1) % Self::FILES;
            assert!(fs::read(at(self.mount, &format!("read/{n}"))).unwrap() == noise(n, 100_000));
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write(&self, of: u32) {
        while !self.ends.load(Ordering::Relaxed) {
            let n = self.writes.fetch_add(1, Ordering::Relaxed);
            store(&at(self.mount, &format!("written-{of}-{n}")), noise(of, 1000)).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs two readers and two writers while `trouble` lasts; what was written is in the bucket afterwards.
    fn through(&self, bucket: &Bucket, trouble: impl FnOnce()) {
        thread::scope(|scope| {
            scope.spawn(|| self.read());
            scope.spawn(|| self.read());
            scope.spawn(|| self.write(1));
            scope.spawn(|| self.write(2));
            trouble();
            self.ends.store(true, Ordering::Relaxed);
        });
        let output = real::staithe(&["sync", text(self.mount.path())], Path::new("/"));
        assert!(output.status.success(), "{output:?}");
        let keys = bucket.keys();
        let stored = keys.iter().filter(|key| key.starts_with("written-")).count() as u64;
        assert_eq!(stored, self.writes.load(Ordering::Relaxed));
        assert!(self.reads.load(Ordering::Relaxed) > 0);
    }
}

#[test]
fn an_outage_of_half_a_minute_is_ridden_out_and_nothing_is_lost() {
    for mode in ["through", "back"] {
        let server = server();
        let bucket = Bucket::of(&server);
        let mut mount = start(on(&server).args(["--write-mode", mode, "--op-deadline=2min"]));
        let work = Work::prepare(&mount, &bucket);
        work.through(&bucket, || {
            thread::sleep(Duration::from_secs(1));
            server.stop();
            becomes(&mount, "degraded");
            // A full outage once; the other mode shows the same in a shorter one.
            thread::sleep(Duration::from_secs(if mode == "back" { 30 } else { 8 }));
            assert_eq!(phase(&mount), "degraded");
            server.restart().unwrap();
            becomes(&mount, "healthy");
        });
        assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
        let went = phases(&audit(mount.state_dir()));
        assert_eq!(went, ["healthy", "degraded", "healthy", "draining", "exited"], "{mode}");
    }
}

#[test]
fn a_brown_out_is_no_deletion_and_nobody_gets_an_error() {
    let server = server();
    let bucket = Bucket::of(&server);
    let mut mount = start(on(&server).args(["--write-mode", "back"]));
    let work = Work::prepare(&mount, &bucket);
    work.through(&bucket, || {
        server.modes().set_latency(Duration::from_millis(50));
        server.faults().inject(When::any().with_probability(0.3, 7), Fault::slow_down(None));
        thread::sleep(Duration::from_secs(10));
        server.faults().clear();
        server.modes().set_latency(Duration::ZERO);
    });
    becomes(&mount, "healthy");
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    let went = phases(&audit(mount.state_dir()));
    assert!(!went.iter().any(|phase| phase == "suspect"), "{went:?}");
    // Of ten seconds in which every third request fails, not a change for each of them.
    assert!(went.len() <= 8, "{went:?}");
}

#[test]
fn a_deleted_bucket_ends_the_mount_with_143_and_what_it_never_had_is_kept_and_listed() {
    let server = server();
    let bucket = Bucket::of(&server);
    bucket.put("known", noise(1, 200_000));
    let state = tempfile::tempdir().unwrap();
    let options = on(&server).args(["--write-mode=back", "--metadata-ttl=0"]);
    let mut mount = start(options.state_dir(state.path()));
    let reader = File::open(at(&mount, "known")).unwrap();
    is_told_apart(&mount);
    server.faults().inject(When::operation(Operation::PutObject), Fault::internal_error());
    fs::create_dir(at(&mount, "d")).unwrap();
    store(&at(&mount, "d/unstored"), b"never stored").unwrap();
    let began = Instant::now();
    assert!(server.delete_bucket(BUCKET));
    // Somebody must look for it to be noticed, and gets no answer before it is confirmed: also who looks all the time at what
    // is known, and asks for nothing but attributes.
    thread::scope(|scope| {
        let looking = ["known", "written", "missing"].map(|name| {
            let path = at(&mount, name);
            scope.spawn(move || looks_on(&path))
        });
        for looked in looking {
            assert_eq!(looked.join().unwrap(), libc::ENODEV);
        }
    });
    assert_eq!(mount.wait(SOON).unwrap(), GONE, "{}", mount.stderr());
    assert!(began.elapsed() > Duration::from_secs(9), "not confirmed over time: {:?}", began.elapsed());
    assert!(!mount.is_mounted());
    drop(reader);
    let records = audit(state.path());
    assert_eq!(phases(&records), ["healthy", "suspect", "condemned", "draining", "exited"]);
    let gone = of_event(&records, "volume-gone");
    assert_eq!(gone.len(), 1, "{records:?}");
    assert_eq!(gone[0]["code"], 100_404);
    assert_eq!(gone[0]["volume"], format!("s3://{BUCKET}"));
    assert!(gone[0]["reason"].as_str().unwrap().contains("there is no bucket"), "{}", gone[0]);
    assert!(gone[0]["request_ids"].as_array().unwrap().len() >= 5, "{}", gone[0]);
    let unstored: Vec<_> = gone[0]["unstored"]["names"].as_array().unwrap().iter().collect();
    assert!(unstored.contains(&&Value::from("d/unstored")), "{unstored:?}");
    assert_eq!(of_event(&records, "exit")[0]["code"], GONE);
    // Nobody can take the bucket of another one for it: what is unfinished goes there only if a person says so.
    thread::sleep(Duration::from_secs(1));
    server.faults().clear();
    assert!(server.create_bucket(BUCKET, Versioning::Off));
    let refused = on(&server).args(["--write-mode=back"]).state_dir(state.path()).start().unwrap_err();
    assert!(refused.to_string().contains("--accept-new-volume"), "{refused}");
    let options = on(&server).args(["--write-mode=back", "--accept-new-volume"]).state_dir(state.path());
    let mut mount = start(options);
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert_eq!(Bucket::of(&server).get("d/unstored").unwrap(), b"never stored");
}

#[test]
fn a_deletion_that_is_confirmed_while_the_mount_ends_is_written_down_too() {
    let server = server();
    let state = tempfile::tempdir().unwrap();
    let options = on(&server).args(["--write-mode=back", "--metadata-ttl=0", "--drain-deadline=1min"]);
    let mut mount = start(options.state_dir(state.path()));
    server.faults().inject(When::operation(Operation::PutObject), Fault::internal_error());
    store(&at(&mount, "unstored"), b"never stored").unwrap();
    assert!(server.delete_bucket(BUCKET));
    let path = at(&mount, "missing");
    let looking = thread::spawn(move || fs::metadata(path));
    becomes(&mount, "suspect");
    mount.signal(Signal::TERM).unwrap();
    assert_eq!(mount.wait(SOON).unwrap(), GONE, "{}", mount.stderr());
    assert!(looking.join().unwrap().is_err());
    let records = audit(state.path());
    let gone = of_event(&records, "volume-gone");
    assert_eq!(gone.len(), 1, "{records:?}");
    assert_eq!(gone[0]["unstored"]["names"], serde_json::json!(["unstored"]));
    assert_eq!(of_event(&records, "exit")[0]["code"], GONE);
}

#[test]
fn with_error_root_the_mount_stays_and_every_operation_fails_until_it_is_unmounted() {
    let server = server();
    let bucket = Bucket::of(&server);
    bucket.put("d/file", "bytes");
    let mut mount = start(on(&server).args(["--on-volume-gone=error-root", "--metadata-ttl=1h"]));
    let open = File::open(at(&mount, "d/file")).unwrap();
    assert_eq!(fs::read(at(&mount, "d/file")).unwrap(), b"bytes");
    assert!(server.delete_bucket(BUCKET));
    assert_eq!(code(fs::metadata(at(&mount, "d/other"))), libc::ENODEV);
    becomes(&mount, "condemned");
    // Also what was known, and what is open; nothing of it comes from a cache.
    assert!(wait_until(SOON, || fs::metadata(at(&mount, "d/file")).is_err()));
    assert_eq!(code(fs::metadata(at(&mount, "d/file"))), libc::ENODEV);
    assert_eq!(code(fs::read_dir(mount.path())), libc::ENODEV);
    // What the kernel has of it by itself goes a moment later.
    assert!(wait_until(SOON, || open.read_at(&mut [0; 1], 0).is_err()));
    assert_eq!(code(open.read_at(&mut [0; 1], 0)), libc::ENODEV);
    assert_eq!(code(File::create(at(&mount, "new"))), libc::ENODEV);
    drop(open);
    let requests = server.requests().tally();
    assert!(mount.is_mounted());
    let shown = status(&mount);
    assert_eq!(
        shown["health"]["reason"].as_str().map(|reason| reason.contains("no bucket")),
        Some(true),
        "{shown}"
    );
    assert_eq!(server.requests().tally().since(&requests).total().requests, 0);
    let ended = real::staithe(&["umount", text(mount.path())], Path::new("/"));
    assert_eq!(ended.status.code(), Some(GONE), "{ended:?}");
    assert_eq!(mount.wait(SOON).unwrap(), GONE);
}

#[test]
fn a_server_that_lies_for_some_seconds_is_not_believed_and_nobody_gets_an_error() {
    let server = server();
    let bucket = Bucket::of(&server);
    let mut mount = start(on(&server));
    let work = Work::prepare(&mount, &bucket);
    work.through(&bucket, || {
        thread::sleep(Duration::from_millis(500));
        let lie = server.faults().inject(When::any(), Fault::no_such_bucket());
        becomes(&mount, "suspect");
        thread::sleep(Duration::from_secs(5));
        assert_eq!(phase(&mount), "suspect");
        lie.remove();
        assert!(wait_until(SOON, || phase(&mount) != "suspect"));
    });
    becomes(&mount, "healthy");
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    assert!(of_event(&audit(mount.state_dir()), "volume-gone").is_empty());
}

#[test]
fn a_proxy_that_has_lost_its_way_is_an_outage_however_long() {
    let server = server();
    let bucket = Bucket::of(&server);
    bucket.put("known", "known");
    let mut mount = start(on(&server).args(["--metadata-ttl=0"]));
    assert_eq!(fs::read(at(&mount, "known")).unwrap(), b"known");
    // What a HEAD does not find is believed for a moment after the bucket was heard of.
    thread::sleep(Duration::from_millis(2500));
    // Every answer is a page that says 404, for longer than a deletion needs to be confirmed.
    let lost = server.faults().inject(When::any(), Fault::lost_proxy());
    thread::scope(|scope| {
        let reading = scope.spawn(|| fs::read(at(&mount, "known")));
        thread::sleep(Duration::from_secs(14));
        assert_eq!(phase(&mount), "degraded");
        lost.remove();
        assert_eq!(reading.join().unwrap().unwrap(), b"known");
    });
    becomes(&mount, "healthy");
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    let went = phases(&audit(mount.state_dir()));
    assert_eq!(went, ["healthy", "degraded", "healthy", "draining", "exited"]);
}

#[test]
fn bodies_that_break_off_are_trouble_too() {
    let server = server();
    let bucket = Bucket::of(&server);
    bucket.put("file", noise(1, 1 << 20));
    let mount = start(on(&server));
    let cut = server.faults().inject(When::operation(Operation::GetObject), Fault::CutBody { after: 1000 });
    thread::scope(|scope| {
        let reading = scope.spawn(|| fs::read(at(&mount, "file")));
        becomes(&mount, "degraded");
        cut.remove();
        assert!(reading.join().unwrap().unwrap() == noise(1, 1 << 20));
    });
    becomes(&mount, "healthy");
    let requests = status(&mount)["requests"].clone();
    let bodies = |request: &Value| request["operation"] == "body" && request["outcome"] == "unavailable";
    assert!(requests.as_array().unwrap().iter().any(bodies), "{requests}");
}

#[test]
fn nothing_is_written_through_to_a_bucket_that_was_made_anew() {
    let server = server();
    let bucket = Bucket::of(&server);
    bucket.put("known", "known");
    let state = tempfile::tempdir().unwrap();
    let options = on(&server).args(["--metadata-ttl=1h", "--op-deadline=2min"]);
    let mut mount = start(options.state_dir(state.path()));
    assert_eq!(fs::read(at(&mount, "known")).unwrap(), b"known");
    is_told_apart(&mount);
    server.stop();
    thread::scope(|scope| {
        let writing = scope.spawn(|| store(&at(&mount, "known"), b"never stored"));
        becomes(&mount, "degraded");
        // However often it is asked in vain, that is no answer.
        thread::sleep(Duration::from_secs(6));
        assert!(server.delete_bucket(BUCKET) && server.create_bucket(BUCKET, Versioning::Off));
        server.restart().unwrap();
        assert_eq!(code(writing.join().unwrap()), libc::ENODEV);
    });
    assert_eq!(mount.wait(SOON).unwrap(), GONE, "{}", mount.stderr());
    assert_eq!(Bucket::of(&server).keys(), [""; 0]);
    let gone = audit(state.path());
    assert_eq!(of_event(&gone, "volume-gone")[0]["unstored"]["names"], serde_json::json!(["known"]));
}

#[test]
fn a_server_that_comes_back_with_an_empty_disk_is_not_written_to() {
    let server = server();
    let bucket = Bucket::of(&server);
    bucket.put("known", "known");
    let state = tempfile::tempdir().unwrap();
    let mut mount =
        start(on(&server).args(["--write-mode=back", "--metadata-ttl=1h"]).state_dir(state.path()));
    assert_eq!(fs::read(at(&mount, "known")).unwrap(), b"known");
    is_told_apart(&mount);
    server.stop();
    store(&at(&mount, "known"), b"never stored").unwrap();
    becomes(&mount, "degraded");
    assert!(server.delete_bucket(BUCKET) && server.create_bucket(BUCKET, Versioning::Off));
    server.restart().unwrap();
    assert_eq!(mount.wait(SOON).unwrap(), GONE, "{}", mount.stderr());
    assert_eq!(Bucket::of(&server).keys(), [""; 0]);
    let records = audit(state.path());
    let gone = of_event(&records, "volume-gone");
    assert_eq!(gone[0]["verdict"], "the volume was made anew", "{}", gone[0]);
    let names = gone[0]["unstored"]["names"].as_array().unwrap();
    assert_eq!(names, &[Value::from("known")]);
}

/// A name of this machine, for as long as it is wanted.
struct Host(&'static str);

impl Host {
    const FILE: &str = "/etc/hosts";

    fn add(name: &'static str) -> Self {
        let hosts = fs::read_to_string(Self::FILE).unwrap();
        fs::write(Self::FILE, format!("{}\n127.0.0.1 {name}\n", hosts.trim_end())).unwrap();
        Self(name)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let hosts = fs::read_to_string(Self::FILE).unwrap_or_default();
        let rest = hosts.lines().filter(|line| !line.ends_with(self.0)).map(|line| format!("{line}\n"));
        let _ = fs::write(Self::FILE, rest.collect::<String>());
    }
}

#[test]
fn a_name_that_does_not_resolve_any_more_is_an_outage() {
    let server = server();
    Bucket::of(&server).put("known", "known");
    let host = Host::add("staithe-test.invalid");
    let endpoint = format!("http://staithe-test.invalid:{}", server.address().port());
    let env = server.env().into_iter().filter(|(name, _)| name != "AWS_ENDPOINT_URL");
    let options = daemon(&format!("s3://{BUCKET}")).env(env).args(["--endpoint-url", &endpoint]);
    let mut mount = start(options.args(["--metadata-ttl=0"]));
    assert_eq!(fs::read(at(&mount, "known")).unwrap(), b"known");
    drop(host);
    // Connections that are open go on without the name.
    server.stop();
    server.restart().unwrap();
    thread::scope(|scope| {
        let reading = scope.spawn(|| fs::read(at(&mount, "known")));
        becomes(&mount, "degraded");
        let _host = Host::add("staithe-test.invalid");
        assert_eq!(reading.join().unwrap().unwrap(), b"known");
        becomes(&mount, "healthy");
    });
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
}

#[test]
fn a_store_that_swallows_requests_holds_up_neither_the_end_nor_a_killed_reader() {
    let server = server();
    let bucket = Bucket::of(&server);
    bucket.put("file", noise(1, 1 << 20));
    let options = on(&server).args(["--op-deadline=4s", "--drain-deadline=3s", "--write-mode=back"]);
    let mut mount = start(options.arg("--metadata-ttl=1h"));
    store(&at(&mount, "known"), b"stored").unwrap();
    server.faults().inject(When::any(), Fault::BlackHole);
    // What is known may be written anew: it is stored some day.
    store(&at(&mount, "known"), b"not stored").unwrap();
    let file = at(&mount, "file");
    let reading = |path: &Path| {
        let mut command = Command::new("cat");
        spawn(command.arg(path).stdout(Stdio::null()).stderr(Stdio::null()))
    };
    let mut killed = reading(&file);
    assert!(wait_until(SOON, || server.requests().tally().of(Operation::GetObject).requests > 0
        || server.requests().tally().of(Operation::HeadObject).requests > 0));
    killed.kill().unwrap();
    let began = Instant::now();
    killed.wait().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "a killed reader stayed for {:?}", began.elapsed());
    let mut waiting = reading(&file);
    thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    mount.signal(Signal::TERM).unwrap();
    assert_eq!(mount.wait(SOON).unwrap(), 75, "{}", mount.stderr());
    assert!(began.elapsed() < Duration::from_secs(3 + 5), "the end took {:?}", began.elapsed());
    assert!(!mount.is_mounted());
    waiting.wait().unwrap();
}

#[test]
fn a_conflict_is_in_the_audit_log() {
    let server = server();
    let bucket = Bucket::of(&server);
    bucket.put("file", "first");
    let mut mount = start(on(&server));
    let file = File::create(at(&mount, "file")).unwrap();
    file.write_all_at(b"ours", 0).unwrap();
    bucket.put("file", "theirs, meanwhile");
    assert_eq!(code(real::close(file)), libc::ESTALE);
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    let records = audit(mount.state_dir());
    let conflicts = of_event(&records, "conflict");
    assert_eq!(conflicts.len(), 1, "{records:?}");
    assert_eq!(conflicts[0]["path"], "file");
    assert!(conflicts[0]["kept_as"].as_str().unwrap().contains("file.conflict-"), "{}", conflicts[0]);
}

#[test]
fn a_place_for_records_that_takes_none_is_refused_before_anything_is_mounted() {
    let dir = tempfile::tempdir().unwrap();
    let (mountpoint, state) = (dir.path().join("mnt"), dir.path().join("state"));
    fs::create_dir(&mountpoint).unwrap();
    let log = dir.path().join("missing/audit.log");
    let said = refusal(
        1,
        &["mount", "memory://", text(&mountpoint), "--state-dir", text(&state), "--audit-log", text(&log)],
    );
    assert!(said.contains("--audit-log"), "{said}");
    assert_eq!(fs::read_dir(&mountpoint).map(Iterator::count).map_err(|e| e.kind()), Ok::<_, ErrorKind>(0));
    let output = run(Command::new("mountpoint").arg(&mountpoint));
    assert!(!output.status.success());
    assert_eq!(sh(Path::new("/"), &format!("ls {}", mountpoint.display())), "");
}
