//! How a daemon is run and looked after: by systemd, from fstab, through the system's log and Prometheus.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod real;

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use real::{BUCKET, at, daemon, on, refusal, run, server, sh, spawn, start, store, text, try_sh};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use staithe_testkit::{Fault, Operation, When, require_fuse, wait_until};

const SOON: Duration = Duration::from_secs(30);

/// What is sent to a socket of ours, message by message.
fn listen(socket: &Path) -> Receiver<String> {
    let socket = UnixDatagram::bind(socket).unwrap();
    let (tell, told) = channel();
    thread::spawn(move || {
        let mut message = vec![0; 1 << 16];
        while let Ok(len) = socket.recv(&mut message) {
            if tell.send(String::from_utf8_lossy(&message[..len]).into_owned()).is_err() {
                return;
            }
        }
    });
    told
}

/// The settings of a section of the unit.
fn unit(section: &str) -> HashMap<String, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/staithe@.service");
    let text = fs::read_to_string(file).unwrap();
    let lines =
        text.lines().skip_while(|line| *line != section).skip(1).take_while(|line| !line.starts_with('['));
    let settings = lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_unit_starts_a_mount_that_tells_systemd_how_it_fares() {
    require_fuse();
    let dir = tempfile::tempdir().unwrap();
    let (bucket, mountpoint) = (dir.path().join("bucket"), dir.path().join("mnt"));
    fs::create_dir(&bucket).unwrap();
    fs::create_dir(&mountpoint).unwrap();
    let told = listen(&dir.path().join("notify"));
    let service = unit("[Service]");
    assert_eq!(service["Type"], "notify");
    for code in ["77", "143"] {
        assert!(service["RestartPreventExitStatus"].split(' ').any(|listed| listed == code), "{service:?}");
    }
    // As systemd does: the variables of the file are put in, one that is not in braces as words.
    let source = format!("file://{}", bucket.display());
    let line = service["ExecStart"].replace("/usr/bin/staithe", env!("CARGO_BIN_EXE_staithe"));
    let line = line.replace("${SOURCE}", &source).replace("${MOUNTPOINT}", text(&mountpoint));
    let line = line.replace("$OPTIONS", "--write-mode back");
    let mut command = Command::new(line.split(' ').next().unwrap());
    command.args(line.split(' ').skip(1)).env("NOTIFY_SOCKET", dir.path().join("notify"));
    command.env("WATCHDOG_USEC", "400000").env("XDG_STATE_HOME", dir.path().join("state"));
    let mut child = spawn(&mut command);
    let mut heard = String::new();
    let mut hear = |wanted: &str| {
        let is_heard = wait_until(SOON, || {
            heard.extend(told.try_iter().map(|message| message + "\n"));
            heard.contains(wanted)
        });
        assert!(is_heard, "no {wanted} in {heard}");
        heard.clear();
    };
    hear("READY=1");
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }
    fs::write(mountpoint.join("file"), "bytes").unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    hear("STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read(bucket.join("file")).unwrap(), b"bytes");
}

#[test]
fn an_end_that_takes_long_asks_for_more_time_again_and_again() {
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let told = listen(&dir.path().join("notify"));
    let notify = text(&dir.path().join("notify")).to_owned();
    let options = on(&server).args(["--write-mode=back", "--drain-deadline=12s", "--op-deadline=1min"]);
    let mut mount = start(options.env([("NOTIFY_SOCKET".to_owned(), notify)]));
    server.faults().inject(When::operation(Operation::PutObject), Fault::BlackHole);
    store(&at(&mount, "file"), b"never stored").unwrap();
    assert_eq!(mount.terminate().unwrap(), 75, "{}", mount.stderr());
    let said: Vec<String> = told.try_iter().collect();
    let ends = said.iter().position(|message| message.contains("STOPPING=1")).unwrap();
    let asked = said[ends..].iter().filter(|message| message.contains("EXTEND_TIMEOUT_USEC=15000000"));
    assert!(asked.count() >= 2, "{said:?}");
}

#[test]
fn systemd_knows_every_setting_of_the_unit() {
    // It reads the unit where there is a program of that path.
    let dir = tempfile::tempdir().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/staithe@.service");
    let text = fs::read_to_string(file).unwrap().replace("/usr/bin/staithe", env!("CARGO_BIN_EXE_staithe"));
    let unit = dir.path().join("staithe@test.service");
    fs::write(&unit, text).unwrap();
    let output = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit));
    let said = String::from_utf8_lossy(&output.stderr);
    // These are of systemd 254; before, they are passed by with a word about it.
    let is_new = |line: &str| ["RestartSteps", "RestartMaxDelaySec"].iter().any(|name| line.contains(name));
    let about_us: Vec<_> = said.lines().filter(|line| line.contains("staithe@") && !is_new(line)).collect();
    assert!(output.status.success() && about_us.is_empty(), "{said}");
}

/// `/sbin/mount.staithe`, for as long as it is wanted. One test uses it.
struct Helper(PathBuf);

impl Helper {
    fn install() -> Self {
        let path = PathBuf::from("/sbin/mount.staithe");
        let _ = fs::remove_file(&path);
        symlink(env!("CARGO_BIN_EXE_staithe"), &path).unwrap();
        Self(path)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_line_of_fstab_is_mounted_and_unmounted_by_mount_and_umount() {
    require_fuse();
    let _helper = Helper::install();
    let dir = tempfile::tempdir().unwrap();
    let (bucket, mountpoint) = (dir.path().join("bucket"), dir.path().join("mnt"));
    fs::create_dir(&bucket).unwrap();
    fs::create_dir(&mountpoint).unwrap();
    let options = format!(
        "_netdev,nofail,x-systemd.automount,write_mode=back,state_dir={}/state",
        dir.path().display()
    );
    let line = format!("file://{} {} staithe {options} 0 0\n", bucket.display(), mountpoint.display());
    fs::write(dir.path().join("fstab"), line).unwrap();
    sh(dir.path(), &format!("mount --fstab {}/fstab {}", dir.path().display(), mountpoint.display()));
    fs::write(mountpoint.join("file"), "bytes").unwrap();
    let shown = real::staithe(&["status", "--json", text(&mountpoint)], Path::new("/"));
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        (&shown["write_mode"], &shown["state_dir"]),
        (&"back".into(), &text(&dir.path().join("state")).into())
    );
    sh(dir.path(), &format!("umount {}", mountpoint.display()));
    assert!(wait_until(SOON, || fs::read(bucket.join("file")).is_ok_and(|bytes| bytes == b"bytes")));
    // Nobody is left.
    let ended = || {
        let log = fs::read_to_string(dir.path().join("state/audit.log")).unwrap_or_default();
        log.contains("\"event\":\"exit\"")
    };
    assert!(wait_until(SOON, ended));
    let wrong = try_sh(
        dir.path(),
        &format!("mount -t staithe -o no_such_option {} {}", "memory://", mountpoint.display()),
    );
    assert!(!wrong.status.success());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("--no-such-option"), "{wrong:?}");
}

#[test]
fn figures_are_served_for_prometheus() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mount = start(daemon("memory://").args(["--metrics", &address.to_string()]));
    store(&at(&mount, "file"), b"bytes").unwrap();
    let scrape = || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let has_put = || scrape().contains("staithe_requests_total{operation=\"put\",outcome=\"ok\"} 1");
    assert!(wait_until(SOON, has_put), "{}", scrape());
    let figures = scrape();
    for line in
        ["staithe_phase{phase=\"healthy\"} 1", "staithe_phase{phase=\"degraded\"} 0", "staithe_dirty_files 0"]
    {
        assert!(figures.contains(line), "no {line} in {figures}");
    }
    let taken = address.to_string();
    let dir = tempfile::tempdir().unwrap();
    let said = refusal(1, &["mount", "memory://", text(dir.path()), "--metrics", &taken]);
    assert!(said.contains("--metrics"), "{said}");
}

#[test]
fn records_go_to_the_systems_log_where_that_is_wanted() {
    let log = Path::new("/dev/log");
    assert!(!log.exists(), "this test is the system's log: {} is there already", log.display());
    let told = listen(log);
    let mut mount = start(daemon("memory://").args(["--audit-log=syslog"]));
    assert_eq!(mount.terminate().unwrap(), 0);
    let _ = fs::remove_file(log);
    let said: Vec<_> = told.try_iter().collect();
    let records: Vec<Value> =
        said.iter().map(|line| serde_json::from_str(line.split_once("]: ").unwrap().1).unwrap()).collect();
    assert!(said.iter().all(|line| line.starts_with("<29>staithe[")), "{said:?}");
    assert!(records.iter().any(|record| record["event"] == "phase" && record["to"] == "healthy"), "{said:?}");
    assert_eq!(records.last().unwrap()["event"], "exit");
    // One that takes nothing more holds nobody up.
    let full = UnixDatagram::bind(log).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.send_to(b"full", log).is_ok() {}
    let mut mount = start(daemon("memory://").args(["--audit-log=syslog"]));
    store(&at(&mount, "file"), b"bytes").unwrap();
    assert_eq!(mount.terminate().unwrap(), 0, "{}", mount.stderr());
    drop(full);
    let _ = fs::remove_file(log);
    assert!(mount.stderr().contains("the audit log does not take this record"), "{}", mount.stderr());
}

#[test]
fn records_are_written_to_a_disk_that_is_full() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let done = run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path()));
    assert!(done.status.success(), "a small disk is needed: {done:?}");
    let log = dir.path().join("audit.log");
    let mut mount = start(on(&server).args(["--metadata-ttl=0", "--audit-log", text(&log)]));
    let mut ballast = fs::File::create(dir.path().join("ballast")).unwrap();
    while ballast.write(&[7; 4096]).is_ok_and(|written| written > 0) {}
    drop(ballast);
    assert!(server.delete_bucket(BUCKET));
    let looked = fs::metadata(at(&mount, "missing"));
    let code = mount.wait(Duration::from_mins(1));
    let records = fs::read_to_string(&log).unwrap();
    run(Command::new("umount").arg("-l").arg(dir.path()));
    assert_eq!(real::code(looked), libc::ENODEV);
    assert_eq!(code.unwrap(), 143, "{}", mount.stderr());
    for event in ["volume-gone", "exit"] {
        assert!(records.contains(&format!("\"event\":\"{event}\"")), "{records}");
    }
}
